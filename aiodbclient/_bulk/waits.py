"""The waits between reads of something that is about to change. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

FIRST = 0.25  # seconds


def waits(total: float = inf, *, first: float = FIRST, longest: float = inf) -> Iterator[float]:
    """Yield the seconds to wait before each read: first 0, then waits that double until their sum is ``total``.

    Args:
        total: The minimum sum of the waits, in seconds. 0: only one read. The default never ends.
        first: The first wait after the 0.
        longest: The longest wait.
    """
    yield 0.0
    waited, wait = 0.0, first
    while waited < total:
        wait = min(wait, longest)
        yield wait
        waited += wait
        wait *= 2
