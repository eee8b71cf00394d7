"""Shared budgets in virtual time, on a real Valkey: how busy the machine is does not matter."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pytest

from aiodbclient._pacing.shared import budget, fallback, script, slots
from aiodbclient.shared_budget import SharedRateBudget

from .world import VirtualLoop

ROUND_TRIP = 0.001  # seconds

_REAL = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]\n"
_VIRTUAL = "local now = tonumber(ARGV[2])\n"


class Link:
    """The link between one budget and Valkey. Once ``cut``, asks arrive when it is mended, and get no reply."""

    def __init__(self, shared: SharedRateBudget, loop: VirtualLoop, turn: asyncio.Lock) -> None:
        self._loop, self._turn = loop, turn
        self._through = asyncio.Event()
        self._through.set()
        self._late: list[asyncio.Task[object]] = []
        run: Any = shared._slots._script
        self._registered, run._registered = run._registered, self._ask

    def cut(self) -> None:
        self._through.clear()

    def mend(self) -> None:
        self._through.set()

    async def _ask(self, keys: Sequence[str], args: Sequence[str]) -> object:
        await asyncio.sleep(ROUND_TRIP / 2)
        if not self._through.is_set():
            self._late.append(asyncio.create_task(self._arrive(keys, args)))
            await asyncio.get_running_loop().create_future()  # until the budget gives up
        reply = await self._arrive(keys, args)
        await asyncio.sleep(ROUND_TRIP / 2)
        return reply

    async def _arrive(self, keys: Sequence[str], args: Sequence[str]) -> object:
        await self._through.wait()
        async with self._turn:
            with self._loop.outside():
                return await self._registered(keys, [*args, str(round(self._loop.time() * 1e6))])

    async def aclose(self) -> None:
        self.mend()
        await asyncio.gather(*self._late)


class VirtualValkey:
    """Makes shared budgets on the Valkey at ``url``. Their clock and its clock are that of ``loop``."""

    def __init__(self, url: str, loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self._url, self._loop = url, loop
        self._stack = AsyncExitStack()
        self._turn = asyncio.Lock()  # asks arrive in the order in which they are sent
        for module in (budget, slots, script, fallback):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop.time))
        source = script._SOURCE
        assert _REAL in source
        monkeypatch.setattr(script, "_SOURCE", source.replace(_REAL, _VIRTUAL))

    async def connect(self, *windows: Any, **options: Any) -> tuple[SharedRateBudget, Link]:
        shared = await self._stack.enter_async_context(SharedRateBudget(self._url, windows, **options))
        link = Link(shared, self._loop, self._turn)
        self._stack.push_async_callback(link.aclose)
        return shared, link

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()
