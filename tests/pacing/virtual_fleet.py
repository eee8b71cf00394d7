"""Shared budgets in virtual time, on a real server: how busy the machine is does not matter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pytest

from aiodbclient._pacing import shared
from aiodbclient._pacing.cells import Cell, CellError, Step, T
from aiodbclient.shared_budget import SharedRateBudget

from .world import VirtualLoop

ROUND_TRIP = 0.001  # seconds


class Server:
    """The server of the budget, as all links see it.

    Attributes:
        down: Whether it refuses connections.
        ahead: By how many seconds its clock is ahead of the processes'.
        changes: How many changes it has written.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.down = False
        self.ahead = 1_000_000.0
        self.changes = 0
        self.turn = asyncio.Lock()  # asks arrive in the order in which they are sent


class Link:
    """The link between one budget and the server. Once ``cut``, changes arrive when it is mended, and get no reply."""

    def __init__(self, cell: Cell, server: Server) -> None:
        self.where = cell.where
        self._cell, self._server = cell, server
        self._through = asyncio.Event()
        self._through.set()
        self._late: list[asyncio.Task[Any]] = []

    def cut(self) -> None:
        self._through.clear()

    def mend(self) -> None:
        self._through.set()

    async def change(self, step: Step[T]) -> T:
        await asyncio.sleep(ROUND_TRIP / 2)
        if self._server.down:
            raise CellError("it is down")
        if not self._through.is_set():
            self._late.append(asyncio.create_task(self._arrive(step)))
            await asyncio.get_running_loop().create_future()  # until the budget gives up
        result = await self._arrive(step)
        await asyncio.sleep(ROUND_TRIP / 2)
        return result

    async def aclose(self) -> None:
        self.mend()
        await asyncio.gather(*self._late)
        with self._server.loop.outside():
            await self._cell.aclose()

    async def _arrive(self, step: Step[T]) -> T:
        await self._through.wait()
        async with self._server.turn:
            self._server.changes += 1
            with self._server.loop.outside():
                return await self._cell.change(lambda text, _: step(text, self._server.loop.time() + self._server.ahead))


class VirtualFleet:
    """Makes shared budgets on the server at ``url``. Their clock is that of ``loop``, and its clock follows it."""

    def __init__(self, url: str, loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = Server(loop)
        self._url = url
        self._stack = AsyncExitStack()
        monkeypatch.setattr(shared, "time", SimpleNamespace(monotonic=loop.time))

    async def connect(self, *windows: Any, **options: Any) -> tuple[SharedRateBudget, Link]:
        budget = SharedRateBudget(self._url, windows, **options)
        link = Link(budget._cell, self.server)
        budget._cell = link
        await self._stack.enter_async_context(budget)
        self._stack.callback(link.mend)
        return budget, link

    async def lose(self) -> None:
        """Make the server forget everything."""
        await self.write("")

    async def write(self, text: str) -> None:
        """Write something else into the cell."""
        budget = SharedRateBudget(self._url)
        with self.server.loop.outside():
            await budget._cell.change(lambda _, __: (text, None))
            await budget._cell.aclose()

    async def read(self) -> str:
        """Return what the cell holds."""
        budget = SharedRateBudget(self._url)
        with self.server.loop.outside():
            text: str = await budget._cell.change(lambda text, _: (text, text))
            await budget._cell.aclose()
        return text

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()
