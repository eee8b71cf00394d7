"""``expo``: exponential waits of the package ``backoff``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import backoff


def expo(*, base: float = 2, factor: float = 1, max_value: float | None = None) -> Iterator[float]:
    """Yield ``factor``, then each time ``base`` times as much, up to ``max_value``."""
    return islice(backoff.expo(base=base, factor=factor, max_value=max_value), 1, None)  # it yields None first
