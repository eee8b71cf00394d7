"""The calls that wait for a slot: two lanes, and the patience of each call (its ``max_wait``)."""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from itertools import chain, count
from operator import attrgetter

from attrs import define

from ..errors import ConfigurationError, RateLimitError

logger = logging.getLogger("aiodbclient")

_WORTH_LOGGING = 5.0  # seconds of waiting
_TIMER_STEP = 1e-4  # seconds; the timer takes at least this long, since rounding can make it ring early again and again
_number = attrgetter("number")


@define(eq=False)
class Waiter:
    """A call that waits for a slot."""

    number: int  # its place: it keeps that after a 429
    bulk: bool  # whether it is in the bulk lane
    deadline: float  # when its patience ends
    woken: asyncio.Future[None]  # done when it is granted a slot; the error says why it gets none

    def is_overdue(self, now: float) -> bool:
        """Whether its patience has ended."""
        return self.deadline <= now + _TIMER_STEP

    @property
    def granted(self) -> bool:
        """Whether it has a slot."""
        return self.woken.done() and not self.woken.cancelled() and self.woken.exception() is None


class Queue:
    """The calls that wait for one budget, in the order in which they came, bulk calls behind all others."""

    def __init__(self, clock: Callable[[], float], on_timer: Callable[[float], None]) -> None:
        self.interactive: list[Waiter] = []
        self.bulk: list[Waiter] = []
        self._numbers = count()
        self._clock = clock
        self._on_timer = on_timer
        self._timer: asyncio.TimerHandle | None = None
        self._announced = -math.inf  # the end of the wait that was logged last

    def __len__(self) -> int:
        return len(self.interactive) + len(self.bulk)

    def __iter__(self) -> Iterator[Waiter]:
        return chain(self.interactive, self.bulk)

    def next_number(self) -> int:
        """Return the place of a call that comes now."""
        return next(self._numbers)

    def first(self) -> Waiter | None:
        """The one whose turn is next, or None where nobody waits."""
        for lane in (self.interactive, self.bulk):
            while lane and lane[0].woken.done():  # it was cancelled, and has not run yet
                lane.pop(0)
        return next(iter(self), None)

    def ahead(self, number: int, bulk: bool) -> int:
        """How many calls are before the one with this number."""
        place = bisect_left(self._lane(bulk), number, key=_number)
        return len(self.interactive) + place if bulk else place

    def enter(self, number: int, bulk: bool, max_wait: float | None, now: float) -> Waiter:
        """Put a call at its place in its lane, for ``max_wait`` seconds; None: for as long as it takes."""
        loop = asyncio.get_running_loop()
        if (other := self.first()) is not None and other.woken.get_loop() is not loop:
            raise ConfigurationError(
                "a rate budget is for one event loop, and calls on another loop are waiting for it"
            )
        waiter = Waiter(number, bulk, math.inf if max_wait is None else now + max_wait, loop.create_future())
        if max_wait is not None:
            timer = loop.call_later(max(max_wait, _TIMER_STEP), self._ring)
            waiter.woken.add_done_callback(lambda _: timer.cancel())
        insort(self._lane(bulk), waiter, key=_number)
        return waiter

    async def decision(self, waiter: Waiter, on_leaving: Callable[[Waiter], None]) -> None:
        """Wait until the call is granted a slot, or raise why not. ``on_leaving``: for a call that is cancelled."""
        try:
            await waiter.woken
        except (asyncio.CancelledError, GeneratorExit):
            self.leave(waiter)
            on_leaving(waiter)
            raise

    def leave(self, waiter: Waiter) -> None:
        """Take a call out, if it still waits."""
        with suppress(ValueError):
            self._lane(waiter.bulk).remove(waiter)

    def grant(self, *, bulk: bool) -> bool:
        """Grant a slot to the first call of a lane. Returns False if no call waits there."""
        self.first()
        lane = self._lane(bulk)
        if not lane:
            return False
        lane.pop(0).woken.set_result(None)
        return True

    def refuse_late(self, among: set[Waiter], wait_of: Callable[[int, bool], float], now: float) -> None:
        """Refuse those that would wait for too long. ``wait_of`` says how long, by place and lane."""
        for place, waiter in [*enumerate(self)]:
            if waiter.deadline < math.inf and waiter in among:
                wait = wait_of(place, waiter.bulk)
                if wait > waiter.deadline - now or waiter.is_overdue(now):
                    self._fail(waiter, refusal(wait))

    def fail(self, error: BaseException) -> None:
        """End all calls with ``error``."""
        for waiter in [*self]:
            self._fail(waiter, copy(error))

    def announce(self, when: float, now: float, why: str) -> None:
        """Log a long wait for the next slot, once."""
        if when - now > _WORTH_LOGGING and when > self._announced + _WORTH_LOGGING:
            self._announced = when
            calls = "1 call waits" if len(self) == 1 else f"{len(self)} calls wait"
            logger.warning("waiting %.1f s for the rate limit, %s: %s", when - now, why, calls)

    def arm(self, now: float, when: float) -> None:
        """Set the timer to ``when``. Off if no call waits."""
        if self._timer is not None:
            self._timer.cancel()
        if self and when < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(when - now, _TIMER_STEP), self._ring)

    def _ring(self) -> None:
        self._on_timer(self._clock())

    def _fail(self, waiter: Waiter, error: BaseException) -> None:
        self.leave(waiter)
        if not waiter.woken.done():
            waiter.woken.set_exception(error)

    def _lane(self, bulk: bool) -> list[Waiter]:
        return self.bulk if bulk else self.interactive


def refusal(wait: float) -> RateLimitError:
    """Make the error for a call that would have to wait for ``wait`` seconds, longer than its patience."""
    return RateLimitError(
        f"the rate budget has no slot for another {wait:.1f} s, longer than max_wait allows; nothing was sent",
        retry_after=wait,
    )
