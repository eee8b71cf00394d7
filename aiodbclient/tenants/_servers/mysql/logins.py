"""The accounts of a tenant's logins, and how every session of a login ends, even if it resists.

A new account has no rights. Its login can change neither its limits nor PASSWORD REQUIRE CURRENT, so no session of it
can set another password without the current one.

The server removes the password from its logs. While the statement runs, who has PROCESS can see it: the administrator
and the users that the API makes. Each of them may set the password of any login.

An administrator without SUPER or CONNECTION_ADMIN cannot KILL the sessions of others, but a session can KILL those of
its own user. So we open one. Meanwhile the other sessions could kill ours. A limit of one statement an hour stops them,
because the server applies it to open sessions too. Statements that run already, such as a procedure that kills each new
session, go on until we kill them.

Sessions belong to a user name. So we log in with an account of that name for our own host::

    REVOKE ... FROM login@'%'                                   so who enters later, or resists, can do nothing
    ALTER USER login@'%' IDENTIFIED BY ... WITH MAX_QUERIES_PER_HOUR 1 ... ACCOUNT LOCK
    CREATE USER login@'our host' IDENTIFIED BY ...
    KILL ...                                                    as login@'our host', until no other session is left
    DROP USER login@'our host'

Each step is done for all logins before the next step. So a login that resists does not protect the others.

Nothing waits for connections that have not logged in: the server may keep them for as long as they like. One that began
to log in before the end may still enter, without a right.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any

from attrs import frozen

from ...._masking import Secret
from ....errors import ConflictError
from ..._credential import new_password
from ..._naming import Role
from ...errors import GrantError
from .. import LoginRefusedError, ServerAwayError
from .rights import RIGHTS, set_rights
from .session import DefinerError, LockedError, Schema, Session, Thread

ENDING_SECONDS = 30.0  # in which locks of the accounts have to end, and as long again for sessions
_PAUSE = 0.02  # s between two checks whether a killed session is gone
_NOT_THEIRS = (1094, 1095)  # the thread is gone, or another user's by now
_EVENT = "Connect"  # the command of a thread that runs an event
_SCHEDULER = "Daemon"  # the command of the server's thread that starts them, which locks their schema for a moment
_KILLED = "Killed"  # the command of a thread that was killed, while its statement goes on
_CHANGING = "Change user"  # the command of a thread that logs in as another user
_OPEN_TO_ALL = ("information_schema", "performance_schema")
_ELSEWHERE = f"""
SELECT DISTINCT PROCESSLIST_USER FROM performance_schema.threads WHERE PROCESSLIST_USER IS NOT NULL
  AND PROCESSLIST_DB COLLATE utf8mb4_bin NOT IN (%s, {", ".join(map(repr, _OPEN_TO_ALL))})
"""
_MOMENT = 0.2  # s until a killed session is no longer listed, and an honest one has changed its user
_NO_SESSION = (LoginRefusedError, ServerAwayError, GrantError)  # why a session of a login does not kill the others
_HELPER = "made by aiodbclient to end sessions for "  # how the comment on an account of ``helper`` begins
_COMMENT = "COALESCE(User_attributes->>'$.metadata.comment', '')"
_OPTIONS = (
    "WITH MAX_QUERIES_PER_HOUR 0 MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 MAX_USER_CONNECTIONS {} "
    "PASSWORD REQUIRE CURRENT"
)
# In a session of the administrator for the same schema, as the name of its program shows.
_EARLIER = """
SELECT PROCESSLIST_ID, PROCESSLIST_USER, PROCESSLIST_DB, PROCESSLIST_COMMAND FROM performance_schema.threads
JOIN performance_schema.session_account_connect_attrs USING (PROCESSLIST_ID)
WHERE ATTR_NAME = 'program_name' AND ATTR_VALUE = (
    SELECT ATTR_VALUE FROM performance_schema.session_account_connect_attrs
    WHERE ATTR_NAME = 'program_name' AND PROCESSLIST_ID = CONNECTION_ID())
