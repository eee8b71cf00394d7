"""The accounts of a tenant's logins, and everything that a statement sets on one: password, limits, lock.

::

    CREATE USER login IDENTIFIED BY ... WITH MAX_USER_CONNECTIONS n PASSWORD REQUIRE CURRENT

A new account has no rights. The login can change neither the limit nor the clause, and no session of it can set another
password without the current one.

The server removes the password from its logs. While the statement runs, who has PROCESS can see it: the administrator
and the users that the API makes. Each of them may set the password of any login.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, suppress

from attrs import frozen

from ....errors import ConflictError
from ..._credential import Secret
from ...errors import GrantError
from .session import LoginExistsError, Schema

_HELPER = "made by aiodbclient to end the sessions of this user"  # the comment on an account of ``helper``
_IS_DEFINER = (4006,)


@frozen
class Account:
    """The account of a login."""

    login: str
    is_locked: bool
    connections: int  # at a time; 0 is no limit
    keeps_password: bool  # a session needs the current password to set another one
    is_ours: bool  # the API makes the others, without a limit


async def accounts(schema: Schema, logins: Collection[str]) -> dict[str, Account]:
    """Return the existing accounts of these logins."""
    names = sorted(logins)
    query = (
        "SELECT User, account_locked = 'Y', max_user_connections, COALESCE(Password_require_current, 'N') = 'Y' "
        f"FROM mysql.user WHERE Host = '%%' AND User IN ({', '.join(['%s'] * len(names))})"
    )
    rows = await schema.read(query, *names)
    return {
        str(login): Account(str(login), bool(locked), int(most), bool(keeps), bool(int(most) or keeps))
        for login, locked, most, keeps in rows
    }


async def hosts(schema: Schema, login: str) -> set[str]:
    """Return the hosts of the accounts of that name."""
    return {str(host) for (host,) in await schema.read("SELECT Host FROM mysql.user WHERE User = %s", login)}


async def check_hosts(schema: Schema, login: str) -> None:
    """Refuse a login that also has accounts for single hosts, of which nobody resets the password."""
    await drop_helpers(schema, login)
    others = sorted(await hosts(schema, login) - {"%"})
    if others:
        found = [f"{login!r}@{host!r}" for host in others]
        raise schema.error(
            f"there is also the account {' and '.join(found)}: drop it (DROP USER {', '.join(found)}) and run it again"
        )


async def check_adoption(schema: Schema, login: str) -> None:
    """Refuse a login that the administrator may not end later."""
    ((own,),) = await schema.read("SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)")
    reason = "it is the administrator" if login == own else ""
    if not reason:
        try:
            await schema.change("ALTER USER %s@'%%' ACCOUNT UNLOCK", login)
        except GrantError as refused:
            reason = f"the administrator may not alter it ({refused})"
    if reason:
        raise ConflictError(
            f"the login {login!r} is not the tenant's to take: {reason}; nothing was changed", status=409
        )


async def set_account(schema: Schema, login: str, password: Secret, connections: int, *, is_new: bool) -> None:
    """Create an account, or reset everything that a statement sets on it, and unlock it."""
    how = f"IDENTIFIED BY %s REQUIRE NONE {_limits(connections)} PASSWORD REQUIRE CURRENT ACCOUNT UNLOCK"
    if not is_new:  # MySQL may keep the password of before the last one too
        await schema.change("ALTER USER %s@'%%' DISCARD OLD PASSWORD", login)
    create = "CREATE" if is_new else "ALTER"
    try:
        await schema.change(f"{create} USER %s@'%%' {how}", login, password, fine=_IS_DEFINER)
    except LoginExistsError:
        raise exists(schema, login) from None
    if is_new and "%" not in await hosts(schema, login):
        raise schema.error(
            f"the login {login!r} is gone, and an event, routine, trigger or view still runs as it, so MySQL does not "
            "create it again: drop that (information_schema shows its DEFINER), or rotate the tenant, and run it again"
        )


def exists(schema: Schema, login: str) -> ConflictError:
    """Make the error for a login that others made."""
    return ConflictError(
        f"tenant {schema.names.tenant!r}: the login {login!r} exists, and was not made for this tenant", status=409
    )


async def repair_account(schema: Schema, account: Account, connections: int) -> None:
    """Set the limit of an account that works, and that its password stays."""
    await schema.change(f"ALTER USER %s@'%%' {_limits(connections)} PASSWORD REQUIRE CURRENT", account.login)


def _limits(connections: int) -> str:
    return (
        "WITH MAX_QUERIES_PER_HOUR 0 MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 "
        f"MAX_USER_CONNECTIONS {connections}"
    )


async def drop_account(schema: Schema, login: str) -> bool:
    """Drop an account. Return False if code on the server runs as the login."""
    await schema.change("DROP USER IF EXISTS %s@'%%'", login, fine=_IS_DEFINER)
    return "%" not in await hosts(schema, login)


@asynccontextmanager
async def helper(schema: Schema, login: str, password: Secret) -> AsyncGenerator[None]:
    """Make an account of that name for our own host, which may kill the sessions of all of that name."""
    await drop_helpers(schema, login)
    ((host,),) = await schema.read("SELECT SUBSTRING_INDEX(USER(), '@', -1)")
    try:
        await schema.change(f"CREATE USER %s@%s IDENTIFIED BY %s COMMENT '{_HELPER}'", login, host, password)
        yield
    finally:
        with suppress(GrantError):  # the next run drops it
            await drop_helpers(schema, login)


async def drop_helpers(schema: Schema, login: str) -> None:
    """Drop the accounts of that name that ``helper`` made, including those of dead processes."""
    query = "SELECT Host FROM mysql.user WHERE User = %s AND User_attributes->>'$.metadata.comment' = %s"
    for (host,) in await schema.read(query, login, _HELPER):
        await schema.change("DROP USER IF EXISTS %s@%s", login, host)
