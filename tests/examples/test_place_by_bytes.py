"""The example puts a customer where the least data is, not where the fewest tenants are."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

import place_by_bytes
from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import ClusterCapacity, Credential, SQLiteStore, Tenants


async def test_a_customer_goes_where_the_least_data_is(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", sandbox.token)
    monkeypatch.setenv("DIGITALOCEAN_API_URL", sandbox.url)
    first, second = [await sandbox.add_cluster("pg", backend="postgres") for _ in range(2)]

    async def signed_up(name: str) -> Credential:
        await place_by_bytes.main(name, first, second)
        async with SQLiteStore("customers.db") as store:
            record = await store.get(name)
        assert record is not None
        credential = record.credential()
        assert credential is not None
        assert capsys.readouterr().out == f"{name} is on {record.cluster}\n"
        return credential

    large = await signed_up("large")
    with psycopg.connect(large.uri) as connection:
        connection.execute("CREATE TABLE t AS SELECT repeat(n::text, 1000) FROM generate_series(1, 20000) n")
    assert {(await signed_up(name)).cluster for name in ("small", "another")} == {first, second} - {large.cluster}


async def test_unread_cluster_comes_last() -> None:
    place = place_by_bytes.LeastData()
    place.bytes = {"a": 200, "b": 100, "full": 1}
    capacities = [
        ClusterCapacity("away", 0, 9),
        ClusterCapacity("a", 1, 9),
        ClusterCapacity("full", 9, 9),
        ClusterCapacity("b", 5, 9),
    ]
    assert await place("new", capacities) == "b"
    assert await place("new", capacities[:2]) == "a"
    assert await place("new", capacities[:1]) == "away"


async def test_choose_cluster_may_read_capacity(sandbox: Sandbox, client: DatabaseClient, tmp_path: Path) -> None:
    ids = [await sandbox.add_cluster("pg", backend="postgres") for _ in range(2)]

    async def place(name: str, capacities: object) -> str:
        sized = await tenants.capacity()
        return min(sized, key=lambda each: (each.bytes or 0, each.tenants)).cluster

    async with SQLiteStore(tmp_path / "store") as store:
        tenants = Tenants([client.cluster(id) for id in ids], store, choose_cluster=place)
        assert {(await tenants.ensure(name)).cluster for name in ("a", "b")} == set(ids)
