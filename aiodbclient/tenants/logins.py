"""A password for a tenant's login that is known to work: made or reset, given its rights, tried. Nothing is kept here.

The intent is on record before any of this. The claim is renewed before each request that changes a password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from attrs import evolve

from .._bulk.settings import differences
from .._bulk.settle import FRESH, LOOK, says_taken
from ..errors import (
    ConfigurationError,
    ConflictError,
    DatabaseClientError,
    GrantError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from ..models import NewUser, User
from .claims import ClaimedTenant
from .credential import Credential
from .stores import Record

_TRIES = 3  # passwords that a server may refuse before it is given up
_SOON = 2.0  # s within which a server knows a new password, and the API tells it (Aiven's documentation of its API)


class TakenError(Exception):
    """A name that was not there a moment ago is taken."""

    def __init__(self, refusal: ConflictError | UnprocessableEntityError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def usable(record: Record | None) -> Credential | None:
    """The credential on record, unless its own login is being changed or removed."""
    if record is None or record.current is None or record.intended == record.current.username:
        return None
    return record.current


async def working_credential(tenant: ClaimedTenant, login: str, *, there: bool, ours: bool = True) -> Credential:
    """Make or reset ``login``, give it its rights, and try its password.

    Args:
        tenant: The tenant.
        login: One of its two logins.
        there: Whether the login is there already, so that it is reset.
        ours: Whether it may be reset if it turns out to be there.

    Raises:
        TakenError: It is there, and is not ours.
        GrantError: A statement was refused, or the login is refused with three passwords in a row.
        ConfigurationError: The token is told no password.
        DatabaseClientError: The API's.
    """
    reason = ""
    for _ in range(_TRIES):
        made, user = await _with_password(tenant, login, there=there, ours=ours)
        refused = await grant(tenant, user, made=made)
        if refused is None:
            return tenant.site.credential(tenant.names, user)
        reason, there, ours = refused, True, True  # two resets may be done in either order; one more settles it
    raise refused_login(tenant, login, reason)


async def grant(tenant: ClaimedTenant, user: User, *, made: bool) -> str | None:
    """Give ``user`` its rights, and try its password where the engine is reached by SQL.

    Args:
        tenant: The tenant.
        user: One of its logins, with its password.
        made: Whether it was made just now, and so with the right settings.

    Returns:
        None, or why the server refused the login.

    Raises:
        GrantError: A statement was refused, or the administrator cannot log in.
    """
    wanted, sql = tenant.site.settings(tenant.names), tenant.site.sql
    if wanted is not None and not made and differences(NewUser(user.name, settings=wanted), user):
        await tenant.cluster.users.update(user.name, wanted)
    if sql is None:
        return None
    assert user.password is not None
    try:
        await sql.give(tenant.names, user.name)
        refused = await sql.enter(tenant.names, user.name, user.password)
        for wait in waits(_SOON):
            if refused is None:
                break
            await asyncio.sleep(wait)
            refused = await sql.enter(tenant.names, user.name, user.password)
    except GrantError as error:
        error.on_record = _on_record_text(tenant)
        raise
    return refused


async def works(tenant: ClaimedTenant, credential: Credential) -> bool:
    """Whether ``credential`` logs in or, where no login can be tried, is what the API tells.

    Raises:
        GrantError: The administrator cannot log in either, so that a refusal tells nothing of the credential.
    """
    sql = tenant.site.sql
    if sql is not None and credential.password is not None:
        for wait in waits(_SOON):
            if await sql.enter(tenant.names, credential.username, credential.password) is None:
                return True
            await asyncio.sleep(wait)
        await sql.check()
        return await sql.enter(tenant.names, credential.username, credential.password) is None
    user = await look(tenant, credential.username)
    return user is not None and user.password is not None and user.password == credential.password


async def look(tenant: ClaimedTenant, login: str, *, patience: float = 0.0) -> User | None:
    """The user ``login``, or None where it cannot be seen within about ``patience`` seconds."""
    for wait in waits(patience):
        try:
            return await tenant.cluster.users.get(login)
        except NotFoundError:
            await asyncio.sleep(wait)
    try:
        return await tenant.cluster.users.get(login)
    except NotFoundError:
        return None


def refused_login(tenant: ClaimedTenant, login: str, reason: str) -> GrantError:
    """The error for a ``login`` whose password the server goes on refusing, with the server's ``reason``."""
    return GrantError(
        f"tenant {tenant.names.tenant!r}: the server refuses the login {login!r} with the password that the API "
        f"tells: {reason}",
        tenant=tenant.names.tenant,
        on_record=_on_record_text(tenant),
    )


