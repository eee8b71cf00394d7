"""The calls that wait for a budget: two lanes, how patient each is, and one timer for all."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import chain, count

from ..errors import ConfigurationError, RateLimitError

logger = logging.getLogger("aiodbclient")

_WORTH_TELLING = 3.0  # seconds of waiting
_TIMER_STEP = 1e-4  # seconds, so that a timer which rounding fired early cannot spin


class Waiter:
    """One call that waits, until it is ``granted`` a slot or, as that would take ``wait`` seconds, refused one."""

    __slots__ = ("_called", "bulk", "deadline", "granted", "judged", "wait")

    def __init__(self, bulk: bool, deadline: float, called: asyncio.Future[None]) -> None:
        self.bulk = bulk
        self.deadline = deadline
        self.granted = False
        self.wait: float | None = None
        self.judged = False  # it was found out whether it would wait for too long
        self._called = called

    @property
    def decided(self) -> bool:
        return self.granted or self.wait is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop on which it waits."""
        return self._called.get_loop()

    def call(self) -> None:
        """Let it go on."""
        if not self._called.done():
            self._called.set_result(None)

    async def called(self) -> None:
        """Wait until it is called, or was since the last time."""
        await self._called
        self._called = self.loop.create_future()


class Queue:
    """First come, first served, and bulk calls behind all others. ``wake`` is called when the time for it has come."""

    __slots__ = (
        "_announced",
        "_clock",
        "_deadlines",
        "_tickets",
        "_timer",
        "_timer_at",
        "_wake",
        "bulk",
        "interactive",
    )

    def __init__(self, clock: Callable[[], float], wake: Callable[[float], None]) -> None:
        self.interactive: OrderedDict[Waiter, None] = OrderedDict()
        self.bulk: OrderedDict[Waiter, None] = OrderedDict()
        self._clock = clock
        self._wake = wake
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._tickets = count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._announced = False

    def __len__(self) -> int:
        return len(self.interactive) + len(self.bulk)

    def first(self) -> Waiter | None:
        return next(chain(self.interactive, self.bulk), None)

    def ahead(self, bulk: bool) -> int:
        """How many a newcomer would wait behind."""
        return len(self) if bulk else len(self.interactive)

    def enter(self, bulk: bool, max_wait: float | None, now: float) -> Waiter:
        """Take a place. Raises ConfigurationError where those that wait are on another event loop."""
        loop = asyncio.get_running_loop()
        if (other := self.first()) is not None and other.loop is not loop:
            raise ConfigurationError("a rate budget is for one event loop, and another one is waiting for this one")
        waiter = Waiter(bulk, math.inf if max_wait is None else now + max_wait, loop.create_future())
        if max_wait is not None:
            heappush(self._deadlines, (waiter.deadline, next(self._tickets), waiter))
        self._lane(bulk)[waiter] = None
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Give the place up, if it has one."""
        self._lane(waiter.bulk).pop(waiter, None)

    def grant(self, *, bulk: bool) -> bool:
        """Let the first of a lane go; False where nobody waits in it."""
        lane = self._lane(bulk)
        if not lane:
            return False
        waiter, _ = lane.popitem(last=False)
        waiter.granted = True
        waiter.call()
        return True

    def refuse(self, waiter: Waiter, wait: float) -> None:
        """Send one away, for which the wait would be too long."""
        if not waiter.decided:
            self.leave(waiter)
            waiter.wait = wait
            waiter.call()

    def overdue(self, now: float) -> list[Waiter]:
        """Those whose patience is over."""
        over: list[Waiter] = []
        while self._next_deadline() <= now:
            over.append(heappop(self._deadlines)[2])
        return over

    def announce(self, wait: float) -> None:
        """Tell, once for as long as somebody waits, that it takes a while."""
        if wait > _WORTH_TELLING and not self._announced:
            logger.info("the rate budget is spent: waiting %.1f s for its next slot", wait)
            self._announced = True

    def arm(self, now: float, when: float) -> None:
        """Set the one timer for ``when``, or for when somebody's patience ends; none where nobody waits."""
        if not self:
            self._announced, when = False, math.inf
        when = min(when, self._next_deadline())
        if self._timer is not None:
            if self._timer_at <= when < math.inf:
                return
            self._timer.cancel()
            self._timer = None
        if when < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(when - now, _TIMER_STEP), self._ring)
            self._timer_at = when

    def _ring(self) -> None:
        self._timer = None
        self._wake(self._clock())

    def _lane(self, bulk: bool) -> OrderedDict[Waiter, None]:
        return self.bulk if bulk else self.interactive

    def _next_deadline(self) -> float:
        deadlines = self._deadlines
        if len(deadlines) > 2 * len(self):
            deadlines[:] = [entry for entry in deadlines if entry[2] in self._lane(entry[2].bulk)]
            heapify(deadlines)
        while deadlines and deadlines[0][2] not in self._lane(deadlines[0][2].bulk):
            heappop(deadlines)
        return deadlines[0][0] if deadlines else math.inf


def refusal(wait: float) -> RateLimitError:
    """The error for a call that would wait for ``wait`` seconds, and may not."""
    return RateLimitError(
        f"the rate budget has no slot for another {wait:.1f} s, longer than max_wait allows; nothing was sent",
        retry_after=wait,
    )
