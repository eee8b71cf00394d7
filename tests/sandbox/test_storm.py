"""The database stops and starts during all operations on tenants, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest

from aiodbclient.errors import DatabaseClientError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, TenantPools, Tenants

from ..waiting import HANG

NAMES = [f"tenant{number}" for number in range(6)]


@asynccontextmanager
async def storm(sandbox: Sandbox, cluster: str) -> AsyncIterator[None]:
    """Stop and start the database at random until the block ends. Then leave it running."""
    draw = random.Random(1)

    async def blow() -> None:
        while True:
            await asyncio.sleep(draw.uniform(0.0, 0.1))
            await sandbox.stop_database(cluster, graceful=draw.random() < 0.5)
            await asyncio.sleep(draw.uniform(0.0, 0.05))
            await sandbox.start_database(cluster)

    blowing = asyncio.create_task(blow())
    try:
        yield
    finally:
        blowing.cancel()
        with suppress(asyncio.CancelledError):
            await blowing
        await sandbox.start_database(cluster)


async def tried(start: Callable[[], Any]) -> None:
    """Run it in the storm until the storm has hit it, at least twice. Each failure must be one of our errors."""
    failures = rounds = 0
    async with asyncio.timeout(HANG):
        while not failures or rounds < 2:
            rounds += 1
            try:
                errors = [outcome.error for outcome in await start()]
            except DatabaseClientError as error:  # the administrator could not log in, so nothing was started
                errors = [error]
            failures += sum(error is not None for error in errors)


async def all_log_in(tenants: Tenants, text: str) -> None:
    """Every tenant logs in with its stored credential, and finds its earlier data."""
    for name in NAMES:
        credential = await tenants.get(name)
        assert credential is not None
        async with await psycopg.AsyncConnection.connect(credential.uri) as session:
            await session.execute("CREATE TABLE IF NOT EXISTS notes (text text)")
            await session.execute("INSERT INTO notes VALUES (%s)", [text])
            rows = await (await session.execute("SELECT text FROM notes")).fetchall()
            assert rows[0] == ("provisioned",)


@pytest.mark.thorough
async def test_storm_loses_nothing(aiodbclient_sandbox: Sandbox, aiodbclient_tenants: Tenants) -> None:
    sandbox, tenants = aiodbclient_sandbox, aiodbclient_tenants
    [cluster] = sandbox.clusters

    async with storm(sandbox, cluster):
        await tried(lambda: tenants.provision(NAMES))
    assert [outcome.error for outcome in await tenants.provision(NAMES)] == [None] * len(NAMES)
    await all_log_in(tenants, "provisioned")

    async with storm(sandbox, cluster):
        await tried(lambda: tenants.rotate(all=True, force=True))
        await tried(tenants.check)
        await tried(lambda: tenants.repair(all=True))
    assert [outcome.error for outcome in await tenants.repair(all=True)] == [None] * len(NAMES)
    assert [outcome.problems for outcome in await tenants.check()] == [()] * len(NAMES)
    await all_log_in(tenants, "rotated")


async def test_pools_open_again_when_the_database_is_back(
    aiodbclient_sandbox: Sandbox, aiodbclient_tenants: Tenants
) -> None:
    async def open_pool(credential: Credential) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(credential.uri, autocommit=True)

    async def close_pool(pool: psycopg.AsyncConnection[Any]) -> None:
        await pool.close()

    [cluster] = aiodbclient_sandbox.clusters
    await aiodbclient_tenants.ensure("alpha")
    async with TenantPools(aiodbclient_tenants, open=open_pool, close=close_pool, max_pools=20, refresh=0.0) as pools:
        async with pools.use("alpha") as pool:
            await pool.execute("SELECT 1")
        await aiodbclient_sandbox.stop_database(cluster)
        with pytest.raises(psycopg.OperationalError):
            async with pools.use("alpha") as pool:
                await pool.execute("SELECT 1")
        await aiodbclient_sandbox.start_database(cluster)
        [rotated] = await aiodbclient_tenants.rotate(["alpha"])
        assert rotated.error is None
        async with pools.use("alpha") as pool:  # the pool of the new credential
            await pool.execute("SELECT 1")
