"""Logins of strangers, records for another place, and working credentials are left unchanged."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from attrs import asdict
from psycopg import AsyncConnection

from aiodbclient import Action, DatabaseClient, Outcome, RateBudget, RetryPolicy
from aiodbclient._request.call import Meter
from aiodbclient._request.pause import Pause
from aiodbclient.errors import (
    ConfigurationError,
    ConflictError,
    GrantError,
    InvalidArgumentError,
    InvalidResponseError,
)
from aiodbclient.tenants import Credential, SQLiteStore, Tenants
from aiodbclient.tenants._clusters import JobClusters
from aiodbclient.tenants._events import Timer
from aiodbclient.tenants._grants import ServerAwayError, postgres
from aiodbclient.tenants._grants.postgres import PostgresGrants
from aiodbclient.tenants._loop import LateWrites, _verify_credential
from aiodbclient.tenants._tenancy import ClaimedTenant, tenant_on

from ..bulk.truth import Truth
from .conftest import Place

Out = TypeVar("Out", bound=Outcome)


async def works(credential: Credential) -> bool:
    try:
        async with await AsyncConnection.connect(credential.uri) as connection:
            await connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


async def by_name(run: AsyncIterator[Out]) -> dict[str, Out]:
    return {outcome.name: outcome async for outcome in run}


async def and_then(store: SQLiteStore, stranger: Callable[[], Awaitable[object]]) -> AsyncIterator[str]:
    """Yield the name ``first`` and, after a stranger has acted, ``beta``.

    The stranger acts once the first is stored, so the run has listed the logins before.
    """
    yield "first"
    while (record := await store.get("first")) is None or record.current is None:
        await asyncio.sleep(0.01)
    await stranger()
    yield "beta"


async def test_a_strangers_login_that_cannot_be_adopted_is_not_reset_the_next_time(place: Place) -> None:
    """The create is refused after its intent is stored."""
    cluster_id = await place.sandbox.add_cluster("mongodb")
    cluster, truth = place.client.cluster(cluster_id), Truth(place.sandbox, cluster_id)
    tenants = Tenants(cluster, place.store)

    names = and_then(place.store, lambda: cluster.users.create("beta"))
    outcomes = await by_name(tenants.provision(names, if_exists="adopt"))
    before = truth.passwords["beta"]

    assert isinstance(outcomes["beta"].error, InvalidResponseError)
    assert await place.store.get("beta") is None
    again = await by_name(tenants.provision(["beta"], if_exists="adopt"))
    assert isinstance(again["beta"].error, InvalidResponseError)
    assert truth.passwords["beta"] == before
    await by_name(tenants.remove(["beta"]))
    assert "beta" in {user.name for user in await cluster.users.list()}


async def test_a_strangers_login_is_not_reset_where_the_answer_to_the_create_is_lost(place: Place) -> None:
    login = place.prefix + "beta"

    async def stranger() -> None:
        await place.cluster.users.create(login)
        place.sandbox.faults.add("users.create", status=500, times=1)

    outcomes = await by_name(place.tenants().provision(and_then(place.store, stranger)))

    assert ("users.reset_auth", "beta") not in place.sent()
    credential = outcomes["beta"].credential
    assert credential is not None
    assert credential.password == (await place.cluster.users.get(login)).password
    assert await works(credential)


async def test_a_strangers_login_is_seen_where_the_logins_may_not_be_listed(place: Place) -> None:
    before = await place.cluster.users.create(place.prefix + "alpha")
    place.sandbox.faults.add("users.list", status=403, times=1)
    place.sandbox.faults.add("users.create", status=500, times=1)

    outcomes = await by_name(place.tenants().provision(["alpha"], if_exists="adopt"))

    assert outcomes["alpha"].action is Action.ADOPTED
    assert (await place.cluster.users.get(before.name)).password == before.password


async def test_a_strangers_login_that_was_left_alone_is_on_no_record_and_in_no_plan(place: Place) -> None:
    tenants = place.tenants()
    await place.cluster.users.create(place.prefix + "alpha")

    outcomes = await by_name(tenants.provision(["alpha"], if_exists="error"))

    assert isinstance(outcomes["alpha"].error, ConflictError)
    assert await place.store.get("alpha") is None
    assert (await tenants.plan([], prune=True)).extra == ()


async def elsewhere(place: Place, what: str) -> Tenants:
    """Tenants with the same store and another prefix, or another cluster with a stranger's login and database."""
    if what == "another prefix":
        return place.tenants(prefix=f"{place.prefix}other_")
    other = place.client.cluster(await place.sandbox.add_cluster("mongodb"))
    await other.users.create(place.prefix + "alpha")
    await other.dbs.create(place.prefix + "alpha")
    return Tenants(other, place.store, place.prefix)


