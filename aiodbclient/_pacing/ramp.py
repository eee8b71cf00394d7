"""How many requests may be in flight after a 429: a window that doubles at first, then follows a cubic. Pure."""

from __future__ import annotations

import math

# How many may be in flight before the first 429: others may have filled a window.
_FIRST = 16
_PART = 16  # or, if that is more, this part of the smallest limit
_BETA = 0.7  # the part of what was accepted that a 429 leaves
_CUBIC = 0.02  # the growth beyond it, in requests per second cubed: slow near what was accepted, and faster later


class Ramp:
    """The window in flight of one process, as TCP's CUBIC has one.

    A 429 ends the round: what may be in flight becomes a little less than what the server had accepted at once. After
    the gate has opened one request tries, each success lets two more go until that is reached, and the cubic follows.
    """

    __slots__ = ("_began", "_goal", "_size", "_top")

    def __init__(self, limit: float) -> None:
        self._size = max(_FIRST, limit / _PART)  # how many may be in flight
        self._goal = self._top = self._size  # until where it doubles, and what the server accepted at once
        self._began: float | None = None  # when the first success came after it

    @property
    def at_most(self) -> float:
        """How many requests may be in flight: a whole number or ``math.inf``."""
        return self._size if math.isinf(self._size) else max(1, round(self._size))

    def succeed(self, now: float) -> None:
        """Grow after a success, by one at most."""
        if self._began is None:
            self._began = now
        if self._size < self._goal:
            self._size += 1
            return
        rest = (self._top * (1 - _BETA) / _CUBIC) ** (1 / 3)
        cubic = self._top + _CUBIC * (now - self._began - rest) ** 3
        self._size = max(self._size, min(self._size + 1, cubic))

    def refuse(self, in_flight: int, recent: int, *, first: bool) -> None:
        """Shrink after a 429.

        Args:
            in_flight: How many other requests are in flight.
            recent: How many were accepted during the last round trip.
            first: Whether it is the first 429 of this round.
        """
        if in_flight or recent or not first:  # otherwise it was alone, and says nothing of how many may be in flight
            accepted = max(1, in_flight, recent / 2)
            self._top = accepted if first else min(self._top, accepted)
            self._goal = max(1.0, _BETA * self._top)
        self.restart()

    def restart(self) -> None:
        """Let one request try, since the gate was closed."""
        self._size = 1
        self._began = None
