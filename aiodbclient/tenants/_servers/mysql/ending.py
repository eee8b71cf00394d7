"""End every session of a login, even if they resist.

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

Nothing waits for connections that have not logged in: the server may keep them for as long as they like. One that began
to log in before the end may still enter, without a right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from time import monotonic

from ..._credential import new_password
from ...errors import GrantError
from ..server import LoginRefusedError, ServerAwayError
from .accounts import accounts, helper, lock_account
from .rights import set_rights
from .session import LockedError, Schema, Session, Thread

ENDING_SECONDS = 30.0  # for the whole ending
_PAUSE = 0.02  # s between two checks whether a killed session is gone
NO_SUCH_THREAD = (1094,)
_NO_LONGER_THEIRS = (1094, 1095)  # gone, or another user's by now
_EVENT = "Connect"  # the command of a thread that runs an event
_SCHEDULER = "Daemon"  # the command of the server's thread that starts them, which locks their schema for a moment
_CHANGING = "Change user"  # the command of a thread that logs in as another user
_CHANGE_SECONDS = 0.2  # for a change of users that is none of an attack
_PATIENCE = 2.0  # s to wait for such a thread


async def end(schema: Schema, logins: Collection[str], *, keep_passwords: bool = False) -> None:
    """Take all rights of logins, lock them, and end their sessions, also those of logins that are gone.

    Their passwords become random ones, unless they are kept.
    """
    existing = [login for login in await accounts(schema, logins) if login in logins]
    until, left = monotonic() + ENDING_SECONDS, list[GrantError]()
    while True:
        try:
            await _shut_out(schema, existing, keep_passwords=keep_passwords)
            break
        except LockedError:  # perhaps by their sessions, which can hold the tables of the accounts
            if monotonic() > until or not await _end_from_inside(schema, existing, until):
                raise
    await _end_changing(schema)
    open_ = {thread.user for thread in await schema.session.threads()} & {*logins}
    for login in sorted(open_):
        try:
            await _end_as_helper(schema, login, until)
        except GrantError as error:
            left.append(error)
    if left:
        raise left[0]


async def _shut_out(schema: Schema, existing: Collection[str], *, keep_passwords: bool) -> None:
    """Take the rights of all logins, then lock them."""
    for login in existing:
        await set_rights(schema, login, frozenset())
    connections = await schema.most()
    for login in existing:
        await lock_account(schema, login, connections, None if keep_passwords else new_password())


async def _end_from_inside(schema: Schema, existing: Collection[str], until: float) -> bool:
    """End the sessions of logins with their passwords on record. Return whether one of these works."""
    entered = False
    for login in existing:
        password = schema.work.password_of(login)
        if password is not None:
            with suppress(LoginRefusedError, ServerAwayError, GrantError):
                async with schema.log_in(login, password) as own:
                    entered = True
                    await _kill_others(schema, own, until, login)
    return entered


async def end_in_schema(schema: Schema, whose: Collection[str] | None = None) -> None:
    """End every session that uses the schema, of the users ``whose``, or whosever it is.

    Threads of events are killed too, and nothing waits for them: the server starts others.
    """
    if whose is not None and not whose:
        return
    until = monotonic() + ENDING_SECONDS
    ((own,),) = await schema.read("SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)")
    await _end_changing(schema)
    while left := await _in_schema(schema, whose):
        if monotonic() > until:
            raise _not_ended(schema, ", ".join(sorted({repr(thread.user) for thread in left})), _named(left))
        await _kill(schema.session, [thread for thread in left if thread.user == own])
        for user in sorted({thread.user for thread in left} - {own}):
            schema.work.ended.add(user)
            await _end_as_helper(schema, user, until, {thread.number for thread in left if thread.user == user})
        if all(thread.command == _EVENT for thread in left):
            return
        await asyncio.sleep(_PAUSE)


async def _in_schema(schema: Schema, whose: Collection[str] | None) -> list[Thread]:
    """Return the sessions in the schema, and those whose transactions hold locks there."""
    query = (
        "SELECT DISTINCT PROCESSLIST_ID FROM performance_schema.metadata_locks "
        "JOIN performance_schema.threads ON THREAD_ID = OWNER_THREAD_ID "
        "WHERE OBJECT_SCHEMA = %s AND LOCK_STATUS = 'GRANTED' AND PROCESSLIST_ID IS NOT NULL"
    )
    holders = {int(number) for (number,) in await schema.read(query, schema.name)}
    return [
        thread
        for thread in await schema.session.threads()
        if (whose is None or thread.user in whose)
        and (thread.schema == schema.name or thread.number in holders)
        and thread.number != schema.session.thread
        and thread.command != _SCHEDULER
    ]


async def _end_changing(schema: Schema) -> None:
    """End sessions of anybody that began to log in as another user (COM_CHANGE_USER) and do not go on.

    Such a session hangs SHOW PROCESSLIST, also ours. It may enter a login that was ended meanwhile, with the password
    of before, and waits for as long as it likes: ``net_read_timeout``.
    """
    stuck = await _changing(schema)
    if stuck:
        await asyncio.sleep(_CHANGE_SECONDS)
        stuck &= await _changing(schema)
    for user in sorted({user for _, user in stuck}):
        schema.work.ended.add(user)
        async with helper(schema, user) as password, schema.log_in(user, password) as own:
            for number in sorted(number for number, of in stuck if of == user):
                await own.rows("KILL %s", number, fine=_NO_LONGER_THEIRS)
    patience = monotonic() + _PATIENCE
    while monotonic() < patience:
        if not stuck & await _changing(schema):
            return
        await asyncio.sleep(_PAUSE)


async def _changing(schema: Schema) -> set[tuple[int, str]]:
    query = (
        "SELECT PROCESSLIST_ID, PROCESSLIST_USER FROM performance_schema.threads "
        "WHERE PROCESSLIST_COMMAND = %s AND PROCESSLIST_USER <> SUBSTRING_INDEX(USER(), '@', 1)"
    )
    return {(int(number), str(user)) for number, user in await schema.read(query, _CHANGING)}


async def _end_as_helper(schema: Schema, login: str, until: float, numbers: Collection[int] | None = None) -> None:
    """Kill the sessions of a user name, or these ``numbers``, with an account of that name for our own host."""
    reason = ""
    await _end_changing(schema)
    # Once: while procedures of the login kill our sessions, a statement on accounts may wait for all that time.
    async with helper(schema, login) as password:
        while monotonic() < until:
            try:
                async with schema.log_in(login, password) as own:
                    left = await _kill_others(schema, own, until, login, numbers)
                    if not left:
                        return
                    reason = _named(left)
            except (LoginRefusedError, ServerAwayError, GrantError) as error:  # a session of the login killed ours
                reason = str(error)
            await asyncio.sleep(_PAUSE)
    raise _not_ended(schema, repr(login), reason)


async def _kill_others(
    schema: Schema, own: Session, until: float, login: str, numbers: Collection[int] | None = None
) -> list[Thread]:
    """Kill sessions from the session ``own`` of their user, and return those that are left at the end.

    The server does not interrupt some statements, such as DROP DATABASE. Threads of events end with their rights.
    """
    while True:  # ``own`` runs nothing before it kills: a procedure may look for it
        threads = [each for each in await schema.session.threads() if each.user == login]
        killed = await _kill(own, [each for each in threads if numbers is None or each.number in numbers])
        left = [each for each in killed if each.command != _EVENT]
        if not left or monotonic() > until:
            return left
        await asyncio.sleep(_PAUSE)


async def _kill(session: Session, threads: Collection[Thread]) -> Collection[Thread]:
    """Kill the threads, except that of ``session`` itself, and return them."""
    others = {thread.number: thread for thread in threads if thread.number != session.thread}
    for number in others:
        await session.rows("KILL %s", number, fine=NO_SUCH_THREAD)
    return others.values()


def _named(threads: Collection[Thread]) -> str:
    return ", ".join(sorted({f"thread {each.number} ({each.command})" for each in threads})[:5])


def _not_ended(schema: Schema, whose: str, reason: str) -> GrantError:
    return schema.error(
        f"sessions of {whose} did not end within {ENDING_SECONDS:.0f} seconds{reason and ': '}{reason}; run it again"
    )
