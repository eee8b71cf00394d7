"""Measure the sandbox: ``python benchmarks/sandbox.py``."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import aiohttp
import psycopg

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.sandbox import Sandbox, warm_servers
from aiodbclient.tenants import SQLiteStore, Tenants

REQUESTS = 10_000
DATABASES = 200
CONCURRENCY = 50


async def main() -> None:
    report("p50 from start to the first answer, in memory", await median(lambda: start("memory"), 50), "ms")
    report("p50 from start to the first answer, embedded PostgreSQL", await median(lambda: start("postgres"), 5), "ms")
    report("a small test: start, cluster, create and get a user, stop", await median(small_test, 50), "ms")
    for warm in (False, True):
        how = "as with the fixtures" if warm else "with its own server"
        with warm_servers() if warm else nullcontext():
            first, *further = [await tenant_test() for _ in range(6)]
            report(f"a tenant's test, {how}: first", first * 1000, "ms")
            report(f"a tenant's test, {how}: each next", statistics.median(further) * 1000, "ms")
            for (what, unit), value in (await databases()).items():
                report(f"{what}, {how}", value, unit)
    for name, per_second in (await served()).items():
        report(f"{name} served by one core", per_second, "requests/s")


def report(what: str, value: float, unit: str) -> None:
    print(f"{what:<88} {value:>9,.1f} {unit}", flush=True)


async def median(measure: Callable[[], Awaitable[float]], times: int) -> float:
    return statistics.median([await measure() for _ in range(times)]) * 1000


async def start(backend: Literal["memory", "postgres"]) -> float:
    """Seconds from the start of a sandbox to its first answer about a cluster."""
    started = time.perf_counter()
    async with Sandbox() as sandbox:
        cluster = await sandbox.add_cluster("pg", backend=backend)
        headers = {"authorization": f"Bearer {sandbox.token}"}
        async with (
            aiohttp.ClientSession(sandbox.url, headers=headers) as session,
            session.get(f"/v2/databases/{cluster}") as answer,
        ):
            await answer.read()
            return time.perf_counter() - started


async def small_test() -> float:
    started = time.perf_counter()
    async with Sandbox() as sandbox:
        users = f"/v2/databases/{await sandbox.add_cluster('pg', backend='memory')}/users"
        headers = {"authorization": f"Bearer {sandbox.token}"}
        async with aiohttp.ClientSession(sandbox.url, headers=headers) as session:
            async with session.post(users, json={"name": "app"}) as answer:
                await answer.read()
            async with session.get(f"{users}/app") as answer:
                await answer.read()
    return time.perf_counter() - started


async def tenant_test() -> float:
    """Seconds for a test that creates a tenant, logs in, and stops its sandbox."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Sandbox(windows=[]) as sandbox,
            DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client,
            SQLiteStore(f"{folder}/tenants.db") as store,
        ):
            cluster = client.cluster(await sandbox.add_cluster("pg", backend="postgres"), engine="pg")
            credential = await Tenants(cluster, store).ensure("alpha")
            async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
                await connection.execute("CREATE TABLE notes (text text)")
    return time.perf_counter() - started


async def databases() -> dict[tuple[str, str], float]:
    """Measure databases of the embedded PostgreSQL: time to create and to remove them, and disk or memory."""
    async with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster("pg", "many", backend="postgres")
        dbs = f"/v2/databases/{cluster}/dbs"
        folder = files_of(sandbox, cluster)
        before = disk(folder)
        headers = {"authorization": f"Bearer {sandbox.token}"}
        async with aiohttp.ClientSession(sandbox.url, headers=headers) as session:
            numbers = iter(range(DATABASES))

            async def worker() -> None:
                for number in numbers:
                    async with session.post(dbs, json={"name": f"db{number}"}) as answer:
                        assert answer.status == 201, await answer.text()

            started = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(8)))
            made = time.perf_counter() - started
        each = (disk(folder) - before) / DATABASES
        started = time.perf_counter()
    return {
        ("databases per second, 8 at once", "/s"): DATABASES / made,
        ("disk or memory per database, with its share of the log", "MB"): each / 1e6,
        (f"stop a sandbox with {DATABASES} databases", "ms"): (time.perf_counter() - started) * 1000,
    }


def files_of(sandbox: Sandbox, cluster: str) -> Path:
    """The folder of an embedded PostgreSQL."""
    server = sandbox._clusters[cluster].backend.embedded
    assert server is not None
    return server.folder


def disk(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


async def served() -> dict[str, float]:
    """Requests per second of a sandbox in another process, on its own core."""
    command = [sys.executable, "-m", "aiodbclient.sandbox", "--json", "--rate-limit", "none", "--cluster", "opensearch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    try:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(process.pid, {0})
            os.sched_setaffinity(0, {1})
        users = f"/v2/databases/{started['clusters'][0]['id']}/users"
        headers = {"authorization": f"Bearer {started['token']}"}
        async with aiohttp.ClientSession(started["url"], headers=headers) as session:
            return {
                "users.create": await rate(lambda n: session.post(users, json={"name": f"user-{n}"})),
                "users.get": await rate(lambda n: session.get(f"{users}/user-{n}")),
                "users.delete": await rate(lambda n: session.delete(f"{users}/user-{n}")),
            }
    finally:
        process.terminate()
        process.communicate()


async def rate(request: Callable[[int], aiohttp.client._RequestContextManager]) -> float:
    numbers = iter(range(REQUESTS))

    async def worker() -> None:
        for number in numbers:
            async with request(number) as answer:
                await answer.read()
                assert answer.status < 300, answer.status

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return REQUESTS / (time.perf_counter() - started)


if __name__ == "__main__":
    asyncio.run(main())
