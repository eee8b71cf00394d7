"""The life cycle of a tenant's login: made, in use, previous, ended.

An ended login stays until its tenant is removed, so a reset makes it work again: MySQL locks it, and elsewhere it gets
a random password. If it is gone nevertheless (version 1.0 deleted it on PostgreSQL), it is created.

The caller has stored the intent, and stores the returned credential. The claim is renewed before each request that
changes a password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from .._bulk.settings import differences
from .._bulk.settle import FRESH, REFUSED, create_new, readable
from .._request.waits import until_seen, waits, with_password
from ..clusters import retry_policy
from ..errors import (
    APIError,
    ConfigurationError,
    GrantError,
    InvalidResponseError,
    NameTakenError,
    NotFoundError,
)
from ..models import NewUser, User
from ._credential import Credential, Secret
from ._grants.rights import settings_for
from ._listing import read_user
from ._tenancy import ClaimedTenant, Tenant, now_of, usable

T = TypeVar("T")

SOON = 2.0  # seconds until a server accepts a new password and the API returns it (Aiven's documentation of its API)
_VISIBLE = 1.0  # seconds until a new name no longer answers 404
_PASSWORDS = 3  # refused passwords of one login before giving up
_ENDINGS = 10  # passwords of a login with hostile sessions before giving up


async def working_credential(
    tenant: ClaimedTenant, login: str, *, exists: bool, may_exist: bool = True, in_use: bool = True
) -> Credential:
    """Create ``login``, or reset it if it ``exists``, grant its rights, test its password, and return its credential.

    Raises one of REFUSED if it exists and must not (``may_exist``). If the login is not ``in_use``, its sessions are
    ended before it gets its rights.
    """
    reason = ""
    for turn in range(_PASSWORDS):
        if turn == _PASSWORDS - 1:  # an open session of the login may set passwords faster than the API does
            if tenant.site.sql is not None and await tenant.site.sql.has_expired(tenant.names, login):
                await delete_login(tenant, login, certain=True)
                exists = False
            else:
                await end_login(tenant, login, certain=True)
        is_new, user = await _make_or_reset(tenant, login, exists=exists, may_exist=may_exist)
        refused = await grant(tenant, user, is_new=is_new, in_use=in_use)
        if refused is None:
            return await credential_of(tenant, user)
        # After a lost answer two resets were sent, and the server may have performed the first one last.
        reason, exists, may_exist = refused, True, True
    raise refused_login(tenant, login, reason)


async def credential_of(tenant: ClaimedTenant, user: User) -> Credential:
    """The credential with the login ``user``, to be stored next."""
    since = await tenant.timer.on("store", now_of(tenant.held.store))
    return tenant.site.credential(tenant.names, user, since)


async def grant(tenant: ClaimedTenant, user: User, *, is_new: bool, in_use: bool = True) -> str | None:
    """Grant a login its rights and, by SQL, test its password. Return why the server refuses it, or None."""
    names, sql = tenant.names, tenant.site.sql
    wanted = settings_for(tenant.site.engine, names)
    if wanted is not None and not is_new and (user.settings is None or has_other_settings(tenant, user)):
        await tenant.cluster.users.update(user.name, wanted)
    if sql is None:
        return None
    password = Secret(user.password or "")
    refused: str | None = ""

    async def look() -> bool | None:
        nonlocal refused
        refused = await tenant.timer.on_sql(sql.log_in(names, user.name, password))
        return True if refused is None else None

    try:
        if not (in_use or is_new):
            refused = await tenant.timer.on_sql(sql.end_sessions(names, user.name, password))
            if refused is not None:
                return refused
        await tenant.timer.on_sql(sql.give(names, user.name))
        await until_seen(look, SOON)  # a server may know a new password a moment later
    except GrantError as error:
        error.on_record = _on_record_text(tenant, user.name)
        raise
    return refused


async def works(tenant: Tenant, credential: Credential) -> bool:
    """Whether the stored ``credential`` can log in or, if the API grants the rights, equals the API's answer."""
    names, sql = tenant.names, tenant.site.sql
    if sql is not None and credential.password is not None:
        accepts = sql.accepts(names, credential.username, Secret(credential.password))
        return await tenant.timer.on_sql(accepts) is None
    user = await read_user(tenant.cluster, credential.username)
    return user is not None and user.password is not None and user.password == credential.password


def has_other_settings(tenant: Tenant, user: User) -> bool:
    """Whether the login has other settings than those of its role. ``user.settings`` of None counts as no settings."""
    wanted = settings_for(tenant.site.engine, tenant.names)
    return wanted is not None and bool(differences(NewUser(user.name, settings=wanted), user))


def refused_login(tenant: ClaimedTenant, login: str, reason: str) -> GrantError:
    """The error for a ``login`` that the server keeps refusing, with the server's ``reason``."""
    return GrantError(
        f"tenant {tenant.names.tenant!r}: the server refuses the login {login!r} with the password that the API "
        f"returns: {reason}",
        tenant=tenant.names.tenant,
        on_record=_on_record_text(tenant, login),
    )


