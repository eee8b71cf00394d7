"""Make or reset a tenant's login, give it its rights, and test its password by a login.

The intent is on record before any of this, the claim is renewed before each request that changes a password, and the
caller keeps the credential that comes out.

On PostgreSQL and MySQL a password is tested by logging in to the server. On the other engines it is taken as the API
tells it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from attrs import evolve

from .._bulk.settings import differences
from .._bulk.settle import FRESH, LOOK, says_taken
from ..errors import (
    ConfigurationError,
    ConflictError,
    DatabaseClientError,
    GrantError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from ..models import NewUser, User
from .claims import ClaimedTenant
from .credential import Credential
from .grants import Grants
from .naming import Names
from .stores import Record

_PASSWORDS = 3  # passwords of one login that the server may refuse before it is given up
_SOON = 2.0  # s within which a server knows a new password, and the API tells it (Aiven's documentation of its API)


class TakenError(Exception):
    """The login that was to be made is there already, and was not made by us.

    Attributes:
        refusal: The API's answer to the create.
    """

    def __init__(self, refusal: ConflictError | UnprocessableEntityError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def usable(record: Record | None) -> Credential | None:
    """The current credential on record; None if there is none, or if the intent is on its own login."""
    if record is None or record.current is None or record.intended == record.current.username:
        return None
    return record.current


def required(name: str, credential: Credential | None) -> Credential:
    """Return the usable ``credential`` of the tenant ``name``.

    Raises:
        InvalidArgumentError: There is none.
    """
    if credential is None:
        raise InvalidArgumentError(
            f"the tenant {name!r} has no credential on record: provision it first; nothing was sent"
        )
    return credential


async def working_credential(tenant: ClaimedTenant, login: str, *, there: bool, ours: bool = True) -> Credential:
    """Make or reset ``login``, give it its rights, and test its password.

    A refused password is replaced by another one: of two resets that were sent because an answer was lost, the server
    may have performed the earlier one last.

    Args:
        tenant: The tenant.
        login: One of its two logins.
        there: Whether the login is there already, so that it is reset.
        ours: Whether a request of ours may have made it, so that it may be reset if it turns out to be there.

    Returns:
        Its credential, which is not on record yet.

    Raises:
        TakenError: It is there, and is not ours.
        GrantError: A statement was refused, or the login is refused with three passwords in a row.
        ConfigurationError: The API tells no password to this token.
        ClaimLostError: The claim was lost.
        DatabaseClientError: The API refused a request or did not answer.
    """
    reason = ""
    for _ in range(_PASSWORDS):
        made, user = await _make_or_reset(tenant, login, there=there, ours=ours)
        refused = await grant(tenant, user, made=made)
        if refused is None:
            return tenant.site.credential(tenant.names, user)
        reason, there, ours = refused, True, True
    raise refused_login(tenant, login, reason)


async def grant(tenant: ClaimedTenant, user: User, *, made: bool) -> str | None:
    """Give ``user`` its rights and, if that is done by SQL, test its password by a login.

    A refused login is tested again for some seconds, since a server may know a new password a moment later.

    Args:
        tenant: The tenant.
        user: One of its logins, with its password.
        made: Whether it was made just now, and so with the right settings.

    Returns:
        None, or the reason for which the server refuses the login.

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
        return await _log_in(sql, tenant.names, user.name, user.password)
    except GrantError as error:
        error.on_record = _on_record_text(tenant)
        raise


async def works(tenant: ClaimedTenant, credential: Credential) -> bool:
    """Whether ``credential`` works: it logs in or, where rights are not given by SQL, is what the API tells.

    Raises:
        GrantError: The administrator cannot log in either, so the refusal says nothing about the credential.
    """
    sql = tenant.site.sql
    if sql is not None and credential.password is not None:
        if await _log_in(sql, tenant.names, credential.username, credential.password) is None:
            return True
        await sql.check()
        return await sql.log_in(tenant.names, credential.username, credential.password) is None
    user = await look(tenant, credential.username)
    return user is not None and user.password is not None and user.password == credential.password


async def _log_in(sql: Grants[Any], names: Names, username: str, password: str) -> str | None:
    """Test a login, for some seconds again and again. Returns None, or why the server refused the last one."""
    refused = None
    for wait in (0.0, *waits(_SOON)):
        await asyncio.sleep(wait)
        refused = await sql.log_in(names, username, password)
        if refused is None:
            break
    return refused


async def look(tenant: ClaimedTenant, login: str, *, seconds: float = 0.0) -> User | None:
    """The user ``login``, read again for at least ``seconds`` while it cannot be seen; None if it still cannot."""
    for wait in (0.0, *waits(seconds)):
        await asyncio.sleep(wait)
        with suppress(NotFoundError):
            return await tenant.cluster.users.get(login)
    return None


def refused_login(tenant: ClaimedTenant, login: str, reason: str) -> GrantError:
    """The error for a ``login`` that the server goes on refusing, with the server's ``reason``."""
    return GrantError(
        f"tenant {tenant.names.tenant!r}: the server refuses the login {login!r} with the password that the API "
        f"tells: {reason}",
        tenant=tenant.names.tenant,
        on_record=_on_record_text(tenant),
    )


def waits(total: float) -> Iterator[float]:
    """Waits in seconds that double each time, until they are at least ``total`` in all."""
    wait = LOOK
    while total > 0:
        yield wait
        total -= wait
        wait *= 2


async def _make_or_reset(tenant: ClaimedTenant, login: str, *, there: bool, ours: bool) -> tuple[bool, User]:
    """Make ``login``, or reset it if it is there, until its password is known. A lost create is settled here.

    - After a lost create the login may be there. If it is ``ours`` it is reset, which gives a password that is known.
      If it is not, it is read: the password that the API tells of it is taken, since it may be a login that somebody
      else made a moment ago, and a reset would end their password. If none is told, it is reset.
    - A create that is refused because the name is taken settles an earlier lost create: the login is there, and is
      reset. With no lost create before it, and if the login is not ``ours``, it is somebody else's: TakenError.
    - A reset that answers 404 means that the login is not there, or so fresh that it cannot be seen: it is created.
    - An answer that cannot be read is followed by a reset.

    Returns:
        Whether it was made now, and the user with its password.

    Raises:
        TakenError: It is not ``ours``, and the first create was refused.
        DatabaseClientError: The API refused a request, or it could not be settled within 10 to 20 seconds.
    """
    users, pauses = tenant.cluster.users, waits(FRESH)
    lost: DatabaseClientError | None = None
    while True:
        await tenant.held.may_write()
        try:
            if there:
                user = await users.reset_auth(login)
            else:
                user = await users.create(login, settings=tenant.site.settings(tenant.names))
            return not there, await _with_password(tenant, user)
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


async def _with_password(tenant: ClaimedTenant, user: User) -> User:
    """Return ``user`` with its password. If the API does not tell it within some seconds, reset it once more.

    Raises:
        ConfigurationError: The API tells no password to this token, not even that of the primary user.
        InvalidResponseError: The API does not tell the password.
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
    """Whether the name may be there although a create failed with ``error``, and may be seen in a moment."""
    if isinstance(error, ConflictError | UnprocessableEntityError):
        return says_taken(error)
    return True
