"""Measure 6,000 tenants on three clusters: to put them on record, to list and to check them, and one more sign-up.

``python benchmarks/clusters.py`` takes about six minutes; with ``--tenants 600`` one and a half. Each figure is printed
beside its limit. It exits with 1 if one is missed, or if it does not end within a quarter of an hour.

The sandbox is another process with three clusters.

- On record: MongoDB in memory, with one window of 500 requests in 10 seconds. A tenant takes two requests. The time may
  exceed what that window alone needs by 5 %.
- List and check: the same tenants. With fewer than 6,000 the seconds are those of 6,000 at that pace.
- With SQL: 200 tenants on three PostgreSQLs, checked. The seconds are those of 6,000 at that pace.
- A sign-up on PostgreSQL, without a rate limit, with an API that answers after 50 ms: in turn with a store that is
  empty, with one that has all tenants, each by a new ``Tenants`` that opens the store, and with that one by a
  ``Tenants`` that runs. A new one counts the tenants of each cluster first; what that takes is printed too. The least
  of 30 counts, because other programs can only make a round slower.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from attrs import evolve

from aiodbclient import Cluster, DatabaseClient, RateLimiter
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants

CLUSTERS, TENANTS = 3, 6_000
BURST, SECONDS = 500, 10.0
ROUNDS, WITH_SQL = 30, 200
API_SECONDS = 0.05
MOST_SECONDS = 900.0
MOST_RATIO, LIST_SECONDS, CHECK_SECONDS, SIGN_UP = 1.05, 2.0, 60.0, 1.2


def names(prefix: str, count: int) -> Iterator[str]:
    return (f"{prefix}_{n:04}" for n in range(count))


@asynccontextmanager
async def sandbox(engine: str, rate: str, limiter: RateLimiter) -> AsyncIterator[list[Cluster]]:
    """Start a sandbox in another process. Yields its clusters."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--serve", engine, rate), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        started = json.loads(await process.stdout.readline())
        async with DatabaseClient(started["token"], base_url=started["url"], rate_limiter=limiter) as client:
            yield [client.cluster(cluster.id) for cluster in await client.clusters.list()]
    finally:
        process.terminate()
        await process.wait()


async def serve(engine: str, rate: str) -> None:
    """Be the sandbox of a measurement."""
    async with Sandbox(windows=[Window(BURST, SECONDS)] if rate == "paced" else []) as running:
        for _ in range(CLUSTERS):
            await running.add_cluster(engine, backend="postgres" if engine == "pg" else "memory")
        if rate == "distant":
            running.faults.add("*", delay=API_SECONDS)
        print(json.dumps({"url": running.url, "token": running.token}), flush=True)
        await asyncio.Event().wait()


async def timed(what: str, count: int, run: AsyncIterable[Any]) -> float:
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


def holds(what: str, figure: float, limit: float) -> bool:
    """Print a figure beside its limit, and return whether it is kept."""
    kept = figure <= limit
    print(f"{'ok    ' if kept else 'MISSED'} {what}: {figure:.3f}, limit {limit:g}", flush=True)
    return kept


async def paced(path: Path, count: int) -> list[bool]:
    """Put all on record under a rate limit, list and check them."""
    least = (2 * count - 1) // BURST * SECONDS
    limiter = RateLimiter([Window(BURST, SECONDS)])
    async with sandbox("mongodb", "paced", limiter) as clusters, SQLiteStore(path) as store:
        tenants = Tenants(clusters, store, max_tenants=count // CLUSTERS)
        await asyncio.sleep(SECONDS)  # the window is empty again
        took = await timed("put on record", count, tenants.provision(names("tenant", count)))
        assert [room.tenants for room in await tenants.capacity()] == [count // CLUSTERS] * CLUSTERS
        listed = await timed("list", count, tenants.records())
        await asyncio.sleep(SECONDS)
        checked = await timed("check", count, tenants.check())
    return [
        holds(f"on record, of the {least:g} s that the rate limit needs", took / least, MOST_RATIO),
        holds(f"list {TENANTS:,}, seconds", listed * TENANTS / count, LIST_SECONDS),
        holds(f"check {TENANTS:,}, seconds", checked * TENANTS / count, CHECK_SECONDS),
    ]


async def sign_ups(folder: Path, count: int) -> list[bool]:
    """Compare a sign-up with an empty store and with a busy one."""
    seconds: dict[str, list[float]] = {"empty": [], "busy": [], "running": []}
    async with sandbox("pg", "distant", RateLimiter([])) as clusters, SQLiteStore(folder / "busy.db") as busy:
        await fill(busy, clusters, count)
        running = Tenants(clusters, busy, prefix="running_")
        await running.ensure("running_first")
        for n in range(ROUNDS):
            for what in ("empty", "busy"):
                started = perf_counter()
                async with SQLiteStore(folder / f"{what}.db") as store:
                    await Tenants(clusters, store, prefix=f"{what}_").ensure(f"{what}_{n}")
                seconds[what].append(perf_counter() - started)
            started = perf_counter()
            await running.ensure(f"running_{n}")
            seconds["running"].append(perf_counter() - started)
    for what, each in seconds.items():
        print(f"a sign-up, {what} store: least {min(each) * 1000:.0f} ms, of {len(each)}")
    empty = min(seconds["empty"])
    print(f"a new process needs {(min(seconds['busy']) - empty) * 1000:.0f} ms more to count {count:,} tenants")
    return [
        holds(f"a sign-up by a new process, {count:,} on record, of one alone", min(seconds["busy"]) / empty, SIGN_UP),
        holds("a sign-up by a process that runs, of one alone", min(seconds["running"]) / empty, SIGN_UP),
    ]


async def fill(store: SQLiteStore, clusters: list[Cluster], count: int) -> None:
    """Store tenants as if they had been created."""
    await Tenants(clusters, store).ensure("model")
    model = await store.get("model")
    assert model is not None

    async def one(n: int) -> None:
        name = f"tenant_{n}"
        claim = await store.claim(name, 60.0)
        assert claim is not None
        record = evolve(model, name=name, database=name, cluster=clusters[n % CLUSTERS].id)
        await store.save(claim, record, release=True)

    for start in range(0, count, 200):
        await asyncio.gather(*(one(n) for n in range(start, min(count, start + 200))))


async def with_sql(path: Path, count: int) -> list[bool]:
    """Check tenants of three PostgreSQLs."""
    async with sandbox("pg", "none", RateLimiter([])) as clusters, SQLiteStore(path) as store:
        tenants = Tenants(clusters, store)
        await timed("with SQL: put on record", count, tenants.provision(names("sql", count)))
        took = await timed("with SQL: check", count, tenants.check())
    return [holds(f"check {TENANTS:,} with SQL, seconds", took * TENANTS / count, CHECK_SECONDS)]


async def measure(count: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        async with asyncio.timeout(MOST_SECONDS):
            kept = await sign_ups(place, count)
            kept += await with_sql(place / "sql.db", WITH_SQL)
            kept += await paced(place / "paced.db", count)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tenants", type=int, default=TENANTS, help="a multiple of 300, at least 300")
    parser.add_argument("--serve", nargs=2, metavar=("ENGINE", "RATE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.exit(asyncio.run(serve(*given.serve) if given.serve else measure(given.tenants)))
