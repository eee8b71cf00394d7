"""What follows a 429, for both budgets: the gate, strikes and the ramp. Pure.

Processes that share a budget exchange the gate through ``shared/facts.py``. Add a new attribute there too.
"""

from __future__ import annotations

import math
import random

_LONGEST_BACKOFF = 60.0  # seconds, if a 429 does not say how long to wait


class Gate:
    """Whether requests may go, and how many may be in flight.

    A 429 closes the gate for all calls. When it opens, the ramp begins: one request may be in flight, and each answer
    allows one more, up to ``few``. If nobody else seems to use the token, the next answer ends the ramp, and any number
    may be in flight. Otherwise ``few`` stays the limit, since each request in flight can meet a window that others
    filled.

    Attributes:
        few: Where the ramp stops while others use the token.
        until: When the gate opens, or opened.
        at_most: How many requests may be in flight: a whole number (the script in Valkey needs one) or ``math.inf``.
        strikes: How many 429s came in a row.
    """

    __slots__ = ("at_most", "few", "strikes", "until")

    def __init__(self, few: float) -> None:
        self.few = few
        self.until = -math.inf
        self.at_most = math.inf
        self.strikes = 0

    def close(self, wait: float | None, now: float) -> None:
        """Close the gate after a 429, for ``wait`` seconds. None: for a random time that grows with each 429 in a row.

        A 429 that comes while the gate is closed is not another strike: its request was in flight already.
        """
        if wait is None:
            wait = self.backoff(now)
        if now >= self.until:
            self.strikes = self._next_strike(now)
        self.until = max(self.until, now + wait)
        self.at_most = 1

    def backoff(self, now: float) -> float:
        """Return how many seconds to close if a 429 does not say."""
        if now < self.until:
            return 0.0
        return random.uniform(0.0, min(_LONGEST_BACKOFF, 2.0 ** min(self._next_strike(now) - 1, 6)))

    def _next_strike(self, now: float) -> int:
        return self.strikes + 1 if now - self.until < _LONGEST_BACKOFF else 1

    def careful(self, at_least: int = 0) -> None:
        """Allow only ``few`` in flight, or ``at_least`` if that is more, since others may use the token."""
        self.at_most = min(self.at_most, max(self.few, at_least))

    def opens_further(self, *, alone: bool) -> None:
        """Take a step of the ramp after an answer. ``alone``: nobody else seems to use the token."""
        if self.at_most < self.few:
            self.at_most += 1
        elif alone:
            self.at_most = math.inf
