"""The PostgreSQL of a cluster stops and starts while the sandbox serves, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, TenantPools, Tenants

from ..requirements import postgres_with_tls
from ..thorough import first_of
from .conftest import Call, caller, log_in, rows

pytestmark = pytest.mark.usefixtures("_aiodbclient_servers")


@pytest.fixture(params=first_of([False, True]), ids=["embedded", "TLS"])
async def cluster(sandbox: Sandbox, request: pytest.FixtureRequest) -> str:
    return await sandbox.add_cluster("pg", backend="postgres", server=postgres_with_tls() if request.param else None)


@pytest.fixture
async def call(sandbox: Sandbox, cluster: str) -> AsyncIterator[Call]:
    async with caller(sandbox, f"/v2/databases/{cluster}") as calling:
        yield calling


@pytest.fixture
async def uri(call: Call) -> str:
    uri: str = (await call("GET", "")).json["database"]["connection"]["uri"]
    return uri


@pytest.mark.parametrize("graceful", [False, True])
async def test_stop_and_start(sandbox: Sandbox, cluster: str, call: Call, uri: str, graceful: bool) -> None:
    """What was committed stays, what was open is rolled back, and the API of its users fails meanwhile."""
    made = await call("POST", "/users", {"name": "app"})
    session = await log_in(call)
    await session.execute("CREATE TABLE notes (text text)")
    await session.execute("INSERT INTO notes VALUES ('kept')")
    await session.execute("BEGIN; INSERT INTO notes VALUES ('rolled back')")

    await sandbox.stop_database(cluster, graceful=graceful)
    await sandbox.stop_database(cluster)  # safe to repeat

    error = psycopg.errors.AdminShutdown if graceful else psycopg.OperationalError
    with pytest.raises(error):
        await session.execute("SELECT 1")
    await session.close()
    with pytest.raises(psycopg.OperationalError, match="Connection refused"):
        await log_in(call)
    assert (await call("GET", "/users")).status == 500
    assert (await call("GET", "")).json["database"]["users"] is None  # the cluster itself can be read
    async with caller(sandbox) as other:
        assert (await other("GET", f"/v2/databases/{await sandbox.add_cluster('redis')}")).status == 200
    assert sandbox.failed == []

    await sandbox.start_database(cluster)
    await sandbox.start_database(cluster)
    assert (await call("GET", "")).json["database"]["connection"]["uri"] == uri
    assert (await call("GET", "/users/app")).json["user"] == made.json["user"]
    async with await log_in(call) as again:
        assert await rows(again, "SELECT text FROM notes") == [("kept",)]


async def test_stop_without_own_server(sandbox: Sandbox) -> None:
    for engine in ("pg", "mysql"):
        cluster = await sandbox.add_cluster(engine, backend="memory")
        with pytest.raises(ValueError, match="did not start the server of this cluster"):
            await sandbox.stop_database(cluster)
    with pytest.raises(ValueError, match="no cluster"):
        await sandbox.start_database("nowhere")


def test_stop_in_thread() -> None:
    """A stopped server is not pooled for the next cluster."""
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("pg", backend="postgres"))
        asyncio.run(sandbox.stop_database(cluster))
        asyncio.run(sandbox.start_database(cluster))
        asyncio.run(sandbox.stop_database(cluster))
        server = sandbox._clusters[cluster].backend.embedded
        assert server is not None
        folder: Path = server.folder
        assert folder.exists()
    assert not folder.exists()


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
