"""Measure tenants on the embedded PostgreSQL: sign-ups one at a time and 100 at once, and runs over many.

The sandbox is another process, without a rate limit: tenants need no requests but the cluster's. The bare statements
that a tenant takes run beside it, four at a time, on the same server, as the same administrator. ``--crowd 6000`` fills
the server with the roles and databases of so many tenants first, which takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL, Identifier

from aiodbclient import Cluster, DatabaseClient, RateLimiter
from aiodbclient.tenants import SQLiteStore, TenantCheckOutcome, TenantOutcome, Tenants

SIGN_UPS, AT_ONCE, BARE_AT_A_TIME, PARTS = 40, 100, 4, 5
MOST_RATIO = 1.3  # of the bare statements
# What a tenant takes without this package: a closed database, an owner role with the schema in it, a login.
BARE = (
    "CREATE ROLE {owner} NOLOGIN",
    "CREATE DATABASE {name} TEMPLATE template0 ALLOW_CONNECTIONS false",
    "REVOKE ALL ON DATABASE {name} FROM PUBLIC",
    "GRANT ALL ON DATABASE {name} TO {owner}",
    "ALTER DATABASE {name} ALLOW_CONNECTIONS true",
)
BARE_INSIDE = (
    "GRANT {owner} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE",
    "ALTER SCHEMA public OWNER TO {owner}",
    "REVOKE {owner} FROM CURRENT_USER",
)
BARE_LOGIN = (
    "CREATE ROLE {name} LOGIN NOINHERIT CONNECTION LIMIT 24 PASSWORD 'a password'",
    "ALTER ROLE {name} SET role = {owner}",
    "GRANT {owner} TO {name} WITH INHERIT FALSE, SET TRUE",
    "GRANT CONNECT ON DATABASE {name} TO {name}",
)


def names(prefix: str, count: int) -> Iterator[str]:
    return (f"{prefix}-{n:06}" for n in range(count))


@asynccontextmanager
async def sandbox() -> AsyncIterator[Cluster]:
    """Start a sandbox in another process. Yields its cluster."""
    command = [sys.executable, "-m", "aiodbclient.sandbox", "--json", "--cluster", "pg", "--rate-limit", "none"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        started = json.loads(await process.stdout.readline())
        async with DatabaseClient(started["token"], base_url=started["url"], rate_limiter=RateLimiter([])) as client:
            (cluster,) = await client.clusters.list()
            yield client.cluster(cluster.id)
    finally:
        process.terminate()
        await process.wait()


async def administrator(cluster: Cluster) -> str:
    info = await cluster.info()
    assert info.connection is not None
    return info.connection.uri_for(await cluster.users.get("doadmin"), "defaultdb")


async def bare(dsn: str, prefix: str, count: int) -> float:
    """Run the bare statements of so many tenants, four at a time. Returns the seconds."""
    waiting, connect = iter([*names(prefix, count)]), partial(psycopg.AsyncConnection.connect, autocommit=True)

    async def run(connection: psycopg.AsyncConnection[Any], name: str, statements: Sequence[LiteralString]) -> None:
        for statement in statements:
            filled = {"name": Identifier(name), "owner": Identifier(f"{name}_owner")}
            await connection.execute(SQL(statement).format(**filled))

    async def work() -> None:
        async with await connect(dsn) as connection:
            await connection.execute("SET createrole_self_grant = ''")
            for name in waiting:
                await run(connection, name, BARE)
                async with await connect(dsn, dbname=name) as inside:
                    await run(inside, name, BARE_INSIDE)
                await run(connection, name, BARE_LOGIN)

    started = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(BARE_AT_A_TIME):
            group.create_task(work())
    return perf_counter() - started


async def sign_ups(tenants: Tenants, on_server: int) -> None:
    """Print the median of single sign-ups, and what 100 at once take."""
    seconds = list[float]()
    for name in names(f"single{on_server}", SIGN_UPS):
        started = perf_counter()
        await tenants.ensure(name)
        seconds.append(perf_counter() - started)
    print(
        f"ensure, one at a time, {on_server:,} tenants on the server: p50 {median(seconds) * 1000:.0f} ms", flush=True
    )
    started = perf_counter()
    made = await asyncio.gather(*map(tenants.ensure, names(f"burst{on_server}", AT_ONCE)), return_exceptions=True)
    failed = sum(isinstance(each, BaseException) for each in made)
    print(f"ensure, {AT_ONCE} at once: {perf_counter() - started:.1f} s, {failed} failed", flush=True)
    assert not failed, made


async def timed(what: str, count: int, run: AsyncIterable[TenantOutcome | TenantCheckOutcome]) -> float:
    started, problems = perf_counter(), 0
    async for outcome in run:
        assert outcome.error is None, outcome.error
        problems += bool(getattr(outcome, "problems", ()))
    took = perf_counter() - started
    print(f"{what} {count:,}: {took:.1f} s, {count / took:.1f} a second, {problems} with problems", flush=True)
    return took


async def measure(count: int, crowd: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with sandbox() as cluster, SQLiteStore(Path(folder) / "tenants.db") as store:
            tenants, dsn = Tenants(cluster, store), await administrator(cluster)
            await bare(dsn, "first", 100)
            await sign_ups(tenants, 100)
            ours, plain, many = 0.0, 0.0, [*names("many", count)]
            for part in range(PARTS):  # in turns, since both slow down as the server fills
                run = tenants.provision(many[part::PARTS])
                ours += await timed("provision", len(many[part::PARTS]), run)
                plain += await bare(dsn, f"bare{part}", len(many[part::PARTS]))
            ratio = ours / plain
            print(f"provision {count / ours:.1f} a second, bare SQL {count / plain:.1f}; ratio {ratio:.2f}", flush=True)
            await timed("check", count, tenants.check(names("many", count)))
            await timed("rotate", count, tenants.rotate(names("many", count)))
            await timed("revoke-previous", count, tenants.revoke_previous(names("many", count)))
            if crowd:
                await bare(dsn, "crowd", crowd)
                await sign_ups(tenants, crowd)
            return 0 if ratio <= MOST_RATIO else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--crowd", type=int, default=0)
    given = parser.parse_args()
    sys.exit(asyncio.run(measure(given.count, given.crowd)))
