"""How a command ends: its exit code, and what it prints of a failure."""

from __future__ import annotations

import re
from copy import copy
from enum import IntEnum

from ... import errors
from ...tenants import errors as tenant_errors


class Exit(IntEnum):
    """The exit codes, as ``EXIT_CODES`` explains them, to which ``tenants exec`` adds those of its program."""

    DONE = 0
    SOME_FAILED = 1
    BAD_USAGE = 2
    STOPPED = 3
    UNUSABLE = 4
    DIFFERENT = 5
    # As shells have them.
    NOT_RUN = 126
    NOT_FOUND = 127
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 done, 1 some failed or do not exist, 2 bad usage or an error of the system, 3 stopped early, 4 the "
    "API or the store failed, 5 `check` found a problem, whether or not others failed, 130 ended at once by Ctrl-C."
)
_CLUSTER = re.compile(r"\(GET /v2/databases/([0-9a-f-]{36})(?:/ca)?\)")  # a request for a cluster itself
# Whatever the name.
_UNUSABLE = errors.AuthenticationError, errors.PermissionDeniedError, errors.RateLimitError, errors.ServerError
_SCOPES = (
    "tenants need the scopes database:read and database:view_credentials, changes of users and databases also "
    "database:create, database:update and database:delete"
)
_OTHER_KEY = (
    "set $AIODBCLIENT_STORE_KEY to the key of this store. If its key is lost, provision the tenants into a new store "
    "with --adopt"
)
_NO_KEY = (
    "unset $AIODBCLIENT_STORE_KEY, or copy the store into an encrypted one: set $AIODBCLIENT_STORE_KEY_TO, and run "
    "`store copy`"
)


def message_of(error: Exception, *, verbose: bool = False) -> str:
    """What to print of ``error``, with advice for an operator."""
    text, advice = said_by(error, verbose=verbose), advice_for(error)
    return f"{text.rstrip('.')}: {advice}" if advice else text


def said_by(error: Exception, *, verbose: bool = False) -> str:
    """What an error says, without advice, and without the request or the statement unless ``verbose``."""
    if isinstance(error, OSError):
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part) or type(error).__name__
    if not isinstance(error, errors.DatabaseClientError):
        return str(error)
    plain = copy(error)
    plain.advice = ""  # it is for programs
    if isinstance(plain, tenant_errors.GrantError) and not verbose:
        plain.statement = ""
    if isinstance(error, errors.NotFoundError) and not verbose and (gone := _CLUSTER.search(str(error))):
        return f"the cluster {gone[1]} does not exist: the API answered 404"
    if isinstance(error, errors.APIError) and (error.id or error.message) and not verbose:
        said = ": ".join(part for part in (error.id, error.message) if part).rstrip(".")
        text = f"the API answered {error.status} {said}"
        text += f" (after {error.tries} tries)" if error.tries > 1 else ""
        return text + ("; it may have been applied" if error.may_have_applied else "")
    cause = error.__cause__ if verbose and isinstance(error, tenant_errors.MoveError) else None
    return str(plain) if cause is None else f"{plain}; {cause}"


def advice_for(error: Exception) -> str:
    """What an operator does about ``error``, which most errors say themselves."""
    match error:
        case errors.AuthenticationError():
            return (
                "$DIGITALOCEAN_TOKEN is wrong, expired or revoked. Make another one in the control panel, under API: "
                f"{_SCOPES}"
            )
        case errors.PermissionDeniedError():
            return f"{_SCOPES}. Change the token's scopes in the control panel, under API"
        case tenant_errors.StoreError(advice=advice) if "key=" in advice:
            return _NO_KEY if "without key=" in advice else _OTHER_KEY
        case _:
            return ""


def is_down(error: Exception) -> bool:
    """Whether the API or the store failed, so that no other name fares better."""
    if isinstance(error, tenant_errors.ClaimLostError):
        return False
    kinds = errors.TransportError, errors.MaxWaitError, tenant_errors.StoreError, *_UNUSABLE
    return isinstance(error, kinds)


def code_of(error: errors.DatabaseClientError) -> Exit:
    match error:
        case errors.ConfigurationError() | errors.InvalidArgumentError() | errors.UnsupportedOperationError():
            return Exit.BAD_USAGE
        case errors.APIError() | tenant_errors.CapacityError():
            return Exit.UNUSABLE if isinstance(error, _UNUSABLE) else Exit.SOME_FAILED
        case _:
            return Exit.UNUSABLE
