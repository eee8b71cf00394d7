"""How a command ends: its exit code, and what it prints of a failure."""

from __future__ import annotations

import re
from contextvars import ContextVar
from copy import copy
from enum import IntEnum

from .. import errors
from ..tenants import errors as tenant_errors
from .output import OutputError, command_line, complain


class Exit(IntEnum):
    """The exit codes, as ``EXIT_CODES`` explains them in each help. ``tenants exec`` also passes on a program's."""

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
    "Exit codes: 0 done, 1 some failed or are not there, 2 bad usage, 3 stopped early, 4 the API, the store or the "
    "standard output failed, 5 `plan` or `check` found a difference."
)
_NO_DATABASE = re.compile(r'administrator .*cannot log in.* database "(.+)" does not exist', re.DOTALL)
_SCOPES = (
    "tenants need the scopes database:read and database:view_credentials, changes of users and databases also "
    "database:create, database:update and database:delete"
)
_ABOUT_KEYS = (
    "set $AIODBCLIENT_STORE_KEY to the key of this store, or unset it if the store has none. If its key is lost, "
    "provision the tenants into a new store with --adopt"
)
is_verbose: ContextVar[bool] = ContextVar("is_verbose", default=False)  # whether --verbose was given


def message_of(error: Exception, *, retried: bool = False) -> str:
    """What to print of ``error``, with advice for an operator."""
    text, advice = said_by(error), advice_for(error, retried=retried)
    return f"{text.rstrip('.')}: {advice}" if advice else text


def said_by(error: Exception) -> str:
    """What an error says, without advice, and without the request or the statement unless ``--verbose``."""
    if not isinstance(error, errors.DatabaseClientError):
        return str(error)
    plain = copy(error)
    plain.advice = ""  # it is for programs
    if isinstance(plain, tenant_errors.GrantError) and not is_verbose.get():
        plain.statement = ""
    text = str(plain)
    if isinstance(error, errors.APIError) and (error.id or error.message) and not is_verbose.get():
        said = ": ".join(part for part in (error.id, error.message) if part).rstrip(".")
        text = f"the API answered {error.status} {said}"
        text += f" (after {error.tries} tries)" if error.tries > 1 else ""
        text += "; it may have been applied" if error.may_have_applied else ""
    return text


def advice_for(error: Exception, *, retried: bool = False) -> str:
    """What an operator does about ``error``. Where the library has no advice, most errors need none here either."""
    if not isinstance(error, errors.DatabaseClientError):
        return ""
    match error:
        case errors.AuthenticationError():
            return (
                "$DIGITALOCEAN_TOKEN is wrong, expired or revoked. Make another one in the control panel, under API: "
                f"{_SCOPES}"
            )
        case errors.PermissionDeniedError():
            return f"{_SCOPES}. Change the token's scopes in the control panel, under API"
        case tenant_errors.GrantError() if gone := _NO_DATABASE.search(str(error)):
            create = command_line(["dbs", "create", "CLUSTER", gone[1]])
            return f"the administrator logs in through this database. To create it again: {create}"
        case _ if not error.advice or has_way_out(error):
            return ""
        case tenant_errors.StoreError():
            return _ABOUT_KEYS
        case _:
            return "" if retried else "look before you run it again"


def has_way_out(error: Exception) -> bool:
    """Whether another command than this one is the way out. ``Opened.ways`` names it, once for all tenants."""
    match error:
        case (
            tenant_errors.CapacityError()
            | tenant_errors.RotationPendingError()
            | tenant_errors.TenantUnavailableError()
        ):
            return True
        case errors.ConflictError(id="") | errors.NotFoundError(id=""):
            return bool(error.advice)
        case _:
            return False


def code_of(error: errors.DatabaseClientError) -> Exit:
    """The exit code of a command that ended with ``error``."""
    match error:
        case errors.ConfigurationError() | errors.InvalidArgumentError() | errors.UnsupportedOperationError():
            return Exit.BAD_USAGE
        case errors.AuthenticationError() | errors.PermissionDeniedError() | errors.RateLimitError():
            return Exit.UNUSABLE
        case errors.ServerError():
            return Exit.UNUSABLE
        case errors.APIError() | tenant_errors.CapacityError():
            return Exit.SOME_FAILED
        case _:
            return Exit.UNUSABLE


def code_of_run(error: errors.DatabaseClientError) -> Exit:
    """The exit code of a command on many names that ``error`` ended before all had their turn."""
    if type(error) is errors.DatabaseClientError:  # `exec` began no other: too many had failed
        return Exit.SOME_FAILED
    code = code_of(error)
    return Exit.UNUSABLE if code is Exit.SOME_FAILED else code


def end_output(error: OutputError) -> Exit:
    """Print why the standard output cannot be written, unless only its reader has gone. Returns the exit code."""
    code = Exit.STOPPED if error.gone else Exit.UNUSABLE
    if error.lost or not error.gone:
        complain(f"{error}; {error.lost}" if error.lost else str(error), code)
    return code
