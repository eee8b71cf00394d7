"""The accounts of a tenant's logins, and everything that a statement sets on one: password, limits, lock.

::

    CREATE USER login IDENTIFIED BY ... WITH MAX_USER_CONNECTIONS n PASSWORD REQUIRE CURRENT

A new account has no rights. The login can change neither the limit nor the clause, and no session of it can set another
password without the current one. MariaDB has no such clause, so there a session may set a password at any time.

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
from .leftovers import has_code
from .session import LoginExistsError, Schema

_HELPER = "made by aiodbclient to end the sessions of this user"  # the comment on an account of ``helper``
_IS_DEFINER = (4006,)


@frozen
class Account:
    """The account of a login."""

    login: str
    is_locked: bool
    connections: int  # at a time; 0 is no limit
    keeps_password: bool  # a session needs the current password to set another one; always on MariaDB
    is_ours: bool  # the API makes the others, without a limit


async def accounts(schema: Schema, logins: Collection[str]) -> dict[str, Account]:
    """Return the existing accounts of these logins."""
    on_mariadb = schema.session.is_mariadb
    if on_mariadb:
        query = (
            "SELECT User, COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0), "
            "COALESCE(JSON_VALUE(Priv, '$.max_user_connections'), 0), 1 FROM mysql.global_priv"
        )
    else:
        query = (
            "SELECT User, account_locked = 'Y', max_user_connections, COALESCE(Password_require_current, 'N') = 'Y' "
            "FROM mysql.user"
        )
    names = sorted(logins)
    query += f" WHERE Host = '%%' AND User IN ({', '.join(['%s'] * len(names))})"
    rows = await schema.read(query, *names)
    return {
        str(login): Account(
            str(login), bool(int(locked)), int(most), bool(keeps), bool(int(most) or (keeps and not on_mariadb))
        )
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
    how = f"IDENTIFIED BY %s REQUIRE NONE {_limits(connections)}"
    if schema.session.is_mariadb:
        how += " ACCOUNT UNLOCK"
    else:
        how += " PASSWORD REQUIRE CURRENT ACCOUNT UNLOCK"
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


async def mend_account(schema: Schema, account: Account, connections: int) -> None:
    """Set the limit of an account that works, and that its password stays."""
    await limit(schema, account.login, connections=connections)
    if not schema.session.is_mariadb:
        await schema.change("ALTER USER %s@'%%' PASSWORD REQUIRE CURRENT", account.login)


async def lock(schema: Schema, login: str) -> None:
    """Let nobody log in."""
    await schema.change("ALTER USER %s@'%%' ACCOUNT LOCK", login)


async def limit(schema: Schema, login: str, *, connections: int, queries: int = 0) -> None:
    """Set the limits of a login, including its open sessions: connections at a time, statements an hour; 0 is none."""
    how = _limits(connections, queries)
    if schema.session.is_mariadb:  # MariaDB's ALTER USER does not change open sessions, and MySQL's GRANT has no limits
        await schema.change(f"GRANT USAGE ON *.* TO %s@'%%' {how}", login)
    else:
        await schema.change(f"ALTER USER %s@'%%' {how}", login)


def _limits(connections: int, queries: int = 0) -> str:
    return (
        f"WITH MAX_QUERIES_PER_HOUR {queries} MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 "
        f"MAX_USER_CONNECTIONS {connections}"
    )


async def drop_account(schema: Schema, login: str) -> bool:
    """Drop an account. Return False if code on the server runs as the login."""
    if schema.session.is_mariadb:
        if await has_code(schema, login):
            return False
        await schema.change("DROP USER IF EXISTS %s@'%%'", login)
        return True
    await schema.change("DROP USER IF EXISTS %s@'%%'", login, fine=_IS_DEFINER)
    return "%" not in await hosts(schema, login)


@asynccontextmanager
async def helper(schema: Schema, login: str, password: Secret) -> AsyncGenerator[None]:
    """On MySQL: make an account of that name for our own host, which may kill the sessions of all of that name."""
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
    if schema.session.is_mariadb:
        return
    query = "SELECT Host FROM mysql.user WHERE User = %s AND User_attributes->>'$.metadata.comment' = %s"
    for (host,) in await schema.read(query, login, _HELPER):
        await schema.change("DROP USER IF EXISTS %s@%s", login, host)
