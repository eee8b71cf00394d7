"""How carefully requests may go: the gate that a 429 closes, and how many may be in flight. Pure."""

from __future__ import annotations

import math
import random

_LONGEST_BACKOFF = 60.0  # seconds, where a 429 does not say how long to stay away


class Gate:
    """Closed until ``until``, for everybody; then at most ``at_most`` requests may be in flight.

    Alone, that is any number. A 429 makes it one, and each answer after it one more, up to ``few``: so many may run
    into a full window before anybody knows.
    """

    __slots__ = ("at_most", "few", "strikes", "until")

    def __init__(self, few: float) -> None:
        self.few = few
        self.until = -math.inf
        self.at_most = math.inf
        self.strikes = 0  # 429s in a row

    def close(self, wait: float | None, now: float) -> None:
        """A 429: close for ``wait`` seconds; None: for a random while that is longer with each 429 in a row.

        What was in flight with the request that closed it tells nothing new, and is no further strike.
        """
        if wait is None:
            wait = self.backoff(now)
        if now >= self.until:
            self.strikes = self._next_strike(now)
        self.until = max(self.until, now + wait)
        self.at_most = 1

    def backoff(self, now: float) -> float:
        """For how many seconds to close where a 429 does not say."""
        if now < self.until:
            return 0.0
        return random.uniform(0.0, min(_LONGEST_BACKOFF, 2.0 ** min(self._next_strike(now) - 1, 6)))

    def _next_strike(self, now: float) -> int:
        return self.strikes + 1 if now - self.until < _LONGEST_BACKOFF else 1

    def careful(self, at_least: int = 0) -> None:
        """Somebody else is about, or may be: only a few more, though ``at_least`` so many."""
        self.at_most = min(self.at_most, max(self.few, at_least))

    def opens_further(self, *, alone: bool) -> None:
        """A request was answered while the gate was open."""
        if self.at_most < self.few:
            self.at_most += 1
        elif alone:
            self.at_most = math.inf
