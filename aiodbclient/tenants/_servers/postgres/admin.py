"""``Admin``: the administrator's sessions on one PostgreSQL, for what only reads, and for the steps of all tenants.

No tenant holds up the administrator: the sessions of tenants that hold a lock for long lose it. While the administrator
ends a login, creates, shuts or drops, ``Watch`` looks who it waits for. A session of a tenant whose transaction is
older than ``PATIENCE_SECONDS`` is ended, and a prepared transaction rolled back. Nobody else's is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import psycopg
from attrs import define
from psycopg import AsyncConnection
from psycopg.sql import SQL, Literal

from ...._libpq import one_line
from ....errors import DatabaseClientError, GrantError
from ..._credential import verifying_context
from ..._naming import OF_A_GROUP, Names
from ..server import SessionLostError, SharedSessions, Work, of_tenant
from . import scram
from .sessions import (
    STEP_SECONDS,
    BlockedError,
    CAFile,
    Opener,
    Session,
    admin_options,
    clear,
    connect,
    roll_back_these,
)

ENDING_SECONDS = 30.0  # for a step that others block, and for the sessions of a login that resist
PAUSE_SECONDS = 0.2  # before a retry, if another session held a lock. Meanwhile the turn is free for others
_CONNECTIONS = 4  # to one server at a time; each step needs one for some milliseconds
_NO_ADMINISTRATOR = "the administrator of the tenants cannot log in"
PATIENCE_SECONDS = 5.0
_FIRST_LOOK_SECONDS = 0.3  # most steps are done by then
_LOOK_SECONDS = 0.2

# Whether the role ``r`` is a tenant's: an owner role, a group, or a member of one. Never an administrator.
_OF_A_TENANT = """
coalesce(NOT r.rolsuper AND NOT r.rolcreaterole AND (r.rolname ~ %(form)s OR r.rolname = ANY (%(own)s) OR EXISTS (
    SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname ~ %(form)s)),
false)
"""
# Who the session with this process id waits for.
_SESSIONS = SQL(f"""
SELECT a.usename, a.datname, b.pid, {_OF_A_TENANT} AND a.backend_type = 'client backend'
       AND a.xact_start < clock_timestamp() - make_interval(secs => %(patience)s)
FROM unnest(pg_blocking_pids(%(pid)s)) AS b (pid)
JOIN pg_stat_activity a USING (pid) LEFT JOIN pg_roles r ON r.oid = a.usesysid
""")
_PREPARED = SQL(f"""
SELECT p.database, p.gid, p.owner,
       {_OF_A_TENANT} AND p.prepared < clock_timestamp() - make_interval(secs => %(patience)s)
