"""The gate that a 429 closes for all calls: for how long, by ``backoff``. Pure."""

from __future__ import annotations

import math
from collections.abc import Generator
from itertools import islice
from typing import Any, NamedTuple

import backoff
from attrs import define, evolve

from .._backoff import expo

_LONGEST = 60.0  # seconds, if a 429 does not say how long to wait
_LONGER = 16  # times the wait that it says, at most


class Expiring(NamedTuple):
    """How many of our own slots of the shortest window expire until a moment: enough to send a few again."""

    slots: int
    at: float


@define
class Gate:
    """Whether requests may go after a 429.

    It opens after the time that the 429 named (``backoff.runtime``), or after a random time that grows with each
    refusal in a row (``backoff.expo`` with full jitter). If the server then refuses at once, others were quicker. So
    calls without ``max_wait`` wait longer each time, but only until a few of our own slots have expired: then the
    server has room for us. As long as that proves right, they wait so after each 429.
    """

    until: float = -math.inf  # when it opens, or opened
    later: float = -math.inf  # when it opens for calls without ``max_wait``
    refusals: int = 0  # grows when it opened and nothing was accepted
    due: int = 0  # how many of our own slots were to expire before it opened

    def close(self, named: float | None, expiring: Expiring, accepted: int, now: float) -> None:
        """Close it after a 429, which ``named`` a wait or not. Since it opened, so many requests were ``accepted``."""
        proved = 0 < self.due <= 2 * accepted
        if now - self.until > _LONGEST:
            self.refusals = 0
        elif now >= self.until:  # otherwise the request was in flight when the gate closed
            # Two more, and one less for each time that it was right.
            self.refusals = max(0, self.refusals - 1) if accepted else self.refusals + 2
        waits: Generator[float, Any, None] = backoff.runtime(value=self._wait)
        next(waits)  # a backoff generator yields None first
        until = later = max(self.until, now + waits.send(named))
        if proved and expiring.slots:
            later = max(until, expiring.at)
        elif self.refusals and named is not None:
            later = max(until, min(now + _nth(self.refusals, factor=named, longest=_LONGER * named), expiring.at))
        self.due = expiring.slots if later >= expiring.at > now else 0
        self.until, self.later = until, max(self.later, later)

    def opens(self, *, patient: bool) -> float:
        """When it opens, or opened, for a call. ``patient``: it has no ``max_wait``."""
        return self.later if patient else self.until

    def shifted(self, ahead: float) -> Gate:
        """Return it by a clock that is ``ahead``."""
        return evolve(self, until=self.until + ahead, later=self.later + ahead)

    def _wait(self, named: float | None) -> float:
        return backoff.full_jitter(_nth((self.refusals + 1) // 2)) if named is None else named


def _nth(refusals: int, *, factor: float = 1.0, longest: float = _LONGEST) -> float:
    return next(islice(expo(factor=factor, max_value=longest), refusals, None))
