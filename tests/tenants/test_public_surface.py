"""What the public methods of tenants promise by their signatures."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aiodbclient.errors import InvalidArgumentError, NameTakenError
from aiodbclient.tenants import (
    OperationKind,
    ProblemKind,
    RecordCodec,
    SQLiteStore,
    TenantAction,
    TenantFailed,
    Tenants,
)
from aiodbclient.tenants.errors import SuspendedError, TenantMovingError, TenantUnavailableError

from .conftest import Place, only
from .dying import leave
from .operations.test_check_and_repair import open_to_others
from .own_stores import record_of
from .programs import refusal, session_of
from .store_contract import a_record, claimed


@pytest.mark.parametrize("operation", ["rotate", "revoke_previous", "repair"])
async def test_operation_without_names_needs_all(place: Place, operation: str) -> None:
    """Every tenant in the store is too much to end by leaving an argument out."""
    run: Any = getattr(place.tenants(), operation)
    with pytest.raises(InvalidArgumentError, match=f"{operation} needs names; all=True is every tenant on record"):
        run()
    with pytest.raises(InvalidArgumentError, match="names or all=True, not both"):
        run(["alpha"], all=True)
    await run(all=True).aclose()
    if operation != "repair":
        await run(older_than=timedelta(days=1)).aclose()


def test_remove_without_names_needs_suspended_for(place: Place) -> None:
    run: Any = place.tenants().remove
    with pytest.raises(InvalidArgumentError, match="unless suspended_for is given"):
        run()


async def test_revoke_unused_keeps_open_login(anywhere: Place) -> None:
    """``revoke_previous(unused=True)`` leaves a login alone while a session of it is open."""
    tenants = anywhere.tenants()
    before = await tenants.ensure("alpha")
    assert (await only(tenants.rotate(["alpha"]))).error is None
    async with session_of(before) as run:
        await run("SELECT 1")
        kept = await only(tenants.revoke_previous(["alpha"], unused=True))
    assert (kept.action, kept.sessions) == (TenantAction.KEPT, 1)
    assert not await refusal(before, "SELECT 1")
    async with asyncio.timeout(60):  # until the server has ended the session
        while (revoked := await only(tenants.revoke_previous(["alpha"], unused=True))).action is TenantAction.KEPT:
            pass
    assert (revoked.action, revoked.sessions) == (TenantAction.REVOKED, 0)
    assert await refusal(before)


async def test_problem_says_who(anywhere: Place) -> None:
    """``open_to_others`` names the login that may enter."""
    tenants = anywhere.tenants()
    await open_to_others(anywhere, await tenants.ensure("alpha"))
    [problem] = (await only(tenants.check(["alpha"]))).problems
    assert (problem.kind, problem.detail) == (ProblemKind.OPEN_TO_OTHERS, f"{anywhere.prefix}stranger")
    assert str(problem) == f"open_to_others: {anywhere.prefix}stranger"


async def test_moving_and_suspended_differ_by_type(place: Place) -> None:
    """A tenant that is moved can be tried again, a suspended one cannot."""
    tenants = place.tenants()
    credential = await tenants.ensure("alpha")
    await leave(place.store, credential, OperationKind.MOVE, target="elsewhere")
    with pytest.raises(TenantMovingError) as moving:
        await tenants.ensure("alpha")
    assert moving.value.retry_after
    [problem] = (await only(tenants.check(["alpha"]))).problems
    assert problem.kind is ProblemKind.MOVING
    claim = await claimed(place.store, "alpha")
    await place.store.save(claim, record_of(credential), release=True)
    assert (await only(tenants.suspend(["alpha"]))).error is None
    with pytest.raises(SuspendedError) as suspended:
        await tenants.ensure("alpha")
    assert suspended.value.retry_after is None
    assert isinstance(suspended.value, TenantUnavailableError)


async def test_failed_outcome_has_what_others_have(place: Place) -> None:
    outcome = await only(place.tenants().rotate(["nobody"]))
    assert isinstance(outcome, TenantFailed)
    assert outcome.action is TenantAction.FAILED
    assert (outcome.credential, outcome.problems, outcome.sessions) == (None, (), 0)


async def test_public_texts_are_plain_str(anywhere: Place) -> None:
    """Drivers such as asyncpg refuse a subclass of ``str``."""
    tenants = anywhere.tenants()
    made = await tenants.ensure("alpha")
    for credential in (made, await tenants.get("alpha"), (await only(tenants.rotate(["alpha"]))).credential):
        assert credential is not None
        for text in (credential.name, credential.username, credential.password, credential.database, credential.uri):
            assert type(text) is str
        assert {type(value) for value in credential.env().values()} == {str}
    assert type(RecordCodec().encode(a_record("alpha"))) is str


async def test_provision_refuses_wrong_store(anywhere: Place) -> None:
    """With an empty store, and names that the cluster has, nothing is made: the others would be in the wrong store."""
    await anywhere.tenants().ensure("alpha")
    async with SQLiteStore(anywhere.path.with_name("new")) as store:
        tenants = Tenants(anywhere.cluster, store, prefix=anywhere.prefix)
        with pytest.raises(NameTakenError, match="the store is empty, and 1 of the 3 names have a database already"):
            await tenants.provision(["alpha", "beta", "gamma"])
        assert [record async for record in store.records()] == []
        outcomes = await tenants.provision(["alpha", "beta"], if_exists="adopt")
    assert {each.name: each.action for each in outcomes} == {
        "alpha": TenantAction.ADOPTED,
        "beta": TenantAction.FAILED,  # the cluster has nothing of it to adopt
    }