def waits(total: float) -> Iterator[float]:
    """Doubling waits, at least ``total`` seconds in all."""
    wait = LOOK
    while total > 0:
        yield wait
        total -= wait
        wait *= 2


async def _with_password(tenant: ClaimedTenant, login: str, *, there: bool, ours: bool) -> tuple[bool, User]:
    """Make ``login``, or reset it where it is there, until a password is told.

    Returns:
        Whether it was made now, and the user with its password.

    Raises:
        TakenError: It is not ``ours``, and the first request to make it was refused: it is there already.
    """
    users, pauses = tenant.cluster.users, waits(FRESH)
    lost: DatabaseClientError | None = None
    while True:
        await tenant.held.may_write()
        try:
            if there:
                return False, await _told(tenant, await users.reset_auth(login))
            return True, await _told(tenant, await users.create(login, settings=tenant.site.settings(tenant.names)))
        except NotFoundError as missing:  # not there, or so fresh that it cannot be seen
            wait = next(pauses, None)
            if not there or wait is None or (lost is not None and not _may_be_there(lost)):
                raise lost or missing from None
            there = False
            await asyncio.sleep(wait)
        except (ConflictError, UnprocessableEntityError) as refusal:
            if there:
                raise
            if not ours and lost is None:
                raise TakenError(refusal) from None
            lost, there = refusal, True
        except InvalidResponseError:
            wait = next(pauses, None)
            if wait is None:
                raise
            there = True  # a reset may be repeated, and MongoDB tells no password after one that was sent twice
            await asyncio.sleep(wait)
        except DatabaseClientError as error:
            if there or not error.may_have_applied or isinstance(error, ConfigurationError):
                raise
            lost, there = error, True
            if not ours and (found := await look(tenant, login)) is not None and found.password:
                return False, found  # without a reset, for it may be somebody else's who came first


async def _told(tenant: ClaimedTenant, user: User) -> User:
    """``user`` with its password, which the API may tell a moment later than it was made or reset.

    Raises:
        ConfigurationError: It is not told, nor is the password of the cluster's primary user.
        InvalidResponseError: It is not told.
    """
    if user.password:
        return user
    if tenant.site.tells_passwords:
        for wait in waits(_SOON):
            await asyncio.sleep(wait)
            found = await look(tenant, user.name)
            if found is not None and found.password:
                return evolve(user, password=found.password)
    await tenant.held.may_write()
    again = await tenant.cluster.users.reset_auth(user.name)
    if again.password:
        return again
    message = f"the login {user.name!r} is there, and the API does not tell its password"
    if tenant.site.connection.password:
        raise InvalidResponseError(message, may_have_applied=True)
    raise ConfigurationError(
        f"{message}, nor that of the cluster's primary user: give the token the scope database:view_credentials and "
        "run this again, which gives the login another password",
        may_have_applied=True,
    )


def _on_record_text(tenant: ClaimedTenant) -> str:
    if usable(tenant.held.record) is not None:
        return "on record is the credential from before, which was not touched"
    return "on record is the name, and no credential"


def _may_be_there(error: DatabaseClientError) -> bool:
    """Whether a create that failed so leaves open that its name is there, or will be seen in a moment."""
    if isinstance(error, ConflictError | UnprocessableEntityError):
        return says_taken(error)
    return True
