"""The budget of one process.

``RateLimiter`` combines ``Ledger`` (which slots are taken, and what a 429 allows) and ``Queue`` (which calls wait).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from itertools import count
from operator import attrgetter
from typing import Any

from attrs import Attribute, define, field, frozen

from .._headers import RateLimitStatus, hour_of, wait_after_429
from ..errors import ConfigurationError, InvalidArgumentError, MaxWaitError
from .ledger import Ledger, Window

__all__ = ["RateLimitStatus", "RateLimiter", "Snapshot", "Window"]

logger = logging.getLogger("aiodbclient")

_WORTH_LOGGING = 5.0  # seconds of waiting
_TIMER_STEP = 1e-4  # seconds; the timer takes at least this long, since rounding can make it ring early again and again
_order = attrgetter("order")

# Whether it is a bulk call, which goes behind all others; and its place, which it keeps after a 429.
Order = tuple[bool, int]

# For one OAuth token, by the provider's API description.
DOCUMENTED_WINDOWS = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))


@frozen
class Snapshot:
    """A budget at one moment.

    Attributes:
        used: For each window, the shortest first: how many slots our answered requests hold, those of the other
            processes of a fleet, and in the longest one also those of others that the last answer showed.
        in_flight: Requests without an answer yet. Each of them holds a slot of each window too.
        waiting: Calls that wait for a slot.
        next_slot: Seconds until a slot is free; 0.0 if one is.
    """

    used: tuple[int, ...]
    in_flight: int
    waiting: int
    next_slot: float


def by_length(windows: Iterable[Window] | None) -> tuple[Window, ...]:
    """Sort the windows by their length; None means the documented ones. Raises InvalidArgumentError."""
    if windows is None:
        return DOCUMENTED_WINDOWS
    given = tuple(windows) if isinstance(windows, Iterable) else (windows,)
    for window in given:
        if not isinstance(window, Window):
            raise InvalidArgumentError(f"windows must be Window objects, not {window!r}")
    return tuple(sorted(given, key=lambda window: window.seconds))


def below_every_limit(budget: Any, _: Attribute[int], value: int) -> None:
    """Validate ``reserve``."""
    smallest = min((window.limit for window in budget.windows), default=math.inf)
    if type(value) is not int or not 0 <= value < smallest:
        raise InvalidArgumentError(
            f"reserve must be an int from 0 to below the smallest limit, {smallest}, not {value!r}"
        )


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
        self._impatient = 0  # how many of them have a ``max_wait``
        self._places = count()
        self._timer: asyncio.TimerHandle | None = None
        self._announced = -math.inf  # the end of the wait that was logged last
        self.closed: Exception | None = None  # why

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter([*self._waiters])

    @property
    def is_patient(self) -> bool:
        """Whether all of them wait for as long as it takes: otherwise the first one holds up one that does not."""
        return not self._impatient

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
            self.leave(self._waiters[0])
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
        self._impatient += not waiter.is_patient
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Take a call out, if it still waits."""
        with suppress(ValueError):
            self._waiters.remove(waiter)
            self._impatient -= not waiter.is_patient

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


def refusal(wait: float) -> MaxWaitError:
    """Make the error for a call that would have to wait for ``wait`` seconds, longer than its patience."""
    return MaxWaitError(
        f"the rate budget has no slot for another {wait:.1f} s, longer than max_wait allows",
        retry_after=wait,
    )


