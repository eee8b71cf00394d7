"""What is done for one tenant under its claim: provision, rotate, retire, remove, mend.

The order of the steps is the same everywhere: put the intent on record, renew the claim, send the request that changes
a password, test that password by a login, keep the credential.

Every function may be repeated, whatever an earlier run of it has done, and may be cancelled at any point. Each raises,
besides what it says,

- StoreError if the store cannot be used, and ClaimLostError if the claim was lost;
- GrantError if the database server refuses a statement or a login;
- what the calls of the API raise.

What was begun is then on record, so that whoever claims the name next can go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

from .._bulk.outcomes import Action
from .._bulk.settle import FRESH, says_taken
from ..errors import (
    ConflictError,
    DatabaseClientError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from ..models import User
from .claims import ClaimedTenant
from .credential import Credential
from .logins import TakenError, grant, look, refused_login, required, usable, waits, working_credential, works

IfLoginExists = Literal["adopt", "reset", "error"]

_GONE = 30.0  # s for which a deleted user may still be told of (Aiven's documentation of its API)


async def provision(
    tenant: ClaimedTenant, if_exists: IfLoginExists, *, absent: bool = False
) -> tuple[Action, Credential]:
    """Give the tenant a database and a login that owns it, and put its credential on record.

    Args:
        tenant: The tenant, which has no usable credential on record.
        if_exists: What becomes of a login that is there with no intent on record. Nobody here made it.
        absent: True if the list of the cluster's logins does not have it, so that it need not be read.

    Returns:
        CREATED, ADOPTED or RESET, and the credential.

    Raises:
        ConflictError: The login is there, and ``if_exists`` is ``"error"``.
        InvalidResponseError: It is there, and the API does not tell the password that is to be adopted.
    """
    record, login = tenant.held.record, tenant.names.logins[0]
    if record.intended is not None:  # whoever wrote that may have made the login, and told nobody its password
        return await _make(tenant, record.intended, Action.CREATED)
    existing = None if absent else await look(tenant, login)
    if existing is None:
        await tenant.held.intend(login)
        try:
            return await _make(tenant, login, Action.CREATED, ours=False)
        except TakenError as taken:
            refusal = taken.refusal
        await tenant.held.intend(None)  # it is somebody else's: the next process must not reset it
        existing = await look(tenant, login, seconds=FRESH if says_taken(refusal) else 0.0)
        if existing is None:
            raise refusal
    if if_exists == "error":
        await tenant.held.forget()  # no request of ours made it
        raise ConflictError(f"the login {login!r} exists and is on no record; it was left as it is", status=409)
    if if_exists == "adopt":
        return await _adopt(tenant, existing)
    await tenant.held.intend(login)
    return await _make(tenant, login, Action.RESET, there=True)


async def rotate(tenant: ClaimedTenant) -> tuple[Action, Credential]:
    """Make or reset the tenant's other login, and keep its credential as the one to use.

    The login in use is not touched and goes on working.

    Raises:
        InvalidArgumentError: The tenant has no credential on record.
    """
    current = required(tenant.names.tenant, usable(tenant.held.record))
    other = tenant.names.other(current.username)
    await tenant.held.intend(other)
    credential = await working_credential(tenant, other, there=tenant.held.record.previous is not None)
    await tenant.held.keep(credential, current)
    return Action.ROTATED, credential


async def retire(tenant: ClaimedTenant) -> tuple[Action, Credential]:
    """End the credential from before ``rotate``: the other login gets a new password that nobody is told.

    Returns:
        RETIRED, or KEPT if there was nothing to end; and the credential in use.

    Raises:
        InvalidArgumentError: The tenant has no credential on record.
    """
    record = tenant.held.record
    current = required(tenant.names.tenant, usable(record))
    if record.previous is None and record.intended is None:
        return Action.KEPT, current
    other = tenant.names.other(current.username)
    await tenant.held.intend(other)
    await tenant.held.may_write()
    await _gone(tenant.cluster.users.reset_auth, other, certain=record.previous is not None)
    await tenant.held.keep(current)
    return Action.RETIRED, current


async def remove(tenant: ClaimedTenant) -> Action:
    """Remove the tenant's logins, its database, what the grants made, and last its record.

    Returns:
        DELETED, or ABSENT if nothing was ever made for it.
    """
    record = tenant.held.record
    if record.current is None and record.intended is None:
        await tenant.held.forget()  # nothing was ever made for it
        return Action.ABSENT
    current = record.current.username if record.current else record.intended or tenant.names.logins[0]
    await tenant.held.intend(current)  # from here on ``get`` returns None
    told = {current, record.intended, record.previous and record.previous.username}
    for login in tenant.names.logins:
        await tenant.held.may_write()
        await _gone(tenant.cluster.users.delete, login, certain=login in told)
    if tenant.names.database is not None:
        await tenant.held.may_write()
        await _gone(tenant.cluster.dbs.delete, tenant.names.database, certain=True)
    if tenant.site.sql is not None:
        await tenant.site.sql.forget(tenant.names)
    await tenant.held.forget()
    return Action.DELETED


async def mend(tenant: ClaimedTenant) -> None:
    """Make sure that the credential on record works, and replace it if it does not.

    For a process that sent a request which changes a password and then lost its claim. The server may have performed
    that request after those of the process that took the claim over. Then the password on record is no longer valid.
    """
    record = tenant.held.record
    if record.current is None and record.intended is None:
        await tenant.held.forget()  # somebody removed the tenant; only claiming it again made this record
        return
    current = usable(record)
    if current is None or await works(tenant, current):
        return
    await tenant.held.intend(current.username)
    await _ensure_database(tenant)
    credential = await working_credential(tenant, current.username, there=True)
    await tenant.held.keep(credential, record.previous)


async def _make(
    tenant: ClaimedTenant, login: str, action: Action, *, there: bool = False, ours: bool = True
) -> tuple[Action, Credential]:
    """Make the database and ``login``, or reset it if it is ``there``, and put its credential on record."""
    await _ensure_database(tenant)
    credential = await working_credential(tenant, login, there=there, ours=ours)
    await tenant.held.keep(credential, _still_previous(tenant, login))
    return action, credential


async def _adopt(tenant: ClaimedTenant, user: User) -> tuple[Action, Credential]:
    """Give a login that was there before its rights, and put on record the password that the API tells of it."""
    await _ensure_database(tenant)
    pauses = waits(_GONE)
    while True:
        if not user.password:
            raise InvalidResponseError(
                f"the login {user.name!r} was there before, and the API does not tell its password (MongoDB never "
                'does, else the token needs the scope database:view_credentials): if_exists="reset" gives it a new '
                "one, which ends the old one"
            )
        refused = await grant(tenant, user, made=False)
        if refused is None:
            credential = tenant.site.credential(tenant.names, user)
            await tenant.held.keep(credential)
            return Action.ADOPTED, credential
        wait = next(pauses, None)
        if wait is None:
            raise refused_login(tenant, user.name, refused)
        await asyncio.sleep(wait)
        found = await look(tenant, user.name)
        if found is None:  # it was being deleted
            await tenant.held.intend(user.name)
            return await _make(tenant, user.name, Action.CREATED)
        user = found


async def _ensure_database(tenant: ClaimedTenant) -> None:
    """Make the database, unless there is one of that name."""
    name = tenant.names.database
    if name is None:
        return
    pauses = waits(FRESH)
    while True:
        try:
            await tenant.cluster.dbs.create(name)
            return
        except (ConflictError, UnprocessableEntityError) as refusal:
            if says_taken(refusal):
                return
            await _seen(tenant.cluster.dbs.get, name, refusal)
            return
        except DatabaseClientError as error:
            wait = next(pauses, None)
            if not error.may_have_applied or wait is None:
                raise
        await asyncio.sleep(wait)


def _still_previous(tenant: ClaimedTenant, login: str) -> Credential | None:
    """The previous credential on record, unless it is of ``login``, whose password has just been changed."""
    previous = tenant.held.record.previous
    return None if previous is None or previous.username == login else previous


async def _seen(get: Callable[[str], Awaitable[object]], name: str, refusal: DatabaseClientError) -> None:
    """Read ``name`` by ``get``, and raise ``refusal`` if it is not there."""
    try:
        await get(name)
    except NotFoundError:
        raise refusal from None


async def _gone(end: Callable[[str], Awaitable[object]], name: str, *, certain: bool) -> None:
    """Delete or reset ``name`` by ``end``, unless it is not there.

    A fresh name may answer 404 for a moment. So if it is ``certain`` that it was made, ``end`` is sent again after a
    404, for one or two seconds.
    """
    for wait in (0.0, *waits(1.0 if certain else 0.0)):
        await asyncio.sleep(wait)
        with suppress(NotFoundError):
            await end(name)
            return
