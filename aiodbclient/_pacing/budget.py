"""The client's side of the rate limit: send as early as the server's sliding windows allow, and meet no 429 on the way.

The server stamps a request at some moment between our sending it and our reading the answer. So a request holds a slot
of every window from ``acquire`` until the window's length after ``release``. Whoever keeps to that never has more than
``limit`` stamps in any span of ``seconds``, whatever the latency, and leaves no slot idle for longer than that latency.
Nothing depends on what the server's clock shows.

``RateBudget`` puts together what the modules beside this one know: ``Ledger``, which slots this process has taken;
``Account``, what answers tell of the limit and of others; ``Queue``, who waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from attrs import Attribute, define, field, frozen

from ..errors import InvalidArgumentError
from .account import Account, sliding
from .headers import RateLimitStatus, limit_and_remaining, retry_after, seconds_to_wait
from .ledger import Ledger
from .queue import Queue, refusal
from .window import Window

__all__ = ["Budget", "RateBudget", "RateLimitStatus", "Snapshot", "Window"]

# For one OAuth token, as the provider's API description has it.
DOCUMENTED_WINDOWS = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))


class Budget(Protocol):
    """What the client needs of a budget.

    For each request that ``acquire`` let go: ``throttle`` with the headers of its answer if that was a 429, ``observe``
    if it was another answer of the API to this token (a 401 and a 5xx may be a proxy's); and then, in any case,
    ``release``.
    """

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        """Wait for a slot. Raises RateLimitError, with nothing sent, where it takes more than ``max_wait`` seconds."""

    def release(self, *, sent: bool = True) -> None:
        """End the request. ``sent``: the server may have counted it, so its slot counts from now; else it is free."""

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from the headers of an answer that the API gave to this token: not of a 401, nor of a 5xx."""

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers, and close the gate for every caller. Returns for how many seconds."""
        ...


@frozen
class Snapshot:
    """A budget at one moment.

    Attributes:
        used: Slots taken in each window, the shortest window first: by our answered requests, and by others as far as
            known.
        in_flight: Requests without an answer yet. Each of them takes a slot of each window too.
        waiting: Calls that wait for a slot.
        next_slot: Seconds until a slot is free; 0.0 if one is.
    """

    used: tuple[int, ...]
    in_flight: int
    waiting: int
    next_slot: float


def by_length(windows: Iterable[Window] | None) -> tuple[Window, ...]:
    """The windows, the shortest first; the documented ones for None. Raises InvalidArgumentError."""
    if windows is None:
        return DOCUMENTED_WINDOWS
    given = tuple(windows) if isinstance(windows, Iterable) else (windows,)
    for window in given:
        if not isinstance(window, Window):
            raise InvalidArgumentError(f"windows must be Window objects, not {window!r}")
    return tuple(sorted(given, key=lambda window: window.seconds))


def below_every_limit(budget: Any, _: Attribute[int], value: int) -> None:
    """A validator of ``reserve``."""
    smallest = min((window.limit for window in budget.windows), default=math.inf)
    if type(value) is not int or not 0 <= value < smallest:
        raise InvalidArgumentError(
            f"reserve must be an int from 0 to below the smallest limit, {smallest}, not {value!r}"
        )


@define(eq=False)
class RateBudget:
    """The requests that one token may make, shared by all clients that it is given to, on one event loop.

    First come, first served, and bulk calls behind all others. Not thread-safe.

    Args:
        windows: The token's sliding windows. None: the documented 250 a minute and 5,000 an hour. ``[]``: no pacing,
            though a 429 still makes everybody wait. Of several windows, the longest one's limit follows the server's
            ``ratelimit-limit`` once two answers in a row named the same.
        reserve: Requests of each window that bulk calls leave to others.

    Raises:
        InvalidArgumentError: ``reserve`` is not an int below every limit, or ``windows`` holds what is no ``Window``.
    """

    windows: tuple[Window, ...] = field(default=None, converter=by_length)
    reserve: int = field(default=0, kw_only=True, validator=below_every_limit)
    _clock: Callable[[], float] = field(default=time.monotonic, kw_only=True, repr=False)
    _ledger: Ledger = field(init=False, repr=False)
    _queue: Queue = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._ledger = Ledger(Account(sliding(self.windows)))
        self._queue = Queue(self._clock, self._wake)

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        """Wait for a slot, to be given back with ``release``.

        Raises RateLimitError, with nothing sent: at once, where the wait would be longer than ``max_wait`` seconds by
        what is known now, and later, where it became so. Its ``retry_after`` is the wait. Safe to cancel.
        """
        now = self._clock()
        ledger, queue = self._ledger, self._queue
        reserve = self.reserve if bulk else 0
        if not queue.interactive and not (bulk and queue.bulk) and ledger.take(now, reserve):
            return
        if max_wait is not None:
            wait = ledger.opens(now, queue.ahead(bulk), reserve) - now
            if wait > max_wait:
                raise refusal(wait)
        waiter = queue.enter(bulk, max_wait, now)
        self._arm(now)
        try:
            await waiter.called()
        except BaseException:
            queue.leave(waiter)
            if waiter.granted:  # in the same moment
                self.release(sent=False)
            else:
                self._serve(self._clock())
            raise
        if waiter.wait is not None:
            raise refusal(waiter.wait)

    def release(self, *, sent: bool = True) -> None:
        """End a request: its slot counts from now if it was ``sent``, as far as known, and else is free at once."""
        now = self._clock()
        self._ledger.end(now, sent)
        if self._queue.interactive or self._queue.bulk:
            self._serve(now)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers, before its ``release``."""
        limit, remaining = limit_and_remaining(headers)
        self._ledger.hear(limit, remaining, self._clock())

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """A 429 came: stop every caller, before its ``release``. Returns for how many seconds from now.

        That is ``retry-after``, or until ``ratelimit-reset``, where it is in the future and no further than the longest
        window; else a random part of a second, of two, four ... with each 429 in a row. What is in flight may finish.
        """
        now, ledger = self._clock(), self._ledger
        wait = seconds_to_wait(headers, ledger.longest)
        ledger.refuse(*limit_and_remaining(headers), wait, burst=retry_after(headers) is not None, now=now)
        return ledger.account.gate.until - now

    def snapshot(self) -> Snapshot:
        """How the budget stands."""
        now, ledger = self._clock(), self._ledger
        return Snapshot(
            used=tuple(window.used(now) + window.others.at(now) for window in ledger.windows),
            in_flight=ledger.in_flight,
            waiting=len(self._queue),
            next_slot=ledger.opens(now, 0, 0) - now,
        )

    def _wake(self, now: float) -> None:
        for waiter in self._queue.overdue(now):
            self._queue.refuse(waiter, self._ledger.opens(now, 0, self.reserve if waiter.bulk else 0) - now)
        self._serve(now)

    def _serve(self, now: float) -> None:
        """Let everybody go whose turn it is."""
        queue, ledger = self._queue, self._ledger
        while queue:
            bulk = not queue.interactive
            if not ledger.take(now, self.reserve if bulk else 0):
                break
            queue.grant(bulk=bulk)
        self._arm(now)

    def _arm(self, now: float) -> None:
        queue, ledger = self._queue, self._ledger
        when = math.inf
        if queue and ledger.in_flight < ledger.account.gate.at_most:  # else an answer comes first
            when = ledger.opens(now, 0, 0 if queue.interactive else self.reserve)
            queue.announce(when - now)
        queue.arm(now, when)
