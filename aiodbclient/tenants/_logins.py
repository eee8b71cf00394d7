"""Create or reset a tenant's login, grant its rights, and test its password by logging in.

The caller has stored the intent, and stores the returned credential. The claim is renewed before each request that
changes a password.

On PostgreSQL and MySQL a password is tested by logging in to the server. On the other engines the password that the API
returns is used without a test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from attrs import evolve

from .._bulk.settings import differences
from .._bulk.settle import FRESH, Request, create_new, create_settled, readable
from .._bulk.waits import waits
from .._request.retry import RetryPolicy
from ..clusters import retry_policy
from ..errors import (
    ConfigurationError,
    ConflictError,
    GrantError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from ..models import NewUser, User
from ._claims import ClaimedTenant, Tenant
from ._credential import Credential
from ._endings import SOON, end_login, read_with_password
from ._grants.settings import settings_for
from ._listing import read_user
from ._tenancy import now_of, usable

T = TypeVar("T")

_PASSWORDS = 3  # refused passwords of one login before giving up


class TakenError(Exception):
    """The user or database exists already, or is refused for another reason. Nothing was created.

    Attributes:
        refusal: The API's answer.
    """

    def __init__(self, refusal: ConflictError | UnprocessableEntityError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


async def working_credential(tenant: ClaimedTenant, login: str, *, there: bool, ours: bool = True) -> Credential:
    """Create or reset ``login``, grant its rights, and test its password.

    If the server refuses the password, this resets it again: after a lost answer two resets were sent, and the server
    may have performed the first one last. Before the last attempt it ends the sessions of the login.

    Args:
        tenant: The tenant.
        login: One of its two logins.
        there: Whether to reset the login first, and to create it only if it does not exist; otherwise the reverse.
        ours: Whether a request of ours may have created it, so that it may be reset if it exists.

    Returns:
        Its credential, not stored yet.

    Raises:
        TakenError: It exists, and is not ours.
        GrantError: A statement was refused, or the login is refused with three passwords in a row.
        ConfigurationError: The API returns no password to this token.
        ClaimLostError: The claim was lost.
        DatabaseClientError: The API refused a request or did not answer.
    """
    reason = ""
    for turn in range(_PASSWORDS):
        if turn == _PASSWORDS - 1:  # an open session of the login may set passwords faster than the API does
            await end_login(tenant, login, certain=True)
        made, user = await _make_or_reset(tenant, login, there=there, ours=ours)
        refused = await grant(tenant, user, made=made)
        if refused is None:
            return await credential_of(tenant, user)
        reason, there, ours = refused, True, True
    raise refused_login(tenant, login, reason)


async def credential_of(tenant: ClaimedTenant, user: User) -> Credential:
    """The credential with the login ``user``, to be stored next."""
    since = await tenant.spent.on_store(now_of(tenant.held.store))
    return tenant.site.credential(tenant.names, user, since)


async def grant(tenant: ClaimedTenant, user: User, *, made: bool) -> str | None:
    """Grant ``user`` its rights and, on SQL engines, test its password by logging in.

    A refused login is tested again for some seconds, since a server may know a new password a moment later.

    Args:
        tenant: The tenant.
        user: One of its logins, with its password.
        made: Whether it was just created, and so has the right settings.

    Returns:
        None, or the server's reason to refuse the login.

    Raises:
        GrantError: A statement was refused, or the administrator cannot log in.
    """
    names, sql = tenant.names, tenant.site.sql
    wanted = settings_for(tenant.site.engine, names)
    if wanted is not None and not made and (user.settings is None or has_other_settings(tenant, user)):
        await tenant.cluster.users.update(user.name, wanted)
    if sql is None:
        return None
    assert user.password is not None
    try:
        await tenant.spent.on_sql(sql.give(names, user.name))
        return await _patiently(partial(sql.log_in, names, user.name, user.password), tenant)
    except GrantError as error:
        error.on_record = _on_record_text(tenant, user.name)
        raise


async def works(tenant: Tenant, credential: Credential) -> bool:
    """Whether the stored ``credential`` can log in or, if the API grants the rights, equals the API's answer.

    It was tested before it was stored. So a refusal means that the password was changed since.

    Raises:
        GrantError: The server is down, so the refusal says nothing about the credential.
    """
    sql, password = tenant.site.sql, credential.password
    if sql is not None and password is not None:
        return await tenant.spent.on_sql(sql.accepts(tenant.names, credential.username, password)) is None
    user = await read_user(tenant.cluster, credential.username)
    return user is not None and user.password is not None and user.password == password


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


async def _patiently(log_in: Callable[[], Awaitable[str | None]], tenant: Tenant) -> str | None:
    """Test a login repeatedly for some seconds. Returns None, or the server's last reason to refuse it."""
    refused = None
    for wait in waits(SOON):
        await asyncio.sleep(wait)
        refused = await tenant.spent.on_sql(log_in())
        if refused is None:
            break
    return refused