async def end_login(
    tenant: ClaimedTenant,
    login: str,
    *,
    certain: bool,
    stored: Credential | None = None,
    end_sessions: bool = True,
) -> bool:
    """End ``login``: no session of it is open, and no password that anybody knows is valid. Return whether it exists.

    Without ``end_sessions``, an open session of the login can set another password.
    """
    names, sql = tenant.names, tenant.site.sql
    if sql is None or not end_sessions:
        return await if_there(partial(_reset, tenant, login), certain=certain) is not None
    reason = ""
    known: User | Credential | None = stored  # while it is accepted, no reset is needed
    for ending in range(_ENDINGS):
        if known is None and sql.needs_password:
            try:
                known = await if_there(partial(_reset, tenant, login), certain=certain)
            except InvalidResponseError:  # no password: an open session of the login was faster than the API
                known = User(login)
            if known is None:
                return False
            known = await _read_password(tenant, known)
        await tenant.held.may_write(login)
        by_login = known if ending < _ENDINGS // 2 else None
        password = Secret(by_login.password) if by_login is not None and by_login.password is not None else None
        refused = await tenant.timer.on_sql(sql.end_login(names, login, password))
        if refused is None:
            return True
        reason, known = refused, None
    raise GrantError(
        f"tenant {names.tenant!r}: an open session of the login {login!r} keeps it from being ended: {reason}; run "
        "this again",
        tenant=names.tenant,
    )


async def delete_login(tenant: ClaimedTenant, login: str, *, certain: bool) -> None:
    """Delete ``login``, which was ended. Does nothing if it is gone."""
    if tenant.site.sql is not None:
        await tenant.timer.on_sql(tenant.site.sql.before_deletion(tenant.names, login))
    await tenant.held.may_write(login)
    await if_there(partial(tenant.cluster.users.delete, login), certain=certain)


async def if_there(end: Callable[[], Awaitable[T]], *, certain: bool) -> T | None:
    """Delete or reset a name with ``end``; None if there is none. A ``certain`` one may be too new to be visible."""

    async def look() -> tuple[T] | None:
        with suppress(NotFoundError):
            return (await end(),)
        return None

    seen = await until_seen(look, _VISIBLE if certain else 0.0)
    return None if seen is None else seen[0]


async def _make_or_reset(tenant: ClaimedTenant, login: str, *, exists: bool, may_exist: bool) -> tuple[bool, User]:
    """Create ``login``, or reset it if it exists. Return whether it was created, and it, with its password."""
    retry, sql = retry_policy(tenant.cluster), tenant.site.sql
    create, read = partial(_create, tenant, login), partial(tenant.cluster.users.get, login)
    refusal: APIError | None = None
    for wait in waits(FRESH):
        await asyncio.sleep(wait)
        if exists:
            try:
                return False, await _password_or_reset(tenant, await readable(partial(_reset, tenant, login), retry))
            except NotFoundError:  # it does not exist, or is too new to be visible
                if refusal is not None and not isinstance(refusal, NameTakenError):
                    raise refusal from None
        if sql is not None:
            await tenant.timer.on_sql(sql.before_creation(tenant.names, login))
        try:
            return True, await _password_or_reset(tenant, await create_new(create, read, retry))
        except REFUSED as error:
            if error.may_have_applied or not (may_exist or exists):
                raise
            refusal = error
        exists = True
    assert refusal is not None
    raise refusal


async def _create(tenant: ClaimedTenant, login: str) -> User:
    await tenant.held.may_write(login)
    return await tenant.cluster.users.create(login, settings=settings_for(tenant.site.engine, tenant.names))


async def _reset(tenant: ClaimedTenant, login: str) -> User:
    await tenant.held.may_write(login)
    return await tenant.cluster.users.reset_auth(login)


async def _read_password(tenant: Tenant, user: User) -> User:
    """Return ``user`` with its password, if the API returns one within some seconds."""
    if not tenant.site.returns_passwords:
        return user
    return await with_password(user, partial(tenant.cluster.users.get, user.name), SOON)


async def _password_or_reset(tenant: ClaimedTenant, user: User) -> User:
    """Return ``user`` with its password. If the API does not return it within some seconds, reset it once more."""
    user = await _read_password(tenant, user)
    if not user.password:
        user = await readable(partial(_reset, tenant, user.name), retry_policy(tenant.cluster))
    if user.password:
        return user
    message = f"the login {user.name!r} exists, and the API does not return its password"
    if tenant.site.connection.password:
        raise InvalidResponseError(message, may_have_applied=True)
    raise ConfigurationError(
        f"{message}, nor the primary user's: give the token the scope database:view_credentials and run this again, "
        "which resets the login's password",
        may_have_applied=True,
    )


def _on_record_text(tenant: ClaimedTenant, login: str) -> str:
    current = usable(tenant.held.record)
    if current is None:
        return f"the name is on record for the cluster {tenant.cluster.id}, without a credential"
    if current.username == login:
        return "the credential on record is being replaced and may no longer work: repair the tenant"
    return "the previous credential is on record, and was not touched"
