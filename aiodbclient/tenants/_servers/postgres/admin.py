"""``Admin``: the administrator's sessions on one PostgreSQL, for what only reads, and for the steps of all tenants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL, Literal

from ...._libpq import one_line
from ....errors import GrantError
from ..._credential import verifying_context
from ..._naming import Names
from ..server import Work, of_tenant
from ..shared_sessions import SessionLostError, SharedSessions
from . import scram
from .blockers import Watch
from .entering import Opener
from .sessions import STEP_SECONDS, BlockedError, CAFile, Session, admin_options, clear, connect

ENDING_SECONDS = 30.0  # for a step that others block, and for the sessions of a login that resist
PAUSE_SECONDS = 0.2  # before a retry, if another session held a lock. Meanwhile the turn is free for others
_CONNECTIONS = 4  # to one server at a time; each step needs one for some milliseconds
_NO_ADMINISTRATOR = "the administrator of the tenants cannot log in"

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
        """A session for one tenant, in the administrator's database or in ``database``. The server lists its label."""
        label = label_of(names)
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


def label_of(names: Names) -> str:
    """The ``application_name`` of the sessions that work on a tenant's role under its claim."""
    return names.group
