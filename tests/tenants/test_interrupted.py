"""Errors and others in between: nobody's login is reset, no credential in use ends, and no dead one is returned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from aiodbclient import Action, ClusterClient, DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.errors import ClaimLostError, ConflictError, DatabaseClientError, StoreError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Claim, Credential, SQLiteStore, Tenants
from aiodbclient.tenants.testing import LONG

from .conftest import only


class Meddled(SQLiteStore):
    """A store in which something happens after the next intent, or instead of the next ``keep`` or ``release``."""

    after_intent: Callable[[], Awaitable[object]] | None = None
    loses_claim = False
    is_away = False

    async def intend(self, claim: Claim, username: str | None) -> None:
        await super().intend(claim, username)
        meddle, self.after_intent = self.after_intent, None
        if meddle is not None:
            await meddle()

    async def keep(self, claim: Claim, current: Credential | None, previous: Credential | None = None) -> None:
        if self.loses_claim:
            self.loses_claim = False
            await super().release(claim)
            raise ClaimLostError("somebody else took it over")
        await super().keep(claim, current, previous)

    async def release(self, claim: Claim) -> None:
        if self.is_away:
            raise StoreError("the store is away")
        await super().release(claim)


@define
class Here:
    sandbox: Sandbox
    cluster: ClusterClient
    store: Meddled
    folder: Path

    def tenants(self, **options: Any) -> Tenants:
        return Tenants(self.cluster, self.store, **options)

    def resets(self) -> list[str | None]:
        return [request.name for request in self.sandbox.requests if request.operation == "users.reset_auth"]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with Sandbox(windows=[]) as sandbox:
        cluster_id = await sandbox.add_cluster("mongodb")
        async with (
            DatabaseClient(
                sandbox.token, base_url=sandbox.url, budget=RateBudget([]), retry=RetryPolicy(base_delay=0.01)
            ) as client,
            Meddled(tmp_path / "tenants.db") as store,
        ):
            yield Here(sandbox, client.cluster(cluster_id), store, tmp_path)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("dbs.delete", {"status": 404, "times": 1}),
        ("dbs.delete", {"status": 403, "times": 1}),
        ("users.get", {"status": 403}),
    ],
)
async def test_a_stranger_who_comes_first_is_left_alone_also_after_an_error(
    here: Here, operation: str, fault: dict[str, Any]
) -> None:
    async def stranger() -> None:
        await here.cluster.users.create("shop")
        here.sandbox.faults.add(operation, **fault)

    here.store.after_intent = stranger

    first = await only(here.tenants().provision(["shop"]))
    here.sandbox.faults.clear()
    second = await only(here.tenants().provision(["shop"]))

    assert isinstance(first.error, DatabaseClientError)
    assert isinstance(second.error, ConflictError)
    assert here.resets() == []


async def test_a_claim_lost_in_a_rotation_leaves_the_login_in_use_alone(here: Here) -> None:
    """MongoDB returns no password, so nobody can see whether the credential on record works."""
    before = await here.tenants().ensure("alpha")
    here.store.loses_claim = True

    rotated = await only(here.tenants().rotate(["alpha"]))

    assert rotated.action is Action.ROTATED
    assert before.username not in here.resets()
    record = await here.store.get("alpha")
    assert record is not None
    assert record.previous == before


async def test_retire_leaves_alone_what_another_process_has_just_rotated_away_from(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiodbclient.tenants._loop.uniform", lambda *_: 0.5)  # s between two looks at the record
    tenants = here.tenants()
    await tenants.ensure("alpha")
    in_use = (await only(tenants.rotate(["alpha"]))).credential
    retiring = here.sandbox.faults.add("users.reset_auth", delay=0.2, times=1)

    async def retire_and_rotate() -> None:
        await only(tenants.retire(["alpha"]))
        await only(tenants.rotate(["alpha"]))

    async with SQLiteStore(here.folder / "tenants.db") as store, asyncio.TaskGroup() as group:
        group.create_task(retire_and_rotate())
        while not retiring.fired:
            await asyncio.sleep(0.01)
        late = await only(Tenants(here.cluster, store).retire(["alpha"]))

    assert late.action is Action.KEPT
    record = await here.store.get("alpha")
    assert record is not None
    assert record.previous == in_use
    assert in_use is not None
    assert in_use.username not in here.resets()


async def test_a_repair_that_fails_does_not_return_a_password_that_was_reset(here: Here) -> None:
    tenants = here.tenants()
    first = await tenants.ensure("alpha")
    second = (await only(tenants.rotate(["alpha"]))).credential
    assert second is not None
    claim = await here.store.claim("alpha", LONG)  # a process that died while it replaced the current password
    assert claim is not None
    await here.store.intend(claim, second.username)
    await here.cluster.users.reset_auth(second.username)
    await here.store.release(claim)
    await here.cluster.users.delete(first.username)
    here.sandbox.faults.add("users.reset_auth", status=403, times=1)

    failed = await only(tenants.repair(["alpha"]))

    assert failed.error is not None
    assert await tenants.get("alpha") is None
    assert (await only(tenants.repair(["alpha"]))).action is Action.REPAIRED
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_a_database_that_was_made_again_is_set_up_although_that_failed_once(here: Here) -> None:
    set_up: list[bool] = []

    async def setup(credential: Credential) -> None:
        set_up.append(len(set_up) != 1)
        if not set_up[-1]:
            raise RuntimeError("no disk")

    tenants = here.tenants(setup=setup)
    await tenants.ensure("alpha")
    await here.cluster.dbs.delete("alpha")

    failed = await only(tenants.repair(recreate=True))
    repaired = await only(tenants.repair(recreate=True))

    assert isinstance(failed.error, RuntimeError)
    assert repaired.action is Action.REPAIRED
    assert set_up == [True, False, True]


async def test_a_cancellation_is_one_although_the_store_is_away(here: Here) -> None:
    creating = here.sandbox.faults.add("users.create", delay=5.0)
    task = asyncio.create_task(here.tenants().ensure("alpha"))
    while not creating.seen:
        await asyncio.sleep(0.01)
    here.store.is_away = True

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()