async def _make_or_reset(tenant: ClaimedTenant, login: str, *, there: bool, ours: bool) -> tuple[bool, User]:
    """Create ``login``, or reset it if it exists, until its password is known.

    A lost create is settled by the rules of ``create_settled``. A 404 to a reset means that the login does not
    exist, or is too new to be visible: it is created.

    Returns:
        Whether it was created now, and the user with its password.

    Raises:
        TakenError: It exists and is not ``ours``.
        DatabaseClientError: The API refused a request, or it could not be settled within 10 to 20 seconds.
    """
    retry = retry_policy(tenant.cluster)
    read = partial(tenant.cluster.users.get, login)
    missing: NotFoundError | None = None
    for wait in waits(FRESH):
        await asyncio.sleep(wait)
        if there:
            try:
                user = await readable(partial(_reset, tenant, login), retry)
                return False, await _with_password(tenant, user)
            except NotFoundError as error:
                missing = error
        if tenant.site.sql is not None:
            await tenant.spent.on_sql(tenant.site.sql.before_creation(tenant.names, login))
        create = partial(_create, tenant, login)
        if not (ours or there):
            return True, await _with_password(tenant, await create_ours(create, read, retry))
        made, user = await create_settled(create, read, retry)
        if made:
            return True, await _with_password(tenant, user)
        there = True
    assert missing is not None
    raise missing


async def create_ours(create: Request[T], read: Request[T], retry: RetryPolicy) -> T:
    """Create a name that must not exist yet, with the arguments of ``create_settled``.

    Raises:
        TakenError: It was refused.
        DatabaseClientError: It failed, or could not be settled.
    """
    try:
        return await create_new(create, read, retry)
    except (ConflictError, UnprocessableEntityError) as error:
        if error.may_have_applied:
            raise
        refusal = error
    raise TakenError(refusal)


async def _create(tenant: ClaimedTenant, login: str) -> User:
    await tenant.held.may_write(login)
    return await tenant.cluster.users.create(login, settings=settings_for(tenant.site.engine, tenant.names))


async def _reset(tenant: ClaimedTenant, login: str) -> User:
    await tenant.held.may_write(login)
    return await tenant.cluster.users.reset_auth(login)


async def _with_password(tenant: ClaimedTenant, user: User) -> User:
    """Return ``user`` with its password. If the API does not return it within some seconds, reset it once more.

    Raises:
        ConfigurationError: The API returns no passwords to this token, not even the primary user's.
        InvalidResponseError: The API does not return the password.
    """
    if user.password:
        return user
    found = await read_with_password(tenant, user.name)
    if found is not None:
        return evolve(user, password=found.password)
    again = await readable(partial(_reset, tenant, user.name), retry_policy(tenant.cluster))
    if again.password:
        return again
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
        return "the name is on record, without a credential"
    if current.username == login:
        return "the credential on record is being replaced and may no longer work: repair the tenant"
    return "the credential from before is on record, and was not touched"
