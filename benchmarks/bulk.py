"""Compare a bulk run with plain calls: memory for 100,000 names, and names per second.

The server is another process and answers at once. The names come from a generator, and the rate limiter has no windows.

Memory is the resident memory of this process: the highest during the run, minus the memory before it, after a smaller
warm-up run. Throughput is the best of several rounds, since the best is least disturbed by a busy machine. The rounds
alternate with an equally large pool of workers that call ``create``. Each bulk run also reads the server's 5,000 users
at its start.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import perf_counter

from aiodbclient import Cluster, DatabaseClient, RateLimiter
from cost import CLUSTER, local_server

NAMES, WARM_UP = 100_000, 2_000
ROUNDS, NAMES_A_ROUND, CONCURRENCY = 8, 10_000, 16
MOST_MIB, LEAST_RATIO = 16.0, 0.85


def names(count: int) -> Iterator[str]:
    return (f"tenant-{n:06}" for n in range(count))


def resident() -> float:
    """The resident memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def provision(cluster: Cluster, count: int) -> float:
    """The highest resident memory during the run, in MiB."""
    highest, taken = resident(), 0
    async for outcome in cluster.users.provision(names(count), concurrency=CONCURRENCY):
        assert outcome.error is None, outcome.error
        taken += 1
        if taken % 500 == 0:
            highest = max(highest, resident())
    assert taken == count
    return highest


async def create(cluster: Cluster, count: int) -> None:
    left = names(count)

    async def worker() -> None:
        for name in left:
            await cluster.users.create(name)

    async with asyncio.TaskGroup() as pool:
        for _ in range(CONCURRENCY):
            pool.create_task(worker())


async def rate(work: Callable[[Cluster, int], Awaitable[object]], cluster: Cluster) -> float:
    """Names per second."""
    gc.collect()
    started = perf_counter()
    await work(cluster, NAMES_A_ROUND)
    return NAMES_A_ROUND / (perf_counter() - started)


async def measure(url: str) -> int:
    async with DatabaseClient("token", base_url=url, rate_limiter=RateLimiter([])) as client:
        cluster = client.cluster(CLUSTER, engine="pg")
        await provision(cluster, WARM_UP)
        gc.collect()
        before = resident()
        grown = await provision(cluster, NAMES) - before
        print(f"memory for {NAMES:,} names: {before:.1f} MiB before, {grown:+.1f} MiB at the peak; limit {MOST_MIB:g}")

        plain = bulk = 0.0
        for _ in range(ROUNDS):
            plain = max(plain, await rate(create, cluster))
            bulk = max(bulk, await rate(provision, cluster))
    ratio = bulk / plain
    print(f"names per second: {bulk:,.0f} by provision, {plain:,.0f} by create: ratio {ratio:.2f}; min. {LEAST_RATIO}")
    return 0 if grown <= MOST_MIB and ratio >= LEAST_RATIO else 1


if __name__ == "__main__":
    with local_server() as url:
        code = asyncio.run(measure(url))
    sys.exit(code)
