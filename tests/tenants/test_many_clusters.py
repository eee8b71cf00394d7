"""One store for many clusters: where a tenant goes, how many fit, and what a cluster that is away means for the others.

The clusters are in memory, of Kafka or MongoDB, so that a test has many of them in no time.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodbclient import Action, ClusterClient, DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.errors import (
    ConflictError,
    InvalidArgumentError,
    NoRoomError,
    PermissionDeniedError,
    ServerError,
    StoreError,
    TenantNotFoundError,
)
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Problem, Record, Room, SQLiteStore, Tenants
from aiodbclient.tenants._record import Intent, Verb
from aiodbclient.tenants._rooms import Rooms
from aiodbclient.tenants._stores import Store
from aiodbclient.tenants.testing import a_credential

WRITES = {"users.create", "users.reset_auth", "users.delete", "dbs.create", "dbs.delete"}


@frozen
class Fleet:
    """A sandbox with clusters, and a store."""

    sandbox: Sandbox
    client: DatabaseClient
    store: SQLiteStore

    async def cluster(self, engine: str = "mongodb") -> ClusterClient:
        return self.client.cluster(await self.sandbox.add_cluster(engine))

    def tenants(self, *clusters: ClusterClient, **options: Any) -> Tenants:
        return Tenants(clusters, self.store, **options)

    def writes(self, cluster: ClusterClient) -> Counter[str | None]:
        return Counter(
            each.name for each in self.sandbox.requests if each.operation in WRITES if each.cluster == cluster.id
        )

    async def on_record(self) -> dict[str, str | None]:
        """The cluster of each tenant with a credential."""
        return {each.name: each.current.cluster async for each in self.store.records() if each.current}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with (
        Sandbox(windows=[]) as sandbox,
        DatabaseClient(
            sandbox.token, base_url=sandbox.url, budget=RateBudget([]), retry=RetryPolicy(max_tries=2, base_delay=0.01)
        ) as client,
        SQLiteStore(tmp_path / "tenants.db") as store,
    ):
        yield Fleet(sandbox, client, store)


async def outcomes_of(run: AsyncIterator[Any]) -> dict[str, Any]:
    return {outcome.name: outcome async for outcome in run}


def to(cluster: ClusterClient) -> Any:
    """A ``place`` that sends every tenant to one cluster."""

    async def place(name: str, rooms: Sequence[Room]) -> ClusterClient:
        return cluster

    return place


def names(count: int, letter: str = "t") -> list[str]:
    return [f"{letter}{n}" for n in range(count)]


async def test_new_tenants_go_where_the_fewest_are_until_all_are_full(fleet: Fleet) -> None:
    a, b, c = [await fleet.cluster() for _ in range(3)]
    tenants = fleet.tenants(a, b, most=4)

    made = await outcomes_of(tenants.provision(names(10)))

    assert Counter(o.credential.cluster for o in made.values() if o.ok) == {a.id: 4, b.id: 4}
    full = [outcome for outcome in made.values() if not outcome.ok]
    assert [type(outcome.error) for outcome in full] == [NoRoomError] * 2
    assert [outcome.tries for outcome in full] == [0, 0]
    for outcome in full:
        assert await fleet.store.get(outcome.name) is None
    assert await tenants.rooms() == [Room(a.id, 4, 4), Room(b.id, 4, 4)]
    before = len(fleet.sandbox.requests)
    with pytest.raises(
        NoRoomError, match=r"no room for the tenant 'next': each cluster has its 4 tenants; nothing was s"
    ):
        await tenants.ensure("next")
    assert await fleet.store.get("next") is None
    assert len(fleet.sandbox.requests) == before

    more = fleet.tenants(a, b, c, most=4)
    assert {(await more.ensure(name)).cluster for name in names(4, "u")} == {c.id}
    assert [room.free for room in await more.rooms()] == [0, 0, 0]
    assert (await more.ensure("t0")).cluster in (a.id, b.id)  # it is on record, so it needs no room


async def test_without_most_they_are_spread(fleet: Fleet) -> None:
    clusters = [await fleet.cluster() for _ in range(3)]
    tenants = fleet.tenants(*clusters)
    await asyncio.gather(*(tenants.ensure(name) for name in names(9)))
    assert await tenants.rooms() == [Room(each.id, 3, None) for each in clusters]
    assert [room.free for room in await tenants.rooms()] == [None] * 3


@pytest.mark.parametrize("if_exists", ["error", "adopt", "reset"])
async def test_a_name_that_another_cluster_has_is_refused_after_the_store_was_lost(
    fleet: Fleet, tmp_path: Path, if_exists: Any
) -> None:
    a, b = [await fleet.cluster() for _ in range(2)]
    for name in ("n1", "n2"):
        await fleet.tenants(a, b).ensure(name)
    before = {each.id: fleet.writes(each) for each in (a, b)}
    async with SQLiteStore(tmp_path / "new.db") as store:
        tenants = Tenants([a, b], store)
        for name, cluster in (("n1", a), ("n2", b)):
            with pytest.raises(ConflictError, match="on record") as refused:
                await Tenants([a, b], store, place=to(b if cluster is a else a)).ensure(name, if_exists=if_exists)
            assert cluster.id in str(refused.value)
            assert await store.get(name) is None
        plan = await Tenants([a, b], store, place=to(b)).plan(["n1", "n3"], if_exists=if_exists)
        assert (plan.create, plan.adopt, plan.conflict) == (("n3",), (), ("n1",))
        found = await outcomes_of(tenants.provision(["n1", "n2"]))
        assert {type(each.error) for each in found.values()} == {ConflictError}
        assert {each.id: fleet.writes(each) for each in (a, b)} == before
        assert (await Tenants(b, store).ensure("n2", if_exists="reset")).cluster == b.id


async def test_most_holds_for_one_cluster_too(fleet: Fleet) -> None:
    tenants = Tenants(await fleet.cluster(), fleet.store, most=1)
    await tenants.ensure("alpha")
    with pytest.raises(NoRoomError):
        await tenants.ensure("beta")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(names(8)), max_size=30), st.integers(1, 4), st.integers(1, 3))
def test_no_cluster_has_more_than_most_however_many_ask_at_once(asked: list[str], most: int, clusters: int) -> None:
    async def main() -> None:
        store, ids = Memory(), [f"c{n}" for n in range(clusters)]
        rooms = Rooms(cast(Store, store), ids, most, None)

        async def make(name: str) -> bool:
            try:
                seat = await rooms.take(name)
            except NoRoomError:
                return False
            await asyncio.sleep(0)
            fails = hash((name, len(asked))) % 4 == 0
            if not fails and name not in store.clusters:
                store.clusters[name] = seat.cluster
            rooms.give_back(seat, on_record=not fails)
            return True

        await asyncio.gather(*(make(name) for name in asked))
        counts = Counter(store.clusters.values())
        assert all(count <= most for count in counts.values())
        assert [room.tenants for room in await rooms.read()] == [counts[each] for each in ids]

    asyncio.run(main())


class Memory:
    """A store of which only ``records`` is used."""

    def __init__(self) -> None:
        self.clusters: dict[str, str] = {}
        self.reads = 0

    async def records(self) -> AsyncIterator[Record]:
        self.reads += 1
        for name, cluster in sorted(self.clusters.items()):
            await asyncio.sleep(0)
            yield Record(name=name, current=evolve(a_credential(name), cluster=cluster))


async def test_the_store_is_read_again_after_half_a_minute() -> None:
    now, store = 0.0, Memory()
    rooms = Rooms(cast(Store, store), ["a", "b"], 2, None, lambda: now)
    store.clusters = {"x": "a"}
    rooms.give_back(await rooms.take("one"))
    store.clusters |= {"y": "b", "z": "b"}  # by another process
    now = 29.0
    assert (await rooms.take("two")).cluster == "b"
    assert store.reads == 1
    now = 31.0
    assert (await rooms.take("three")).cluster == "a"  # b has y, z and the seat of "two"
    assert store.reads == 2
    with pytest.raises(NoRoomError):
        await rooms.take("four")


async def test_the_caller_may_choose_the_cluster(fleet: Fleet) -> None:
    a, b, other = [await fleet.cluster() for _ in range(3)]
    seen = list[tuple[str, Sequence[Room]]]()

    async def place(name: str, rooms: Sequence[Room]) -> ClusterClient | str:
        seen.append((name, rooms))
        chosen: dict[str, ClusterClient | str] = {"x": a, "y": b.id, "z": other.id}
        return chosen.get(name, b)

    tenants = fleet.tenants(a, b, most=2, place=place)
    assert (await tenants.ensure("x")).cluster == a.id
    assert (await tenants.ensure("y")).cluster == b.id
    assert seen == [("x", [Room(a.id, 0, 2), Room(b.id, 0, 2)]), ("y", [Room(a.id, 1, 2), Room(b.id, 0, 2)])]
    with pytest.raises(InvalidArgumentError, match=f"must return one of the clusters .* not '{other.id}'"):
        await tenants.ensure("z")
    await tenants.ensure("w")
    with pytest.raises(NoRoomError, match=f"on the cluster {b.id} that place chose"):
        await tenants.ensure("v")
    assert set(await fleet.on_record()) == {"x", "y", "w"}


async def test_a_tenant_that_was_begun_goes_on_where_it_began(fleet: Fleet) -> None:
    a, b = await fleet.cluster(), await fleet.cluster()
    fleet.sandbox.faults.add("users.create", cluster=b.id, status=403, times=1)

    async def to(cluster: ClusterClient) -> Tenants:
        async def place(_: str, __: Sequence[Room]) -> ClusterClient:
            return cluster

        return fleet.tenants(a, b, place=place)

    with pytest.raises(PermissionDeniedError):
        await (await to(b)).ensure("alpha")
    record = await fleet.store.get("alpha")
    assert record is not None
    assert Intent.read(record.intended or "").cluster == b.id
    assert [room.tenants for room in await fleet.tenants(a, b).rooms()] == [0, 1]

    assert (await (await to(a)).ensure("alpha")).cluster == b.id
    assert not fleet.writes(a)


async def test_what_is_not_on_record_after_all_takes_no_room(fleet: Fleet) -> None:
    a, b = await fleet.cluster(), await fleet.cluster()
    for cluster in (a, b):
        await cluster.users.create("taken")
    tenants = fleet.tenants(a, b, most=1)
    with pytest.raises(ConflictError):
        await tenants.ensure("taken")
    assert [room.tenants for room in await tenants.rooms()] == [0, 0]
    await tenants.ensure("alpha")
    await tenants.ensure("beta")
    assert [each.action async for each in tenants.remove(["alpha"])] == [Action.DELETED]
    await tenants.ensure("gamma")
    assert set(await fleet.on_record()) == {"beta", "gamma"}


async def test_each_verb_works_on_all_clusters_and_lists_each_once(fleet: Fleet) -> None:
    a, b = await fleet.cluster(), await fleet.cluster()
    tenants = fleet.tenants(a, b)
    await outcomes_of(tenants.provision(names(6)))
    before = len(fleet.sandbox.requests)
    checked = await outcomes_of(tenants.check())
    assert {name: outcome.problems for name, outcome in checked.items()} == dict.fromkeys(names(6), ())
    lists = Counter((each.operation, each.cluster) for each in fleet.sandbox.requests[before:])
    assert lists == {(what, each.id): 1 for what in ("users.list", "dbs.list") for each in (a, b)}

    for run, action in ((tenants.rotate, Action.ROTATED), (tenants.retire, Action.RETIRED)):
        assert {outcome.action for outcome in (await outcomes_of(run())).values()} == {action}
    where = await fleet.on_record()
    assert Counter(where.values()) == {a.id: 3, b.id: 3}
    reader = await tenants.role("reader").ensure("t0")
    assert reader.cluster == where["t0"]
    with pytest.raises(TenantNotFoundError, match="'nobody' has no credential on record, so it can have no reader"):
        await tenants.role("reader").ensure("nobody")
    assert await fleet.store.get("nobody_reader") is None
    assert {o.action for o in (await outcomes_of(tenants.remove(names(6)))).values()} == {Action.DELETED}
    assert [record async for record in fleet.store.records()] == []


async def test_a_cluster_that_is_away_fails_its_own_tenants_and_no_others(fleet: Fleet) -> None:
    a, b = await fleet.cluster(), await fleet.cluster()
    await outcomes_of(fleet.tenants(a, b).provision(names(40)))
    where = await fleet.on_record()
    fleet.sandbox.faults.add(cluster=b.id, status=503)
    before = len(fleet.sandbox.requests)

    for run in (fleet.tenants(a, b).check, fleet.tenants(b, a).rotate):
        for name, outcome in (await outcomes_of(run())).items():
            assert outcome.ok == (where[name] == a.id), outcome
            assert outcome.ok or isinstance(outcome.error, ServerError)
    asked = [each for each in fleet.sandbox.requests[before:] if each.cluster == b.id]
    assert len(asked) <= 4  # two tries in each run, and not two for each tenant
    assert (await fleet.tenants(b, a).ensure("new")).cluster == a.id  # which has as many tenants as b


async def test_a_cluster_whose_writes_fail_does_not_end_the_run_for_the_others(fleet: Fleet) -> None:
    a, b = await fleet.cluster("kafka"), await fleet.cluster("kafka")
    its, others = names(270), names(10, "u")

    async def place(name: str, _: Sequence[Room]) -> ClusterClient:
        return b if name.startswith("t") else a

    tenants = fleet.tenants(a, b, place=place)
    await outcomes_of(tenants.provision([*its, *others]))
    failing = fleet.sandbox.faults.add("users.create", cluster=b.id, status=503)

    outcomes = await outcomes_of(tenants.rotate([*its, *others]))

    assert {name for name, outcome in outcomes.items() if outcome.ok} == set(others)
    assert {type(outcomes[name].error) for name in its} == {ServerError}
    assert failing.fired < 100  # and not once for each


async def test_a_store_of_version_1_0_is_read_as_it_is(fleet: Fleet) -> None:
    a, b = await fleet.cluster(), await fleet.cluster()
    await Tenants(a, fleet.store).ensure("alpha")
    claim = await fleet.store.claim("begun", 60.0)
    assert claim is not None
    await fleet.store.intend(claim, "begun")  # the login alone, as 1.0 wrote it
    await fleet.store.release(claim)

    assert await fleet.tenants(a, b).rooms() == [Room(a.id, 1, None), Room(b.id, 0, None)]
    checked = await outcomes_of(fleet.tenants(a, b).check())
    assert checked["alpha"].ok
    assert "finish it with a Tenants of that cluster alone" in str(checked["begun"].error)
    assert await Tenants(a, fleet.store).rooms() == [Room(a.id, 2, None)]
    repaired = await outcomes_of(Tenants(a, fleet.store).repair(["begun"]))
    assert repaired["begun"].problems == (Problem.UNFINISHED,)
    assert (await outcomes_of(fleet.tenants(a, b).check()))["begun"].problems == ()


async def test_a_plan_looks_where_the_tenants_would_go(fleet: Fleet) -> None:
    a, b = await fleet.cluster(), await fleet.cluster()
    await b.users.create("two")
    tenants = fleet.tenants(a, b, most=2)
    plan = await tenants.plan(["one", "two", "three"])
    assert (plan.create, plan.conflict) == (("one", "three"), ("two",))
    with pytest.raises(NoRoomError, match="no room for the tenant 'five'"):
        await tenants.plan(["one", "two", "three", "four", "five"])
    assert [outcome.ok async for outcome in (await tenants.plan(names(4))).apply()] == [True] * 4
    other = Tenants(await fleet.cluster(), fleet.store)
    assert (await other.plan([], prune=True)).extra == ()
    with pytest.raises(InvalidArgumentError, match="'t0' is on record for the cluster"):
        await other.plan(["t0"])


async def test_a_name_that_is_only_claimed_is_left_to_who_claimed_it(fleet: Fleet) -> None:
    a, b = await fleet.cluster(), await fleet.cluster()
    claim = await fleet.store.claim("alpha", 60.0)
    assert claim is not None
    await fleet.store.release(claim)
    for tenants in (Tenants(a, fleet.store), fleet.tenants(a, b)):
        assert await outcomes_of(tenants.repair()) == {}
        assert (await tenants.plan([], prune=True)).extra == ()
    assert [each.action async for each in fleet.tenants(a, b).remove(["alpha"])] == [Action.ABSENT]


async def test_what_belongs_to_others_or_is_damaged_ends_no_verb(fleet: Fleet, tmp_path: Path) -> None:
    a, b, kafka = await fleet.cluster(), await fleet.cluster(), await fleet.cluster("kafka")
    tenants = fleet.tenants(a)
    for name in ("m1", "m2", "damaged"):
        await tenants.ensure(name)
    await fleet.tenants(b).ensure("elsewhere")
    await fleet.tenants(kafka).ensure("of_kafka")
    await fleet.tenants(a, prefix="pre_").ensure("prefixed")
    others = ["elsewhere", "of_kafka", "prefixed", "begun"]
    for name, intent in (("begun", Intent(Verb.MAKE, "begun", b.id)), ("newer", "pg_intent fly away newer")):
        claim = await fleet.store.claim(name, 60.0)
        assert claim is not None
        await fleet.store.intend(claim, str(intent))
        await fleet.store.release(claim)
    with closing(sqlite3.connect(tmp_path / "tenants.db")) as file:
        file.execute("UPDATE credentials SET record = replace(record, 'damaged', 'dumaged') WHERE name = 'damaged'")
        file.commit()

    async def work(_: object) -> None:
        pass

    for run in (tenants.check, tenants.repair, tenants.rotate, tenants.retire, lambda: tenants.each(work)):
        outcomes = await outcomes_of(run())
        assert {name: type(each.error) for name, each in outcomes.items()} == {
            **dict.fromkeys(["m1", "m2"], type(None)),
            **dict.fromkeys(["damaged", "newer"], StoreError),
        }
    assert [room.tenants for room in await fleet.tenants(a, b).rooms()] == [4, 2]  # damaged too, and prefixed
    listing = tenants.records()
    assert [(await anext(listing)).name for _ in range(2)] == ["m1", "m2"]
    with pytest.raises(StoreError, match="'damaged' is damaged"):
        await anext(listing)
    for verb in (tenants.suspend, tenants.resume, tenants.remove):
        outcomes = await outcomes_of(verb(["damaged", "newer", *others, "m1", "m2"]))
        assert {name: type(each.error) for name, each in outcomes.items()} == {
            **dict.fromkeys(["damaged", "newer"], StoreError),
            **dict.fromkeys(others, InvalidArgumentError),
            **dict.fromkeys(["m1", "m2"], type(None)),
        }


async def test_clusters_of_two_engines_are_refused(fleet: Fleet) -> None:
    a, b = await fleet.cluster("mongodb"), await fleet.cluster("kafka")
    known = [fleet.client.cluster(a.id, "mongodb"), fleet.client.cluster(b.id, "kafka")]
    with pytest.raises(InvalidArgumentError, match=f"of one engine, and {a.id} is mongodb and {b.id} is kafka"):
        fleet.tenants(*known)
    async with DatabaseClient(fleet.sandbox.token, base_url=fleet.sandbox.url) as client:
        tenants = Tenants([client.cluster(a.id), client.cluster(b.id)], fleet.store)
        await tenants.ensure("one")
        with pytest.raises(InvalidArgumentError, match=f"of one engine, and {a.id} is mongodb and {b.id} is kafka"):
            await tenants.ensure("two")
        assert not fleet.writes(b)


async def test_wrong_arguments_are_named(fleet: Fleet) -> None:
    a, b = await fleet.cluster(), await fleet.cluster()
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "or a list of those"),
        ([a, "b"], {}, "or a list of those"),
        (a.id, {}, "or a list of those"),
        ([a, a], {}, "twice"),
        ([a], {"most": 0}, "most must be an int of at least 1"),
        ([a], {"most": True}, "most must be an int of at least 1"),
        ([a], {"place": "x"}, "place must be callable"),
        ([a], {"admin": {b.id: "mysql://secret"}}, f"admin has a DSN for '{b.id}'"),
        ([a, b], {"admin": "mysql://secret"}, "admin must be a mapping"),
    ]
    for clusters, options, message in wrong:
        with pytest.raises(InvalidArgumentError, match=message) as refused:
            Tenants(clusters, fleet.store, **options)
        assert "secret" not in str(refused.value)
    assert repr(fleet.tenants(a, b)).startswith("<Tenants of 2 clusters in ")
    assert repr(fleet.tenants(a)) == repr(Tenants(a, fleet.store))
