"""One store for many clusters: where a tenant goes, how many fit, and what a cluster that is away means for the others.

All tests share two clusters, so the names of their databases begin with the test's own prefix.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodbclient import Cluster
from aiodbclient.errors import ConflictError, InvalidArgumentError, NameTakenError, ServerError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import (
    ClusterCapacity,
    Problem,
    ProblemKind,
    SQLiteStore,
    TenantAction,
    TenantRecord,
    Tenants,
)
from aiodbclient.tenants._placement import Placement
from aiodbclient.tenants._stores import Store
from aiodbclient.tenants.errors import CapacityError, StoreError, TenantNotFoundError

from ...sweeping import sweep
from ..clients import client_of
from ..conftest import present
from ..moves import Two
from ..own_stores import HookedStore
from ..store_contract import a_record, begun, keep, put


class Fleet(Two):
    """Two clusters, of which tenants may have one."""

    def tenants(self, *clusters: Cluster, **options: Any) -> Tenants:
        return Tenants(clusters, options.pop("store", self.store), **({"prefix": self.prefix} | options))

    async def counts(self, *clusters: Cluster, **options: Any) -> list[int]:
        """How many tenants each cluster has."""
        return [each.tenants for each in await self.tenants(*clusters, **options).capacity()]

    async def databases(self, cluster: Cluster) -> list[str]:
        """The tenants of this test whose database is on the cluster's server."""
        found = [db.name for db in await cluster.dbs.list() if db.name.startswith(self.prefix)]
        return sorted(name.removeprefix(self.prefix) for name in found)

    async def on_record(self) -> dict[str, str | None]:
        """The cluster of each tenant with a credential."""
        return {each.name: each.cluster async for each in self.store.records() if each.logins}


@pytest.fixture
async def fleet(two_clusters: tuple[Sandbox, str, str], tmp_path: Path) -> AsyncIterator[Fleet]:
    sandbox, old, new = two_clusters
    path = tmp_path / "tenants.db"
    async with client_of(sandbox, max_tries=2) as client, HookedStore(path) as store:
        yield Fleet(sandbox, client, store, path, client.cluster(old), client.cluster(new))
        sandbox.faults.clear()
        sweep(sandbox)


async def fail(_: object) -> None:
    """A ``setup`` that fails."""
    raise RuntimeError("no disk")


async def outcomes_of(run: AsyncIterable[Any]) -> dict[str, Any]:
    return {outcome.name: outcome async for outcome in run}


def to(cluster: Cluster) -> Any:
    """A ``place`` that sends every tenant to one cluster."""

    async def place(name: str, capacities: Sequence[ClusterCapacity]) -> Cluster:
        return cluster

    return place


def names(count: int, letter: str = "t") -> list[str]:
    return [f"{letter}{n}" for n in range(count)]


async def test_new_tenants_fill_the_emptiest_cluster(fleet: Fleet) -> None:
    a, b = fleet.old, fleet.new

    made = await outcomes_of(fleet.tenants(a, max_tenants=4).provision(names(6)))

    full = [outcome for outcome in made.values() if outcome.error is not None]
    assert [(type(outcome.error), outcome.requests) for outcome in full] == [(CapacityError, 0)] * 2
    assert [await fleet.store.get(outcome.name) for outcome in full] == [None, None]
    assert await fleet.counts(a, b) == [4, 0]

    tenants = fleet.tenants(a, b, max_tenants=4)
    assert {(await tenants.ensure(name)).cluster for name in names(4, "u")} == {b.id}
    found = [(each.cluster, each.tenants, each.max_tenants) for each in await tenants.capacity()]
    assert found == [(a.id, 4, 4), (b.id, 4, 4)]
    before = len(fleet.sandbox.requests)
    all_full = "no cluster has capacity for the tenant 'next': each has its 4 tenants; nothing was s"
    with pytest.raises(CapacityError, match=all_full):
        await tenants.ensure("next")
    assert await fleet.store.get("next") is None
    assert len(fleet.sandbox.requests) == before
    on_record = next(name for name, outcome in made.items() if outcome.error is None)
    assert (await tenants.ensure(on_record)).cluster == a.id  # it needs no capacity


