"""After a 429: the gate that it closes for all calls, and how many may be in flight when it has opened. Pure."""

from __future__ import annotations

import math
from collections.abc import Generator
from itertools import islice
from typing import Any

import backoff
from attrs import define, evolve

from .._backoff import expo

_LONGEST_UNNAMED = 60.0  # seconds to wait, if a 429 does not say how long
_AT_ONCE = 60.0  # seconds after the gate opened: a refusal within them, or one window, is one in a row
_FEW = 3  # fewer accepted since the gate opened: others are quicker
_LONGER = 4  # times as long after each refusal in a row
_SHORT = 4  # but at most a quarter of the shortest window

# How many may be in flight before the first 429: others may have filled a window.
_FIRST = 16
_PART = 16  # or, if that is more, this part of the smallest limit
_BETA = 0.7  # the part of what was accepted that a 429 leaves
_CUBIC = 0.02  # the growth beyond it, in requests per second cubed: slow near what was accepted, and faster later


@define
class Gate:
    """Whether requests may go after a 429.

    It opens after the time that the 429 named (``backoff.runtime``), or after a random time that grows with each
    refusal in a row (``backoff.expo`` with full jitter). If the server then refuses again at once, others were quicker:
    calls without ``max_wait`` wait longer after each refusal in a row, so that there is room for more than one, unless
    a call with ``max_wait`` waits behind them.
    """

    until: float = -math.inf  # when it opens, or opened
    later: float = -math.inf  # when it opens for calls without ``max_wait``
    refusals: int = 0  # how often in a row it opened, and the server refused again at once

    def close(self, named: float | None, accepted: int, shortest: float, now: float) -> None:
        """Close it after a 429, which ``named`` a wait or not. So many requests were ``accepted`` since it opened."""
        if now >= self.until:  # otherwise the request was in flight when the gate closed
            others_were_quicker = accepted < _FEW and now - self.until <= max(shortest, _AT_ONCE)
            self.refusals = self.refusals + 1 if others_were_quicker else 0
        waits: Generator[float, Any, None] = backoff.runtime(value=self._wait)
        next(waits)  # a backoff generator yields None first
        self.until = max(self.until, now + waits.send(named))
        longer = 0.0 if named is None else max(named, self._nth(_LONGER, named, shortest / _SHORT))
        self.later = max(self.until, self.later, now + longer)

    def opens(self, *, patient: bool) -> float:
        """When it opens, or opened, for a call. ``patient``: it has no ``max_wait``."""
        return self.later if patient else self.until

    def shifted(self, ahead: float) -> Gate:
        """Return it by a clock that is ``ahead``."""
        return evolve(self, until=self.until + ahead, later=self.later + ahead)

    def _wait(self, named: float | None) -> float:
        return backoff.full_jitter(self._nth(2, 1.0, _LONGEST_UNNAMED)) if named is None else named

    def _nth(self, base: float, factor: float, longest: float) -> float:
        return next(islice(expo(base=base, factor=factor, max_value=longest), self.refusals, None))


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
        """Shrink after a 429, the ``first`` of its round or not. So many were accepted in the last round trip."""
        if in_flight or recent or not first:  # otherwise it was alone, and says nothing of how many may be in flight
            accepted = max(1, in_flight, recent / 2)
            self._top = accepted if first else min(self._top, accepted)
            self._goal = max(1.0, _BETA * self._top)
        self.restart()

    def restart(self) -> None:
        """Let one request try, since the gate was closed."""
        self._size = 1
        self._began = None
