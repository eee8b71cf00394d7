"""Measure moves under load: writes acknowledged, writes lost, and for how long the tenant is frozen per 100 MB.

A tenant of about 100 MB is moved between two servers of this machine, while four tasks write to it through
``TenantPools``. PostgreSQL is the sandbox's; MySQL and MariaDB are those on PATH. Run it as ``python -m
benchmarks.move`` (``make bench-move``).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import aiomysql
import psycopg
import pymysql
from psycopg import AsyncConnection

from aiodbclient import DatabaseClient, RateBudget
from aiodbclient.errors import SuspendedError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore, TenantPools, Tenants
from tests.mysql import installed, running

MEGABYTES = 100
WRITERS = 4
AFTER = 2.0  # s for which they write on after the move
TEXT = "x" * 900


class Postgres:
    """Statements and connections of PostgreSQL."""

    errors = (psycopg.Error,)
    fill = (
        "CREATE TABLE filling (id int PRIMARY KEY, text text)",
        f"INSERT INTO filling SELECT n, repeat(md5(n::text), 28) FROM generate_series(1, {MEGABYTES * 1000}) n",
        "CREATE TABLE written (n int PRIMARY KEY)",
    )

    async def open(self, credential: Credential) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(credential.uri, autocommit=True)

    async def close(self, connection: AsyncConnection[Any]) -> None:
        await connection.close()

    async def run(self, connection: AsyncConnection[Any], statement: str) -> list[Any]:
        cursor = await connection.execute(statement)
        return [] if cursor.description is None else await cursor.fetchall()


class MySQL:
    """Statements and connections of MySQL."""

    errors = (pymysql.Error, OSError, RuntimeError)
    fill = (
        "CREATE TABLE filling (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT)",
        "INSERT INTO filling (text) VALUES " + ", ".join([f"('{TEXT}')"] * 1000),
        *["INSERT INTO filling (text) SELECT text FROM filling LIMIT 10000"] * 4,
        *["INSERT INTO filling (text) SELECT text FROM filling LIMIT 10000"] * (MEGABYTES // 10 - 2),
        "CREATE TABLE written (n INT PRIMARY KEY)",
        "ANALYZE TABLE filling",
    )

    async def open(self, credential: Credential) -> Any:
        return await aiomysql.connect(
            host=credential.host,
            port=credential.port,
            user=credential.username,
            password=credential.password,
            db=credential.database,
            ssl=credential.ssl_context(),
            autocommit=True,
        )

    async def close(self, connection: Any) -> None:
        connection.close()

    async def run(self, connection: Any, statement: str) -> list[Any]:
        async with connection.cursor() as cursor:
            await cursor.execute(statement)
            return list(await cursor.fetchall())


async def write(
    pools: TenantPools[Any], engine: Postgres | MySQL, numbers: Any, acknowledged: set[int], turn: asyncio.Lock
) -> None:
    """Write numbers for ever. A connection takes one statement at a time."""
    while True:
        number = next(numbers)
        try:
            async with turn, pools.use("alpha") as connection:
                await engine.run(connection, f"INSERT INTO written VALUES ({number})")
                acknowledged.add(number)
        except (*engine.errors, SuspendedError):
            await asyncio.sleep(0.02)


async def measure(name: str, sandbox: Sandbox, ids: list[str], engine: Postgres | MySQL) -> bool:
    """Move a tenant, and print what happened. Returns whether no write was lost."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            DatabaseClient(sandbox.token, base_url=sandbox.url, budget=RateBudget([])) as client,
            SQLiteStore(f"{folder}/store") as store,
        ):
            clusters = [client.cluster(id) for id in ids]
            tenants = Tenants(clusters, store)
            home = await tenants.ensure("alpha")
            connection = await engine.open(home)
            for statement in engine.fill:
                await engine.run(connection, statement)
            await engine.close(connection)
            acknowledged, numbers = set[int](), iter(range(10**9))
            there = next(each for each in ids if each != home.cluster)
            async with (
                TenantPools(tenants, open=engine.open, close=engine.close) as pools,
                asyncio.TaskGroup() as tasks,
            ):
                turn = asyncio.Lock()
                writers = [tasks.create_task(write(pools, engine, numbers, acknowledged, turn)) for _ in range(WRITERS)]
                await asyncio.sleep(1)
                started = perf_counter()
                [moved] = [each async for each in tenants.move(["alpha"], to=there)]
                took, during = perf_counter() - started, len(acknowledged)
                await asyncio.sleep(AFTER)
                for writer in writers:
                    writer.cancel()
            if moved.error is not None:
                raise moved.error
            connection = await engine.open(moved.credential)
            written = {number for (number,) in await engine.run(connection, "SELECT n FROM written")}
            await engine.close(connection)
    lost, megabytes = len(acknowledged - written), moved.bytes / 1e6
    frozen = moved.frozen.total_seconds()
    print(
        f"{name:8} {megabytes:5.0f} MB  acknowledged {len(acknowledged):6,} ({len(acknowledged) - during:,} after)  "
        f"lost {lost}  frozen {frozen:5.2f} s = {frozen / megabytes * 100:5.2f} s per 100 MB  in all {took:5.2f} s"
    )
    return lost == 0


@asynccontextmanager
async def clusters(server: str) -> AsyncIterator[tuple[Sandbox, list[str]]]:
    """A sandbox with two clusters."""
    async with AsyncExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(windows=[]))
        if server == "pg":
            yield sandbox, [await sandbox.add_cluster("pg", backend="postgres") for _ in range(2)]
            return
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        for folder in folders:
            folder.chmod(0o777)
        dsns = [stack.enter_context(running(server, folder)) for folder in folders]
        yield sandbox, [await sandbox.add_cluster("mysql", dsn=dsn) for dsn in dsns]


async def main() -> None:
    fine = True
    for server in ("pg", *(each for each in installed() if each != "given")):
        async with clusters(server) as (sandbox, ids):
            fine &= await measure(server, sandbox, ids, Postgres() if server == "pg" else MySQL())
    sys.exit(not fine)


if __name__ == "__main__":
    asyncio.run(main())