@pytest.mark.parametrize("if_exists", ["error", "adopt"])
async def test_name_of_another_cluster_is_refused(fleet: Fleet, tmp_path: Path, if_exists: Any) -> None:
    a, b = fleet.old, fleet.new
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
        with pytest.raises(NameTakenError, match="is empty, and 2 of the 2 names have a database already"):
            await tenants.provision(["n1", "n2"])
        assert [await fleet.databases(each) for each in (a, b)] == before
        assert (await fleet.tenants(b, store=store).ensure("n2", if_exists="adopt")).cluster == b.id


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(names(8)), max_size=30), st.integers(1, 4), st.integers(1, 3))
def test_simultaneous_tenants_never_exceed_max_tenants(asked: list[str], most: int, clusters: int) -> None:
    async def main() -> None:
        store, ids = Memory(), [f"c{n}" for n in range(clusters)]
        placement = Placement(cast(Store, store), ids, most, None)

        async def make(name: str) -> bool:
            if int(name[1:]) % 2:
                placement.start_run()
            try:
                cluster = await placement.pick(name)
            except CapacityError:
                return False
            await asyncio.sleep(0)
            if (int(name[1:]) + len(asked)) % 4 and name not in store.clusters:
                store.clusters[name] = cluster
                placement.note(name, None, a_record(name, cluster=cluster))
            placement.leave(name, cluster)
            return True

        await asyncio.gather(*(make(name) for name in asked))
        counts = Counter(store.clusters.values())
        assert all(count <= most for count in counts.values())
        assert [each.tenants for each in await placement.capacities()] == [counts[each] for each in ids]

    asyncio.run(main())


async def test_chosen_names_count_over_a_recount() -> None:
    store = Memory()
    placement = Placement(cast(Store, store), ["a", "b"], 1, None)
    assert [await placement.pick(name) for name in ("t0", "t1")] == ["a", "b"]

    placement.start_run()
    with pytest.raises(CapacityError):
        await placement.pick("t2")

    store.clusters["t0"] = "a"  # it is stored, and then counted once
    placement.start_run()
    with pytest.raises(CapacityError):
        await placement.pick("t2")
    placement.note("t0", None, a_record("t0", cluster="a"))
    placement.leave("t0", "a")
    placement.leave("t1", "b")
    assert await placement.pick("t2") == "b"

    del store.clusters["t0"]  # by another process
    placement.start_run()
    assert await placement.pick("t3") == "a"


async def test_tenant_stored_during_a_recount_counts() -> None:
    store = Memory()
    store.clusters["old"] = "b"
    placement = Placement(cast(Store, store), ["a", "b"], 1, None)
    assert await placement.pick("t0") == "a"

    placement.start_run()
    choosing = asyncio.create_task(placement.pick("t1"))
    await asyncio.sleep(0)  # it reads the store, and has passed the place of t0
    store.clusters["t0"] = "a"
    placement.note("t0", None, a_record("t0", cluster="a"))
    placement.leave("t0", "a")
    with pytest.raises(CapacityError):
        await choosing


class Memory:
    """A store of which only ``records`` is used."""

    def __init__(self) -> None:
        self.clusters: dict[str, str] = {}

    async def records(self) -> AsyncIterator[TenantRecord]:
        for name, cluster in sorted(self.clusters.items()):
            await asyncio.sleep(0)
            yield a_record(name, cluster=cluster)


async def test_caller_chooses_the_cluster(fleet: Fleet) -> None:
    a, b = fleet.old, fleet.new
    seen = list[tuple[str, Sequence[ClusterCapacity]]]()

    async def place(name: str, capacities: Sequence[ClusterCapacity]) -> Cluster | str:
        seen.append((name, capacities))
        chosen: dict[str, Cluster | str] = {"x": a, "y": b.id, "z": "elsewhere"}
        return chosen.get(name, b)

    tenants = fleet.tenants(a, b, max_tenants=2, choose_cluster=place)
    assert (await tenants.ensure("x")).cluster == a.id
    assert (await tenants.ensure("y")).cluster == b.id
    assert seen == [
        ("x", [ClusterCapacity(a.id, 0, 2), ClusterCapacity(b.id, 0, 2)]),
        ("y", [ClusterCapacity(a.id, 1, 2), ClusterCapacity(b.id, 0, 2)]),
    ]
    with pytest.raises(InvalidArgumentError, match=r"must return one of the clusters .* not 'elsewhere'"):
        await tenants.ensure("z")
    await tenants.ensure("w")
    with pytest.raises(CapacityError, match=f"the cluster {b.id} that choose_cluster returned"):
        await tenants.ensure("v")
    assert set(await fleet.on_record()) == {"x", "y", "w"}


