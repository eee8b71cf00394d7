"""End every session of a MySQL account, also against sessions that fight back.

An administrator without SUPER cannot KILL the sessions of others. A session may KILL those of its own account. So this
locks the account and kills from a session of the account itself. A hostile session can meanwhile set another password,
or kill ours. A limit of one statement an hour stops it: the server applies that to the sessions that are open, and the
session that we open next has no limit, because the account has none by then::

    GRANT USAGE ON *.* TO login WITH MAX_QUERIES_PER_HOUR 1     open sessions may run nothing from here on
    ALTER USER login WITH MAX_QUERIES_PER_HOUR 0 MAX_USER_CONNECTIONS 0 ACCOUNT UNLOCK
    ALTER USER login ACCOUNT LOCK                               after our session has logged in
    KILL ...                                                    in our session, until no other is left
    GRANT USAGE ON *.* TO login WITH MAX_QUERIES_PER_HOUR 0 MAX_USER_CONNECTIONS n

MySQL has no limits in GRANT. There ALTER USER sets them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import monotonic

import pymysql

from ...errors import GrantError
from . import LoginRefusedError, ServerAwayError
from .mysql_server import MySQLSession, quoted, reason_of

_SECONDS = 20.0  # for which sessions are ended again and again
_PAUSE = 0.02  # s between two looks whether a killed session is gone
_NO_SUCH_THREAD = 1094
_EVENT = "Connect"  # the command of a thread that runs an event; those go on

LogIn = Callable[[str, str], AbstractAsyncContextManager[MySQLSession]]


async def limit(server: MySQLSession, tenant: str, username: str, *, queries: int, connections: int) -> None:
    """Set the limits of an account, for its open sessions too.

    Args:
        server: The administrator's session.
        tenant: The tenant that the account is of.
        username: The account.
        queries: Statements an hour; 0 for no limit.
        connections: Connections at a time; 0 for no limit.
    """
    how = f"WITH MAX_QUERIES_PER_HOUR {queries} MAX_USER_CONNECTIONS {connections}"
    if server.is_mariadb:  # ALTER USER leaves the limits of open sessions as they are
        await server.rows(tenant, f"GRANT USAGE ON *.* TO %s@'%%' {how}", username)
    else:
        await server.rows(tenant, f"ALTER USER %s@'%%' {how}", username)


async def end_sessions(
    server: MySQLSession, log_in: LogIn, tenant: str, username: str, password: str | None, *, lock: bool, limited: int
) -> None:
    """End every session of an account.

    Args:
        server: The administrator's session.
        log_in: Logs in with a user and a password.
        tenant: The tenant that the account is of.
        username: The account.
        password: Its password. None: it is not known, so it is replaced.
        lock: Whether the account is locked afterwards.
        limited: Connections at a time that the account may have afterwards.

    Raises:
        GrantError: Sessions are left after some seconds, or a statement was refused.
    """
    try:
        await _end(server, log_in, tenant, username, password, lock=lock)
    except BaseException:
        with suppress(GrantError):  # the connection may be closed: then the next run does it
            await limit(server, tenant, username, queries=0, connections=limited)
        raise
    await limit(server, tenant, username, queries=0, connections=limited)


async def end_orphans(server: MySQLSession, log_in: LogIn, tenant: str, username: str) -> None:
    """End the sessions of an account that was dropped: make it again without rights, kill from it, and drop it."""
    if not await has_sessions(server, tenant, username):
        return
    await server.rows(tenant, "CREATE USER IF NOT EXISTS %s@'%%' ACCOUNT LOCK", username)
    try:
        await end_sessions(server, log_in, tenant, username, None, lock=True, limited=0)
    finally:
        await server.rows(tenant, "DROP USER IF EXISTS %s@'%%'", username)


@asynccontextmanager
async def kept_password(server: MySQLSession, tenant: str, username: str) -> AsyncGenerator[None]:
    """Give an account at the end the password that it has now. The administrator reads and writes only its hash."""
    read = "SELECT plugin, HEX(authentication_string) FROM mysql.user WHERE User = %s AND Host = '%%'"
    ((plugin, digest),) = await server.rows(tenant, read, username)
    try:
        yield
    finally:
        secret = bytes.fromhex(digest)
        if server.is_mariadb:
            how, value = f"VIA {quoted(plugin)} USING", secret.decode()
            placeholder = "%s"
        else:  # it may have bytes that are no text
            how, value, placeholder = f"WITH {quoted(plugin)} AS", "", f"0x{digest}"
        change = f"ALTER USER %s@'%%' IDENTIFIED {how} "
        await server.rows(
            tenant, change + placeholder, username, *filter(None, [value]), shown=change % repr(username) + "'...'"
        )


async def has_sessions(server: MySQLSession, tenant: str, username: str) -> bool:
    """Whether the administrator sees a session of that account."""
    return any(row[1] == username for row in await server.rows(tenant, "SHOW PROCESSLIST"))


async def _end(
    server: MySQLSession, log_in: LogIn, tenant: str, username: str, password: str | None, *, lock: bool
) -> None:
    reason, until = "", monotonic() + _SECONDS
    while monotonic() < until:
        await limit(server, tenant, username, queries=1, connections=0)
        if password is None:
            password = "Aa1!" + secrets.token_urlsafe(24)  # what the policies of servers ask for is in it
            change = "ALTER USER %s@'%%' IDENTIFIED BY "
            await server.rows(tenant, f"{change}%s", username, password, shown=change % repr(username) + "'...'")
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
                if await _kill_others(own, username, until):
                    return
                reason = "they are still ending"
        except LoginRefusedError as refused:  # a session of the login may have set another password
            reason, password = str(refused), None
        except ServerAwayError as away:
            reason = str(away)
        except pymysql.Error as error:  # a session of the login may have killed ours
            reason = reason_of(error)
        await asyncio.sleep(_PAUSE)
    if lock:
        await server.rows(tenant, "ALTER USER %s@'%%' ACCOUNT LOCK", username)
    raise GrantError(
        f"tenant {tenant!r}: sessions of the login {username!r} did not end within {_SECONDS:.0f} seconds: {reason}; "
        "run it again",
        tenant=tenant,
    )


async def _kill_others(own: MySQLSession, username: str, until: float) -> bool:
    """Kill the other sessions of the account of ``own``. Returns whether none was left before ``until``."""
    ((mine,),) = await own.raw("SELECT CONNECTION_ID()")
    while monotonic() < until:
        others = [row for row in await own.raw("SHOW PROCESSLIST") if row[0] != mine and row[1] == username]
        for row in others:
            try:
                await own.raw("KILL %s", row[0])
            except pymysql.Error as error:
                if not error.args or error.args[0] != _NO_SUCH_THREAD:
                    raise
        if all(row[4] == _EVENT for row in others):
            return True
        await asyncio.sleep(_PAUSE)
    return False
