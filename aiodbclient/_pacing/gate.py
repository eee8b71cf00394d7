"""The gate that a 429 closes for all calls: for how long, by ``backoff``. Pure."""

from __future__ import annotations

import math
from collections.abc import Generator
from itertools import islice
from typing import Any

import backoff
from attrs import define, evolve

from .._backoff import expo

_LONGEST = 60.0  # seconds, if a 429 does not say how long to wait
_FEW = 4  # fewer accepted since the gate opened: others are quicker
_LONGER = 4  # times as long after each refusal in a row
_PART = 4  # but at most a quarter of the shortest window


@define
class Gate:
    """Whether requests may go after a 429.

    It opens after the time that the 429 named (``backoff.runtime``), or after a random time that grows with each
    refusal in a row (``backoff.expo`` with full jitter). If the server then refuses again at once, others were quicker:
    calls without ``max_wait`` wait longer after each refusal in a row, so that there is room for more than one.
    """

    until: float = -math.inf  # when it opens, or opened
    later: float = -math.inf  # when it opens for calls without ``max_wait``
    refusals: int = 0  # how often in a row it opened, and the server refused again at once

    def close(self, named: float | None, accepted: int, shortest: float, now: float) -> None:
        """Close it after a 429.

        Args:
            named: The wait that the 429 names, or None.
            accepted: How many requests the server accepted since the gate opened.
            shortest: The seconds of the shortest window.
            now: The time.
        """
        if now >= self.until:  # otherwise the request was in flight when the gate closed
            others_were_quicker = accepted < _FEW and now - self.until <= max(shortest, _LONGEST)
            self.refusals = self.refusals + 1 if others_were_quicker else 0
        waits: Generator[float, Any, None] = backoff.runtime(value=self._wait)
        next(waits)  # a backoff generator yields None first
        self.until = max(self.until, now + waits.send(named))
        longer = 0.0 if named is None else max(named, self._nth(_LONGER, named, shortest / _PART))
        self.later = max(self.until, self.later, now + longer)

    def opens(self, *, patient: bool) -> float:
        """When it opens, or opened, for a call. ``patient``: it has no ``max_wait``."""
        return self.later if patient else self.until

    def shifted(self, ahead: float) -> Gate:
        """Return it by a clock that is ``ahead``."""
        return evolve(self, until=self.until + ahead, later=self.later + ahead)

    def _wait(self, named: float | None) -> float:
        return backoff.full_jitter(self._nth(2, 1.0, _LONGEST)) if named is None else named

    def _nth(self, base: float, factor: float, longest: float) -> float:
        return next(islice(expo(base=base, factor=factor, max_value=longest), self.refusals, None))
