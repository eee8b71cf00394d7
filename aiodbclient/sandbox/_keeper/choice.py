"""``Choice``: selects the requests that a fault fails. Pure."""

from __future__ import annotations

import random
from math import inf


class Choice:
    """Counts the requests that match a fault, and selects those that it fails.

    Args:
        nth: The first request to fail, counted from 1; None for the first.
        times: The largest number of requests to fail; None: no limit, or 1 with ``nth`` unless it ``lasts``.
        probability: The share of the requests to fail.
        seed: Makes ``probability`` choose the same requests each time.
        lasts: Seconds from the first failure to the end of the fault; None: it does not end.
    """

    def __init__(
        self,
        nth: int | None = None,
        times: int | None = None,
        probability: float = 1.0,
        seed: int | None = None,
        lasts: float | None = None,
    ) -> None:
        self.seen = self.fired = 0
        self._first = nth or 1
        self._limit = times if times is not None else 1 if nth is not None and lasts is None else inf
        self._probability = probability
        self._random = random.Random(seed)
        self._lasts = inf if lasts is None else lasts
        self._over_at = inf

    def fires(self, now: float) -> bool:
        """Return whether to fail this request, at ``now`` in monotonic seconds. Call it once per request."""
        self.seen += 1
        if self.seen < self._first or self.fired >= self._limit or now >= self._over_at:
            return False
        if self._probability < 1.0 and self._random.random() >= self._probability:
            return False
        if not self.fired:
            self._over_at = now + self._lasts
        self.fired += 1
        return True
