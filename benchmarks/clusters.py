"""Measure 6,000 tenants on three clusters: to put them on record, to list and to check them, and one more sign-up.

The sandbox is another process with three clusters.

- On record: MongoDB in memory, with one window of 500 requests in 10 seconds. A tenant takes two requests. The time may
  exceed what that window alone needs by 5 %.
- List and check: the same 6,000 tenants.
- A sign-up: 60 with a store that is empty, and 60 with one of 6,000 tenants, in turn, each by a new ``Tenants``, which
  reads the store once. No rate limit.
- With SQL: 300 tenants on three PostgreSQLs, checked. 6,000 take 20 times as long.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from attrs import evolve

from aiodbclient import ClusterClient, DatabaseClient, RateBudget, Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants

CLUSTERS, TENANTS, MOST = 3, 6_000, 2_000
BURST, SECONDS = 500, 10.0
SIGN_UPS, WITH_SQL = 60, 300
MOST_RATIO, LIST_SECONDS, CHECK_SECONDS, SIGN_UP_RATIO = 1.05, 2.0, 60.0, 1.2


def names(prefix: str, count: int) -> Iterator[str]:
    return (f"{prefix}_{n:04}" for n in range(count))


@asynccontextmanager
async def sandbox(engine: str, rate: str, budget: RateBudget) -> AsyncIterator[list[ClusterClient]]:
    """Start a sandbox in another process. Yields its clusters."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, engine, rate), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        started = json.loads(await process.stdout.readline())
        async with DatabaseClient(started["token"], base_url=started["url"], budget=budget) as client:
            yield [client.cluster(cluster.id) for cluster in await client.clusters.list()]
    finally:
        process.terminate()
        await process.wait()


async def serve(engine: str, rate: str) -> None:
    """Be the sandbox of a measurement."""
    windows = [] if rate == "none" else [Window(BURST, SECONDS)]
    async with Sandbox(windows=windows) as running:
        for _ in range(CLUSTERS):
            await running.add_cluster(engine, backend="postgres" if engine == "pg" else "memory")
        print(json.dumps({"url": running.url, "token": running.token}), flush=True)
        await asyncio.Event().wait()


async def timed(what: str, count: int, run: AsyncIterator[Any]) -> float:
    """The seconds of a run, in which all must be well."""
    started, seen = perf_counter(), 0
    async for each in run:
        assert getattr(each, "error", None) is None, each
        assert not getattr(each, "problems", ()), each
        seen += 1
    assert seen == count, (seen, count)
    took = perf_counter() - started
    print(f"{what} {count:,} tenants: {took:.2f} s", flush=True)
    return took


async def paced(path: Path) -> bool:
    """Put all on record under a rate limit, list and check them."""
    least = (2 * TENANTS - 1) // BURST * SECONDS
    budget = RateBudget([Window(BURST, SECONDS)])
    async with sandbox("mongodb", "paced", budget) as clusters, SQLiteStore(path) as store:
        tenants = Tenants(clusters, store, most=MOST)
        await asyncio.sleep(SECONDS)  # the window is empty again
        ratio = await timed("put on record", TENANTS, tenants.provision(names("tenant", TENANTS))) / least
        print(f"the rate limit alone needs {least:g} s: ratio {ratio:.3f}; limit {MOST_RATIO}")
        assert [room.tenants for room in await tenants.rooms()] == [MOST] * CLUSTERS
        listed = await timed("list", TENANTS, tenants.records())
        await asyncio.sleep(SECONDS)
        checked = await timed("check", TENANTS, tenants.check())
    print(f"limits: list {LIST_SECONDS:g} s, check {CHECK_SECONDS:g} s")
    return ratio <= MOST_RATIO and listed <= LIST_SECONDS and checked <= CHECK_SECONDS


async def sign_ups(folder: Path) -> bool:
    """Compare a sign-up with an empty store and with a busy one."""
    async with (
        sandbox("pg", "none", RateBudget([])) as clusters,
        SQLiteStore(folder / "empty.db") as empty,
        SQLiteStore(folder / "busy.db") as busy,
    ):
        await fill(busy, clusters)
        seconds: dict[str, list[float]] = {"empty": [], "busy": []}
        for n in range(SIGN_UPS):
            for what, store in (("empty", empty), ("busy", busy)):
                started = perf_counter()
                await Tenants(clusters, store, prefix=f"{what}_").ensure(f"new_{n}")
                seconds[what].append(perf_counter() - started)
        tenants = Tenants(clusters, busy, prefix="kept_")
        kept: list[float] = []
        for n in range(SIGN_UPS):
            started = perf_counter()
            await tenants.ensure(f"kept_{n}")
            kept.append(perf_counter() - started)
    for what, each in seconds.items():
        print(f"a sign-up by a new process, {what} store: median {median(each) * 1000:.0f} ms")
    ratio = median(kept[1:]) / median(seconds["empty"])
    print(
        f"a sign-up by a process that runs, busy store: median {median(kept[1:]) * 1000:.0f} ms, the first "
        f"{kept[0] * 1000:.0f} ms; ratio {ratio:.2f}; limit {SIGN_UP_RATIO}"
    )
    return ratio <= SIGN_UP_RATIO


async def fill(store: SQLiteStore, clusters: list[ClusterClient]) -> None:
    """Store 6,000 tenants as if they had been created."""
    model = await Tenants(clusters, store).ensure("model")

    async def one(n: int) -> None:
        name = f"tenant_{n}"
        claim = await store.claim(name, 60.0)
        assert claim is not None
        await store.keep(claim, evolve(model, name=name, username=name, cluster=clusters[n % CLUSTERS].id))

    for start in range(0, TENANTS, 200):
        await asyncio.gather(*(one(n) for n in range(start, start + 200)))


async def with_sql(path: Path) -> bool:
    """Check tenants of three PostgreSQLs."""
    async with sandbox("pg", "none", RateBudget([])) as clusters, SQLiteStore(path) as store:
        tenants = Tenants(clusters, store)
        await timed("with SQL: put on record", WITH_SQL, tenants.provision(names("sql", WITH_SQL)))
        took = await timed("with SQL: check", WITH_SQL, tenants.check())
    of_all = took * TENANTS / WITH_SQL
    print(f"a check of {TENANTS:,} with SQL would take {of_all:.0f} s; limit {CHECK_SECONDS:g}")
    return of_all <= CHECK_SECONDS


async def measure() -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        results = [await with_sql(place / "sql.db"), await sign_ups(place), await paced(place / "paced.db")]
        return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(*sys.argv[1:]) if sys.argv[1:] else measure()))