"""


@frozen
class Account:
    login: str
    is_locked: bool
    connections: int  # at a time; 0 is no limit
    keeps_password: bool  # a session needs the current password to set another one

    @property
    def is_ours(self) -> bool:
        """Whether a tenant's login was made or ended here. The API makes its users without a limit."""
        return self.connections > 0 or self.keeps_password


async def accounts(schema: Schema, others: Collection[str] = ()) -> dict[str, Account]:
    """Return the accounts of the tenant's form, in the order of their numbers, and those of ``others``."""
    names, more = schema.names, [schema.names.stem, *others]  # IN takes no empty list
    query = (
        "SELECT User, account_locked = 'Y', max_user_connections, COALESCE(Password_require_current, 'N') = 'Y' "
        "FROM mysql.user WHERE Host = '%%' "
        f"AND (User BETWEEN %s AND %s OR User IN ({', '.join(['%s'] * len(more))})) ORDER BY User"
    )
    rows = await schema.run(query, names.stem, f"{names.stem}g", *more)
    return {
        str(login): Account(str(login), bool(locked), int(most), bool(keeps))
        for login, locked, most, keeps in rows
        if names.is_login(login) or login in others
    }


async def check_adoption(schema: Schema, login: str) -> None:
    """Raise ConflictError for a login that the administrator may not end later."""
    reason = "it is the administrator"
    if login != schema.session.user:
        try:
            await schema.run("ALTER USER %s@'%%' ACCOUNT UNLOCK", login)  # as it is
            return
        except GrantError as refused:
            reason = f"the administrator may not alter it ({refused})"
    raise ConflictError(f"the login {login!r} is not the tenant's to take: {reason}; nothing was changed", status=409)


async def create_login(schema: Schema, login: str, password: Secret, wanted: frozenset[str]) -> None:
    """Create an account with the rights ``wanted``."""
    limits = _OPTIONS.format(schema.most)
    with suppress(DefinerError):
        await schema.run(f"CREATE USER %s@'%%' IDENTIFIED BY %s {limits}", login, password)
        await set_rights(schema, login, wanted)
        return
    raise schema.error(
        f"the login {login!r} is gone, and an event, routine, trigger or view still runs as it, so MySQL does not "
        "create it again: drop that (information_schema shows its DEFINER), or rotate the tenant, and run it again"
    )


async def restore_login(schema: Schema, login: str, role: Role) -> None:
    """Set the rights and limits of a login, and unlock it. Its password stays."""
    await set_rights(schema, login, RIGHTS[role])
    await schema.run(f"ALTER USER %s@'%%' {_OPTIONS.format(schema.most)} ACCOUNT UNLOCK", login)


async def end_stale_sessions(schema: Schema) -> None:
    """End what earlier processes still run for the tenant."""

    async def earlier() -> list[Thread]:
        return [Thread(*row) for row in await schema.run(_EARLIER)]

    await drop_helpers(schema)
    await _end_threads(schema, earlier)


async def end(schema: Schema, logins: Collection[str]) -> None:
    """Revoke all rights of logins, lock them, and end their sessions, also those of logins that are gone."""
    if not logins:
        return
    existing = await accounts(schema, {*logins, schema.name})
    ending = [login for login in existing if login in logins]
    others = [each for each in existing.values() if each.login not in logins]
    earlier = list[str]()
    if all(each.is_locked for each in others):  # the whole tenant ends, so nothing runs as its earlier logins
        earlier = [each.login for each in others if each.is_ours]
    until = monotonic() + ENDING_SECONDS
    while True:
        try:
            failed = await _shut_out(schema, ending, earlier)
            break
        except LockedError:  # perhaps by their sessions, which can hold the tables of the accounts
            if monotonic() > until or not await _kill_from_inside(schema, ending):
                raise

    async def theirs() -> list[Thread]:
        return await _changing(schema) or [thread for thread in await schema.session.threads() if thread.is_of(logins)]

    try:
        await _end_threads(schema, theirs, logins)
    except GrantError as error:
        failed.append(error)
    if failed:
        raise failed[0]


