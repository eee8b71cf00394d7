from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiodbclient import ClusterClient, DatabaseClient, RateLimiter, RetryPolicy
from aiodbclient.sandbox import Sandbox


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[DatabaseClient]:
    """A client of ``sandbox`` with fast retries and no pacing."""
    async with DatabaseClient(
        sandbox.token,
        base_url=sandbox.url,
        retry=RetryPolicy(base_delay=0.001),
        rate_limiter=RateLimiter([]),
        timeout=5.0,
    ) as running:
        yield running


@pytest.fixture
async def pg(sandbox: Sandbox, client: DatabaseClient) -> ClusterClient:
    return client.cluster(await sandbox.add_cluster("pg", backend="memory"))


@pytest.fixture
async def mongodb(sandbox: Sandbox, client: DatabaseClient) -> ClusterClient:
    return client.cluster(await sandbox.add_cluster("mongodb"))
