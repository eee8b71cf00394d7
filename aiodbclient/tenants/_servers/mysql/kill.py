"""End sessions, also those that resist.

An administrator without SUPER or CONNECTION_ADMIN cannot KILL the sessions of others, but a session can KILL those of
its own user name. So we log in with an account of that name for our own host::

    CREATE USER login@'our host' IDENTIFIED BY ...
    KILL ...                                                    as login@'our host', until no other session is left
    DROP USER login@'our host'

Nothing waits for connections that have not logged in: the server may keep them for as long as they like. One that began
to log in before the end may still enter, without a right.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from time import monotonic
from typing import Any, NamedTuple

from ...._masking import Secret
from ...errors import GrantError
from .. import LoginRefusedError, ServerUnreachableError, new_password
from .connection import Schema, Session

ENDING_SECONDS = 30.0  # in which sessions have to end
_PAUSE = 0.02  # s between two checks whether a killed session is gone
_MOMENT = 0.2  # s until a killed session is no longer listed, and an honest one has changed its user
_NOT_THEIRS = (1094, 1095)  # the thread is gone, or another user's by now
_NO_SESSION = (
    LoginRefusedError,
    ServerUnreachableError,
    GrantError,
)  # why a session of a login does not kill the others
_OF_ACCOUNT = "made by aiodbclient to end sessions for "  # how the comment on an account of ``kill_account`` begins
_COMMENT = "COALESCE(User_attributes->>'$.metadata.comment', '')"
_OPEN_TO_ALL = (None, "information_schema", "performance_schema")
# SHOW PROCESSLIST hangs while a session changes its user (COM_CHANGE_USER). The scheduler of events is a Daemon.
_THREADS = """
SELECT PROCESSLIST_ID, PROCESSLIST_USER, PROCESSLIST_DB, PROCESSLIST_COMMAND FROM performance_schema.threads
WHERE PROCESSLIST_USER IS NOT NULL AND NOT PROCESSLIST_COMMAND <=> 'Daemon'
"""
_CHANGING = "Change user"
# In a session of the administrator for the same schema, as the name of its program shows.
_EARLIER = """
SELECT PROCESSLIST_ID, PROCESSLIST_USER, PROCESSLIST_DB, PROCESSLIST_COMMAND FROM performance_schema.threads
JOIN performance_schema.session_account_connect_attrs USING (PROCESSLIST_ID)
WHERE ATTR_NAME = 'program_name' AND ATTR_VALUE = (
    SELECT ATTR_VALUE FROM performance_schema.session_account_connect_attrs
    WHERE ATTR_NAME = 'program_name' AND PROCESSLIST_ID = CONNECTION_ID())
"""


class Thread(NamedTuple):
    """A session of anybody."""

    number: int
    user: str
    schema: str | None
    command: str


async def threads(schema: Schema) -> list[Thread]:
    return [Thread(*row) for row in await schema.run(_THREADS)]


async def end_stale_sessions(schema: Schema) -> None:
    """End what earlier processes still run for the tenant."""

    async def earlier() -> list[Thread]:
        return [Thread(*row) for row in await schema.run(_EARLIER)]

    await _drop_kill_accounts(schema)
    left = "an earlier operation on the tenant, such as a removal that drops many tables, still runs on the server"
    await _end_threads(schema, earlier, left=left)


async def end_sessions(schema: Schema, logins: Collection[str]) -> None:
    """End all sessions of logins that are locked, whether their accounts exist or not."""
    # These began before the login was locked, so they may enter with its old password as late as they like.
    early = {number for number, *_ in await lasting(schema, f"{_THREADS} AND PROCESSLIST_COMMAND = '{_CHANGING}'")}

    async def theirs() -> list[Thread]:
        return [
            each
            for each in await threads(schema)
            if each.user in logins or (each.number in early and each.command == _CHANGING)
        ]

    await _end_threads(schema, theirs, logins)


async def end_in_schema(schema: Schema, whose: Collection[str] | None = None) -> None:
    """End every session that uses the schema, of the users ``whose``, or whosever it is."""
    if whose is not None and not whose:
        return

    async def in_schema() -> list[Thread]:
        """Return the sessions in the schema, and those whose transactions hold locks there."""
        holders = await schema.lock_holders(schema.name)
        return [
            each
            for each in await threads(schema)
            if (whose is None or each.user in whose) and (each.schema == schema.name or each.number in holders)
        ]

    await _end_threads(schema, in_schema)


async def end_elsewhere(schema: Schema, logins: Collection[str]) -> None:
    """End the sessions of logins in the schemas of others: they keep the rights that the logins had there."""

    async def elsewhere() -> list[Thread]:
        return [
            each
            for each in await threads(schema)
            if each.user in logins and each.schema not in (schema.name, *_OPEN_TO_ALL)
        ]

    await _end_threads(schema, elsewhere, logins)


async def disabled_logins_inside(schema: Schema) -> set[str]:
    """Return the logins that are ended or gone, and have a session: it began to log in before the end."""
    query = (
        "SELECT DISTINCT PROCESSLIST_USER FROM performance_schema.threads "
        "WHERE (PROCESSLIST_USER = %s OR PROCESSLIST_USER BETWEEN %s AND %s) AND PROCESSLIST_USER COLLATE utf8mb4_bin "
        "NOT IN (SELECT User FROM mysql.user WHERE Host = '%%' AND account_locked = 'N')"
    )
    found = await lasting(schema, query, schema.name, schema.names.stem, f"{schema.names.stem}g")
    return {str(user) for (user,) in found if schema.names.is_login(user) or user == schema.name}


async def lasting(schema: Schema, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows that a query finds now and a moment later."""
    found = await schema.run(query, *values)
    if found:
        await asyncio.sleep(_MOMENT)
        found = [row for row in await schema.run(query, *values) if row in found]
    return found


