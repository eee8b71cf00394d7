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

On MariaDB, sessions belong to an account. Our own session has no limit of one statement an hour: the account has no
limit when we log in, and the server does not change the limits of open sessions::

    GRANT USAGE ON *.* TO login WITH MAX_QUERIES_PER_HOUR 1     from here on, open sessions can run nothing
    ALTER USER login IDENTIFIED BY ... ACCOUNT LOCK             otherwise a session that set one could log in now
    ALTER USER login WITH MAX_QUERIES_PER_HOUR 0 MAX_USER_CONNECTIONS 0 ACCOUNT UNLOCK
    ALTER USER login ACCOUNT LOCK                               after we have logged in
    KILL ...                                                    in our session, until no other is left
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic
from typing import Any

from ...errors import GrantError
from .._credential import Secret
from . import LoginRefusedError, ServerAwayError
from .mysql_accounts import HELPER, Password, drop_helpers, limit, lock
from .mysql_server import MySQLSession, Work, quoted

_END_SECONDS = 20.0  # how long to repeat ending the sessions
_PAUSE = 0.02  # s between two checks whether a killed session is gone
_NO_SUCH_THREAD = 1094
_EVENT = "Connect"  # the command of a thread that runs an event; those continue
_PENDING = "unauthenticated user"  # the user of a connection that logs in, on MySQL
_KILLED = "Killed"  # the command of a thread that ends with its statement
_PATIENCE = 2.0  # s to wait for such a thread
# s until a statement that was running when the account was locked has ended. One that sets a password after that would
# let a session in that no limit reaches, because the account has none while we log in.
_RUNNING = 0.15

LogIn = Callable[[str, Secret], AbstractAsyncContextManager[MySQLSession]]


async def end_on_mysql(work: Work, log_in: LogIn, username: str, *, later: bool = True) -> None:
    """End the sessions of a login on MySQL, even of a deleted one; if ``later``, also those opened meanwhile."""
    ((host,),) = await work.rows("SELECT SUBSTRING_INDEX(USER(), '@', -1)")
    password, reason, until = _new_password(), "", monotonic() + _END_SECONDS
    await drop_helpers(work, username)
    try:
        # Once: while procedures of the login kill our sessions, a statement on accounts may wait for all that time.
        await work.rows(f"CREATE USER %s@%s IDENTIFIED BY %s COMMENT '{HELPER}'", username, host, password)
        while monotonic() < until:
            try:
                async with log_in(username, password) as own:
                    if await _kill_others(work, own, username, until, later=later):
                        return
                    reason = "they are still ending"
            except (LoginRefusedError, ServerAwayError, GrantError) as error:  # a session of the login killed ours
                reason = str(error)
            await asyncio.sleep(_PAUSE)
    finally:
        with suppress(GrantError):  # the next run drops it
            await drop_helpers(work, username)
    raise _not_ended(work, username, reason)


async def end_on_mariadb(work: Work, log_in: LogIn, username: str, *, kept: Password | None = None) -> None:
    """End the sessions of an account, and lock it with a random password; with ``kept``, unlock it and do neither.

    Sessions that are opened meanwhile then stay open. Afterwards the account has no limits.
    """
    password, reason, until = Secret(), "", monotonic() + _END_SECONDS
    while monotonic() < until:
        await limit(work, username, queries=1, connections=0)
        if not password:
            password = _new_password()
            if not await _stays(work, username, password, kept):
                reason, password = "a session of it sets another password", Secret()
                continue
        await work.rows(
            "ALTER USER %s@'%%' WITH MAX_QUERIES_PER_HOUR 0 MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 "
            "MAX_USER_CONNECTIONS 0 ACCOUNT UNLOCK",
            username,
        )
        try:
            async with log_in(username, password) as own:
                if kept is None:
                    await lock(work, username)
                if await _kill_others(work, own, username, until, later=kept is None):
                    return
                reason = "they are still ending"
        except LoginRefusedError as refused:  # a session of the login may have set another password
            reason, password = str(refused), Secret()
        except (ServerAwayError, GrantError) as error:  # a session of the login may have killed ours
            reason = str(error)
        await asyncio.sleep(_PAUSE)
    if kept is None:
        await lock(work, username)
    raise _not_ended(work, username, reason)


async def _stays(work: Work, username: str, password: Secret, kept: Password | None) -> bool:
    """Set a password, lock the account, and check whether a statement that was already running sets another one."""
    how, values = "BY %s", [password]
    if kept is not None:  # the first one, so that the next process finds it where it was if this one is killed
        how = f"VIA {quoted(kept.plugin)} USING %s OR mysql_native_password USING PASSWORD(%s)"
        values = [kept.digest, password]
    await work.rows(f"ALTER USER %s@'%%' IDENTIFIED {how} ACCOUNT LOCK", username, *values)
    read = "SELECT authentication_string FROM mysql.user WHERE User = %s AND Host = '%%'"
    before = await work.rows(read, username)
    await asyncio.sleep(_RUNNING)
    return await work.rows(read, username) == before


async def has_sessions(work: Work, username: str) -> bool:
    """Whether the login may have sessions: the administrator sees one, or may not see those of others."""
    grants = await work.rows("SHOW GRANTS")
    if not any(re.match(r"GRANT .*\b(PROCESS|ALL PRIVILEGES)\b.* ON \*\.\* TO ", line) for (line,) in grants):
        return True
    return any(user == username for _, user, _ in await work.server.threads())


async def _kill_others(work: Work, own: MySQLSession, username: str, until: float, *, later: bool) -> bool:
    """Kill the other sessions of a user from its session ``own``, and return whether none can begin a statement.

    The server does not interrupt some statements, such as DROP DATABASE. A session in one of these ends with the
    statement, so this waits for it only some seconds. On MySQL only the administrator sees the threads of events.

    MySQL reads the account when a client begins to log in. Whoever began before ``own`` may still enter a locked
    account, until the server ends the connection after its ``connect_timeout`` (10 s).
    """
    patience = monotonic() + _PATIENCE
    # Before our session runs anything else: a procedure may look for it, to kill it.
    await _kill(own, await work.server.threads(), username, later=later)
    while monotonic() < until:
        threads = [*await own.threads(), *await work.server.threads()]
        pending = later and any(user == _PENDING and thread < own.thread for thread, user, _ in threads)
        killed = await _kill(own, threads, username, later=later)
        left = [command for command in killed if command != _EVENT]
        if not pending and (not left or (monotonic() > patience and all(command == _KILLED for command in left))):
            return True
        await asyncio.sleep(_PAUSE)
    return False


async def _kill(
    own: MySQLSession, threads: list[tuple[int, str, str]], username: str, *, later: bool
) -> Collection[str]:
    """Kill those of the threads that are other sessions of the user, and return their commands."""
    others = {
        thread: command
        for thread, user, command in threads
        if user == username and thread != own.thread and (later or thread < own.thread)
    }
    for thread in others:
        await own.rows("KILL %s", thread, fine=(_NO_SUCH_THREAD,))
    return others.values()


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


def _new_password() -> Secret:
    """Return a random password that fulfils the password policies of servers."""
    return Secret("Aa1!" + secrets.token_urlsafe(24))


def _not_ended(work: Work, username: str, reason: str) -> GrantError:
    return work.error(
        f"sessions of the login {username!r} did not end within {_END_SECONDS:.0f} seconds{reason and ': '}{reason}; "
        "run it again",
    )
