from __future__ import annotations

import pytest

from aiodbclient import Cluster, DatabaseClient
from aiodbclient.sandbox import Sandbox


@pytest.fixture
async def pg(sandbox: Sandbox, client: DatabaseClient) -> Cluster:
    return client.cluster(await sandbox.add_cluster("pg", backend="memory"))


@pytest.fixture
async def mongodb(sandbox: Sandbox, client: DatabaseClient) -> Cluster:
    return client.cluster(await sandbox.add_cluster("mongodb"))
