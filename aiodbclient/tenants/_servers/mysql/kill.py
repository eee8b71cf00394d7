"""End logins and sessions, also those that resist.

A login that ends loses its rights first, so who enters later, or resists, can do nothing. A limit of one statement an
hour stops its open sessions, because the server applies it to them too. Then they are killed. Each step is done for all
logins before the next step. So a login that resists does not protect the others.

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
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

from ...._masking import Secret
from ...errors import GrantError
from .. import LoginRefusedError, ServerUnreachableError, new_password
from .accounts import accounts
from .connection import LockedError, Schema, Session
from .rights import set_rights

ENDING_SECONDS = 30.0  # in which sessions have to end
_PAUSE = 0.02  # s between two checks whether a killed session is gone
_MOMENT = 0.2  # s until a killed session is no longer listed, and an honest one has changed its user
_NOT_THEIRS = (1094, 1095)  # the thread is gone, or another user's by now
# Why a session of a login does not kill the others.
_NO_SESSION = (LoginRefusedError, ServerUnreachableError, GrantError)
_OF_ACCOUNT = "made by aiodbclient to end sessions for "  # how the comment on an account of ``kill_account`` begins
_COMMENT = "COALESCE(User_attributes->>'$.metadata.comment', '')"
_OPEN_TO_ALL = (None, "information_schema", "performance_schema")
# SHOW PROCESSLIST hangs while a session changes its user (COM_CHANGE_USER). The scheduler of events is a Daemon.
_THREADS = """
SELECT PROCESSLIST_ID, PROCESSLIST_USER, PROCESSLIST_DB, PROCESSLIST_COMMAND, THREAD_ID IN (
    SELECT OWNER_THREAD_ID FROM performance_schema.metadata_locks
    WHERE OBJECT_SCHEMA COLLATE utf8mb4_bin = %s AND LOCK_STATUS = 'GRANTED')
FROM performance_schema.threads WHERE PROCESSLIST_USER IS NOT NULL AND NOT PROCESSLIST_COMMAND <=> 'Daemon'
"""
_CHANGING = "Change user"
_CHANGERS = "SELECT PROCESSLIST_ID FROM performance_schema.threads WHERE PROCESSLIST_COMMAND = %s"
# In a session of the administrator for the same schema, as the name of its program shows.
_EARLIER = """
SELECT PROCESSLIST_ID FROM performance_schema.session_account_connect_attrs
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
    has_locks: bool  # in the tenant's schema


async def end_stale_sessions(schema: Schema) -> None:
    """End what earlier processes still run for the tenant."""
    await _drop_kill_accounts(schema)
    earlier = {number for (number,) in await schema.run(_EARLIER)}
    left = "an earlier operation on the tenant, such as a removal that drops many tables, still runs on the server"
    await _end_threads(schema, lambda each: each.number in earlier, left=left)


async def end(schema: Schema, logins: Collection[str]) -> None:
    """Revoke all rights of logins, lock them, and end their sessions, also those of logins that are gone."""
    if not logins:
        return
    existing = [login for login in await accounts(schema, logins) if login in logins]
    failed = list[GrantError]()
    for step in (partial(set_rights, schema, wanted=frozenset()), partial(_lock, schema)):
        for login in existing:
            try:
                await step(login)
            except LockedError:  # so are the accounts of all
                raise
            except GrantError as error:
                failed.append(error)
    # These began before the login was locked, so they may enter with its old password as late as they like.
    early = {number for (number,) in await lasting(schema, _CHANGERS, _CHANGING)}
    try:
        await _end_threads(
            schema,
            lambda each: each.user in logins or (each.number in early and each.command == _CHANGING),
            logins,
        )
    except GrantError as error:
        failed.append(error)
    if failed:
        raise failed[0]


async def _lock(schema: Schema, login: str) -> None:
    """Lock an account with another password, and stop its open sessions: each may run one statement an hour."""
    limits = f"WITH MAX_QUERIES_PER_HOUR 1 MAX_USER_CONNECTIONS {schema.most} ACCOUNT LOCK"
    await schema.run(f"ALTER USER %s@'%%' IDENTIFIED BY %s {limits}", login, new_password())


async def end_in_schema(schema: Schema, spared: Collection[str] = ()) -> None:
    """End the sessions that are in the schema or hold locks there, except those of the users ``spared``."""
    await _end_threads(schema, lambda each: (each.schema == schema.name or each.has_locks) and each.user not in spared)


async def end_elsewhere(schema: Schema, logins: Collection[str]) -> None:
    """End the sessions of logins in the schemas of others: they keep the rights that the logins had there."""
    open_to_them = (schema.name, *_OPEN_TO_ALL)
    await _end_threads(schema, lambda each: each.user in logins and each.schema not in open_to_them, logins)


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
    schema: Schema, is_theirs: Callable[[Thread], bool], logins: Collection[str] = (), *, left: str = ""
) -> None:
    """Kill the other sessions for which ``is_theirs`` until there is none, by an account of each user's name."""
    until, reasons = monotonic() + ENDING_SECONDS, list[str]()
    ours, killed, passwords = {schema.session.thread_id()}, set[tuple[int, str]](), dict[str, Secret]()
    async with AsyncExitStack() as kill_accounts:
        while True:
            threads = [Thread(*row) for row in await schema.run(_THREADS, schema.name)]
            found = [each for each in threads if each.number not in ours and is_theirs(each)]
            if not found:
                return
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
                            schema.tenant.terminated.add(user)
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