class Pacer:
    """What all budgets of this package do: let calls wait in order, until the ledger has a slot for them."""

    __slots__ = ()
    windows: tuple[Window, ...]
    reserve: int
    _clock: Callable[[], float]
    _ledger: Ledger
    _queue: Queue
    _longer = 0.0  # seconds that a call may wait beyond its ``max_wait``

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None, place: int | None = None) -> int:
        """Wait for a slot. Return it with ``release``. Safe to cancel.

        Args:
            bulk: Whether the request is part of a bulk run. Bulk calls wait behind all others.
            max_wait: The longest wait in seconds; None means no limit.
            place: What ``acquire`` returned for an earlier try of the same call, which then waits in its old place.

        Returns:
            The place of the call.

        Raises:
            MaxWaitError: The wait would exceed ``max_wait``. Raised as soon as that is known. ``retry_after`` is the
                rest of the wait in seconds, as far as it is known.
            ConfigurationError: Calls on another event loop are waiting. A ``SharedRateBudget`` is closed or belongs to
                another loop, or its server refuses this process, for example because of a wrong password.
        """
        now, queue = self._clock(), self._queue
        order = queue.order(bulk, place)
        if not (queue and queue.ahead(order)) and self._ledger.take(now, bulk, patient=max_wait is None):
            return order[1]
        waiter = queue.enter(order, max_wait, now)
        self._came(waiter, now)
        try:
            async with asyncio.timeout(None if max_wait is None else max_wait + self._longer):
                await waiter.woken
        except TimeoutError:
            if not waiter.granted:
                wait = self._wait(queue.ahead(order), bulk, self._clock())
                self._leave(waiter)
                raise refusal(wait) from None
        except (asyncio.CancelledError, GeneratorExit):
            self._leave(waiter)
            raise
        return order[1]

    def release(self, *, sent: bool = True) -> None:
        """Return a slot.

        Args:
            sent: Whether the server may have counted the request. If so, the slot is free one window from now,
                otherwise at once.
        """
        now = self._clock()
        self._ledger.end(now, sent=sent)
        if self._queue:
            self._serve(now)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers. Call it before ``release``."""
        self._ledger.hear(*hour_of(headers), self._clock())

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers, and stop all calls for a while. Call it before ``release``.

        The length is ``retry-after``, or the time until ``ratelimit-reset`` if that lies in the future and no further
        than the longest window. Otherwise it is random: up to a second, up to two after a second refusal in a row, four
        after a third, and so on up to a minute. Requests in flight are not affected. Calls whose ``max_wait`` is over
        before that are refused now.

        Returns:
            The seconds until requests go again.
        """
        self.observe(headers)
        now, ledger = self._clock(), self._ledger
        ledger.refuse(wait_after_429(headers, ledger.longest), now)
        self._refuse_late(now)
        return ledger.gate.until - now

    def snapshot(self) -> Snapshot:
        """The budget as it is now."""
        now, ledger = self._clock(), self._ledger
        return Snapshot(ledger.held(now), ledger.in_flight, len(self._queue), self._wait(0, False, now))

    def _wait(self, ahead: int, bulk: bool, now: float) -> float:
        """How many seconds a call waits with so many calls ``ahead`` of it."""
        return self._ledger.opens(now, ahead, bulk) - now

    def _came(self, waiter: Waiter, now: float) -> None:
        """Refuse a call that came and would wait for too long, or serve it."""
        self._refuse_if_late(waiter, self._queue.ahead(waiter.order), now)
        self._serve(now)

    def _serve(self, now: float) -> None:
        """Grant the free slots to the waiting calls, in order, and set the timer for when the next one is free."""
        queue, ledger, when = self._queue, self._ledger, math.inf
        while (first := queue.first()) is not None:
            if not ledger.take(now, first.is_bulk, patient=queue.is_patient):
                when = self._opens(first, now)
                break
            queue.grant(first)
        queue.arm(when - now, lambda: self._serve(self._clock()))

    def _opens(self, first: Waiter, now: float) -> float:
        """When the first call may go; ``math.inf`` if that takes an answer. A long wait is logged."""
        ledger = self._ledger
        if ledger.in_flight >= ledger.ramp.at_most:
            return math.inf
        when = ledger.opens(now, 0, first.is_bulk, patient=self._queue.is_patient)
        self._queue.announce(when, now, ledger.reason(now))
        return when

    def _leave(self, waiter: Waiter) -> None:
        self._queue.leave(waiter)
        if waiter.granted:  # and cancelled before it woke
            self.release(sent=False)
        else:
            self._serve(self._clock())

    def _refuse_late(self, now: float, since: float = math.inf) -> None:
        """Refuse those that came before ``since`` and would wait for longer than their patience lasts."""
        for ahead, waiter in enumerate(self._queue):
            if waiter.since <= since:
                self._refuse_if_late(waiter, ahead, now)

    def _refuse_if_late(self, waiter: Waiter, ahead: int, now: float) -> None:
        if not waiter.is_patient:
            wait = self._wait(ahead, waiter.is_bulk, now)
            if wait > waiter.deadline - now or waiter.deadline <= now:
                self._queue.fail(waiter, refusal(wait))


def seconds_for(requests: int, budget: Pacer) -> float:
    """Return for how many seconds ``budget`` keeps the last of so many requests of a bulk run."""
    clock, wait = budget._clock, budget._wait  # pyright: ignore[reportPrivateUsage]  # of the class above
    return wait(requests - 1, True, clock())


@define(eq=False)
class RateLimiter(Pacer):
    """Keep one token's rate limit, for all clients on one event loop that are given this budget.

    Serves calls in order, bulk calls behind all others. Not thread-safe.

    Args:
        windows: The token's sliding windows. None: the documented 250 requests a minute and 5,000 an hour. ``[]``: no
            pacing, though a 429 still makes all calls wait. If there are several, the longest takes over the server's
            ``ratelimit-limit`` once two answers in a row name the same.
        reserve: How many slots of each window bulk calls leave free for other calls.

    Raises:
        InvalidArgumentError: ``reserve`` is not an int below every limit, or ``windows`` holds something other than a
            ``Window``.
    """

    windows: tuple[Window, ...] = field(default=None, converter=by_length)
    reserve: int = field(default=0, kw_only=True, validator=below_every_limit)
    _clock: Callable[[], float] = field(default=time.monotonic, kw_only=True, repr=False)
    _ledger: Ledger = field(init=False, repr=False)
    _queue: Queue = field(init=False, repr=False, factory=Queue)

    def __attrs_post_init__(self) -> None:
        self._ledger = Ledger(self.windows, self.reserve)
