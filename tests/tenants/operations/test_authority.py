"""A cluster with TLS and an unknown CA: nothing is created, and no unverified connection is made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.errors import ConfigurationError, DatabaseClientError, PermissionDeniedError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Tenants

from ...mysql import SERVERS
from ...requirements import postgres_with_tls
from ..conftest import Place, placed

READS = {"clusters.get", "clusters.ca"}


@pytest.fixture(params=["pg", *SERVERS])
async def place(request: pytest.FixtureRequest, mysql: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Place]:
    """A cluster of a sandbox of its own, with a real server that uses TLS."""
    async with Sandbox(windows=[]) as sandbox:
        if request.param == "pg":
            cluster = await sandbox.add_cluster("pg", server=postgres_with_tls())
        else:
            cluster = await sandbox.add_cluster("mysql", server=mysql(request.param))
        async with placed(sandbox, cluster, tmp_path / "tenants.db") as place:
            yield place


async def nothing_was_created(place: Place) -> None:
    assert {each.operation for each in place.sandbox.requests} <= READS
    assert [record async for record in place.store.records()] == []


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (404, ConfigurationError, r"uses TLS, but the API returns no certificate authority .* \(404: "),
        (403, PermissionDeniedError, "403"),
    ],
)
async def test_unreadable_authority_before_create(
    place: Place, status: int, error: type[DatabaseClientError], text: str
) -> None:
    fault = place.sandbox.faults.add("clusters.ca", status=status)
    tenants = place.tenants()
    with pytest.raises(error, match=text):
        await tenants.ensure("alpha")
    with pytest.raises(error, match=text):
        [_ async for _ in tenants.provision(["alpha"])]
    await nothing_was_created(place)

    place.sandbox.faults.remove(fault)
    credential = await tenants.ensure("alpha")

    assert credential.ca is not None
    assert credential.ssl_context() is not None


async def test_token_without_read_scope(place: Place) -> None:
    token = place.sandbox.add_token(["database:create", "database:view_credentials"])
    async with DatabaseClient(token, base_url=place.sandbox.url, rate_limiter=RateLimiter([])) as client:
        with pytest.raises(PermissionDeniedError, match="database:read"):
            await Tenants(client.cluster(place.cluster.id), place.store, prefix=place.prefix).ensure("alpha")
    await nothing_was_created(place)


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_whose_dsn_names_no_ca(mysql: Callable[[str], str], server: str, tmp_path: Path) -> None:
    """The sandbox then has no CA to return, and reports what is missing."""
    async with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster("mysql", server=urlsplit(mysql(server))._replace(query="").geturl())
        async with placed(sandbox, cluster, tmp_path / "tenants.db") as place:
            with pytest.raises(ConfigurationError, match="to the DSN of the server"):
                await place.tenants().ensure("alpha")
            await nothing_was_created(place)