async def _end_threads(
    schema: Schema,
    find: Callable[[], Awaitable[Collection[Thread]]],
    logins: Collection[str] = (),
    *,
    left: str = "",
) -> None:
    """Kill the threads that ``find`` returns until it returns none, by an account of each user's name for our host."""
    until, reasons = monotonic() + ENDING_SECONDS, list[str]()
    ours, killed, passwords = {schema.session.thread_id()}, set[tuple[int, str]](), dict[str, Secret]()
    async with AsyncExitStack() as kill_accounts:
        while found := [each for each in await find() if each.number not in ours]:
            if monotonic() > until:
                users = ", ".join(sorted({repr(each.user) for each in found}))
                what = left or f"sessions of {users} did not end within {ENDING_SECONDS:.0f} seconds"
                reasons += [f"thread {each.number} ({each.command})" for each in found]
                raise schema.error(f"{what}: {', '.join(reasons[:5])}; run it again later")
            reasons = []
            resisting = [each for each in found if (each.number, each.user) not in killed]
            for user in sorted({each.user for each in resisting}):
                of_user = [each for each in resisting if each.user == user]
                try:
                    if user == schema.session.user:
                        await _kill(schema.session, of_user)
                    else:
                        if not schema.names.is_ours(user) and user not in logins:
                            schema.tenant.others_ended.add(user)
                        if user not in passwords:
                            passwords[user] = await kill_accounts.enter_async_context(kill_account(schema, user))
                        async with aclosing(await schema.log_in(user, passwords[user])) as own:
                            ours.add(own.thread_id())
                            await _kill(own, of_user)
                    killed |= {(each.number, each.user) for each in of_user}
                except _NO_SESSION as error:  # a session of the user killed ours, for example
                    if isinstance(error, LoginRefusedError):  # the work on another tenant dropped the account
                        del passwords[user]
                    reasons.append(str(error))
            await asyncio.sleep(_PAUSE)


async def _kill(session: Session, of_user: Iterable[Thread]) -> None:
    for thread in of_user:
        await session.rows("KILL %s", thread.number, fine=_NOT_THEIRS)


@asynccontextmanager
async def kill_account(schema: Schema, login: str) -> AsyncGenerator[Secret]:
    """Make an account of that name for our own host, which may kill the sessions of all of that name."""
    await _drop_kill_accounts(schema, login)
    ((host,),) = await schema.run("SELECT SUBSTRING_INDEX(USER(), '@', -1)")
    password = new_password()
    try:
        comment = f"{_OF_ACCOUNT}{schema.name}"
        await schema.run("CREATE USER %s@%s IDENTIFIED BY %s COMMENT %s", login, host, password, comment)
        yield password
    finally:
        with suppress(GrantError):  # ``end_stale_sessions`` drops it
            await _drop_kill_accounts(schema, login)


async def _drop_kill_accounts(schema: Schema, login: str | None = None) -> None:
    """Drop the accounts of ``kill_account`` for ``login``, or those that earlier work on this tenant left."""
    # While one is there, nobody of that name can log in from its host.
    query = f"SELECT User, Host, {_COMMENT} FROM mysql.user WHERE Host <> '%%' AND {_COMMENT} LIKE %s"
    for user, host, comment in await schema.run(query, f"{_OF_ACCOUNT}%"):
        if user == login or (login is None and comment == f"{_OF_ACCOUNT}{schema.name}"):
            await schema.run("DROP USER IF EXISTS %s@%s", user, host)
