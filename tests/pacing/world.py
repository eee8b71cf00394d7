"""A simulation for rate limiters: an event loop in virtual time, a server with sliding windows, and its clients."""

from __future__ import annotations

import asyncio
import random
import selectors
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from math import ceil
from typing import Any, TypeVar
from unittest.mock import patch

from attrs import define, field

from aiodbclient import RateLimiter
from aiodbclient._pacing import limiter as limiter_module
from aiodbclient._pacing.limiter import Slot

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    jump: Callable[[float], None]

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("everybody waits and no timer is set: this would hang for ever")
            self.jump(timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps: its clock jumps instead."""

    def __init__(self) -> None:
        selector = self._jumping = _JumpingSelector()
        super().__init__(selector)
        selector.jump = self._jump
        self._now = 1000.0

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    def time(self) -> float:
        return self._now

    def timers(self) -> int:
        """The number of timers that are set and not cancelled."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


def live(main: Callable[[VirtualLoop], Awaitable[T]]) -> T:
    """Run ``main`` on its own virtual loop."""
    loop = VirtualLoop()
    with patch.object(limiter_module, "monotonic", loop.time), asyncio.Runner(loop_factory=lambda: loop) as runner:

        async def start() -> T:
            return await main(loop)

        return runner.run(start())


@define
class LimitingServer:
    """The provider's limits: sliding windows of accepted requests, with a wall clock that may be wrong."""

    now: Callable[[], float]
    windows: tuple[tuple[int, float], ...] = ((250, 60.0), (5000, 3600.0))
    skew: float = 0.0
    headers: bool = True
    counts_refused: bool = False
    stamps: list[float] = field(factory=list)
    zero: bool = False  # reports 0 remaining also when a shorter window is full
    whole_seconds: bool = False  # in retry-after; otherwise milliseconds where a test scaled the window down
    spurious: int = 0  # the number of unjustified 429s to send next

    def _within(self, seconds: float) -> int:
        return len(self.stamps) - bisect_right(self.stamps, self.now() - seconds)

    def hit(self) -> tuple[int, dict[str, str]]:
        """Receive one request, and return the status and headers of the answer."""
        now = self.now()
        full = [window for window in self.windows if self._within(window[1]) >= window[0]]
        refused = bool(full) or self.spurious > 0
        if not full and self.spurious:
            self.spurious -= 1
        if not refused or self.counts_refused:
            self.stamps.append(now)
        limit, seconds = self.windows[-1]
        headers: dict[str, str] = {}
        if self.headers:
            used = self._within(seconds)
            oldest = self.stamps[-used] if used else now
            wall = now + self.skew
            headers = {
                "ratelimit-limit": str(limit),
                "ratelimit-remaining": str(max(0, limit - used)),
                "ratelimit-reset": str(int(wall - now + oldest + seconds)),
                "date": formatdate(wall, usegmt=True),
            }
        if refused and self.windows[-1] not in full:
            short, length = self.windows[0]
            held = min(self._within(length), short)
            oldest = self.stamps[-held] if held else now
            wait = max(0.001, oldest + length - now)
            headers["retry-after"] = str(ceil(wait)) if length >= 60 or self.whole_seconds else f"{wait:.3f}"
        if self.zero and self.headers and any(self._within(s) >= limit for limit, s in self.windows[:-1]):
            headers["ratelimit-remaining"] = "0"
        return (429 if refused else 200), headers


@define
class Latency:
    """Latency in seconds to and from the server, drawn for each request."""

    draw: random.Random
    least: float = 0.01
    most: float = 0.3

    def __call__(self) -> float:
        return self.draw.uniform(self.least, self.most) / 2


@define
class Client:
    """Calls the server as the transport does: acquire, send, read, accept or refuse, release."""

    limiter: RateLimiter
    server: LimitingServer
    latency: Callable[[], float]
    sent: int = 0
    refused: int = 0
    failed: int = 0
    done: list[float] = field(factory=list)
    log: list[tuple[float, float]] = field(factory=list)  # when sent, when stamped

    async def call(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        slot: Slot | None = None
        patience = max_wait
        while True:
            asked = self.server.now()
            slot = await self.limiter.acquire(slot, bulk=bulk, max_wait=patience)
            if patience is not None:
                patience = max(0.0, patience - (self.server.now() - asked))
            if await self._send(slot) == 200:
                self.done.append(self.server.now())
                return

    async def _send(self, slot: Slot) -> int:
        try:
            self.sent += 1
            sent_at = self.server.now()
            await asyncio.sleep(self.latency())
            status, headers = self.server.hit()
            self.log.append((sent_at, self.server.now()))
            await asyncio.sleep(self.latency())
            if status == 429:
                self.refused += 1
                self.limiter.refuse(slot, headers)
            else:
                self.limiter.accept(slot)
            return status
        finally:
            self.limiter.release(slot)

    async def calls(self, count: int, at_once: int, **options: Any) -> None:
        """Make ``count`` calls, ``at_once`` at a time."""
        todo = iter(range(count))

        async def worker() -> None:
            for _ in todo:
                await self.call(**options)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, count)):
                group.create_task(worker())


def optimum(count: int, windows: Iterable[tuple[int, float]] = ((250, 60.0), (5000, 3600.0))) -> float:
    """The earliest time for the last of ``count`` requests, if the first is sent at 0."""
    windows = tuple(windows)
    at: list[float] = []
    for k in range(count):
        at.append(max([0.0] + [at[k - limit] + seconds for limit, seconds in windows if k >= limit]))
    return at[-1]
