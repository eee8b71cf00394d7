"""Wait for something that is about to change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from typing import TypeVar

T = TypeVar("T")

FIRST = 0.25  # seconds


def waits(total: float = inf, *, first: float = FIRST, longest: float = inf) -> Iterator[float]:
    """Yield the seconds to wait before each look: first 0, then waits that double until their sum is ``total``."""
    yield 0.0
    waited, wait = 0.0, first
    while waited < total:
        wait = min(wait, longest)
        yield wait
        waited += wait
        wait *= 2


async def until_seen(look: Callable[[], Awaitable[T | None]], seconds: float, *, first: float = FIRST) -> T | None:
    """Call ``look`` repeatedly for some seconds, until it returns something; None if it does not."""
    for wait in waits(seconds, first=first):
        await asyncio.sleep(wait)
        if (seen := await look()) is not None:
            return seen
    return None
