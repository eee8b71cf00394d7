"""A stranger's login or database is adopted only on request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aiodbclient import Action, ClusterClient
from aiodbclient.errors import ConflictError, InvalidArgumentError
from aiodbclient.tenants import Credential, Problem, SQLiteStore, Tenants

from .conftest import Place, only
from .dying import died, moments
from .programs import ask, refusal

READS = {"clusters.get", "clusters.ca", "users.get", "users.list", "dbs.get", "dbs.list"}


async def make(cluster: ClusterClient, what: str, name: str) -> None:
    """Create a login, a database or both through the API alone, as a stranger would."""
    if what != "login":
        await cluster.dbs.create(name)
    if what != "database":
        await cluster.users.create(name)


@pytest.mark.parametrize("what", ["login", "database", "both"])
async def test_an_existing_name_is_refused_and_nothing_is_changed_or_stored(anywhere: Place, what: str) -> None:
    place, tenants, name = anywhere, anywhere.tenants(), anywhere.prefix + "shop"
    await make(place.cluster, what, name)
    before = await everything(place)
    sent = len(place.sent())

    with pytest.raises(ConflictError, match=r"so somebody else created this; nothing was changed") as caught:
        await tenants.ensure("shop")
    assert not caught.value.may_have_applied
    for _ in range(2):  # nothing is stored that a second run would reset
        outcome = await only(tenants.provision(["shop"]))
        assert isinstance(outcome.error, ConflictError)

    assert {operation for operation, _ in place.sent()[sent:]} <= READS
    assert await everything(place) == before
    assert await place.store.get("shop") is None
    assert (await only(tenants.remove(["shop"]))).action is Action.ABSENT
    assert await everything(place) == before


async def everything(place: Place) -> tuple[list[Any], list[str]]:
    return await place.cluster.users.list(), [db.name for db in await place.cluster.dbs.list()]


@pytest.mark.parametrize("if_exists", ["keep", "", None, "ADOPT", ["adopt"]])
async def test_there_are_three_ways_to_deal_with_what_is_there(place: Place, if_exists: Any) -> None:
    tenants = place.tenants()
    with pytest.raises(InvalidArgumentError, match='if_exists must be "error", "adopt" or "reset"'):
        await tenants.ensure("alpha", if_exists)
    with pytest.raises(InvalidArgumentError, match="if_exists must be"):
        tenants.provision(["alpha"], if_exists)
    with pytest.raises(InvalidArgumentError, match="if_exists must be"):
        await tenants.plan(["alpha"], if_exists=if_exists)
    assert place.sent() == []


async def test_one_tenant_takes_six_requests_and_a_run_two_each(place: Place) -> None:
    await place.tenants().ensure("one")

    assert [operation for operation, _ in place.sent()] == [
        "clusters.get",
        "clusters.ca",
        "users.get",
        "dbs.get",
        "dbs.create",
        "users.create",
    ]
    before = len(place.sent())
    outcomes = [outcome async for outcome in place.tenants().provision(["two", "three", "four"])]
    assert all(outcome.action is Action.CREATED for outcome in outcomes)
    sent = [operation or "" for operation, _ in place.sent()[before:]]
    assert sorted(sent) == sorted(["clusters.get", "users.list", "dbs.list", *(["dbs.create", "users.create"] * 3)])


def ensuring(name: str) -> Callable[[Tenants], Awaitable[object]]:
    return lambda tenants: tenants.ensure(name)


async def test_unfinished_work_of_a_dead_process_is_finished_by_the_next_call(place: Place) -> None:
    """A process is killed after each of its steps. The next one continues, and finds no strangers."""
    for last in moments():
        name = f"n{last}"
        was_killed = await died(place, last, ensuring(name))
        plan = await place.tenants().plan([name])
        assert plan.conflict == ()

        credential = await place.tenants().ensure(name)

        await ask(credential, "CREATE TABLE t (x int)")
        requests = [
            (each.operation, each.status) for each in place.sandbox.requests if each.name == place.prefix + name
        ]
        assert requests.count(("users.create", 201)) == 1
        if not was_killed:
            assert last > 10
            return


class InterruptedStore(SQLiteStore):
    """A stranger acts right after the first intent is stored: we have listed, but not created anything."""

    stranger: Callable[[], Awaitable[object]] | None = None

    async def intend(self, claim: Any, username: str | None) -> None:
        await super().intend(claim, username)
        if self.stranger is not None:
            stranger, self.stranger = self.stranger, None
            await stranger()


@pytest.mark.parametrize("what", ["login", "database", "both"])
@pytest.mark.parametrize("bulk", [False, True])
async def test_objects_that_appear_between_our_look_and_our_create_are_somebody_elses(
    anywhere: Place, what: str, bulk: bool, tmp_path: Path
) -> None:
    place, name = anywhere, anywhere.prefix + "shop"
    async with InterruptedStore(tmp_path / "other.db") as store:
        store.stranger = lambda: make(place.cluster, what, name)
        tenants = Tenants(place.cluster, store, place.prefix)
        before = await everything(place)

        if bulk:
            assert isinstance((await only(tenants.provision(["shop"]))).error, ConflictError)
        else:
            with pytest.raises(ConflictError, match="somebody else created this"):
                await tenants.ensure("shop")

        assert await store.get("shop") is None
        sent = [operation for operation, its in place.sent() if its == "shop"]
        assert not {"users.reset_auth", "users.update", "users.delete"} & set(sent)
        users, databases = await everything(place)
        assert len(users) - len(before[0]) == (what != "database")
        assert len(databases) - len(before[1]) == (what != "login")  # ours is gone again


async def test_a_login_that_appears_between_look_and_create_is_adopted_if_asked(place: Place, tmp_path: Path) -> None:
    theirs = list[str | None]()

    async def stranger() -> None:
        theirs.append((await place.cluster.users.create(place.prefix + "shop")).password)

    async with InterruptedStore(tmp_path / "other.db") as store:
        store.stranger = stranger
        outcome = await only(Tenants(place.cluster, store, place.prefix).provision(["shop"], if_exists="adopt"))

    assert outcome.action is Action.ADOPTED
    assert outcome.credential is not None
    assert [outcome.credential.password] == theirs
    await ask(outcome.credential, "CREATE TABLE t (x int)")


async def test_a_stranger_beside_a_lost_answer_keeps_the_password(place: Place, tmp_path: Path) -> None:
    """It is unknown who created a login that appears while our create is lost. So it is not reset."""
    theirs = list[str | None]()

    async def stranger() -> None:
        theirs.append((await place.cluster.users.create(place.prefix + "shop")).password)
        place.sandbox.faults.add("users.create", status=500, times=1)

    async with InterruptedStore(tmp_path / "other.db") as store:
        store.stranger = stranger
        await Tenants(place.cluster, store, place.prefix).ensure("shop")

    assert [(await place.cluster.users.get(place.prefix + "shop")).password] == theirs
    assert ("users.reset_auth", "shop") not in place.sent()


async def test_prefixes_that_overlap_share_no_tenant(anywhere: Place, tmp_path: Path) -> None:
    place = anywhere
    first = await place.tenants(prefix=f"{place.prefix}app").ensure("1x")
    async with SQLiteStore(tmp_path / "other.db") as store:
        with pytest.raises(ConflictError, match="somebody else created this"):
            await Tenants(place.cluster, store, f"{place.prefix}app1").ensure("x")
        assert await store.get("x") is None
    assert (await only(place.tenants(prefix=f"{place.prefix}app").check(["1x"]))).problems == ()
    assert first.password is None or first == await place.tenants(prefix=f"{place.prefix}app").get("1x")


@pytest.mark.parametrize("engine", ["kafka", "opensearch"])
async def test_leftovers_of_a_tenant_are_refused_and_removed_with_the_next_one(place: Place, engine: str) -> None:
    cluster = place.client.cluster(await place.sandbox.add_cluster(engine))
    add = place.sandbox.add_topic if engine == "kafka" else place.sandbox.add_index
    tenants = Tenants(cluster, place.store)
    add(cluster.id, "alpha-5306d220.events")
    add(cluster.id, "alphabet-da9db9f8.events")

    with pytest.raises(ConflictError, match=r"'alpha-5306d220\.events' exists and is not on record"):
        await tenants.ensure("alpha")
    failed = await only(tenants.provision(["alpha"]))
    assert isinstance(failed.error, ConflictError)
    plan = await tenants.plan(["alpha", "beta"])
    assert (plan.conflict, plan.create) == (("alpha",), ("beta",))
    assert await place.store.get("alpha") is None

    adopted = await only(tenants.provision(["alpha"], if_exists="adopt"))
    assert adopted.action is Action.ADOPTED
    assert (await only(tenants.remove(["alpha"]))).action is Action.DELETED
    assert (await only(tenants.provision(["alpha"]))).action is Action.CREATED  # nothing is left of the old one
    with pytest.raises(ConflictError, match=r"'alphabet-da9db9f8\.events'"):
        await tenants.ensure("alphabet")


async def test_an_adopted_login_can_do_what_it_could_before_and_so_can_the_next_one(place: Place) -> None:
    """It wrote to tables of ``doadmin`` and of another login. The plan names other logins of that database."""
    name, other = place.prefix + "shop", place.prefix + "other"
    await make(place.cluster, "both", name)
    await place.cluster.users.create(other)
    info = await place.cluster.info()
    assert info.connection is not None
    admin = info.connection.uri_for(await place.cluster.users.get("doadmin"), name)
    login = await place.cluster.users.get(name)
    as_admin = _credential(place, name, admin)
    await ask(
        as_admin,
        "CREATE SCHEMA old",
        "CREATE TABLE old.t (x int)",
        f"GRANT USAGE ON SCHEMA old TO {name}, {other}",
        f"GRANT SELECT, INSERT ON old.t TO {name}",
        f"GRANT CONNECT ON DATABASE {name} TO {other}",
    )
    before = _credential(place, name, info.connection.uri_for(login, name))
    await ask(before, "INSERT INTO old.t VALUES (1)")
    tenants = place.tenants()

    plan = await tenants.plan(["shop", "new"], if_exists="adopt")
    assert (plan.adopt, plan.create, plan.conflict) == (("shop",), ("new",), ())
    assert other in plan.shut_out["shop"]
    assert name not in plan.shut_out["shop"]
    assert "adopting shop shuts out: " in str(plan)
    refused = await tenants.plan(["shop", "new"])
    assert (refused.adopt, refused.create, refused.conflict) == ((), ("new",), ("shop",))
    failed = {outcome.name: outcome async for outcome in refused.apply()}
    assert isinstance(failed["shop"].error, ConflictError)
    assert failed["new"].ok

    adopted = [outcome async for outcome in (await tenants.plan(["shop", "new"], if_exists="adopt")).apply()]
    assert [(outcome.name, outcome.action) for outcome in adopted] == [("shop", Action.ADOPTED)]
    credential = adopted[0].credential
    assert credential is not None
    assert credential.password == login.password
    assert await ask(credential, "INSERT INTO old.t VALUES (2)", "SELECT x FROM old.t ORDER BY x") == [(1,), (2,)]
    rotated = (await only(tenants.rotate(["shop"]))).credential
    assert rotated is not None
    assert len(await ask(rotated, "INSERT INTO old.t VALUES (3)", "SELECT x FROM old.t")) == 3
    await only(tenants.retire(["shop"]))
    assert len(await ask(rotated, "INSERT INTO old.t VALUES (4)", "SELECT x FROM old.t")) == 4
    shut_out = _credential(place, other, info.connection.uri_for(await place.cluster.users.get(other), name))
    assert "permission denied for database" in await refusal(shut_out)
    # The administrator's table is reported until it is the tenant's.
    assert (await only(tenants.check(["shop"]))).problems == (Problem.OWNED_BY_OTHERS,)
    assert (await only(tenants.repair(["shop"]))).error is None
    assert (await only(tenants.check(["shop"]))).problems == ()
    assert len(await ask(rotated, "ALTER TABLE old.t ADD y int", "SELECT x FROM old.t")) == 4


def _credential(place: Place, username: str, uri: str) -> Credential:
    return Credential(
        name=username, username=username, password=None, database=None, host="", port=0, engine="pg", uri=uri
    )


async def test_reset_takes_over_with_another_password(anywhere: Place) -> None:
    place = anywhere
    await make(place.cluster, "both", place.prefix + "shop")
    before = await place.cluster.users.get(place.prefix + "shop")

    outcome = await only(place.tenants().provision(["shop"], if_exists="reset"))

    assert outcome.action is Action.RESET
    assert outcome.credential is not None
    assert outcome.credential.password not in (None, before.password)
    assert (await only(place.tenants().check(["shop"]))).problems == ()


async def test_a_database_of_nobody_is_adopted_with_a_new_login(anywhere: Place) -> None:
    place = anywhere
    await make(place.cluster, "database", place.prefix + "shop")

    outcome = await only(place.tenants().provision(["shop"], if_exists="adopt"))

    assert outcome.action is Action.ADOPTED
    assert (await only(place.tenants().check(["shop"]))).problems == ()


async def test_two_processes_that_ask_at_once_make_one(anywhere: Place, tmp_path: Path) -> None:
    """Neither mistakes the other's new login for a stranger's."""
    place = anywhere
    async with SQLiteStore(place.path) as store:
        others = Tenants(place.cluster, store, place.prefix)
        one, two = await asyncio.gather(place.tenants().ensure("alpha"), others.ensure("alpha"))
    assert one == two
    assert place.sent().count(("users.create", "alpha")) == 1
