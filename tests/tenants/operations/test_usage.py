"""How large tenants are: one look at each server, however many tenants it has."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from attrs import evolve
from psycopg import AsyncConnection

from aiodbclient.errors import NotFoundError
from aiodbclient.tenants import Credential, Tenants
from aiodbclient.tenants.errors import StoreError, TenantNotFoundError

from ..moves import Two
from ..own_stores import record_of
from ..store_contract import claimed


async def test_usage_and_rooms_show_how_large_tenants_are(two: Two, tenants: Tenants, alpha: Credential) -> None:
    await tenants.ensure("beta")
    found = dict[str, Any]()
    async with await AsyncConnection.connect(alpha.uri), asyncio.timeout(60):
        while sum(each.connections for each in found.values()) != 1:  # until the server has ended those of ``ensure``
            found = {each.name: each async for each in tenants.usage()}
    assert set(found) == {"alpha", "beta"}
    assert found["alpha"].cluster == two.old.id
    assert (found["alpha"].bytes or 0) > 1_000_000
    assert (found["alpha"].connections, found["beta"].connections) == (1, 0)
    [nobody] = [each async for each in tenants.usage(["nobody"])]
    assert (nobody.bytes, type(nobody.error)) == (None, TenantNotFoundError)
    old, new = await tenants.capacity()
    assert (old.name, (old.bytes or 0) > 2_000_000) == ((await two.old.info()).name, True)
    assert new.bytes is not None


async def test_usage_errors_fail_their_own_names(two: Two, alpha: Credential) -> None:
    away = two.client.cluster(uuid4())
    for name, cluster in (("damaged", two.old.id), ("elsewhere", away.id)):  # on record alone
        claim = await claimed(two.store, name)
        there = evolve(alpha, name=name, database=f"{two.prefix}{name}", cluster=cluster)
        await two.store.save(claim, record_of(there), release=True)
    with closing(sqlite3.connect(two.path, isolation_level=None)) as file:
        file.execute("UPDATE credentials SET record = replace(record, 'password', 'x') WHERE name = 'damaged'")

    both = Tenants([two.old, away], two.store, prefix=two.prefix)
    for names in (None, ["alpha", "damaged", "elsewhere"]):
        found = {each.name: each async for each in both.usage(names)}
        assert {name: type(each.error) for name, each in found.items()} == {
            "alpha": type(None),
            "damaged": StoreError,
            "elsewhere": NotFoundError,
        }
        assert (found["alpha"].bytes or 0) > 1_000_000
    old, gone = await both.capacity()
    assert ((old.bytes or 0) > 1_000_000, gone.bytes) == (True, None)


async def test_usage_asks_each_server_once(two: Two, tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = [await tenants.ensure(f"n{number}") for number in range(3)]
    for number in range(3, 300):  # on record alone
        name = f"n{number}"
        claim = await claimed(two.store, name)
        login = f"{two.prefix}{name}"
        there = evolve(credentials[0], name=name, database=login, username=login)
        await two.store.save(claim, record_of(there), release=True)
    statements = list[Any]()
    execute = psycopg.AsyncConnection.execute

    async def counted(self: Any, query: Any, *values: Any, **options: Any) -> Any:
        statements.append(query)
        return await execute(self, query, *values, **options)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", counted)
    found = [each async for each in tenants.usage()]
    assert len(found) == 300
    assert [each.name for each in found if each.error is None] == ["n0", "n1", "n2"]
    assert all((each.bytes or 0) > 1_000_000 for each in found[:1])
    assert 0 < len(statements) < 10
