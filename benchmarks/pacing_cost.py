"""Measure what pacing adds to a call that does not have to wait, in microseconds: ``python benchmarks/pacing_cost.py``.

The budget has the documented windows and is half full, as after an hour of even use. It is measured with one call at a
time, and with 16 in flight that yield to each other between acquire and release. The cost of the same calls without a
budget is subtracted. Each line is the median of many rounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median

from multidict import CIMultiDict

from aiodbclient import RateLimiter

CALLS = 96  # per round; they fit into the rest of the minute
ROUNDS = 101
HISTORY = 2500  # requests of the last hour
HEADERS = CIMultiDict({"RateLimit-Limit": "5000", "RateLimit-Remaining": "2600", "RateLimit-Reset": "1444931833"})


async def half_full() -> RateLimiter:
    """A budget that was used evenly for the last hour, and then follows the real clock."""
    start, used = time.monotonic() - 3590.0, 0
    budget = RateLimiter(clock=lambda: start + 3590.0 * used / HISTORY if used < HISTORY else time.monotonic())
    for _ in range(HISTORY):
        await budget.acquire()
        budget.release()
        used += 1
    return budget


async def nothing(_: RateLimiter) -> None:
    """Do nothing, to measure the cost of the measurement."""


async def acquire_and_release(budget: RateLimiter) -> None:
    await budget.acquire()
    budget.release()


async def acquire_observe_and_release(budget: RateLimiter) -> None:
    await budget.acquire()
    budget.observe(HEADERS)
    budget.release()


async def nothing_in_flight(_: RateLimiter) -> None:
    """Do nothing but yield to the other calls."""
    await asyncio.sleep(0)


async def acquire_observe_and_release_in_flight(budget: RateLimiter) -> None:
    await budget.acquire()
    await asyncio.sleep(0)
    budget.observe(HEADERS)
    budget.release()


Step = Callable[[RateLimiter], Awaitable[None]]


async def work(step: Step, budget: RateLimiter, calls: int) -> None:
    for _ in range(calls):
        await step(budget)


async def cost(step: Step, in_flight: int) -> float:
    rounds: list[float] = []
    for _ in range(ROUNDS):
        budget = await half_full()
        started = time.perf_counter()
        await asyncio.gather(*(work(step, budget, CALLS // in_flight) for _ in range(in_flight)))
        rounds.append((time.perf_counter() - started) / CALLS * 1e6)
    return median(rounds)


async def main() -> None:
    for step, own, in_flight in (
        (acquire_and_release, nothing, 1),
        (acquire_observe_and_release, nothing, 1),
        (acquire_observe_and_release_in_flight, nothing_in_flight, 16),
    ):
        name = step.__name__.removesuffix("_in_flight")
        print(f"{in_flight:>2} in flight  {name:30}{await cost(step, in_flight) - await cost(own, in_flight):6.2f} us")


if __name__ == "__main__":
    asyncio.run(main())
