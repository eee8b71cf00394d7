"""The budget of one process, ``RateBudget``, and what the client needs of any budget, ``Budget``.

``RateBudget`` combines ``Ledger`` (which slots are taken, and what a 429 allows) and ``Queue`` (which calls wait).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from attrs import Attribute, define, field, frozen

from ..errors import InvalidArgumentError
from .headers import RateLimitStatus, said_by, said_by_429
from .ledger import Ledger
from .queue import Queue, Waiter, refusal
from .window import Window

__all__ = ["Budget", "RateBudget", "RateLimitStatus", "Snapshot", "Window"]

# For one OAuth token, by the provider's API description.
DOCUMENTED_WINDOWS = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))


class Budget(Protocol):
    """The interface that the client needs from a budget. ``RateBudget`` describes the arguments.

    For each request, the client calls ``acquire`` before it sends; then ``throttle`` after a 429, or ``observe`` after
    any other answer of the API to this token, but not after a 401 or a 5xx, since a proxy may have sent it; and
    finally, in any case, ``release``.
    """

    async def acquire(
        self, *, bulk: bool = False, max_wait: float | None = None, place: int | None = None
    ) -> int | None:
        """Wait for a slot. Safe to cancel. ``place`` is passed only for another try, and only if it was not None.

        Raises:
            RateLimitError: The wait would exceed ``max_wait``. No slot is taken.
        """

    def release(self, *, sent: bool = True) -> None:
        """Return the slot."""

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers."""

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers, and stop all calls for a while. Returns for how many seconds."""
        ...


@frozen
class Snapshot:
    """A budget at one moment.

    Attributes:
        used: For each window, the shortest first: how many slots our answered requests hold, and in the longest one
            also those of others that the last answer showed.
        in_flight: Requests without an answer yet. Each of them holds a slot of each window too.
        waiting: Calls that wait for a slot.
        next_slot: Seconds until a slot is free; 0.0 if one is.
    """

    used: tuple[int, ...]
    in_flight: int
    waiting: int
    next_slot: float


@runtime_checkable
class PacedBudget(Protocol):
    """A budget that shows how it stands."""

    windows: tuple[Window, ...]

    def snapshot(self) -> Snapshot:
        """The budget as it is now."""
        ...


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


def serve(queue: Queue, ledger: Ledger, reserve: int, now: float) -> None:
    """Grant the free slots to the waiting calls, in order, and set the timer for when the next one is free."""
    when = math.inf
    while (first := queue.first()) is not None:
        patient, reserved = first.deadline == math.inf, reserve if first.bulk else 0
        if not ledger.take(now, reserved, patient=patient):
            if ledger.in_flight < ledger.ramp.at_most:  # else it takes an answer
                when = ledger.opens(now, 0, reserved, patient=patient)
                queue.announce(when, now, ledger.reason(now))
            break
        queue.grant(bulk=first.bulk)
    queue.arm(now, when)


@define(eq=False)
class RateBudget:
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
    _queue: Queue = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._ledger = Ledger(self.windows)
        self._queue = Queue(self._clock, self._on_timer)

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None, place: int | None = None) -> int:
        """Wait for a slot. Return it with ``release``. Safe to cancel.

        Args:
            bulk: Whether the request is part of a bulk run. Bulk calls wait behind all others.
            max_wait: The longest wait in seconds; None means no limit.
            place: What ``acquire`` returned for an earlier try of the same call, which then waits in its old place.

        Returns:
            The place of the call.

        Raises:
            RateLimitError: The wait would exceed ``max_wait``. Raised as soon as that is known. ``retry_after`` is the
                rest of the wait in seconds, as far as it is known.
            ConfigurationError: Calls on another event loop are waiting.
        """
        now = self._clock()
        ledger, queue = self._ledger, self._queue
        number = queue.next_number() if place is None else place
        reserve = self.reserve if bulk else 0
        ahead = queue.ahead(number, bulk)
        if not ahead and ledger.take(now, reserve, patient=max_wait is None):
            return number
        if max_wait is not None:
            wait = ledger.opens(now, ahead, reserve) - now
            if wait > max_wait:
                raise refusal(wait)
        waiter = queue.enter(number, bulk, max_wait, now)
        serve(queue, ledger, self.reserve, now)
        await queue.decision(waiter, self._on_leaving)
        return number

    def release(self, *, sent: bool = True) -> None:
        """Return a slot.

        Args:
            sent: Whether the server may have counted the request. If so, the slot is free one window from now,
                otherwise at once.
        """
        now = self._clock()
        self._ledger.end(now, sent=sent)
        if self._queue:
            serve(self._queue, self._ledger, self.reserve, now)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers. Call it before ``release``."""
        self._ledger.hear(said_by(headers), self._clock())

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers, and stop all calls for a while. Call it before ``release``.

        The length is ``retry-after``, or the time until ``ratelimit-reset`` if that lies in the future and no further
        than the longest window. Otherwise it is random: up to a second, up to two after a second refusal in a row, four
        after a third, and so on up to a minute. Requests in flight are not affected. Calls whose ``max_wait`` is over
        before that are refused now.

        Returns:
            The seconds until requests go again.
        """
        now, ledger = self._clock(), self._ledger
        said = said_by_429(headers, ledger.longest)
        ledger.hear(said, now)
        ledger.refuse(said, now)
        self._refuse_late({*self._queue}, now)
        return ledger.gate.until - now

    def snapshot(self) -> Snapshot:
        """The budget as it is now."""
        now, ledger = self._clock(), self._ledger
        return Snapshot(
            used=ledger.held(now),
            in_flight=ledger.in_flight,
            waiting=len(self._queue),
            next_slot=ledger.opens(now, 0, 0) - now,
        )

    def _on_leaving(self, waiter: Waiter) -> None:
        if waiter.granted:  # and cancelled before it woke
            self.release(sent=False)
        else:
            serve(self._queue, self._ledger, self.reserve, self._clock())

    def _on_timer(self, now: float) -> None:
        serve(self._queue, self._ledger, self.reserve, now)
        if overdue := {waiter for waiter in self._queue if waiter.is_overdue(now)}:
            self._refuse_late(overdue, now)
            serve(self._queue, self._ledger, self.reserve, now)

    def _refuse_late(self, among: set[Waiter], now: float) -> None:
        ledger, reserve = self._ledger, self.reserve
        self._queue.refuse_late(among, lambda n, bulk: ledger.opens(now, n, reserve if bulk else 0) - now, now)
