"""A tenant signs up on a real PostgreSQL. A name that no tenant can have is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from aiodbclient.errors import InvalidArgumentError, UnsupportedOperationError
from aiodbclient.tenants import TenantAction, Tenants
from aiodbclient.tenants.errors import TenantNotFoundError

from .conftest import Place, only
from .programs import ask


async def actions(outcomes: Any) -> dict[str, TenantAction]:
    return {outcome.name: outcome.action async for outcome in outcomes}


async def test_tenant_has_its_own_database(place: Place) -> None:
    tenants = place.tenants()

    alpha, beta = await asyncio.gather(tenants.ensure("alpha"), tenants.ensure("beta"))

    assert await ask(alpha, "CREATE TABLE mine (x int)", "INSERT INTO mine VALUES (1)", "TABLE mine") == [(1,)]
    assert alpha.name == "alpha"
    assert alpha.database == place.prefix + "alpha"
    assert alpha.username.startswith(f"{alpha.database}_")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        await AsyncConnection.connect(beta.uri, dbname=alpha.database)


async def test_second_ensure_sends_nothing(place: Place) -> None:
    first = await place.tenants().ensure("alpha")
    sent = len(place.sent())

    tenants = place.tenants()
    again = await tenants.ensure("alpha")

    assert again == first == await tenants.get("alpha")
    assert len(place.sent()) == sent
    assert await tenants.get("beta") is None


@pytest.mark.parametrize("engine", ["redis", "valkey", "mongodb", "kafka", "opensearch"])
async def test_engine_without_sql_refused(place: Place, engine: str) -> None:
    """Nothing is sent, and nothing is on record."""
    cluster = place.client.cluster(await place.sandbox.add_cluster(engine), engine)
    before = len(place.sent())
    tenants = type(place.tenants())(cluster, place.store)

    with pytest.raises(UnsupportedOperationError):
        await tenants.ensure("alpha")

    assert len(place.sent()) == before
    assert await place.store.get("alpha") is None


@pytest.mark.parametrize("given", [None, "cockroach"])
async def test_unknown_engine_refused(place: Place, given: str | None) -> None:
    cluster = place.client.cluster(await place.sandbox.add_cluster("cockroach"), given)
    before = len(place.sent())
    tenants = Tenants(cluster, place.store)

    with pytest.raises(UnsupportedOperationError, match=r"does not know the engine 'cockroach'.*nothing was created"):
        await tenants.ensure("alpha")
    with pytest.raises(UnsupportedOperationError, match=r"does not know the engine 'cockroach'.*nothing was created"):
        await actions(tenants.provision(["alpha", "beta"]))

    assert [operation for operation, _ in place.sent()[before:]] == ["clusters.get"] * 2
    assert [record async for record in place.store.records()] == []


@pytest.mark.parametrize("store", [None, "tenants.db", {}])
async def test_invalid_store_refused(place: Place, store: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="store must have the methods of a Store, and"):
        Tenants(place.cluster, store)


BAD: Iterable[Any] = [
    "",
    " ",
    ".",
    "..",
    "defaultdb",
    "doadmin",
    "pg_x",
    "x" * 64,
    "a_0123456789ab_0001beef",
    "nul\0",
    7,
]


@pytest.mark.parametrize("name", BAD)
async def test_invalid_tenant_name_refused(place: Place, name: Any) -> None:
    tenants = place.tenants(prefix="")
    with pytest.raises(InvalidArgumentError):
        await tenants.ensure(name)
    assert not [what for what, _ in place.sent() if what not in ("clusters.get", "clusters.ca")]


@pytest.mark.parametrize("verb", ["check", "repair", "rotate", "revoke_previous", "suspend", "resume", "usage"])
async def test_unknown_tenant_fails_every_verb(place: Place, verb: str) -> None:
    run = getattr(place.tenants(), verb)
    outcome = await only(run(["nobody"]))
    assert isinstance(outcome.error, TenantNotFoundError)
    with pytest.raises(InvalidArgumentError, match="an iterable of names"):
        await anext(aiter(run("alpha")))
    assert place.sent() in ([], [("clusters.get", None)])
    assert await place.store.get("nobody") is None
    assert [outcome async for outcome in place.tenants().check()] == []
