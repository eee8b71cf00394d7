"""The calls that wait for a slot, in order, and the patience of each call (its ``max_wait``)."""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from itertools import count
from operator import attrgetter

from attrs import define

from ..errors import ConfigurationError, RateLimitError

logger = logging.getLogger("aiodbclient")

_WORTH_LOGGING = 5.0  # seconds of waiting
_TIMER_STEP = 1e-4  # seconds; the timer takes at least this long, since rounding can make it ring early again and again
_order = attrgetter("order")

# Whether it is a bulk call, which goes behind all others; and its place, which it keeps after a 429.
Order = tuple[bool, int]


@define(eq=False)
class Waiter:
    """A call that waits for a slot."""

    order: Order
    since: float
    deadline: float  # when its patience ends
    woken: asyncio.Future[None]  # done when it is granted a slot; the error says why it gets none
    granted: bool = False

    @property
    def is_bulk(self) -> bool:
        """Whether it is part of a bulk run."""
        return self.order[0]

    @property
    def is_patient(self) -> bool:
        """Whether it waits for as long as it takes."""
        return self.deadline == math.inf


class Queue:
    """The calls that wait for one budget."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []
        self._places = count()
        self._timer: asyncio.TimerHandle | None = None
        self._announced = -math.inf  # the end of the wait that was logged last
        self.closed: Exception | None = None  # why

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter([*self._waiters])

    def order(self, bulk: bool, place: int | None) -> Order:
        """Return the order of a call that has a ``place``, or comes now. Raises why it is closed."""
        if self.closed is not None:
            raise copy(self.closed)
        return bulk, next(self._places) if place is None else place

    def ahead(self, order: Order) -> int:
        """How many calls are before the one with this order."""
        return bisect_left(self._waiters, order, key=_order)

    def first(self) -> Waiter | None:
        """The call that goes next; None if none waits."""
        while self._waiters and self._waiters[0].woken.done():  # it was cancelled, and has not run yet
            del self._waiters[0]
        return self._waiters[0] if self._waiters else None

    def enter(self, order: Order, max_wait: float | None, now: float) -> Waiter:
        """Let a call wait for ``max_wait`` seconds; None: for as long as it takes."""
        loop = asyncio.get_running_loop()
        if (other := self.first()) is not None and other.woken.get_loop() is not loop:
            raise ConfigurationError(
                "a rate budget is for one event loop, and calls on another loop are waiting for it"
            )
        waiter = Waiter(order, now, math.inf if max_wait is None else now + max_wait, loop.create_future())
        insort(self._waiters, waiter, key=_order)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Take a call out, if it still waits."""
        with suppress(ValueError):
            self._waiters.remove(waiter)

    def grant(self, waiter: Waiter) -> None:
        """Grant a slot to a call."""
        self.leave(waiter)
        waiter.granted = True
        waiter.woken.set_result(None)

    def fail(self, waiter: Waiter, error: BaseException) -> None:
        """End the wait of a call with ``error``."""
        self.leave(waiter)
        if not waiter.woken.done():
            waiter.woken.set_exception(error)

    def fail_all(self, error: BaseException) -> None:
        """End the wait of all calls."""
        for waiter in self:
            self.fail(waiter, copy(error))

    def close(self, why: Exception) -> None:
        """End the wait of all calls, and refuse later ones."""
        self.closed = why
        self.fail_all(why)

    def announce(self, when: float, now: float, why: str) -> None:
        """Log a long wait for the next slot, once."""
        if when - now > _WORTH_LOGGING and when > self._announced + _WORTH_LOGGING:
            self._announced = when
            calls = "1 call waits" if len(self) == 1 else f"{len(self)} calls wait"
            logger.warning("waiting %.1f s for the rate limit, %s: %s", when - now, why, calls)

    def arm(self, seconds: float, ring: Callable[[], None]) -> None:
        """Set the timer: ``ring`` is called in so many seconds. Off if no call waits."""
        if self._timer is not None:
            self._timer.cancel()
        if self and seconds < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(seconds, _TIMER_STEP), ring)


def refusal(wait: float) -> RateLimitError:
    """Make the error for a call that would have to wait for ``wait`` seconds, longer than its patience."""
    return RateLimitError(
        f"the rate budget has no slot for another {wait:.1f} s, longer than max_wait allows; nothing was sent",
        retry_after=wait,
    )
