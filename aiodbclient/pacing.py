"""The client's side of the rate limit: send as early as the server's sliding windows allow, and meet no 429 on the way.

The model. The server stamps a request at some moment between our sending it and our reading the answer. So a request holds
a slot of every window from ``acquire`` on, and for the window's length after ``release``; whoever keeps to that never has
more than ``limit`` stamps in any span of ``seconds``, whatever the latency, and never leaves a slot idle for longer than
that latency. Nothing depends on what the server's clock shows.

Other clients of the account are seen in ``ratelimit-remaining`` (the hour) and by the 429s they cause (the minute); see
``SlidingWindow``. While somebody else is about, and when a pause has made our knowledge stale, only a few requests may be in
flight until answers come. A 429 closes the gate for everybody; one request probes when it opens.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

from attrs import define, field, frozen

from .errors import InvalidArgumentError, RateLimitError
from .ratelimit import RateLimitStatus, seconds_to_wait
from .sliding import SlidingWindow, Window

__all__ = ["Budget", "RateBudget", "RateLimitStatus", "Snapshot", "Window"]

logger = logging.getLogger("aiodbclient")

# 250 requests a minute and 5,000 an hour for one account: the provider's API description.
DOCUMENTED_WINDOWS = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))

_SANE_LIMITS = range(1, 10_000_001)
_LONGEST_BACKOFF = 60.0  # s, where a 429 does not say how long to stay away
_LATENCY = 30.0  # s, more than an answer takes
_WORTH_TELLING = 3.0  # s of waiting
_TIMER_STEP = 1e-4  # s, so that a timer that rounding fired early cannot spin


class Budget(Protocol):
    """What the client needs of a budget. For every request that ``acquire`` let go, call ``observe`` with the answer's
    headers, or ``throttle`` if it is a 429, and then ``release`` in any case."""

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        """Wait for a slot. Raises RateLimitError, with nothing sent, where that takes longer than ``max_wait`` seconds."""

    def release(self, *, sent: bool = True) -> None:
        """End the request. ``sent``: the server may have counted it, so its slot counts from now; else it is free at once."""

    def observe(self, headers: Mapping[str, str]) -> RateLimitStatus | None:
        """Learn from an answer's headers, and return what they said."""

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers and close the gate for every caller. Returns for how many seconds."""


@frozen
class Snapshot:
    """A budget at one moment.

    ``used``: slots taken in each window, in the order given, by our answered requests and those of others that we know of.
    ``in_flight``: requests without an answer yet; each holds a slot too. ``waiting``: calls in the queue. ``next_slot``:
    seconds until a slot is free; 0.0 if one is.
    """

    used: tuple[int, ...]
    in_flight: int
    waiting: int
    next_slot: float


def _windows(windows: Iterable[Window] | None) -> tuple[Window, ...]:
    return DOCUMENTED_WINDOWS if windows is None else tuple(windows)


@define(eq=False)
class RateBudget:
    """The requests that one account may make, shared by every client that it is given to, in one event loop.

    ``windows``: the account's sliding windows; None: the documented 250 a minute and 5,000 an hour; ``[]``: no pacing, though
    a 429 still makes everybody wait. The limit of the longest of several windows follows what the server's
    ``ratelimit-limit`` says, since accounts differ. ``reserve``: requests of each window that only calls outside bulk work
    may use.

    First come, first served, with bulk work behind all others. Raises InvalidArgumentError where ``reserve`` is not a whole
    number smaller than every limit. Not thread-safe.
    """

    windows: tuple[Window, ...] = field(default=None, converter=_windows)
    reserve: int = field(default=0, kw_only=True)
    _clock: Callable[[], float] = field(default=time.monotonic, kw_only=True, repr=False)

    _slots: tuple[SlidingWindow, ...] = field(init=False, repr=False)
    _by_length: tuple[SlidingWindow, ...] = field(init=False, repr=False)  # the shortest first
    _countable: deque[float] = field(init=False, repr=False, factory=deque)  # answers the server may still count
    _in_flight: int = field(init=False, repr=False, default=0)

    _few: float = field(init=False, repr=False)
    _at_most: float = field(init=False, repr=False, default=math.inf)  # in flight
    _shared: bool = field(init=False, repr=False, default=False)  # somebody else spends this budget
    _heard: float = field(init=False, repr=False, default=-math.inf)  # when an answer last came
    _stale_after: float = field(init=False, repr=False)
    _gate: float = field(init=False, repr=False, default=-math.inf)  # closed until then
    _refused: int = field(init=False, repr=False, default=0)
    _strikes: int = field(init=False, repr=False, default=0)

    _interactive: OrderedDict[asyncio.Future[bool], None] = field(init=False, repr=False, factory=OrderedDict)
    _bulk: OrderedDict[asyncio.Future[bool], None] = field(init=False, repr=False, factory=OrderedDict)
    _deadlines: list[tuple[float, int, asyncio.Future[bool]]] = field(init=False, repr=False, factory=list)
    _tickets: count[int] = field(init=False, repr=False, factory=count)
    _timer: asyncio.TimerHandle | None = field(init=False, repr=False, default=None)
    _timer_at: float = field(init=False, repr=False, default=math.inf)
    _announced: bool = field(init=False, repr=False, default=False)

    @windows.validator
    def _check_windows(self, attribute: object, value: tuple[object, ...]) -> None:
        for window in value:
            if not isinstance(window, Window):
                raise InvalidArgumentError(f"windows must be an iterable of Window, not of {window!r}")

    @reserve.validator
    def _check_reserve(self, attribute: object, value: object) -> None:
        smallest = min((window.limit for window in self.windows), default=math.inf)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < smallest:
            raise InvalidArgumentError(
                f"reserve must be a whole number from 0 to less than the smallest limit ({smallest}), not {value!r}"
            )

    def __attrs_post_init__(self) -> None:
        self._slots = tuple(SlidingWindow(window.limit, window.seconds) for window in self.windows)
        self._by_length = tuple(sorted(self._slots, key=lambda slots: slots.seconds))
        self._few = max(10, min(slots.limit for slots in self._slots) // 16) if self._slots else math.inf
        self._stale_after = self._by_length[0].seconds / 10 if self._slots else math.inf

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        """Wait for a slot; ``release`` it in any case.

        Raises RateLimitError at once where the wait would be longer than ``max_wait`` seconds by what is known now, and when
        it has become so. Its ``retry_after`` is the wait in seconds. Nothing was sent. Cancelling gives the slot back.
        """
        now = self._clock()
        if not self._interactive and not (bulk and self._bulk) and self._ready(now, bulk):
            self._take(now)
        else:
            await self._queue(now, bulk, max_wait)

    def release(self, *, sent: bool = True) -> None:
        """End a request: its slot counts from now if it was ``sent``, as far as we know, else it is free at once."""
        now = self._clock()
        self._in_flight -= 1
        if self._refused:
            self._refused -= 1
        elif sent:
            for slots in self._slots:
                slots.answers.append(now)
            self._countable.append(now)
            if now >= self._gate:
                self._heard = now
                self._at_most = min(self._at_most + 1, self._few) if self._shared else math.inf
        if self._interactive or self._bulk:
            self._serve(now)

    def observe(self, headers: Mapping[str, str]) -> RateLimitStatus | None:
        """Learn from an answer's headers, before its ``release``. Returns what they said; None if that was nothing."""
        status = RateLimitStatus.from_headers(headers)
        if status is not None:
            self._listen(status, self._clock())
        return status

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """A 429 came: stop everybody, before its ``release``. Returns for how many seconds the gate is closed from now.

        That is ``retry-after``, or ``ratelimit-reset``, where it is in the future and no further than the longest window;
        else a random part of a second, which doubles with each consecutive 429.
        """
        now = self._clock()
        status = RateLimitStatus.from_headers(headers)
        foreign = None if status is None else self._listen(status, now)
        if status is None or status.remaining != 0:
            self._blame_others(now, foreign)
        wait = seconds_to_wait(headers, self._by_length[-1].seconds if self._slots else 3600.0)
        if now >= self._gate:
            # What was in flight with the first one tells nothing new.
            self._strikes = self._strikes + 1 if now - self._gate < _LONGEST_BACKOFF else 1
            if wait is None:
                wait = random.uniform(0.0, min(_LONGEST_BACKOFF, 2.0 ** (self._strikes - 1)))
        self._gate = max(self._gate, now + (wait or 0.0))
        self._shared, self._at_most = True, 1
        self._refused += 1
        return self._gate - now

    def snapshot(self) -> Snapshot:
        """How the budget stands now."""
        now = self._clock()
        return Snapshot(
            used=tuple(slots.used(now) + slots.foreign(now) for slots in self._slots),
            in_flight=self._in_flight,
            waiting=len(self._interactive) + len(self._bulk),
            next_slot=self._opens(now, 0, bulk=False) - now,
        )

    def _ready(self, now: float, bulk: bool) -> bool:
        if now < self._gate or self._in_flight >= self._at_most:
            return False
        reserve = self.reserve if bulk else 0
        for slots in self._slots:
            if slots.used(now) + self._in_flight >= slots.room(now, reserve):
                return False
        return True

    def _take(self, now: float) -> None:
        if not self._in_flight and now - self._heard > self._stale_after:
            self._shared = any(slots.foreign(now) for slots in self._slots)
            self._at_most = self._few
        self._in_flight += 1

    def _opens(self, now: float, ahead: int, bulk: bool) -> float:
        """When a call behind ``ahead`` others may go, as far as we know."""
        reserve = self.reserve if bulk else 0
        return (
            max(
                (slots.opens(now, self._in_flight, ahead, reserve) for slots in self._slots),
                default=now,
            )
            if now >= self._gate
            else max(self._gate, *(slots.opens(now, self._in_flight, ahead, reserve) for slots in self._slots))
        )

    async def _queue(self, now: float, bulk: bool, max_wait: float | None) -> None:
        lane = self._bulk if bulk else self._interactive
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if max_wait is not None:
            wait = self._opens(now, len(self._interactive) + (len(self._bulk) if bulk else 0), bulk) - now
            if wait > max_wait:
                raise _too_long(wait, max_wait)
            heappush(self._deadlines, (now + max_wait, next(self._tickets), turn))
        lane[turn] = None
        self._arm(now)
        try:
            granted = await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                lane.pop(turn, None)
                self._serve(self._clock())
            elif turn.result():
                # Granted and cancelled in the same moment.
                self.release(sent=False)
            raise
        if not granted:
            now = self._clock()
            raise _too_long(self._opens(now, 0, bulk) - now, max_wait)

    def _serve(self, now: float) -> None:
        """Let go whoever's turn it is."""
        while lane := self._interactive or self._bulk:
            if not self._ready(now, lane is self._bulk):
                break
            turn, _ = lane.popitem(last=False)
            if not turn.done():
                self._take(now)
                turn.set_result(True)
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Have one timer, for the first moment at which something is due, if somebody waits for it."""
        waiting = len(self._interactive) + len(self._bulk)
        slot_at = math.inf
        if waiting and self._in_flight < self._at_most:
            slot_at = self._opens(now, 0, bulk=not self._interactive)
            if slot_at - now > _WORTH_TELLING and not self._announced:
                self._announced = True
                logger.info("the rate budget is spent: waiting %.1f s for its next slot", slot_at - now)
        when = min(slot_at, self._next_deadline(waiting))
        if self._timer is not None:
            if self._timer_at <= when < math.inf:
                return
            self._timer.cancel()
            self._timer = None
        if when < math.inf:
            delay = max(when - now, _TIMER_STEP)
            self._timer, self._timer_at = asyncio.get_running_loop().call_later(delay, self._wake), when
        if not waiting:
            self._announced = False

    def _next_deadline(self, waiting: int) -> float:
        deadlines = self._deadlines
        if len(deadlines) > 2 * waiting:
            deadlines[:] = [entry for entry in deadlines if not entry[2].done()]
            heapify(deadlines)
        while deadlines and deadlines[0][2].done():
            heappop(deadlines)
        return deadlines[0][0] if deadlines else math.inf

    def _wake(self) -> None:
        self._timer = None
        now = self._clock()
        self._serve(now)
        while self._next_deadline(1) <= now:
            turn = heappop(self._deadlines)[2]
            self._interactive.pop(turn, None)
            self._bulk.pop(turn, None)
            turn.set_result(False)
        self._arm(now)

    def _listen(self, status: RateLimitStatus, now: float) -> int | None:
        """Take over the limit of the longest window, and find how much of it others spend; None if that cannot be told.

        The server has counted all of our requests that were answered before this one went, and perhaps those in flight since.
        What it counted beyond all of them is somebody else's for certain; what we had thought to be somebody else's, and it
        did not count beyond the former, has expired.
        """
        limit, remaining = status.limit, status.remaining
        if not self._slots or limit is None or limit not in _SANE_LIMITS:
            return None
        shortest, longest = self._by_length[0], self._by_length[-1]
        if len(self._slots) > 1:
            longest.limit = limit
        elif longest.limit != limit:
            return None
        if remaining is None or remaining > limit:
            return None
        countable = self._countable
        while countable and countable[0] + longest.seconds + _LATENCY <= now:
            countable.popleft()
        counted = limit - remaining
        least = counted - len(countable) - self._in_flight
        most = max(least, counted - longest.used(now) + shortest.used(now), 0)
        level = longest.level
        if least > level:
            fresh = now - self._heard <= shortest.seconds
            if fresh:
                for slots in self._by_length[:-1]:
                    slots.saw(least - level, now)
            level = least if fresh else most
            self._shared, self._at_most = True, min(self._at_most, self._few)
        level = min(level, most)
        if level or longest.level:
            longest.believe(level, now)
        return level

    def _blame_others(self, now: float, foreign: int | None) -> None:
        """A 429 that our own count does not explain: others hold the rest of the window that is nearest to its limit."""
        suspects = self._by_length[:-1] or self._by_length
        if not suspects:
            return
        fullest = min(suspects, key=lambda slots: (slots.room(now, 0) - slots.used(now)) / slots.limit)
        missing = fullest.limit - fullest.used(now) - self._in_flight + 1
        if foreign is not None:
            missing = min(missing, foreign + self._in_flight)
        fullest.suspect(missing, now)


def _too_long(wait: float, max_wait: float | None) -> RateLimitError:
    return RateLimitError(
        f"the rate budget has no slot for another {wait:.1f} s, and max_wait is {max_wait} s; nothing was sent",
        retry_after=wait,
    )
