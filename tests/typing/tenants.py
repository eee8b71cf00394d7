"""The types of tenants for a type checker. Checked, not run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Literal, assert_type

from aiodbclient import Cluster
from aiodbclient.bulk import Run
from aiodbclient.tenants import (
    ClusterCapacity,
    Credential,
    Problem,
    Role,
    SQLiteStore,
    TenantAction,
    TenantChecked,
    TenantCheckOutcome,
    TenantDone,
    TenantEvent,
    TenantFailed,
    TenantOutcome,
    TenantRecord,
    TenantRemovalOutcome,
    TenantRemoved,
    TenantRepaired,
    TenantRepairOutcome,
    TenantResult,
    TenantRole,
    Tenants,
    TenantSkipped,
)


async def use(cluster: Cluster) -> None:
    async with SQLiteStore("tenants.db") as store:
        assert_type(store, SQLiteStore)
        tenants = Tenants(cluster, store, prefix="t_", private=True, admin=None)
        assert_type(await tenants.ensure("alpha"), Credential)
        assert_type(await tenants.get("alpha"), Credential | None)
        run = tenants.provision(["alpha"], if_exists="adopt")
        assert_type(run, Run[TenantOutcome])
        async for outcome in run:
            assert_type(outcome, TenantDone | TenantFailed)
            assert_type(outcome.action, TenantAction)
            assert_type(outcome.tries, int)
            if outcome.error is None:
                assert_type(outcome.credential, Credential)
                assert_type(outcome.record, TenantRecord)
            else:
                assert_type(outcome.error, Exception)
                assert_type(outcome.credential, None)
        [rotated] = [outcome async for outcome in tenants.rotate(["alpha"])]
        if rotated.error is None:
            assert_type(rotated.credential.uri_for(ca_file="ca.pem"), str)
        assert_type(tenants.revoke_previous(["alpha"]), Run[TenantOutcome])
        removal = tenants.remove(["alpha"])
        assert_type(removal, Run[TenantRemovalOutcome])
        async for removed in removal:
            assert_type(removed, TenantRemoved | TenantFailed)
            assert_type(removed.action, TenantAction)
            assert_type(removed.credential, None)


async def use_the_day_after(cluster: Cluster, store: SQLiteStore) -> None:
    async def setup(credential: Credential) -> None:
        assert_type(credential.created, datetime)
        assert_type(credential.role, Role)

    def on_event(event: TenantEvent) -> None:
        assert_type((event.action, event.role, event.error), tuple[TenantAction, Role, str | None])

    tenants = Tenants(cluster, store, connection_limit=20, setup=setup, on_event=on_event)
    assert_type(tenants.records(), AsyncIterator[TenantRecord])
    async for check in tenants.check():
        assert_type(check, TenantChecked | TenantFailed)
        if check.error is None:
            assert_type(check.problems, tuple[Problem, ...])
            assert_type(check.credential, Credential | None)
    assert_type(tenants.check(["alpha"]), Run[TenantCheckOutcome])
    async for repair in tenants.repair(["alpha"]):
        assert_type(repair, TenantRepaired | TenantFailed)
        if repair.error is None:
            assert_type(repair.problems, tuple[Problem, ...])
            assert_type(repair.credential, Credential | None)
    assert_type(tenants.repair(all=True), Run[TenantRepairOutcome])
    assert_type(tenants.rotate(older_than=timedelta(days=30), force=True), Run[TenantOutcome])
    assert_type(tenants.revoke_previous(older_than=timedelta(days=1), unused=True), Run[TenantOutcome])
    assert_type(tenants.remove(["alpha"]), Run[TenantRemovalOutcome])
    readers = tenants.role("reader")
    assert_type(readers, TenantRole)
    assert_type(await readers.ensure("alpha"), Credential)
    assert_type(tenants.role(Role.WRITER), TenantRole)


async def use_many(a: Cluster, b: Cluster, store: SQLiteStore) -> None:
    async def place(name: str, rooms: Sequence[ClusterCapacity]) -> Cluster | str:
        return min(rooms, key=lambda room: room.tenants).cluster

    async def work(credential: Credential) -> int:
        return credential.port

    tenants = Tenants([a, b], store, admin={a.id: ("doadmin", "...")}, max_tenants=2000, choose_cluster=place)
    assert_type(await tenants.capacity(), list[ClusterCapacity])
    run = tenants.each(work, ["alpha"], concurrency=8)
    assert_type(run, Run[TenantResult[int] | TenantFailed])
    async for outcome in run:
        assert_type(outcome.value, int | None)
        if outcome.error is None:
            assert_type(outcome.value, int)
            assert_type(outcome.action, Literal[TenantAction.DONE])
    async for once in tenants.each(work, version="0042"):
        assert_type(once, TenantResult[int] | TenantSkipped | TenantFailed)
        if once.action is TenantAction.DONE:
            assert_type(once.value, int)
