"""Shared budgets in virtual time, on a real server: how busy the machine is does not matter."""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from aiodbclient import Window
from aiodbclient._pacing.cells import Cell
from aiodbclient._pacing.fleet import CellError
from aiodbclient.shared_budget import SharedRateBudget

from .world import VirtualLoop, live

Step = Callable[[str, float], str]
ROUND_TRIP = 0.001  # seconds


def virtually(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in virtual time, and close the fleet that it has."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        async def main(_: VirtualLoop) -> None:
            try:
                await test(**fixtures)
            finally:
                for name in {"fleet", "make_pair"} & set(fixtures):
                    await fixtures[name].aclose()

        live(main)

    return run


def now() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


class Link:
    """The link between one process and the server. Once ``cut``, changes arrive when it is mended, and get no reply."""

    def __init__(self, cell: Cell, fleet: VirtualFleet) -> None:
        self.where = cell.where
        self._cell, self._fleet = cell, fleet
        self._through = asyncio.Event()
        self._through.set()
        self._late: list[asyncio.Task[Any]] = []

    def cut(self) -> None:
        self._through.clear()

    def mend(self) -> None:
        self._through.set()

    async def change(self, step: Step) -> None:
        await asyncio.sleep(ROUND_TRIP / 2)
        if self._fleet.down:
            raise CellError("it is down")
        if not self._through.is_set():
            self._late.append(asyncio.create_task(self._arrive(step)))
            await asyncio.get_running_loop().create_future()  # until the budget gives up
        await self._arrive(step)
        await asyncio.sleep(ROUND_TRIP / 2)

    async def aclose(self) -> None:
        self.mend()
        await asyncio.gather(*self._late)
        with self._fleet.outside():
            await self._cell.aclose()

    async def _arrive(self, step: Step) -> None:
        await self._through.wait()
        async with self._fleet.turn:
            self._fleet.changes += 1
            with self._fleet.outside():
                await self._cell.change(lambda text, _: step(text, now() + self._fleet.ahead))


class VirtualFleet:
    """Makes shared budgets on the server at ``url``, each of them a process. The server's clock is virtual too.

    Attributes:
        down: Whether the server refuses connections.
        ahead: By how many seconds its clock is ahead of the processes' clock.
        changes: How many changes it has written.
        turn: Asks arrive in the order in which they are sent.
    """

    def __init__(self, url: str) -> None:
        self.down = False
        self.ahead = 1_000_000.0
        self.changes = 0
        self.turn = asyncio.Lock()
        self._url, self._key = url, secrets.token_hex(8)
        self._stack = AsyncExitStack()

    def outside(self) -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop.outside()

    async def connect(self, *windows: Any, **options: Any) -> tuple[SharedRateBudget, Link]:
        budget: Any = SharedRateBudget(self._url, windows, key=self._key, **options)
        budget._clock = now
        link = Link(budget._cell, self)
        budget._cell = link
        await self._stack.enter_async_context(budget)
        self._stack.callback(link.mend)
        return budget, link

    async def make(self, limit: int = 10, seconds: float = 60.0, **options: Any) -> SharedRateBudget:
        """One process with one window."""
        return (await self.connect(Window(limit, seconds), **options))[0]

    async def write(self, text: str) -> None:
        """Write something else into the cell. Empty: it forgets everything."""
        await self._outside(lambda _, __: text)

    async def read(self) -> str:
        """Return the text that the cell holds."""
        seen = list[str]()

        def look(text: str, _: float) -> str:
            seen.append(text)
            return text

        await self._outside(look)
        return seen[-1]

    async def known(self) -> Any:
        """Return what the cell holds."""
        return json.loads(await self.read())

    async def _outside(self, step: Step) -> None:
        cell = SharedRateBudget(self._url, key=self._key)._cell
        with self.outside():
            await cell.change(step)
            await cell.aclose()

    async def aclose(self) -> None:
        self.down = False
        await self._stack.aclose()
