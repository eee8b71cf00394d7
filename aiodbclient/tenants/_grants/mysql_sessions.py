"""End every session of a login on MySQL or MariaDB, even if they resist.

An administrator without SUPER or CONNECTION_ADMIN cannot KILL the sessions of others, but a session can KILL those of
its own user. So we open one. Meanwhile the other sessions could set another password, or kill ours. A limit of one
statement an hour stops them, because the server applies it to open sessions too.

On MySQL, sessions belong to a user name. There we log in with an account of that name for our own host::

    ALTER USER login@'%' WITH MAX_QUERIES_PER_HOUR 1            from here on, open sessions can run nothing
    ALTER USER login@'%' ACCOUNT LOCK
    CREATE USER login@'our host' IDENTIFIED BY ...
    KILL ...                                                    as login@'our host', until no other session is left
    DROP USER login@'our host'
    ALTER USER login@'%' WITH MAX_QUERIES_PER_HOUR 0 MAX_USER_CONNECTIONS n

On MariaDB, sessions belong to an account. See ``mariadb_sessions.py``.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic
from typing import Any

import pymysql

from ...errors import GrantError
from . import LoginRefusedError, ServerAwayError
from .mysql_server import MySQLSession, reason_of

END_SECONDS = 20.0  # how long to repeat ending the sessions
PAUSE = 0.02  # s between two checks whether a killed session is gone
_NO_SUCH_THREAD = 1094
_EVENT = "Connect"  # the command of a thread that runs an event; those continue
_KILLED = "Killed"  # the command of a thread that ends with its statement
_PATIENCE = 2.0  # s to wait for such a thread
_COMMENT = "made by aiodbclient to end the sessions of this user"

LogIn = Callable[[str, str], AbstractAsyncContextManager[MySQLSession]]


async def limit(server: MySQLSession, tenant: str, username: str, *, queries: int, connections: int) -> None:
    """Set the limits of a login, including its open sessions.

    Args:
        server: The administrator's session.
        tenant: The tenant of the login.
        username: The login.
        queries: Statements an hour; 0 for no limit.
        connections: Connections at a time; 0 for no limit.
    """
    how = f"WITH MAX_QUERIES_PER_HOUR {queries} MAX_USER_CONNECTIONS {connections}"
    if server.is_mariadb:  # MariaDB's ALTER USER does not change open sessions, and MySQL's GRANT has no limits
        await server.rows(tenant, f"GRANT USAGE ON *.* TO %s@'%%' {how}", username)
    else:
        await server.rows(tenant, f"ALTER USER %s@'%%' {how}", username)


async def end_on_mysql(server: MySQLSession, log_in: LogIn, tenant: str, username: str, *, later: bool = True) -> None:
    """End the sessions of all accounts of that name on MySQL.

    Args:
        server: The administrator's session.
        log_in: Logs in with a user and a password.
        tenant: The tenant of the login.
        username: The login. It may already be deleted.
        later: Whether to also end sessions that are opened meanwhile.

    Raises:
        GrantError: Sessions are left after some seconds, or the server refused a statement.
    """
    ((host,),) = await server.rows(tenant, "SELECT SUBSTRING_INDEX(USER(), '@', -1)")
    reason, until = "", monotonic() + END_SECONDS
    try:
        while monotonic() < until:
            password = new_password()
            await drop_helpers(server, tenant, username)
            make = f"CREATE USER %s@%s IDENTIFIED BY '...' COMMENT '{_COMMENT}'"
            await server.rows(
                tenant, make.replace("'...'", "%s"), username, host, password, shown=make % (username, host)
            )
            try:
                async with log_in(username, password) as own:
                    if await kill_others(own, username, until, later=later):
                        return
                    reason = "they are still ending"
            except (LoginRefusedError, ServerAwayError) as error:
                reason = str(error)
            except pymysql.Error as error:  # a session of the login may have killed ours
                reason = reason_of(error)
            await asyncio.sleep(PAUSE)
    finally:
        with suppress(GrantError):  # the next run drops it
            await drop_helpers(server, tenant, username)
    raise not_ended(tenant, username, reason)


async def drop_helpers(server: MySQLSession, tenant: str, username: str) -> None:
    """Drop the accounts of that name that ``end_on_mysql`` made, including those of dead processes."""
    if server.is_mariadb:
        return
    query = "SELECT Host FROM mysql.user WHERE User = %s AND User_attributes->>'$.metadata.comment' = %s"
    for (host,) in await server.rows(tenant, query, username, _COMMENT):
        await server.rows(tenant, "DROP USER IF EXISTS %s@%s", username, host)


async def has_sessions(server: MySQLSession, tenant: str, username: str) -> bool:
    """Whether the login may have sessions: the administrator sees one, or may not see those of others."""
    grants = await server.rows(tenant, "SHOW GRANTS")
    if not any(re.match(r"GRANT .*\b(PROCESS|ALL PRIVILEGES)\b.* ON \*\.\* TO ", line) for (line,) in grants):
        return True
    return any(row[1] == username for row in await server.rows(tenant, "SHOW PROCESSLIST"))


async def kill_others(own: MySQLSession, username: str, until: float, *, later: bool = True) -> bool:
    """Kill the other sessions of a user from its session ``own``.

    The server does not interrupt some statements, such as DROP DATABASE. A session in one of these ends with the
    statement, so this waits for it only some seconds.

    Args:
        own: A session of the user.
        username: The user.
        until: When to give up.
        later: Whether to also kill sessions that were opened after ``own``.

    Returns:
        Whether no other session can begin a statement.
    """
    ((mine,),) = await own.raw("SELECT CONNECTION_ID()")
    patience = monotonic() + _PATIENCE
    while monotonic() < until:
        others = [
            row
            for row in await own.raw("SHOW PROCESSLIST")
            if row[1] == username and row[0] != mine and (later or row[0] < mine)
        ]
        for row in others:
            try:
                await own.raw("KILL %s", row[0])
            except pymysql.Error as error:
                if not error.args or error.args[0] != _NO_SUCH_THREAD:
                    raise
        left = [row[4] for row in others if row[4] != _EVENT]
        if not left or (monotonic() > patience and all(command == _KILLED for command in left)):
            return True
        await asyncio.sleep(PAUSE)
    return False


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` to its end, even if this is cancelled: half done, it would leave an unusable login."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not warn
        raise cancelled
    await task


def new_password() -> str:
    """Return a random password that fulfils the password policies of servers."""
    return "Aa1!" + secrets.token_urlsafe(24)


def not_ended(tenant: str, username: str, reason: str) -> GrantError:
    """Make the error for sessions that did not end."""
    return GrantError(
        f"tenant {tenant!r}: sessions of the login {username!r} did not end within {END_SECONDS:.0f} seconds"
        f"{reason and ': '}{reason}; run it again",
        tenant=tenant,
    )
