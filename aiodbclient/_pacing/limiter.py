"""``RateLimiter``: which calls wait for a slot, in which order, and for how long."""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from operator import attrgetter
from time import monotonic

from attrs import define, field, frozen

from .._checks import check_max_wait
from .._headers import wait_after_429
from ..errors import ConfigurationError, InvalidArgumentError, MaxWaitError
from .cooldown import ConcurrencyLimit, Cooldown
from .windows import DOCUMENTED, SlidingWindowLog, Window, sort_windows

logger = logging.getLogger("aiodbclient")

_LOGGED_WAIT = 5.0  # seconds of waiting
_MIN_TIMER = 1e-4  # seconds; the timer takes at least this long, since rounding can make it ring early again and again
_NEGLIGIBLE_WAIT = 0.05  # seconds: the windows have room
_STALLED_AFTER = 1.0  # seconds without an answer, after which a request does not hold up others
_order = attrgetter("is_bulk", "number")

# Chosen by simulation, which ``benchmarks/limiters.py`` prints.
_RESERVE_PERIOD = 600.0  # seconds of single calls, by which the reserve for them is sized
_MIN_RESERVE_PERIOD = 60.0  # seconds: the period after the first single call is no shorter
_MAX_SINGLE_CALLS = 10_000  # of the period that are counted
_RESERVE_REFRESH = 60.0  # seconds: the reserve shrinks without an event


@define(eq=False)
class Slot:
    """The slot of one call. All tries of the call keep it, and with it their place."""

    is_bulk: bool  # bulk calls go behind all others
    number: int  # in the order of the calls
    is_held: bool = False  # from ``acquire`` until ``release`` or ``refuse``
    sent_at: float = -math.inf
    ready_at: float = -math.inf  # when a call that got a lone 429 may try again
    deadline: float = math.inf  # when its ``max_wait`` ends
    woken: asyncio.Future[MaxWaitError | None] = field(init=False)  # the error says why it gets none


