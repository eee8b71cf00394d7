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
from time import monotonic

from ...errors import GrantError
from .._credential import Secret
from . import LoginRefusedError, ServerAwayError
from .mysql_accounts import Password, limit, lock
from .mysql_server import Work, quoted
from .mysql_sessions import END_SECONDS, PAUSE, LogIn, kill_others, new_password, not_ended

# s until a statement that was running when the account was locked has ended. One that sets a password after that would
# let a session in that no limit reaches, because the account has none while we log in.
_RUNNING = 0.15


async def end_on_mariadb(work: Work, log_in: LogIn, username: str, *, kept: Password | None = None) -> None:
    """End the sessions of an account, and lock it with a random password; with ``kept``, unlock it and do neither.

    Sessions that are opened meanwhile then stay open. Afterwards the account has no limits.
    """
    password, reason, until = Secret(), "", monotonic() + END_SECONDS
    while monotonic() < until:
        await limit(work, username, queries=1, connections=0)
        if not password:
            password = new_password()
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
                if await kill_others(work, own, username, until, later=kept is None):
                    return
                reason = "they are still ending"
        except LoginRefusedError as refused:  # a session of the login may have set another password
            reason, password = str(refused), Secret()
        except (ServerAwayError, GrantError) as error:  # a session of the login may have killed ours
            reason = str(error)
        await asyncio.sleep(PAUSE)
    if kept is None:
        await lock(work, username)
    raise not_ended(work, username, reason)


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
