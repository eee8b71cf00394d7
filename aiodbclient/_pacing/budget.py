"""The client's side of the rate limit: send as early as the server's sliding windows allow, and meet no 429 on the way.

The server stamps a request at some moment between our sending it and our reading the answer. So a request holds a slot
of every window from ``acquire`` until the window's length after ``release``. Whoever keeps to that never has more than
``limit`` stamps in any span of ``seconds``, whatever the latency, and leaves no slot idle for longer than that latency.
Nothing depends on what the server's clock shows.

Three layers: ``SlidingWindow`` knows one window's slots, ``Ledger`` all of the account's and how carefully to use them,
and ``RateBudget`` lets callers wait their turn.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

from attrs import Attribute, define, field, frozen

from ..errors import ConfigurationError, InvalidArgumentError, RateLimitError
from .account import Ledger
from .headers import RateLimitStatus, limit_and_remaining, seconds_to_wait
from .window import SlidingWindow, Window

__all__ = ["Budget", "RateBudget", "RateLimitStatus", "Snapshot", "Window"]

logger = logging.getLogger("aiodbclient")

# For one account, as the provider's API description has it.
DOCUMENTED_WINDOWS = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))

_WORTH_TELLING = 3.0  # seconds of waiting
_TIMER_STEP = 1e-4  # seconds, so that a timer which rounding fired early cannot spin


class Budget(Protocol):
    """What the client needs of a budget.

    For each request that ``acquire`` let go: ``observe`` with its answer's headers, or ``throttle`` if that was a 429;
    and then, in any case, ``release``.
    """

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        """Wait for a slot. Raises RateLimitError, with nothing sent, where it takes more than ``max_wait`` seconds."""

    def release(self, *, sent: bool = True) -> None:
        """End the request. ``sent``: the server may have counted it, so its slot counts from now; else it is free."""

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers."""

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers, and close the gate for every caller. Returns for how many seconds."""
        ...


@frozen
class Snapshot:
    """A budget at one moment.

    ``used``: slots taken in each window, in the order given, by our answered requests and by others as far as known.
    ``in_flight``: requests without an answer yet; each holds a slot too. ``waiting``: calls in the queue.
    ``next_slot``: seconds until a slot is free; 0.0 if one is.
    """

    used: tuple[int, ...]
    in_flight: int
    waiting: int
    next_slot: float


def _windows(windows: Iterable[Window] | None) -> tuple[Window, ...]:
    return DOCUMENTED_WINDOWS if windows is None else tuple(windows)


def _all_windows(_: object, attribute: Attribute[tuple[Window, ...]], value: tuple[object, ...]) -> None:
    for window in value:
        if not isinstance(window, Window):
            raise InvalidArgumentError(f"RateBudget: {attribute.name} must be Window objects, not {window!r}")


def _below_every_limit(budget: RateBudget, attribute: Attribute[int], value: int) -> None:
    smallest = min((window.limit for window in budget.windows), default=math.inf)
    if type(value) is not int or not 0 <= value < smallest:
        raise InvalidArgumentError(
            f"RateBudget: {attribute.name} must be an int from 0 to below the smallest limit, {smallest}, not {value!r}"
        )


Lane = OrderedDict[asyncio.Future[bool], None]


@define(eq=False)
class RateBudget:
    """The requests that one account may make, shared by all clients that it is given to, on one event loop.

    ``windows``: the account's sliding windows. None: the documented 250 a minute and 5,000 an hour. ``[]``: no pacing,
    though a 429 still makes everybody wait. Of several windows, the longest one's limit follows the server's
    ``ratelimit-limit``, since accounts differ. ``reserve``: requests of each window that bulk calls leave to others.

    First come, first served, and bulk calls behind all others. Raises InvalidArgumentError for a ``reserve`` that is
    not an int below every limit. Not thread-safe.
    """

    windows: tuple[Window, ...] = field(default=None, converter=_windows, validator=_all_windows)
    reserve: int = field(default=0, kw_only=True, validator=_below_every_limit)
    _clock: Callable[[], float] = field(default=time.monotonic, kw_only=True, repr=False)
    _ledger: Ledger = field(init=False, repr=False)
    _interactive: Lane = field(init=False, repr=False, factory=Lane)
    _bulk: Lane = field(init=False, repr=False, factory=Lane)
    _deadlines: list[tuple[float, int, asyncio.Future[bool]]] = field(init=False, repr=False, factory=list)
    _tickets: count[int] = field(init=False, repr=False, factory=count)
    _timer: asyncio.TimerHandle | None = field(init=False, repr=False, default=None)
    _timer_at: float = field(init=False, repr=False, default=math.inf)
    _told: bool = field(init=False, repr=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._ledger = Ledger(tuple(SlidingWindow(window.limit, window.seconds) for window in self.windows))

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        """Wait for a slot, to be given back with ``release``.

        Raises RateLimitError, with nothing sent: at once, where the wait would be longer than ``max_wait`` seconds by
        what is known now, and later, where it became so. Its ``retry_after`` is the wait. Safe to cancel.
        """
        now = self._clock()
        ledger = self._ledger
        if not self._interactive and not (bulk and self._bulk) and ledger.ready(now, self.reserve if bulk else 0):
            ledger.take(now)
        else:
            await self._wait(now, bulk, max_wait)

    def release(self, *, sent: bool = True) -> None:
        """End a request: its slot counts from now if it was ``sent``, as far as known, and else is free at once."""
        now = self._clock()
        self._ledger.end(now, sent)
        if self._interactive or self._bulk:
            self._serve(now)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers, before its ``release``."""
        self._ledger.listen(*limit_and_remaining(headers), self._clock())

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """A 429 came: stop every caller, before its ``release``. Returns for how many seconds from now.

        That is ``retry-after``, or until ``ratelimit-reset``, where it is in the future and no further than the longest
        window; else a random part of a second, of two, four ... with each 429 in a row. What is in flight may finish.
        """
        now = self._clock()
        wait = seconds_to_wait(headers, self._ledger.longest)
        self._ledger.refuse(*limit_and_remaining(headers), wait, now)
        return self._ledger.gate - now

    def snapshot(self) -> Snapshot:
        """How the budget stands."""
        now, ledger = self._clock(), self._ledger
        return Snapshot(
            used=tuple(window.used(now) + window.foreign(now) for window in ledger.windows),
            in_flight=ledger.in_flight,
            waiting=len(self._interactive) + len(self._bulk),
            next_slot=ledger.opens(now, 0, 0) - now,
        )

    async def _wait(self, now: float, bulk: bool, max_wait: float | None) -> None:
        lane = self._bulk if bulk else self._interactive
        loop = asyncio.get_running_loop()
        for other in lane:
            if other.get_loop() is not loop:
                raise ConfigurationError("a RateBudget is for one event loop, and another one is waiting for this one")
            break
        turn: asyncio.Future[bool] = loop.create_future()
        if max_wait is not None:
            ahead = len(self._interactive) + (len(self._bulk) if bulk else 0)
            self._check_patience(now, ahead, bulk, max_wait)
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
                self.release(sent=False)  # it came in the same moment
            raise
        if not granted:
            self._check_patience(self._clock(), 0, bulk, -math.inf)

    def _check_patience(self, now: float, ahead: int, bulk: bool, max_wait: float) -> None:
        wait = self._ledger.opens(now, ahead, self.reserve if bulk else 0) - now
        if wait > max_wait:
            raise RateLimitError(
                f"the rate budget has no slot for another {wait:.1f} s, longer than max_wait allows; nothing was sent",
                retry_after=wait,
            )

    def _serve(self, now: float) -> None:
        """Let everybody go whose turn it is."""
        while lane := self._interactive or self._bulk:
            if not self._ledger.ready(now, self.reserve if lane is self._bulk else 0):
                break
            turn, _ = lane.popitem(last=False)
            if not turn.done():
                self._ledger.take(now)
                turn.set_result(True)
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Set the one timer for the next moment at which something is due; none where nobody waits."""
        waiting = len(self._interactive) + len(self._bulk)
        when = math.inf
        if waiting and self._ledger.in_flight < self._ledger.at_most:  # else an answer comes first
            when = self._ledger.opens(now, 0, 0 if self._interactive else self.reserve)
            if when - now > _WORTH_TELLING and not self._told:
                logger.info("the rate budget is spent: waiting %.1f s for its next slot", when - now)
                self._told = True
        self._told = self._told and waiting > 0
        when = min(when, self._next_deadline())
        if self._timer is not None:
            if self._timer_at <= when < math.inf:
                return
            self._timer.cancel()
            self._timer = None
        if when < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(when - now, _TIMER_STEP), self._wake)
            self._timer_at = when

    def _next_deadline(self) -> float:
        deadlines = self._deadlines
        if len(deadlines) > 2 * (len(self._interactive) + len(self._bulk)):
            deadlines[:] = [entry for entry in deadlines if not entry[2].done()]
            heapify(deadlines)
        while deadlines and deadlines[0][2].done():
            heappop(deadlines)
        return deadlines[0][0] if deadlines else math.inf

    def _wake(self) -> None:
        self._timer = None
        now = self._clock()
        while self._next_deadline() <= now:
            turn = heappop(self._deadlines)[2]
            self._interactive.pop(turn, None)
            self._bulk.pop(turn, None)
            turn.set_result(False)
        self._serve(now)