class Slots:
    """The slots of all windows, and what a 429 allows."""

    def __init__(self, windows: Sequence[Window], share: float) -> None:
        self.in_flight = 0
        self.cooldown = Cooldown()
        self._logs = [SlidingWindowLog(window, share) for window in windows]  # the shortest first
        self._bulk_logs = [SlidingWindowLog(window, share) for window in windows]  # only the requests of bulk calls
        self._bulk_in_flight = 0
        self._single = deque[float](maxlen=_MAX_SINGLE_CALLS)  # when the last single calls began
        self._first_single = math.inf  # when the first of all did
        self._concurrency = ConcurrencyLimit()
        self._recent: dict[Slot, None] = {}  # in flight, in order, without those that hang

    def count_used(self, now: float) -> tuple[int, ...]:
        """Count the slots of each window that answered requests hold."""
        return tuple(log.count_used(now) for log in self._logs)

    def expect(self, now: float) -> None:
        """Count a single call, by which the reserve for such calls is sized."""
        if self._logs:
            self._single.append(now)
            self._first_single = min(self._first_single, now)

    def reserve(self, log: SlidingWindowLog, now: float) -> int:
        """Return how many slots of a window bulk calls leave to single calls, which may hold some of them already."""
        while self._single and self._single[0] <= now - _RESERVE_PERIOD:
            self._single.popleft()
        period = min(_RESERVE_PERIOD, max(_MIN_RESERVE_PERIOD, now - self._first_single))
        expected = len(self._single) * log.seconds / period
        return min(log.limit // 2, math.ceil(1.25 * expected + 5)) if expected >= 1 else 0

    def take(self, slot: Slot, now: float) -> bool:
        """Take a slot if one is free, and return whether it did."""
        if now < self.cooldown.ends_at:
            return False
        for log in self._logs:
            if log.count_used(now) + self.in_flight >= log.limit:
                return False
        if slot.is_bulk:
            for log in self._bulk_logs:
                if log.count_used(now) + self._bulk_in_flight >= log.limit - self.reserve(log, now):
                    return False
        if self._concurrency.is_on and self._count_recent(now) + 1 > self._concurrency.at_most(now):
            return False
        self.in_flight += 1
        self._bulk_in_flight += slot.is_bulk
        self._recent[slot] = None
        slot.is_held, slot.sent_at = True, now
        return True

    def free(self, slot: Slot, now: float, *, counted: bool, accepted: bool = False) -> None:
        """Free a slot: one window from now, or at once if the API did not count the request."""
        cooldown, concurrency = self.cooldown, self._concurrency
        if accepted and (cooldown.in_row or concurrency.is_on) and cooldown.is_fresh(slot.sent_at):
            cooldown.succeed()
            concurrency.succeed(now)
        slot.is_held = False
        self.in_flight -= 1
        self._bulk_in_flight -= slot.is_bulk
        self._recent.pop(slot, None)
        if counted:
            for log in (*self._logs, *self._bulk_logs) if slot.is_bulk else self._logs:
                log.answered.append(now)

    def refuse(self, slot: Slot, named: float | None, now: float) -> bool:
        """Count a 429, free its slot, and return whether it was the try after a cooldown."""
        cooldown, concurrency = self.cooldown, self._concurrency
        was_first_try = concurrency.is_on and cooldown.in_row > 0 and cooldown.is_fresh(slot.sent_at)
        concurrency.refuse(slot.sent_at, self.in_flight, now)
        wait, started = cooldown.refuse(slot.sent_at, named, now)
        if cooldown.in_row == 1:
            slot.ready_at = now + wait
        if started:
            concurrency.restart()
        self.free(slot, now, counted=False)
        return was_first_try

    def estimate_wait(self, ahead: int, now: float, *, bulk: bool = False) -> float:
        """Estimate the seconds that a call waits with so many calls ``ahead`` of it."""
        when = max(now, self.cooldown.ends_at)
        for log in self._logs:
            when = max(when, log.free_at(now, self.in_flight, ahead))
        for log in self._bulk_logs if bulk else ():
            when = max(when, log.free_at(now, self._bulk_in_flight, ahead, self.reserve(log, now)))
        longest = self._logs[-1] if self._logs else None
        if longest is not None:
            limit = longest.limit - (self.reserve(longest, now) if bulk else 0)
            if ahead >= limit:  # one longest window later, the shorter ones are empty again
                full, rest = divmod(ahead, limit)
                when = max(when, now + self.estimate_wait(rest, now, bulk=bulk) + full * longest.seconds)
        return when - now

    def next_at(self, now: float, *, bulk: bool) -> float:
        """Return when a slot may be free, if no answer comes before."""
        wait = self.estimate_wait(0, now, bulk=bulk)
        if wait <= 0 and self._recent:  # too many are in flight
            return next(iter(self._recent)).sent_at + _STALLED_AFTER
        return now + wait

    def explain(self, next_at: float, now: float) -> str:
        """Say why the next slot is not free before ``next_at``."""
        if self.cooldown.ends_at >= next_at:
            return "after 429s"
        if now + self.estimate_wait(0, now) < next_at:
            return "which keeps slots for single calls"
        full = max(self._logs, key=lambda log: log.free_at(now, self.in_flight, 0))
        return f"which allows {full.limit} requests in {full.seconds:g} s"

    def _count_recent(self, now: float) -> int:
        """Count the requests in flight that hold up others."""
        recent = self._recent
        while recent and (first := next(iter(recent))).sent_at <= now - _STALLED_AFTER:
            del recent[first]
        return len(recent)


@frozen
class Snapshot:
    """A rate limiter at one moment.

    Attributes:
        used: For each window, the shortest first: how many slots our answered requests hold.
        in_flight: Requests without an answer yet. Each of them holds a slot of each window too.
        waiting: Calls that wait for a slot.
        next_slot: Seconds until a slot is free; 0.0 if one is.
    """

    used: tuple[int, ...]
    in_flight: int
    waiting: int
    next_slot: float


class RateLimiter:
    """Keep one token's rate limit, for all clients on one event loop that are given this limiter.

    Serves calls in order, bulk calls behind all others. Not thread-safe.

    Args:
        windows: The token's sliding windows. ``[]``: no limit, though calls wait after a 429.
        share: The part of each window that this limiter uses, such as ``1/4`` for each of four processes with one
            token.

    Attributes:
        windows: The windows, the shortest first.
        share: The part of each window that this limiter uses.

    Raises:
        InvalidArgumentError: ``windows`` holds something other than a ``Window``, or ``share`` is not above 0 and at
            most 1, or so small that a window has no request left.
    """

    def __init__(self, windows: Iterable[Window] = DOCUMENTED, *, share: float = 1.0) -> None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InvalidArgumentError(f"share must be a number above 0 and at most 1, not {share!r}")
        self.windows: tuple[Window, ...] = sort_windows(windows)
        self.share: float = share
        self._slots = Slots(self.windows, share)
        self._queue: list[Slot] = []  # in order
        self._delayed: list[Slot] = []  # after a lone 429, until ``ready_at``
        self._places = count()
        self._timer: asyncio.TimerHandle | None = None
        self._announced = -math.inf  # the end of the wait that was logged last

    def __repr__(self) -> str:
        return f"RateLimiter({list(self.windows)!r}, share={self.share!r})"

    def snapshot(self) -> Snapshot:
        """Return the limiter as it is now."""
        now, slots = monotonic(), self._slots
        return Snapshot(slots.count_used(now), slots.in_flight, self._count_waiting(), slots.estimate_wait(0, now))

    def _take(self, slot: Slot | None = None, *, bulk: bool = False) -> Slot | None:
        """Return a slot as ``acquire`` does, or None if the call would have to wait."""
        now = monotonic()
        is_new = slot is None
        if slot is None:
            slot = Slot(bulk, next(self._places))
        if slot.ready_at > now or self._queue or not self._slots.take(slot, now):
            return None
        if is_new and not bulk:
            self._slots.expect(now)
        return slot

    async def acquire(self, slot: Slot | None = None, *, bulk: bool = False, max_wait: float | None = None) -> Slot:
        """Wait for a slot. Return it with ``release``. Safe to cancel.

        Args:
            slot: That of an earlier try of the same call, which then waits in its old place.
            bulk: Whether the call is part of a bulk run.
            max_wait: The longest wait in seconds; None means no limit.

        Raises:
            InvalidArgumentError: ``max_wait`` is not a number of seconds, at least 0.
            MaxWaitError: The wait would exceed ``max_wait``. Raised as soon as that is known.
            ConfigurationError: Calls on another event loop are waiting.
        """
        check_max_wait(max_wait)
        if slot is None:
            slot = Slot(bulk, next(self._places))
            if not bulk:
                self._slots.expect(monotonic())
        if self._take(slot) is None:
            await self._wait(slot, max_wait, monotonic())
        return slot

    def refuse(self, slot: Slot, headers: Mapping[str, str]) -> float:
        """Record a 429, free its slot, since the API did not count it, and return the seconds that its call waits."""
        now = monotonic()
        if self._slots.refuse(slot, wait_after_429(headers), now):
            slot.number = next(self._places)  # to the end, so that it does not hold up the others
        for waiting in (*self._queue, *self._delayed):
            self._fail_if_late(waiting, now)
        self._serve(now)
        return max(slot.ready_at, self._slots.cooldown.ends_at) - now

    def release(self, slot: Slot, *, sent: bool = True, accepted: bool = False) -> None:
        """Return a slot that was not returned yet.

        Args:
            slot: It is free one window from now.
            sent: Whether the request was sent. If it was not, the slot is free at once.
            accepted: Whether the API answered it, with something other than a 429.
        """
        if not slot.is_held:
            return
        now = monotonic()
        self._slots.free(slot, now, counted=sent, accepted=accepted)
        if self._queue:
            self._serve(now)

    def estimate_wait(self, ahead: int, *, bulk: bool = False) -> float:
        """Estimate the seconds that a call waits with so many calls ``ahead`` of it. Those of ``bulk`` wait longer."""
        return self._slots.estimate_wait(ahead, monotonic(), bulk=bulk)

    async def _wait(self, slot: Slot, max_wait: float | None, now: float) -> None:
        loop = asyncio.get_running_loop()
        if any(each[0].woken.get_loop() is not loop for each in (self._queue, self._delayed) if each):
            raise ConfigurationError("a rate limiter is for one event loop, and calls on another loop wait for it")
        slot.woken = loop.create_future()
        slot.deadline = math.inf if max_wait is None else now + max_wait
        if slot.ready_at > now:
            self._delayed.append(slot)
        else:
            insort(self._queue, slot, key=_order)
        self._fail_if_late(slot, now)
        self._serve(now)
        error: MaxWaitError | None
        try:
            async with asyncio.timeout(max_wait):
                error = await slot.woken
        except TimeoutError:
            error = None if slot.is_held else no_slot(self.estimate_wait(self._place_of(slot), bulk=slot.is_bulk))
            self._leave(slot)
        except (asyncio.CancelledError, GeneratorExit):
            self._leave(slot)
            if slot.is_held:
                self.release(slot, sent=False)
            raise
        if error is not None:
            raise error

    def _serve(self, now: float) -> None:
        """Grant the free slots to the waiting calls, in order, and set the timer for the next one."""
        for slot in [each for each in self._delayed if each.ready_at <= now]:
            self._delayed.remove(slot)
            insort(self._queue, slot, key=_order)
        next_at = min((slot.ready_at for slot in self._delayed), default=math.inf)
        while self._queue:
            first = self._queue[0]
            if not first.woken.done():  # otherwise it was cancelled, and has not run yet
                if not self._slots.take(first, now):
                    latest = now + _RESERVE_REFRESH if first.is_bulk else math.inf
                    next_at = min(next_at, self._next_slot_at(first, now), latest)
                    break
                first.woken.set_result(None)
            del self._queue[0]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if next_at < math.inf:
            delay = max(next_at - now, _MIN_TIMER)
            self._timer = asyncio.get_running_loop().call_later(delay, lambda: self._serve(monotonic()))

    def _next_slot_at(self, first: Slot, now: float) -> float:
        """Return when a slot may be free for the ``first`` call in the queue, and log a long wait."""
        next_at = self._slots.next_at(now, bulk=first.is_bulk)
        if next_at - now > _LOGGED_WAIT and next_at > self._announced + _LOGGED_WAIT:
            self._announced = next_at
            why, count = self._slots.explain(next_at, now), self._count_waiting()
            calls = "1 call waits" if count == 1 else f"{count} calls wait"
            advice = "" if first.is_bulk else "; max_wait= bounds it"  # not the wait of a bulk run
            logger.warning("waiting %.1f s for the rate limit, %s: %s%s", next_at - now, why, calls, advice)
        return next_at

    def _fail_if_late(self, slot: Slot, now: float) -> None:
        if slot.deadline < math.inf:
            wait = max(self._slots.estimate_wait(self._place_of(slot), now, bulk=slot.is_bulk), slot.ready_at - now)
            if wait > slot.deadline - now or slot.deadline <= now:
                self._leave(slot)
                if not slot.woken.done():
                    slot.woken.set_result(no_slot(wait))

    def _leave(self, slot: Slot) -> None:
        """Take a call out, if it still waits."""
        place = self._place_of(slot)
        if slot in self._delayed:
            self._delayed.remove(slot)
        elif self._queue[place : place + 1] == [slot]:
            del self._queue[place]
        else:
            return
        self._serve(monotonic())

    def _place_of(self, slot: Slot) -> int:
        return bisect_left(self._queue, _order(slot), key=_order)

    def _count_waiting(self) -> int:
        return len(self._queue) + len(self._delayed)


def no_slot(wait: float) -> MaxWaitError:
    """Make the error of a call that would wait another ``wait`` seconds."""
    how_long = f"for another {wait:.1f} s, longer than max_wait allows"
    if wait < _NEGLIGIBLE_WAIT:
        how_long = "within max_wait: calls in flight have all of them"
    return MaxWaitError(f"the rate limit has no slot {how_long}", retry_after=wait)
