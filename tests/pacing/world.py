"""A world for budgets: a loop whose clock jumps instead of sleeping, a server with sliding windows, and its clients."""

from __future__ import annotations

import asyncio
import random
import selectors
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from math import ceil
from typing import Any, TypeVar

from attrs import define, field

from aiodbclient._pacing.budget import Budget

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
    """An event loop that never sleeps: where it would, its clock jumps."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.jump = self._jump
        self._now = 1000.0

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    def time(self) -> float:
        return self._now

    def timers(self) -> int:
        """How many timers are set and not cancelled."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


def live(main: Callable[[VirtualLoop], Awaitable[T]]) -> T:
    """Run ``main`` on a virtual loop of its own."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:

        async def start() -> T:
            return await main(loop)

        return runner.run(start())


@define
class Server:
    """The provider's limits: sliding windows over the requests that were let in, by a wall clock that may be off."""

    now: Callable[[], float]
    windows: tuple[tuple[int, float], ...] = ((250, 60.0), (5000, 3600.0))
    skew: float = 0.0
    headers: bool = True
    counts_refused: bool = False
    stamps: list[float] = field(factory=list)
    zero: bool = False  # tells 0 remaining also where a shorter window is full
    spurious: int = 0  # so many 429s for no reason, next

    def _within(self, seconds: float) -> int:
        return len(self.stamps) - bisect_right(self.stamps, self.now() - seconds)

    def hit(self) -> tuple[int, dict[str, str]]:
        """One request arrives: the status and headers of its answer."""
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
            # Thousandths where a test scaled the window down.
            headers["retry-after"] = str(ceil(wait)) if length >= 60 else f"{wait:.3f}"
        if self.zero and self.headers and any(self._within(s) >= limit for limit, s in self.windows[:-1]):
            headers["ratelimit-remaining"] = "0"
        return (429 if refused else 200), headers


class Perfect:
    """A budget that need not find anything out: ``limit`` slots, each free again ``seconds`` after its answer.

    Whoever takes longer than this one, at the same time on the same machine, takes longer for reasons of its own.
    ``ask`` is done before each request: what a budget has to ask another process costs there.
    """

    def __init__(self, limit: int, seconds: float, ask: Callable[[], Awaitable[Any]] | None = None) -> None:
        self._free, self._seconds, self._ask = asyncio.Semaphore(limit), seconds, ask

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        await self._free.acquire()
        if self._ask is not None:
            await self._ask()

    def release(self, *, sent: bool = True) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._free.release)

    def observe(self, headers: Mapping[str, str]) -> None:
        pass

    async def throttle(self, headers: Mapping[str, str]) -> float:
        raise AssertionError("alone, and refused")


@define
class Latency:
    """Seconds on the way there and back, drawn anew for each request."""

    draw: random.Random
    least: float = 0.01
    most: float = 0.3

    def __call__(self) -> float:
        return self.draw.uniform(self.least, self.most) / 2


@define
class Client:
    """Calls the server as the transport does: acquire, send, read, observe or throttle, release; up to 5 tries."""

    budget: Budget
    server: Server
    latency: Callable[[], float]
    sent: int = 0
    refused: int = 0
    failed: int = 0
    done: list[float] = field(factory=list)
    log: list[tuple[float, float]] = field(factory=list)  # when sent, when stamped

    async def call(self, *, bulk: bool = False, max_wait: float | None = None, tries: int = 5) -> None:
        for _ in range(tries):
            if await self._once(bulk, max_wait) == 200:
                self.done.append(self.server.now())
                return
        self.failed += 1

    async def _once(self, bulk: bool, max_wait: float | None) -> int:
        await self.budget.acquire(bulk=bulk, max_wait=max_wait)
        try:
            self.sent += 1
            sent_at = self.server.now()
            await asyncio.sleep(self.latency())
            status, headers = self.server.hit()
            self.log.append((sent_at, self.server.now()))
            await asyncio.sleep(self.latency())
            if status == 429:
                self.refused += 1
                await self.budget.throttle(headers)
            else:
                self.budget.observe(headers)
            return status
        finally:
            self.budget.release()

    async def calls(self, count: int, at_once: int, **options: Any) -> None:
        """``count`` calls, ``at_once`` of them on the way at a time."""
        todo = iter(range(count))

        async def worker() -> None:
            for _ in todo:
                await self.call(**options)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, count)):
                group.create_task(worker())


def optimum(count: int, windows: Iterable[tuple[int, float]] = ((250, 60.0), (5000, 3600.0))) -> float:
    """When the last of ``count`` requests may go at the earliest, the first going at 0."""
    windows = tuple(windows)
    at: list[float] = []
    for k in range(count):
        at.append(max([0.0] + [at[k - limit] + seconds for limit, seconds in windows if k >= limit]))
    return at[-1]