@pytest.mark.parametrize("what", ["another cluster", "another prefix"])
@pytest.mark.parametrize("removing", [False, True], ids=["in use", "in removal"])
async def test_records_for_another_place_are_left_alone(place: Place, what: str, removing: bool) -> None:
    wrong = await elsewhere(place, what)
    credential = await place.tenants().ensure("alpha")
    if removing:
        place.sandbox.faults.add("users.delete", status=403, times=1)
        await by_name(place.tenants().remove(["alpha"]))
    record = await place.store.get("alpha")
    before = len(place.sent())

    for run in (wrong.provision, wrong.rotate, wrong.retire, wrong.remove):
        outcome = (await by_name(run(["alpha"])))["alpha"]
        assert isinstance(outcome.error, InvalidArgumentError)
        assert "a name is taken in the whole store" in str(outcome.error)
        assert what == "another prefix" or place.cluster.id in str(outcome.error)
    for call in (wrong.ensure("alpha"), wrong.get("alpha"), wrong.plan(["alpha"])):
        with pytest.raises(InvalidArgumentError, match="a name is taken in the whole store"):
            await call
    for over_all in (wrong.check, wrong.repair, wrong.rotate, wrong.retire):
        assert await by_name(over_all()) == {}
    assert [each async for each in wrong.records()] == []
    assert (await wrong.plan([], prune=True)).extra == ()

    reads = {"clusters.get", "clusters.ca", "users.list"}
    assert {what for what, _ in place.sent()[before:]} <= reads
    assert await place.store.get("alpha") == record
    assert removing or await works(credential)  # a removal ends the login before it deletes it


async def test_a_login_that_cannot_be_seen_for_a_moment_is_retired_all_the_same(place: Place) -> None:
    tenants = place.tenants()
    old = await tenants.ensure("alpha")
    await by_name(tenants.rotate(["alpha"]))
    place.sandbox.faults.add("users.delete", status=404, times=1)

    outcomes = await by_name(tenants.retire(["alpha"]))

    assert outcomes["alpha"].action is Action.RETIRED
    assert not await works(old)


async def test_a_server_that_is_away_makes_nobody_reset_what_works(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that lost its claim tests the stored credential, and resets it if it is refused."""
    credential = await place.tenants().ensure("alpha")
    tenancy, timer = place.tenants()._tenancy, Timer(Meter())
    clusters = JobClusters(tenancy.sites, Pause())
    site = await clusters.any_site()
    assert isinstance(site.sql, PostgresGrants)
    given = tenant_on(site, "alpha", timer, tenancy, clusters)

    async def away(*_: object) -> None:
        raise ServerAwayError("connection refused")

    held = await tenancy.claim(given.names, timer)
    assert held is not None
    async with held:
        with monkeypatch.context() as patched:
            patched.setattr(postgres, "authenticate", away)
            tenant = ClaimedTenant(**asdict(given, recurse=False), held=held)
            with pytest.raises(GrantError, match="connection refused"):
                await _verify_credential(tenant, LateWrites({credential.username}))

    assert "users.reset_auth" not in {what for what, _ in place.sent()}
    assert await place.tenants().get("alpha") == credential
    assert await works(credential)


async def test_a_missing_authority_is_an_error_before_anything_is_created(place: Place) -> None:
    cluster_id = await place.sandbox.add_cluster("pg", backend="postgres")
    place.sandbox.faults.add("clusters.ca", status=404)
    tenants = Tenants(place.client.cluster(cluster_id), place.store)

    with pytest.raises(ConfigurationError, match=r"uses TLS, but the API returns no certificate authority"):
        await tenants.ensure("alpha")

    assert await place.store.get("alpha") is None
    assert not [what for what, _ in place.sent() if what not in ("clusters.get", "clusters.ca")]


async def test_a_failure_after_a_lost_claim_verifies_the_record(place: Place, tmp_path: Path) -> None:
    """Its reset comes after the reset of the new claim holder, and it gets no answer."""
    first = await place.tenants().ensure("alpha")
    await by_name(place.tenants().rotate(["alpha"]))
    await place.cluster.users.reset_auth(first.username)  # so that the next rotation is a reset
    reset = place.sandbox.faults.add("users.reset_auth", delay=3.0, times=1)
    place.sandbox.faults.add("users.reset_auth", cut=True, after=True, times=1)
    async with DatabaseClient(
        place.sandbox.token, base_url=place.sandbox.url, budget=RateBudget([]), retry=RetryPolicy(max_tries=1)
    ) as client:
        slow = asyncio.create_task(
            by_name(Tenants(client.cluster(place.cluster.id), place.store, place.prefix).rotate(["alpha"], force=True))
        )
        while not reset.fired:
            await asyncio.sleep(0.01)
        with closing(sqlite3.connect(tmp_path / "tenants.db")) as store, store:
            store.execute("UPDATE credentials SET expires = 0")  # as if it had been stopped past its lease
        taken_over = (await by_name(place.tenants().rotate(["alpha"], force=True)))["alpha"]
        outcome = (await slow)["alpha"]

    assert taken_over.credential is not None
    record = await place.store.get("alpha")
    assert record is not None
    assert record.current is not None
    assert record.intended is None
    assert outcome.action is Action.KEPT  # the other one rotated it
    assert outcome.credential == record.current
    assert await works(record.current)
