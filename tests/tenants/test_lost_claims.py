"""A claim is lost, also during the recovery from a lost claim; and answers about another user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from aiodbclient import Action, DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.errors import ClaimLostError, InvalidResponseError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, Problem, SQLiteStore, Tenants
from aiodbclient.tenants._naming import names_of

from .conftest import Place, only
from .programs import refusal


class LosingStore(SQLiteStore):
    """Loses the claims of a process: once at ``keep``, and then some times at ``renew`` during the recovery."""

    keeps: int = 1
    renewals: int = 0
    after_the_first: Callable[[], Awaitable[object]]

    async def _lost(self, claim: Any) -> None:
        await super().release(claim)
        raise ClaimLostError("somebody else has taken the claim over")

    async def keep(self, claim: Any, current: Any, previous: Any = None) -> None:
        if self.keeps:
            self.keeps -= 1
            await super().release(claim)
            await self.after_the_first()
            raise ClaimLostError("somebody else has taken the claim over")
        await super().keep(claim, current, previous)

    async def renew(self, claim: Any, lease: float) -> None:
        if not self.keeps and self.renewals:
            self.renewals -= 1
            await self._lost(claim)
        await super().renew(claim, lease)


@pytest.mark.parametrize("losses", [0, 1, 2, 3])
async def test_a_claim_that_is_lost_while_the_credential_is_verified_is_verified_again(
    place: Place, tmp_path: Path, losses: int
) -> None:
    """Another process created the tenant meanwhile, and a late request of ours replaced its password."""
    async with LosingStore(place.path) as store:

        async def others() -> None:
            await place.tenants().ensure("alpha")
            await place.cluster.users.reset_auth(place.prefix + "alpha")

        store.after_the_first = others
        store.renewals = losses

        credential = await Tenants(place.cluster, store, place.prefix).ensure("alpha")

    assert not await refusal(credential)
    assert await place.tenants().ensure("alpha") == credential
    assert (await only(place.tenants().check())).problems == ()


@pytest.mark.parametrize("losses", [0, 2])
async def test_a_rotation_that_loses_its_claims_leaves_a_credential_that_works(place: Place, losses: int) -> None:
    before = await place.tenants().ensure("alpha")
    async with LosingStore(place.path) as store:

        async def others() -> None:
            assert (await only(place.tenants().rotate())).action is Action.ROTATED
            await place.cluster.users.reset_auth((await place.tenants().ensure("alpha")).username)

        store.after_the_first = others
        store.renewals = losses

        outcome = await only(Tenants(place.cluster, store, place.prefix).rotate(["alpha"]))

    assert outcome.error is None
    credential = await place.tenants().get("alpha")
    assert outcome.credential == credential
    assert credential is not None
    assert not await refusal(credential)
    assert not await refusal(before)
    assert (await only(place.tenants().check())).problems == ()


@pytest.mark.parametrize("losses", [0, 2])
async def test_a_rotation_that_loses_its_claim_to_a_suspension_leaves_the_tenant_suspended(
    place: Place, losses: int
) -> None:
    before, made = await place.tenants().ensure("alpha"), list[Credential]()
    async with LosingStore(place.path) as store:

        async def others() -> None:
            assert (await only(place.tenants().suspend(["alpha"]))).action is Action.SUSPENDED
            late = await place.cluster.users.reset_auth(
                names_of("alpha", "pg", place.prefix).logins[1]
            )  # by our request
            made.append(evolve(before, username=late.name, password=late.password))

        store.after_the_first = others
        store.renewals = losses

        outcome = await only(Tenants(place.cluster, store, place.prefix).rotate(["alpha"]))

    assert outcome.action is Action.KEPT, outcome.error
    assert await place.tenants().get("alpha") is None
    assert await refusal(made[0])
    assert (await only(place.tenants().check())).problems == ()
    assert (await only(place.tenants().resume(["alpha"]))).action is Action.RESUMED
    credential = await place.tenants().ensure("alpha")
    assert credential.password != before.password
    assert not await refusal(credential)


@pytest.mark.parametrize("operation", ["users.create", "users.reset_auth", "users.get"])
async def test_an_answer_about_another_spelling_is_not_put_on_record(anywhere: Place, operation: str) -> None:
    place, tenants = anywhere, anywhere.tenants()
    if operation == "users.reset_auth":
        first = await tenants.ensure("alpha")
        await only(tenants.rotate())
        await only(tenants.retire())
        assert first.username
    place.sandbox.faults.add(operation, answer_name=(place.prefix + "alpha").upper(), times=1)
    if operation == "users.get":
        await place.cluster.users.create(place.prefix + "alpha")

    try:
        if operation == "users.reset_auth":
            await only(tenants.rotate())
        else:
            await tenants.ensure("alpha", if_exists="adopt" if operation == "users.get" else "error")
    except InvalidResponseError:
        assert place.sandbox.requests
    place.sandbox.faults.clear()

    await only(tenants.provision(["alpha"], if_exists="reset"))
    credential = await tenants.ensure("alpha")
    assert credential.username.startswith(place.prefix + "alpha")
    assert (await only(tenants.check())).problems in ((), (Problem.UNFINISHED,))
    assert (await only(tenants.repair())).error is None
    assert (await only(tenants.check())).problems == ()
    assert (await only(tenants.remove(["alpha"]))).action is Action.DELETED


@asynccontextmanager
async def silent(engine: str, folder: Path) -> AsyncIterator[tuple[Sandbox, Tenants]]:
    """Tenants on an API that does not return settings."""
    async with Sandbox(windows=[], returns_settings=False) as sandbox:
        cluster = await sandbox.add_cluster(engine)
        async with (
            DatabaseClient(
                sandbox.token, base_url=sandbox.url, budget=RateBudget([]), retry=RetryPolicy(base_delay=0.01)
            ) as client,
            SQLiteStore(folder / "tenants.db") as store,
        ):
            yield sandbox, Tenants(client.cluster(cluster), store)


@pytest.mark.parametrize("engine", ["mongodb", "kafka", "opensearch"])
async def test_settings_that_the_api_does_not_return_are_no_problem(engine: str, tmp_path: Path) -> None:
    async with silent(engine, tmp_path) as (sandbox, tenants):
        names = ["alpha", "beta"]
        assert all([outcome.ok async for outcome in tenants.provision(names)])
        assert all([outcome.ok async for outcome in tenants.role("reader").provision(names)])
        before = len(sandbox.requests)
        for _ in range(2):
            for run in (tenants, tenants.role("reader")):
                assert {outcome.problems async for outcome in run.check()} == {()}
                assert {outcome.action async for outcome in run.repair()} == {Action.KEPT}
            plan = await tenants.plan(names, refresh=True)
            assert (plan.keep, plan.repair, plan.create) == (("alpha", "beta"), (), ())
            assert {outcome.action async for outcome in tenants.provision(names)} == {Action.KEPT}
        assert {request.method for request in sandbox.requests[before:]} == {"GET"}
        assert all([outcome.ok async for outcome in tenants.rotate()])
        assert all([outcome.ok async for outcome in tenants.retire()])
        assert {outcome.problems async for outcome in tenants.check()} == {()}