async def test_unfinished_tenant_stays_on_its_cluster(fleet: Fleet) -> None:
    a, b = fleet.old, fleet.new

    with pytest.raises(RuntimeError):
        await fleet.tenants(a, b, choose_cluster=to(b), setup=fail).ensure("alpha")
    record = present(await fleet.store.get("alpha"))
    assert (record.cluster, record.logins) == (b.id, ())
    assert await fleet.counts(a, b) == [0, 1]

    assert (await fleet.tenants(a, b, choose_cluster=to(a)).ensure("alpha")).cluster == b.id
    assert await fleet.databases(a) == []


@pytest.mark.parametrize("crashes", [False, True])
async def test_new_tenant_placed_again_when_unreachable(fleet: Fleet, crashes: bool) -> None:
    """What its first cluster has of it is reported, and dropped by ``repair`` when that cluster is back."""
    a, b = fleet.old, fleet.new

    with pytest.raises(RuntimeError):
        await fleet.tenants(a, b, choose_cluster=to(b), setup=fail).ensure("alpha")
    assert await fleet.databases(b) == ["alpha"]
    fleet.sandbox.faults.add(cluster=b.id, status=503)
    if crashes:
        with pytest.raises(RuntimeError):
            await fleet.tenants(a, b, setup=fail).ensure("alpha")

    tenants = fleet.tenants(a, b)
    credential = await tenants.ensure("alpha")

    assert credential.cluster == a.id
    assert await fleet.counts(a, b) == [1, 0]
    with pytest.raises(ServerError):  # the caller chose its cluster
        await fleet.tenants(a, b, choose_cluster=to(b)).ensure("beta")
    fleet.sandbox.faults.clear()
    [checked] = [outcome async for outcome in fleet.tenants(a, b).check(["alpha"])]
    assert checked.problems == (Problem(ProblemKind.LEFTOVER, b.id),)
    [repaired] = [outcome async for outcome in fleet.tenants(a, b).repair(["alpha"])]
    assert (repaired.action, repaired.credential) == (TenantAction.REPAIRED, await tenants.get("alpha"))
    assert (await fleet.databases(a), await fleet.databases(b)) == (["alpha"], [])


async def test_failed_or_removed_tenant_frees_capacity(fleet: Fleet) -> None:
    a, b = fleet.old, fleet.new
    for cluster in (a, b):
        await cluster.users.create(f"{fleet.prefix}taken")
    tenants = fleet.tenants(a, b, max_tenants=1)
    with pytest.raises(ConflictError):
        await tenants.ensure("taken")
    assert await fleet.counts(a, b) == [0, 0]
    await tenants.ensure("alpha")
    await tenants.ensure("beta")
    assert [each.action async for each in tenants.remove(["alpha"])] == [TenantAction.DELETED]
    await tenants.ensure("gamma")
    assert set(await fleet.on_record()) == {"beta", "gamma"}


async def test_all_operations_read_each_cluster_once(fleet: Fleet) -> None:
    """And send no other request."""
    a, b = fleet.old, fleet.new
    before = len(fleet.sandbox.requests)
    tenants = fleet.tenants(a, b)
    await outcomes_of(tenants.provision(names(6)))
    checked = await outcomes_of(tenants.check(names(6)))
    assert {name: outcome.problems for name, outcome in checked.items()} == dict.fromkeys(names(6), ())
    where = await fleet.on_record()
    assert Counter(where.values()) == {a.id: 3, b.id: 3}
    reader = await tenants.role("reader").ensure("t0")
    assert reader.cluster == where["t0"]
    with pytest.raises(TenantNotFoundError, match="'nobody' has no credential on record, so it can have no reader"):
        await tenants.role("reader").ensure("nobody")
    assert await fleet.store.get("nobody_reader") is None
    for run, action in (
        (tenants.rotate, TenantAction.ROTATED),
        (tenants.revoke_previous, TenantAction.REVOKED),
        (tenants.repair, TenantAction.KEPT),
        (tenants.suspend, TenantAction.SUSPENDED),
        (tenants.resume, TenantAction.RESUMED),
        (tenants.remove, TenantAction.DELETED),
    ):
        assert {outcome.action for outcome in (await outcomes_of(run(names(6)))).values()} == {action}
    assert [record async for record in fleet.store.records()] == []
    requests = Counter((each.operation, each.cluster) for each in fleet.sandbox.requests[before:])
    assert requests == {("clusters.get", each.id): 1 for each in (a, b)}


