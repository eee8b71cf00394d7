"""The table of the web examples: who is pending, and who is on record."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from credentials import Credentials
from tenants import TenantExists, Tenants


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "tenants.db")


async def connect(client: DatabaseClient, cluster_id: str, credentials: Credentials) -> Tenants:
    connection = (await client.clusters.get(cluster_id)).connection
    return Tenants(client.cluster(cluster_id), connection, credentials)


async def test_a_tenant_is_pending_until_its_dsn_is_kept(file: str) -> None:
    with Credentials.open(file) as credentials:
        assert await credentials.intend("alpha")
        assert await credentials.intend("alpha")  # a signup that broke off is taken up
        assert await credentials.intend("beta")
        await credentials.keep("alpha", "postgresql://...")

    with Credentials.open(file) as credentials:
        assert await credentials.pending() == ["beta"]
        assert await credentials.dsn_of("alpha") == "postgresql://..."
        assert not await credentials.intend("alpha")


async def test_many_at_once(file: str) -> None:
    tenants = [f"tenant{number}" for number in range(200)]
    with Credentials.open(file) as credentials:

        async def sign_up(tenant: str) -> None:
            assert await credentials.intend(tenant)
            await credentials.keep(tenant, f"dsn of {tenant}")
            assert await credentials.dsn_of(tenant) == f"dsn of {tenant}"

        await asyncio.gather(*map(sign_up, tenants))

        assert await credentials.pending() == []


async def test_what_cannot_be_settled_stays_pending_and_harms_nobody_else(
    file: str, aiodbclient_sandbox: Sandbox, aiodbclient_client: DatabaseClient
) -> None:
    cluster_id = await aiodbclient_sandbox.add_cluster("pg", backend="memory")
    aiodbclient_sandbox.faults.add("dbs.create", name="tenant_alpha", status=403)
    aiodbclient_sandbox.faults.add("users.create", name="tenant_beta", status=403)
    with Credentials.open(file) as credentials:
        tenants = await connect(aiodbclient_client, cluster_id, credentials)
        for tenant in ("alpha", "beta", "gamma"):
            await credentials.intend(tenant)

        await tenants.settle()

        assert await credentials.pending() == ["alpha", "beta"]
        with pytest.raises(TenantExists):
            await tenants.sign_up("gamma")
        aiodbclient_sandbox.faults.clear()
        assert "tenant_beta" in await tenants.sign_up("beta")
        assert await credentials.pending() == ["alpha"]