async def end_in_schema(schema: Schema, whose: Collection[str] | None = None) -> None:
    """End every session that uses the schema, of the users ``whose``, or whosever it is."""
    if whose is not None and not whose:
        return

    async def in_schema() -> list[Thread]:
        """Return the sessions in the schema, and those whose transactions hold locks there."""
        holders = await schema.lock_holders(schema.name)
        return await _changing(schema) or [
            thread
            for thread in await schema.session.threads()
            if (whose is None or thread.is_of(whose))
            and (thread.schema == schema.name or thread.number in holders)
            and thread.command != _SCHEDULER
        ]

    await _end_threads(schema, in_schema)


async def end_elsewhere(schema: Schema, logins: Collection[str]) -> None:
    """End the sessions of logins in the schemas of others: they keep the rights that the logins had there."""
    if not any(user in logins for (user,) in await schema.run(_ELSEWHERE, schema.name)):
        return

    async def elsewhere() -> list[Thread]:
        return await _changing(schema) or [
            thread
            for thread in await schema.session.threads()
            if thread.is_of(logins) and thread.schema not in (None, schema.name, *_OPEN_TO_ALL)
        ]

    await _end_threads(schema, elsewhere, logins)


async def intruders(schema: Schema) -> set[str]:
    """Return the logins that are ended or gone, and have a session: it began to log in before the end."""
    query = (
        "SELECT DISTINCT PROCESSLIST_USER FROM performance_schema.threads "
        "WHERE (PROCESSLIST_USER = %s OR PROCESSLIST_USER BETWEEN %s AND %s) AND PROCESSLIST_USER COLLATE utf8mb4_bin "
        "NOT IN (SELECT User FROM mysql.user WHERE Host = '%%' AND account_locked = 'N')"
    )
    found = await _lasting(schema, query, schema.name, schema.names.stem, f"{schema.names.stem}g")
    return {str(user) for (user,) in found if schema.names.is_login(user) or user == schema.name}


async def _shut_out(schema: Schema, logins: Collection[str], earlier: Collection[str]) -> list[GrantError]:
    """Take the rights of logins and of ``earlier`` ones, and lock the logins. Return why this failed for some."""
    changes: list[Callable[[], Awaitable[object]]]
    changes = [partial(set_rights, schema, login, frozenset()) for login in (*logins, *earlier)]
    changes += [partial(_lock, schema, login) for login in logins]
    failed = list[GrantError]()
    for change in changes:
        try:
            await change()
        except LockedError:  # so are the accounts of all
            raise
        except GrantError as error:
            failed.append(error)
    return failed


async def _lock(schema: Schema, login: str) -> None:
    """Lock an account with another password, and stop its open sessions: each may run one statement an hour."""
    limits = f"WITH MAX_QUERIES_PER_HOUR 1 MAX_USER_CONNECTIONS {schema.most} ACCOUNT LOCK"
    await schema.run(f"ALTER USER %s@'%%' IDENTIFIED BY %s {limits}", login, new_password())


async def _kill_from_inside(schema: Schema, logins: Iterable[str]) -> bool:
    """Kill the sessions of logins with their passwords on record. Return whether one of these works."""
    has_entered = False
    for login in logins:
        password = schema.tenant.password_of(login)
        if password is None:
            continue
        with suppress(*_NO_SESSION):
            async with aclosing(await schema.log_in(login, password)) as own:
                has_entered = True
                threads = [thread for thread in await schema.session.threads() if thread.user == login]
                await _kill(own, [thread for thread in threads if thread.number != own.thread_id()])
    return has_entered


