"""After a 429: how long calls wait, and how many requests may then be in flight. Pure.

Nothing limits what is in flight before the first 429. A lone 429 delays its own call. The second in a row starts a
cooldown for all calls. After it one request tries, and each success lets one more be in flight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from attrs import define, field
from backoff import full_jitter

from .._backoff import expo

# Chosen by ``benchmarks/pacing_table.py``, which compares times and 429s on 22 limiters with those of a plain loop.
_FACTOR = 1.2  # each wait is so much longer than the one before, if the 429s name no wait
_MIN_PART = 0.22  # of the time since the first 429 of a row: the least wait, if those that they named were too short
_DOUBLING = 8.0  # seconds in which the allowed requests in flight double
_MIN_IN_FLIGHT = 2  # with one, each request would wait for the answer to the one before
# A limiter may ban for a minute, and renew the ban with each request. A longer wait ends that: so after ten waits they
# grow faster.
_FIRST_WAITS, _LATER_FACTOR, _MAX_WAIT = 10, 1.5, 300.0  # the last in seconds


def _make_waits() -> Iterator[float]:
    yield from islice(expo(base=_FACTOR), _FIRST_WAITS)
    yield from expo(base=_LATER_FACTOR, factor=_FACTOR**_FIRST_WAITS, max_value=_MAX_WAIT)


def _jittered(wait: float) -> float:
    """Return a random wait, with jitter in its upper half."""
    return wait / 2 + full_jitter(wait / 2)


@define
class Cooldown:
    """Until when no request is sent, since the API answered 429 twice in a row."""

    ends_at: float = -math.inf
    in_row: int = 0  # 429s since a success; only one of a request that was sent since the cooldown ended counts
    _began_at: float = -math.inf  # the row
    _waits: Iterator[float] = field(factory=_make_waits)

    def is_fresh(self, sent_at: float) -> bool:
        """Whether a request was sent since the last cooldown ended."""
        return sent_at >= self.ends_at

    def refuse(self, sent_at: float, named: float | None, now: float) -> tuple[float, bool]:
        """Count a 429, which may have ``named`` a wait; return its call's wait, and whether a cooldown starts."""
        fresh = self.is_fresh(sent_at)
        self.in_row += 1
        if self.in_row == 1:
            self._began_at = now
        if named is not None:
            wait = named
            if fresh and self.in_row > 2:  # what was named before was too short
                wait = max(named, _jittered(min(_MAX_WAIT, _MIN_PART * (now - self._began_at))))
        elif fresh or self.in_row == 1:
            wait = _jittered(next(self._waits))
        else:  # it was in flight when the cooldown started
            wait = max(0.0, self.ends_at - now)
        if self.in_row > 1:
            self.ends_at = max(self.ends_at, now + wait)
        return wait, fresh and self.in_row > 1

    def succeed(self) -> None:
        """End the row of 429s."""
        if self.in_row:
            self.in_row = 0
            self._waits = _make_waits()


@define
class ConcurrencyLimit:
    """How many requests may be in flight after a cooldown."""

    is_on: bool = False  # whether there was a cooldown
    _window: float = math.inf  # what the API accepted at once when it last refused some of a burst
    _earlier: float = math.inf  # the same, before the newest burst
    _allowed: float = math.inf  # infinite until the first cooldown
    _burst_at: float = -math.inf  # when the first 429 of the newest burst came
    _succeeded_at: float | None = None  # when the first success since the cooldown came

    def at_most(self, now: float) -> float:
        """Return how many may be in flight."""
        if self._succeeded_at is None:
            return self._allowed
        doublings = min(64.0, (now - self._succeeded_at) / _DOUBLING)
        return min(self._allowed, max(_MIN_IN_FLIGHT, self._window) * math.exp2(doublings))

    def refuse(self, sent_at: float, in_flight: int, now: float) -> None:
        """Count a 429 in its burst: the 429s of requests that were sent before the first of them came."""
        if sent_at >= self._burst_at:
            self._burst_at, self._earlier, self._window = now, self._window, in_flight
        self._window -= 1
        if self._window <= 0:  # a burst that is refused whole says nothing of how many may be in flight
            self._window = self._earlier

    def restart(self) -> None:
        """Let one request try when the cooldown has ended."""
        self.is_on, self._allowed, self._succeeded_at = True, 1, None

    def succeed(self, now: float) -> None:
        """Let one more request be in flight."""
        if self._succeeded_at is None:
            self._succeeded_at = now
        self._allowed += 1
