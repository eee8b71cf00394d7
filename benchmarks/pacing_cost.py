"""Measure what pacing adds to a call that does not have to wait, in microseconds: ``python benchmarks/pacing_cost.py``.

The limiter has the documented windows and is half full, as after an hour of even use. It is measured with one call at a
time, and with 16 in flight that yield to each other between acquire and release. The cost of the same calls without a
limiter is subtracted. Each line is the median of many rounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from unittest.mock import patch

from aiodbclient import RateLimiter
from aiodbclient._pacing import limiter as module

CALLS = 96  # per round; they fit into the rest of the minute
ROUNDS = 101
HISTORY = 2500  # requests of the last hour


async def half_full(*, refused: bool) -> RateLimiter:
    """A limiter that was used evenly for the last hour, and perhaps met a cooldown."""
    start, limiter = time.monotonic() - 3590.0, RateLimiter()
    for used in range(HISTORY):
        with patch.object(module, "monotonic", lambda used=used: start + 3590.0 * used / HISTORY):
            slot = await limiter.acquire()
            if refused and used in (1, 2):
                limiter.refuse(slot, {"retry-after": "1"})
            limiter.release(slot, accepted=True)
    return limiter


async def nothing(_: RateLimiter) -> None:
    """Do nothing, to measure the cost of the measurement."""


async def acquire_and_release(limiter: RateLimiter) -> None:
    slot = await limiter.acquire()
    limiter.release(slot, accepted=True)


async def nothing_in_flight(_: RateLimiter) -> None:
    """Do nothing but yield to the other calls."""
    await asyncio.sleep(0)


async def acquire_and_release_in_flight(limiter: RateLimiter) -> None:
    slot = await limiter.acquire()
    await asyncio.sleep(0)
    limiter.release(slot, accepted=True)


Step = Callable[[RateLimiter], Awaitable[None]]


async def work(step: Step, limiter: RateLimiter, calls: int) -> None:
    for _ in range(calls):
        await step(limiter)


async def cost(step: Step, in_flight: int, *, refused: bool) -> float:
    rounds: list[float] = []
    for _ in range(ROUNDS):
        limiter = await half_full(refused=refused)
        started = time.perf_counter()
        await asyncio.gather(*(work(step, limiter, CALLS // in_flight) for _ in range(in_flight)))
        rounds.append((time.perf_counter() - started) / CALLS * 1e6)
    return median(rounds)


async def main() -> None:
    for step, own, in_flight in (
        (acquire_and_release, nothing, 1),
        (acquire_and_release_in_flight, nothing_in_flight, 16),
    ):
        for refused in (False, True):
            name = step.__name__.removesuffix("_in_flight") + (", after a 429" if refused else "")
            took = await cost(step, in_flight, refused=refused) - await cost(own, in_flight, refused=False)
            print(f"{in_flight:>2} in flight  {name:42}{took:6.2f} us")


if __name__ == "__main__":
    asyncio.run(main())