async def test_unreachable_cluster_fails_its_own_tenants_only(fleet: Fleet) -> None:
    a, b = fleet.old, fleet.new
    await outcomes_of(fleet.tenants(a, b).provision(names(12)))
    where = await fleet.on_record()
    fleet.sandbox.faults.add(cluster=b.id, status=503)
    before = len(fleet.sandbox.requests)

    for run in (fleet.tenants(a, b).check, fleet.tenants(b, a).rotate):
        for name, outcome in (await outcomes_of(run(names(12)))).items():
            assert (outcome.error is None) == (where[name] == a.id), outcome
            assert outcome.error is None or isinstance(outcome.error, ServerError)
    asked = [each for each in fleet.sandbox.requests[before:] if each.cluster == b.id]
    assert len(asked) <= 4  # two tries in each run, and not two for each tenant
    assert (await fleet.tenants(b, a).ensure("new")).cluster == a.id  # which has as many tenants as b


async def test_damaged_or_foreign_records_end_no_operation(fleet: Fleet, tmp_path: Path) -> None:
    a, b = fleet.old, fleet.new
    tenants = fleet.tenants(a)
    for name in ("m1", "m2", "damaged"):
        await tenants.ensure(name)
    await fleet.tenants(b).ensure("elsewhere")
    await fleet.tenants(a, prefix=f"p{fleet.prefix}").ensure("prefixed")
    others = ["elsewhere", "prefixed", "begun"]
    await put(fleet.store, evolve(begun("begun", "first"), cluster=b.id, database=f"{fleet.prefix}begun"))
    await keep(fleet.store, "newer")
    with closing(sqlite3.connect(tmp_path / "tenants.db")) as file:
        file.execute("UPDATE credentials SET record = replace(record, 'damaged', 'dumaged') WHERE name = 'damaged'")
        file.execute("UPDATE credentials SET record = replace(record, 'v1', 'v2') WHERE name = 'newer'")
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
    assert await fleet.counts(a, b) == [3, 2]
    listing = tenants.records()
    assert [(await anext(listing)).name for _ in range(2)] == ["m1", "m2"]
    with pytest.raises(StoreError, match="'damaged' is damaged"):
        await anext(listing)
    for operation in (tenants.suspend, tenants.resume, tenants.remove):
        outcomes = await outcomes_of(operation(["damaged", "newer", *others, "m1", "m2"]))
        assert {name: type(each.error) for name, each in outcomes.items()} == {
            **dict.fromkeys(["damaged", "newer"], StoreError),
            **dict.fromkeys(others, ConflictError),
            "prefixed": NameTakenError,
            **dict.fromkeys(["m1", "m2"], type(None)),
        }


async def test_clusters_of_two_engines_are_refused(fleet: Fleet) -> None:
    a, b = fleet.old, fleet.client.cluster(await fleet.sandbox.add_cluster("mysql"))
    known = [fleet.client.cluster(a.id, "pg"), fleet.client.cluster(b.id, "mysql")]
    with pytest.raises(InvalidArgumentError, match=f"of one engine, and {a.id} is pg and {b.id} is mysql"):
        fleet.tenants(*known)

    tenants = fleet.tenants(a, b)
    for _ in range(2):  # also when both were read
        with pytest.raises(InvalidArgumentError, match="of one engine, and"):
            await tenants.ensure("alpha")


async def test_invalid_arguments_are_named(fleet: Fleet) -> None:
    a, b = fleet.old, fleet.new
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "or a list of those"),
        ([a, "b"], {}, "or a list of those"),
        (a.id, {}, "or a list of those"),
        ([a, a], {}, "twice"),
        ([a], {"max_tenants": 0}, "max_tenants must be an int of at least 1"),
        ([a], {"max_tenants": True}, "max_tenants must be an int of at least 1"),
        ([a], {"choose_cluster": "x"}, "choose_cluster must be callable"),
        *(([a], {"setup": each}, "setup must be an async function") for each in ("migrate", 7, object(), len)),
        *(([a], {"on_event": each}, "must be a function that is not async") for each in ("log", 7, object(), fail)),
        ([a], {"prefix": "shop/"}, "no database's name can begin with 'shop/'"),
        ([a], {"prefix": "pg_"}, "no database's name can begin with 'pg_'"),
        ([a], {"prefix": 64 * "p"}, "no database's name can begin with 'ppp"),
        ([a], {"admin": {b.id: ("x", "secret")}}, f"admin has a login for '{b.id}'"),
        ([a, b], {"admin": "mysql://secret"}, "admin must be a user and a password"),
    ]
    for clusters, options, message in wrong:
        with pytest.raises(InvalidArgumentError, match=message) as refused:
            Tenants(clusters, fleet.store, **options)
        assert "secret" not in str(refused.value)
    assert repr(fleet.tenants(a, b)).startswith("<Tenants of 2 clusters in ")
    assert repr(fleet.tenants(a)) == repr(Tenants(a, fleet.store))