FROM pg_locks w JOIN pg_locks h ON h.granted AND h.pid IS NULL
    AND (h.locktype, h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
        IS NOT DISTINCT FROM
        (w.locktype, w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
JOIN pg_locks x ON x.pid IS NULL AND x.virtualtransaction = h.virtualtransaction AND x.locktype = 'transactionid'
JOIN pg_prepared_xacts p ON p.transaction = x.transactionid LEFT JOIN pg_roles r ON r.rolname = p.owner
WHERE w.pid = %(pid)s AND NOT w.granted
""")
_TERMINATE = SQL("SELECT pg_terminate_backend(%s)")

T = TypeVar("T")


class Admin:
    """The administrator's sessions on the PostgreSQL of one cluster."""

    def __init__(self, admin: str, ca: str | None) -> None:
        self._admin = admin_options(admin)
        self._ca = None if ca is None or "sslmode" in self._admin else CAFile(ca)
        self._context = None if self._ca is None or ca is None else verifying_context(ca)
        self._version = 0  # of the server; 0 until it is known
        self._address: scram.Address | None = None  # None until the administrator has logged in
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._sessions = SharedSessions(self._open, AsyncConnection[Any].close)

    def shared(self) -> AbstractAsyncContextManager[None]:
        """See ``Server``."""
        return self._sessions.shared()

    async def _ask(self, statement: SQL, *values: Any) -> list[Any]:
        """The rows of one statement that only reads."""

        async def read(server: AsyncConnection[Any]) -> list[Any]:
            try:
                return await (await server.execute(statement, values or None)).fetchall()
            except psycopg.Error as error:
                reason = one_line(error)
            kind = SessionLostError if server.closed else GrantError
            raise kind(f"PostgreSQL refused a statement: {reason}")

        return await self._sessions.read(read)

    async def _read(self, names: Names, do: Callable[[Session], Awaitable[T]]) -> T:
        """Do what only reads in a session that others share."""
        return await self._sessions.read(lambda server: do(Session(names, server)))

    async def _step(self, work: Work, do: Callable[[Session], Awaitable[T]], database: str | None = None) -> T:
        """Do a step. If a lock blocks it, retry, and end the tenants that hold it."""
        watch, until = Watch(work, self._opener(work, turns=False)), monotonic() + ENDING_SECONDS
        while True:
            try:
                async with self._session(work.names, database, check=work.check) as session, watch.over(session):
                    return await do(session)
            except BlockedError as error:
                blocked = error
            if monotonic() > until:
                raise (
                    of_tenant(work.names, f"{watch.seen}, so it was not finished: {blocked}") if watch.seen else blocked
                )
            await asyncio.sleep(PAUSE_SECONDS)

    def _opener(self, work: Work, *, turns: bool = True) -> Opener:
        return partial(self._session, work.names, check=work.check, turns=turns)

    @asynccontextmanager
    async def _session(
        self,
        names: Names,
        database: str | None = None,
        *,
        check: Callable[[], object] = lambda: None,
        turns: bool = True,
    ) -> AsyncGenerator[Session]:
        """A session for one tenant, in the administrator's database or in ``database``.

        The server lists it with the name of the tenant's role, by which ``end_work`` finds it.
        """
        label = names.group
        try:
            async with (
                self._turns if turns else nullcontext(),
                asyncio.timeout(STEP_SECONDS + 60),
                AsyncExitStack() as ending,  # closes it, even if it is cancelled
            ):
                if database is None:
                    server = await ending.enter_async_context(self._sessions.session(partial(_name, label=label)))
                else:
                    server = await self._open(label, database)
                    ending.push_async_callback(server.close)
                yield Session(names, server, check)
            return
        except TimeoutError:
            pass
        raise GrantError(f"{_NO_ADMINISTRATOR}, or was cut off: the server did not answer in time")

    async def _open(self, label: str = "aiodbclient", database: str | None = None) -> AsyncConnection[Any]:
        """Connect, again if the server has another version than is known: it may know other settings."""
        options = self._admin | ({} if database is None else {"dbname": database})
        reason = ""
        try:
            server = await connect(options, self._ca, self._version, label)
            info, known = server.info, self._version
            self._version = info.server_version
            context = (self._context or scram.context_of(self._admin)) if server.pgconn.ssl_in_use else None
            self._address = scram.Address(info.host or info.hostaddr, info.port, context)
            if known == self._version:
                return server
            await server.close()  # it awaits nothing
            return await connect(options, self._ca, self._version, label)
        except psycopg.OperationalError as error:
            reason = one_line(error)
            clear(error)
        raise GrantError(f"{_NO_ADMINISTRATOR}: {reason}")


async def _name(server: AsyncConnection[Any], label: str) -> None:
    """Name a session, also to see whether the server has ended it."""
    try:
        await server.execute(SQL("SET application_name = {}").format(Literal(label)))
        return
    except psycopg.Error as error:
        reason = one_line(error)
    raise SessionLostError(f"{_NO_ADMINISTRATOR}: {reason}")


@define
class Watch:
    """Watches over the steps of a work, and ends who blocks them."""

    work: Work
    opened: Opener
    seen: str = ""  # who was in the way last

    @asynccontextmanager
    async def over(self, session: Session) -> AsyncGenerator[None]:
        """End who blocks ``session``, with a second one."""
        watcher = asyncio.create_task(self._watch(session.server.info.backend_pid))
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])

    async def _watch(self, pid: int) -> None:
        await asyncio.sleep(_FIRST_LOOK_SECONDS)
        with suppress(DatabaseClientError):  # the watched session reports what is wrong
            async with self.opened() as session:
                while True:
                    await self._look(session, pid)
                    await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, session: Session, pid: int) -> None:
        values: dict[str, Any] = {
            "pid": pid,
            "form": OF_A_GROUP,
            "own": sorted(self.work.names.everything),
            "patience": PATIENCE_SECONDS,
        }
        for login, database, blocker, is_to_end in await session.run(_SESSIONS, **values):
            self.seen = f"an open transaction of the login {login!r} in the database {database!r} holds a lock"
            if is_to_end:
                await session.run(_TERMINATE, blocker)
                self._ended(login)
        for database, gid, owner, is_to_end in await session.run(_PREPARED, **values):
            self.seen = f"the prepared transaction {gid!r} of {owner!r} in the database {database!r} holds a lock"
            if is_to_end:
                await roll_back_these(self.opened, [(database, gid, owner)])
                self._ended(owner)

    def _ended(self, whose: str) -> None:
        if whose not in self.work.names.everything:
            self.work.ended.add(whose)
