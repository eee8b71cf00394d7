"""Waits between two reads of what another party is about to change. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

FIRST = 0.25  # seconds


def waits(total: float = inf, *, first: float = FIRST, longest: float = inf) -> Iterator[float]:
    """Yield the seconds to wait before each read: 0, and then waits that double until they add up to ``total``.

    Args:
        total: The sum in seconds that the waits reach at least. 0: there is only one read. The default never ends.
        first: The first wait after the 0.
        longest: No wait is longer.
    """
    yield 0.0
    waited, wait = 0.0, first
    while waited < total:
        wait = min(wait, longest)
        yield wait
        waited += wait
        wait *= 2
