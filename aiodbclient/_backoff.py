"""Waits that grow, by the package ``backoff``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import TypeVar

import backoff

T = TypeVar("T")


def expo(*, base: float = 2, factor: float = 1, max_value: float | None = None) -> Iterator[float]:
    """Yield ``factor``, then each time ``base`` times as much, up to ``max_value``."""
    return islice(backoff.expo(base=base, factor=factor, max_value=max_value), 1, None)  # it yields None first


def poll_waits(total: float, *, first: float = 0.25, longest: float = 60.0) -> Iterator[float]:
    """Yield the seconds to wait before each read: first 0, then waits that double until their sum is ``total``."""
    yield 0.0
    left = total
    for wait in expo(factor=first, max_value=longest):
        if left <= 0:
            return
        yield min(wait, left)
        left -= wait


async def poll(read: Callable[[], Awaitable[T | None]], seconds: float, *, first: float = 0.25) -> T | None:
    """Call ``read`` repeatedly for some seconds, until it returns something; None if it does not."""
    for wait in poll_waits(seconds, first=first):
        await asyncio.sleep(wait)
        if (seen := await read()) is not None:
            return seen
    return None
