"""A sandbox with a real PostgreSQL for all tests of a process, and a cluster, a client and a store for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from aiodbclient import ClusterClient, DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants


@frozen
class Place:
    """Where a test's tenants are: names begin with ``prefix``, which is the test's own on a server that all share."""

    sandbox: Sandbox
    client: DatabaseClient
    cluster: ClusterClient
    store: SQLiteStore
    prefix: str
    _before: int

    def tenants(self, **options: object) -> Tenants:
        return Tenants(self.cluster, self.store, **({"prefix": self.prefix} | options))  # type: ignore[arg-type]

    def sent(self) -> list[tuple[str | None, str | None]]:
        """The requests that arrived since the test began, each an operation and a name without the test's prefix."""
        requests = self.sandbox.requests[self._before :]
        return [(each.operation, each.name and each.name.removeprefix(self.prefix)) for each in requests]


@pytest.fixture(scope="session")
def postgres() -> Iterator[tuple[Sandbox, str]]:
    with Sandbox(windows=[]) as sandbox:
        yield sandbox, asyncio.run(sandbox.add_cluster("pg", backend="postgres"))


_used = iter(range(10**6))


@pytest.fixture
async def place(postgres: tuple[Sandbox, str], tmp_path: Path) -> AsyncIterator[Place]:
    sandbox, cluster = postgres
    async with (
        DatabaseClient(
            sandbox.token, base_url=sandbox.url, budget=RateBudget([]), retry=RetryPolicy(base_delay=0.01)
        ) as client,
        SQLiteStore(tmp_path / "tenants.db") as store,
    ):
        yield Place(sandbox, client, client.cluster(cluster), store, f"t{next(_used)}_", len(sandbox.requests))
        sandbox.faults.clear()
