"""A tenant from sign-up to removal, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from aiodbclient.errors import InvalidArgumentError, UnsupportedOperationError
from aiodbclient.tenants import TenantAction, Tenants

from .conftest import Place, only
from .programs import ask, refusal


async def actions(outcomes: Any) -> dict[str, TenantAction]:
    return {outcome.name: outcome.action async for outcome in outcomes}


async def test_a_tenant_makes_a_table_in_its_own_database_and_nobody_else_gets_in(place: Place) -> None:
    tenants = place.tenants()

    alpha, beta = await asyncio.gather(tenants.ensure("alpha"), tenants.ensure("beta"))

    assert await ask(alpha, "CREATE TABLE mine (x int)", "INSERT INTO mine VALUES (1)", "TABLE mine") == [(1,)]
    assert alpha.name == "alpha"
    assert alpha.database == place.prefix + "alpha"
    assert alpha.username.startswith(f"{alpha.database}_")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        await AsyncConnection.connect(beta.uri, dbname=alpha.database)


async def test_a_second_call_returns_the_same_and_sends_nothing(place: Place) -> None:
    first = await place.tenants().ensure("alpha")
    sent = len(place.sent())

    tenants = place.tenants()
    again = await tenants.ensure("alpha")

    assert again == first == await tenants.get("alpha")
    assert len(place.sent()) == sent
    assert await tenants.get("beta") is None


async def test_two_that_ask_at_once_make_one_login_and_both_get_it(place: Place) -> None:
    credentials = await asyncio.gather(*(place.tenants().ensure("alpha") for _ in range(5)))

    assert len(set(credentials)) == 1
    assert await place.logins() == [credentials[0].username.removeprefix(place.prefix)]
    assert not await refusal(credentials[0])


async def test_a_run_asks_the_api_for_the_cluster_and_nothing_else(place: Place) -> None:
    names = [f"n{number}" for number in range(20)]

    outcomes = {outcome.name: outcome async for outcome in place.tenants().provision(names)}

    assert {outcome.action for outcome in outcomes.values()} == {TenantAction.CREATED}
    assert sorted(outcomes) == sorted(names)
    assert place.sent() == [("clusters.get", None)]  # and the CA, where the server has TLS
    for outcome in outcomes.values():
        assert outcome.credential is not None
        assert not await refusal(outcome.credential)


async def test_a_rotated_tenant_has_two_logins_that_work_until_the_old_one_is_revoked(place: Place) -> None:
    tenants = place.tenants()
    old = await tenants.ensure("alpha")
    await ask(old, "CREATE TABLE t (x int)")

    rotated = await only(tenants.rotate(["alpha"]))

    assert rotated.action is TenantAction.ROTATED
    new = rotated.credential
    assert new is not None
    assert new == await tenants.get("alpha")
    assert new.username != old.username
    await ask(new, "ALTER TABLE t ADD y int", "CREATE TABLE made_by_the_second (x int)")
    await ask(old, "DROP TABLE made_by_the_second", "INSERT INTO t VALUES (1, 2)")

    assert await actions(tenants.revoke_previous(["alpha"])) == {"alpha": TenantAction.REVOKED}
    assert await refusal(old)
    assert not await refusal(new)
    assert await actions(tenants.revoke_previous(["alpha"])) == {"alpha": TenantAction.KEPT}

    third = (await only(tenants.rotate(["alpha"]))).credential
    assert third is not None
    assert third.username not in (old.username, new.username)
    assert await ask(third, "TABLE t") == [(1, 2)]
    assert not await refusal(new)


async def test_a_removed_tenant_is_gone_and_can_be_created_again(place: Place) -> None:
    tenants = place.tenants()
    old = await tenants.ensure("alpha")
    await actions(tenants.rotate(["alpha"]))
    await ask(old, "CREATE TABLE t (x int)")

    assert await actions(tenants.remove(["alpha", "never"])) == {
        "alpha": TenantAction.DELETED,
        "never": TenantAction.ABSENT,
    }

    assert await refusal(old)
    assert await tenants.get("alpha") is None
    assert await place.store.get("alpha") is None
    assert not [user.name for user in await place.cluster.users.list() if user.name.startswith(place.prefix)]
    assert not [db.name for db in await place.cluster.dbs.list() if db.name.startswith(place.prefix)]
    again = await tenants.ensure("alpha")
    assert await ask(again, "CREATE TABLE t (x int)", "TABLE t") == []


async def test_a_login_that_was_there_before_is_adopted_with_what_it_made(place: Place) -> None:
    """Such as a login created through the API alone, which owns its objects."""
    name = place.prefix + "alpha"
    await place.cluster.dbs.create(name)
    user = await place.cluster.users.create(name)
    async with await AsyncConnection.connect(
        (await place.cluster.info()).connection.uri_for(await place.cluster.users.get("doadmin"), name)
    ) as admin:
        await admin.execute(f"GRANT CREATE ON SCHEMA public TO {name}")
    before = (await place.cluster.info()).connection.uri_for(user, name)
    async with await AsyncConnection.connect(before) as its_own:
        await its_own.execute("CREATE TABLE t (x int)")

    outcome = await only(place.tenants().provision(["alpha"], if_exists="adopt"))

    assert outcome.action is TenantAction.ADOPTED
    assert outcome.credential is not None
    assert outcome.credential.username != user.name
    await ask(outcome.credential, "ALTER TABLE t ADD y int")
    async with await AsyncConnection.connect(before) as its_own:  # it goes on working until it is revoked
        await its_own.execute("INSERT INTO t VALUES (1, 2)")
    assert (await only(place.tenants().check(["alpha"]))).problems == ()
    assert await actions(place.tenants().revoke_previous(["alpha"])) == {"alpha": TenantAction.REVOKED}
    with pytest.raises(psycopg.OperationalError):
        await AsyncConnection.connect(before)
    assert user.name not in [each.name for each in await place.cluster.users.list()]
    assert await ask(outcome.credential, "TABLE t") == [(1, 2)]


async def test_the_usage_of_a_string_is_refused(place: Place) -> None:
    with pytest.raises(InvalidArgumentError, match="usage takes an iterable of names, not str; nothing was sent"):
        await anext(place.tenants().usage("alpha"))
    assert place.sent() == []


@pytest.mark.parametrize("engine", ["redis", "valkey", "mongodb", "kafka", "opensearch"])
async def test_an_engine_without_sql_is_refused_with_nothing_sent_and_nothing_on_record(
    place: Place, engine: str
) -> None:
    cluster = place.client.cluster(await place.sandbox.add_cluster(engine), engine)
    before = len(place.sent())
    tenants = type(place.tenants())(cluster, place.store)

    with pytest.raises(UnsupportedOperationError):
        await tenants.ensure("alpha")

    assert len(place.sent()) == before
    assert await place.store.get("alpha") is None


@pytest.mark.parametrize("given", [None, "cockroach"])
async def test_an_engine_that_is_not_known_is_refused_before_anything_is_made(place: Place, given: str | None) -> None:
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
async def test_an_argument_that_is_not_a_store_is_refused_at_once(place: Place, store: Any) -> None:
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
async def test_a_name_that_cannot_be_a_tenants_is_refused(place: Place, name: Any) -> None:
    tenants = place.tenants(prefix="")
    with pytest.raises(InvalidArgumentError):
        await tenants.ensure(name)
    assert not [what for what, _ in place.sent() if what not in ("clusters.get", "clusters.ca")]


async def test_tenants_that_are_not_on_record_are_neither_rotated_nor_revoked(place: Place) -> None:
    for runs in (place.tenants().rotate, place.tenants().revoke_previous):
        outcome = await only(runs(["nobody"]))
        assert isinstance(outcome.error, InvalidArgumentError)
    assert await place.store.get("nobody") is None
