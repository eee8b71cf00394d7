"""``SharedSessions``: sessions of the administrator that the work on many tenants shares.

A login costs both sides more than the statements of a step: TLS, a password exchange, and a new server process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Generic, TypeAlias, TypeVar

from ...errors import GrantError

ServerT = TypeVar("ServerT")
T = TypeVar("T")
Use: TypeAlias = Callable[[ServerT], Awaitable[None]]

_SESSIONS = 2  # at a time; a tenant whose rights take long to read delays only one of them
_SECONDS = 30.0  # for what is read about one tenant


class SessionLostError(GrantError):
    """The session ended before the answer to a statement came."""


class SharedSessions(Generic[ServerT]):
    """Sessions of the administrator, each for one task at a time. See ``Server.shared``."""

    def __init__(self, log_in: Callable[[], Awaitable[ServerT]], close: Use[ServerT]) -> None:
        self._log_in = log_in
        self._close = close
        self._turns = asyncio.Semaphore(_SESSIONS)
        self._idle: list[ServerT] = []
        self._sharing = 0

    @asynccontextmanager
    async def shared(self) -> AsyncGenerator[None]:
        """Keep sessions open for the next task, while any task is in such a block. The last one closes them."""
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1
            async with AsyncExitStack() as closing:  # closes each, even if it is cancelled meanwhile
                while self._idle and not self._sharing:
                    closing.push_async_callback(self._close, self._idle.pop())

    async def read(self, work: Callable[[ServerT], Awaitable[T]]) -> T:
        """Call ``work`` with a session. It only reads. A session that ended while it was idle is replaced once."""
        async with self._turns:
            if self._idle:
                with suppress(SessionLostError):
                    return await self._read(self._idle.pop(), work)
            return await self._read(await self._log_in(), work)

    @asynccontextmanager
    async def session(self, begin: Use[ServerT]) -> AsyncGenerator[ServerT]:
        """Yield a session for a step, in which ``begin`` succeeded. One that ended while it was idle is replaced."""
        server = await self._next(begin)
        async with self._kept(server):
            yield server

    async def _next(self, begin: Use[ServerT]) -> ServerT:
        while self._idle:
            with suppress(SessionLostError):
                return await self._begun(self._idle.pop(), begin)
        return await self._begun(await self._log_in(), begin)

    async def _begun(self, server: ServerT, begin: Use[ServerT]) -> ServerT:
        async with AsyncExitStack() as ending:
            ending.push_async_callback(self._close, server)
            await begin(server)
            ending.pop_all()
        return server

    async def _read(self, server: ServerT, work: Callable[[ServerT], Awaitable[T]]) -> T:
        with suppress(TimeoutError):
            async with self._kept(server), asyncio.timeout(_SECONDS):
                return await work(server)
        raise GrantError(f"the database server did not answer within {_SECONDS:.0f} s")

    @asynccontextmanager
    async def _kept(self, server: ServerT) -> AsyncGenerator[None]:
        """Keep the session for the next task if this block raises no error, and close it otherwise."""
        async with AsyncExitStack() as ending:
            ending.push_async_callback(self._close, server)
            yield
            if self._sharing:
                ending.pop_all()
                self._idle.append(server)