async def _end_threads(
    schema: Schema, find: Callable[[], Awaitable[Collection[Thread]]], logins: Collection[str] = ()
) -> None:
    """Kill the threads that ``find`` returns until it returns none, by an account of each user's name for our host."""
    until, reasons = monotonic() + ENDING_SECONDS, list[str]()
    ours, passwords = {schema.session.thread_id()}, dict[str, Secret]()
    async with AsyncExitStack() as helpers:
        while left := [each for each in await find() if each.number not in ours]:
            if monotonic() > until:
                users = ", ".join(sorted({repr(each.user) for each in left}))
                reasons += [f"thread {each.number} ({each.command})" for each in left]
                raise schema.error(
                    f"sessions of {users} did not end within {ENDING_SECONDS:.0f} seconds: {', '.join(reasons[:5])}; "
                    "run it again"
                )
            reasons = []
            for user in sorted({each.user for each in left if each.command != _KILLED}):
                threads = [each for each in left if each.user == user]
                if user == schema.session.user:
                    await _kill(schema.session, threads)
                    continue
                if not schema.names.is_ours(user) and user not in logins:
                    schema.tenant.others_ended.add(user)
                try:
                    # One account for all tries: while procedures of the login kill our sessions, a statement on
                    # accounts may wait for all that time.
                    if user not in passwords:
                        passwords[user] = await helpers.enter_async_context(helper(schema, user))
                    # It runs nothing before it kills: a procedure may look for it.
                    async with aclosing(await schema.log_in(user, passwords[user])) as own:
                        ours.add(own.thread_id())
                        await _kill(own, threads)
                except _NO_SESSION as error:  # a session of the user killed ours, for example
                    if isinstance(error, LoginRefusedError):  # the work on another tenant dropped the account
                        del passwords[user]
                    reasons.append(str(error))
            # Nothing waits for killed events: the server starts others, or they have no rights.
            if not reasons and all(each.command == _EVENT for each in left):
                return
            await asyncio.sleep(_PAUSE)


async def _changing(schema: Schema) -> list[Thread]:
    """Return sessions of anybody that began to log in as another user (COM_CHANGE_USER) and do not go on."""
    # Such a session hangs SHOW PROCESSLIST, and may enter an ended login with its old password as late as it likes.
    query = (
        "SELECT PROCESSLIST_ID, PROCESSLIST_USER, NULL, PROCESSLIST_COMMAND FROM performance_schema.threads "
        "WHERE PROCESSLIST_COMMAND = %s AND PROCESSLIST_USER <> SUBSTRING_INDEX(USER(), '@', 1)"
    )
    return [Thread(*row) for row in await _lasting(schema, query, _CHANGING)]


async def _lasting(schema: Schema, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows that a query finds now and a moment later."""
    found = await schema.run(query, *values)
    if found:
        await asyncio.sleep(_MOMENT)
        found = [row for row in await schema.run(query, *values) if row in found]
    return found


async def _kill(session: Session, threads: Iterable[Thread]) -> None:
    for thread in threads:
        await session.rows("KILL %s", thread.number, fine=_NOT_THEIRS)


@asynccontextmanager
async def helper(schema: Schema, login: str) -> AsyncGenerator[Secret]:
    """Make an account of that name for our own host, which may kill the sessions of all of that name."""
    await drop_helpers(schema, login)
    ((host,),) = await schema.run("SELECT SUBSTRING_INDEX(USER(), '@', -1)")
    password = new_password()
    try:
        comment = f"{_HELPER}{schema.name}"
        await schema.run("CREATE USER %s@%s IDENTIFIED BY %s COMMENT %s", login, host, password, comment)
        yield password
    finally:
        with suppress(GrantError):  # ``end_stale_sessions`` drops it
            await drop_helpers(schema, login)


async def drop_helpers(schema: Schema, login: str | None = None) -> None:
    """Drop the accounts of ``helper`` for ``login``, or those that earlier work on this tenant left."""
    # While one is there, nobody of that name can log in from its host.
    query = f"SELECT User, Host, {_COMMENT} FROM mysql.user WHERE Host <> '%%' AND {_COMMENT} LIKE %s"
    for user, host, comment in await schema.run(query, f"{_HELPER}%"):
        if user == login or (login is None and comment == f"{_HELPER}{schema.name}"):
            await schema.run("DROP USER IF EXISTS %s@%s", user, host)
