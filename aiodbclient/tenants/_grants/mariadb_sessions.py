"""End every session of an account on MariaDB, from a session of that account. See ``mysql_sessions.py``.

Our own session has no limit of one statement an hour: the account has no limit when we log in, and the server does not
change the limits of open sessions::

    GRANT USAGE ON *.* TO login WITH MAX_QUERIES_PER_HOUR 1     from here on, open sessions can run nothing
    ALTER USER login IDENTIFIED BY ... ACCOUNT LOCK             otherwise a session that set one could log in now
    ALTER USER login WITH MAX_QUERIES_PER_HOUR 0 MAX_USER_CONNECTIONS 0 ACCOUNT UNLOCK
    ALTER USER login ACCOUNT LOCK                               after we have logged in
    KILL ...                                                    in our session, until no other is left
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic
from typing import NamedTuple

import pymysql

from . import LoginRefusedError, ServerAwayError
from .mysql_server import MySQLSession, quoted, reason_of
from .mysql_sessions import END_SECONDS, PAUSE, LogIn, kill_others, limit, new_password, not_ended

# s until a statement that was running when the account was locked has ended. One that sets a password after that would
# let a session in that no limit reaches, because the account has none while we log in.
_RUNNING = 0.15


class Password(NamedTuple):
    """The password of an account, as the server stores it."""

    plugin: str
    digest: str


async def end_on_mariadb(
    server: MySQLSession, log_in: LogIn, tenant: str, username: str, *, kept: Password | None = None
) -> None:
    """End the sessions of an account. Afterwards it has no limits and a random password that is not stored.

    Args:
        server: The administrator's session.
        log_in: Logs in with a user and a password.
        tenant: The tenant of the account.
        username: The account.
        kept: A password that stays valid. Sessions that are opened meanwhile then stay open. None: lock the account.

    Raises:
        GrantError: Sessions are left after some seconds, or the server refused a statement.
    """
    lock, password, reason, until = kept is None, "", "", monotonic() + END_SECONDS
    while monotonic() < until:
        await limit(server, tenant, username, queries=1, connections=0)
        if not password:
            password = new_password()
            if not await _stays(server, tenant, username, password, kept):
                reason, password = "a session of it sets another password", ""
                continue
        await server.rows(
            tenant,
            "ALTER USER %s@'%%' WITH MAX_QUERIES_PER_HOUR 0 MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 "
            "MAX_USER_CONNECTIONS 0 ACCOUNT UNLOCK",
            username,
        )
        try:
            async with log_in(username, password) as own:
                if lock:
                    await server.rows(tenant, "ALTER USER %s@'%%' ACCOUNT LOCK", username)
                if await kill_others(own, username, until, later=lock):
                    return
                reason = "they are still ending"
        except LoginRefusedError as refused:  # a session of the login may have set another password
            reason, password = str(refused), ""
        except ServerAwayError as away:
            reason = str(away)
        except pymysql.Error as error:  # a session of the login may have killed ours
            reason = reason_of(error)
        await asyncio.sleep(PAUSE)
    if lock:
        await server.rows(tenant, "ALTER USER %s@'%%' ACCOUNT LOCK", username)
    raise not_ended(tenant, username, reason)


async def _stays(server: MySQLSession, tenant: str, username: str, password: str, kept: Password | None) -> bool:
    """Set a password, lock the account, and check whether a statement that was already running sets another one."""
    how, values = "BY %s", [password]
    if kept is not None:  # the first one, so that the next process finds it where it was if this one is killed
        how = f"VIA {quoted(kept.plugin)} USING %s OR mysql_native_password USING PASSWORD(%s)"
        values = [kept.digest, password]
    change = "ALTER USER %s@'%%' IDENTIFIED "
    await server.rows(
        tenant, f"{change}{how} ACCOUNT LOCK", username, *values, shown=change % repr(username) + "BY '...'"
    )
    read = "SELECT authentication_string FROM mysql.user WHERE User = %s AND Host = '%%'"
    before = await server.rows(tenant, read, username)
    await asyncio.sleep(_RUNNING)
    return await server.rows(tenant, read, username) == before


@asynccontextmanager
async def account(server: MySQLSession, tenant: str, username: str) -> AsyncGenerator[None]:
    """Recreate a dropped account without rights, and drop it at the end."""
    await server.rows(tenant, "CREATE USER IF NOT EXISTS %s@'%%' ACCOUNT LOCK", username)
    try:
        yield
    finally:
        await server.rows(tenant, "DROP USER IF EXISTS %s@'%%'", username)


@asynccontextmanager
async def kept_password(server: MySQLSession, tenant: str, username: str) -> AsyncGenerator[Password]:
    """Yield the password of an account, whose digest the administrator can read, and restore it at the end."""
    read = "SELECT plugin, authentication_string FROM mysql.user WHERE User = %s AND Host = '%%'"
    [password] = [Password(*row) for row in await server.rows(tenant, read, username)]
    change = f"ALTER USER %s@'%%' IDENTIFIED VIA {quoted(password.plugin)} USING "
    try:
        yield password
    finally:
        await server.rows(tenant, f"{change}%s", username, password.digest, shown=change % repr(username) + "'...'")
