from __future__ import annotations

import pytest

from aiodbclient import Cluster, DatabaseClient
from aiodbclient.sandbox import Sandbox


@pytest.fixture
async def pg(sandbox: Sandbox, client: DatabaseClient) -> Cluster:
    return client.cluster(await sandbox.add_cluster("pg", backend="memory"))


@pytest.fixture
async def mysql(sandbox: Sandbox, client: DatabaseClient) -> Cluster:
    return client.cluster(await sandbox.add_cluster("mysql", backend="memory"))


@pytest.fixture
async def mongodb(sandbox: Sandbox, client: DatabaseClient) -> Cluster:
    return client.cluster(await sandbox.add_cluster("mongodb"))


@pytest.fixture
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what a lost answer left again and again within half a second, not within minutes."""
    for name, seconds in {"FIRST_POLL": 0.02, "READ_DELAY": 0.5, "RESET_DELAY": 0.02}.items():
        monkeypatch.setattr(f"aiodbclient._bulk.settle.{name}", seconds)
