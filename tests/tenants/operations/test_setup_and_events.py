"""The setup of a new tenant, migrations by version, which run once for each tenant, and events without secrets."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import Credential, Role, TenantAction, TenantEvent, Tenants
from aiodbclient.tenants._operations import each as each_module
from aiodbclient.tenants._operations import tenant
from aiodbclient.tenants._stores import Claim
from aiodbclient.tenants.errors import ClaimLostError, StoreError, SuspendedError, TenantNotFoundError

from ..conftest import Place, only
from ..dying import died
from ..migrating import NAMES, fill, in_processes
from ..own_stores import expire, record_for
from ..programs import admin_of, ask
from ..store_contract import claimed


async def migrate(credential: Credential) -> None:
    """Repeatable migrations, run as the tenant itself."""
    await ask(credential, "CREATE TABLE IF NOT EXISTS notes (text text)")


async def test_setup_runs_before_credential_is_returned(place: Place) -> None:
    seen = list[tuple[Credential, object]]()

    async def setup(credential: Credential) -> None:
        record = await place.store.get("alpha")
        seen.append((credential, record and record.current()))
        await migrate(credential)

    tenants = place.tenants(setup=setup)
    credential = await tenants.ensure("alpha")

    assert [(login.uri, on_record) for login, on_record in seen] == [(credential.uri, None)]
    assert await ask(credential, "SELECT * FROM notes") == []
    assert await tenants.ensure("alpha") == credential
    rotated = await only(tenants.rotate(all=True))
    assert rotated.error is None
    await tenants.role("reader").ensure("alpha")
    assert (await only(tenants.repair(all=True))).action is TenantAction.KEPT
    assert len(seen) == 1  # once for a new tenant, and for nothing else
    assert (await record_for(place.store, "alpha")).is_set_up


async def test_setup_of_tenant_made_without(place: Place) -> None:
    """Such as one that the command made."""
    without = await place.tenants().ensure("alpha")
    assert not (await record_for(place.store, "alpha")).is_set_up

    credential = await place.tenants(setup=migrate).ensure("alpha")

    assert (await record_for(place.store, "alpha")).is_set_up
    assert credential.password == without.password
    assert await ask(credential, "SELECT * FROM notes") == []
    assert await place.tenants(setup=migrate).ensure("alpha") == credential


async def test_failed_setup_runs_again(place: Place) -> None:
    failures = ["no extension", "no disk"]

    async def setup(credential: Credential) -> None:
        await migrate(credential)
        if failures and credential.name == "alpha":
            raise RuntimeError(failures.pop(0))

    tenants = place.tenants(setup=setup)
    outcomes = {outcome.name: outcome async for outcome in tenants.provision(["alpha", "beta"])}
    assert repr(outcomes["alpha"].error) == "RuntimeError('no extension')"
    assert outcomes["beta"].error is None
    assert await tenants.get("alpha") is None
    with pytest.raises(RuntimeError, match="no disk"):
        await tenants.ensure("alpha")
    assert await tenants.get("alpha") is None

    credential = await tenants.ensure("alpha")

    await ask(credential, "SELECT * FROM notes")
    logins = [(await tenants.ensure(name)).username for name in ("alpha", "beta")]
    assert await place.logins() == [login.removeprefix(place.prefix) for login in logins]  # those that failed are gone


async def test_setup_ran_for_each_record(place: Place) -> None:
    """Whenever a process dies. Nobody gets a credential before that."""

    async def setup(credential: Credential) -> None:
        assert await place.tenants().get(credential.name) is None
        await migrate(credential)

    for last in count(1, 4):
        name = f"n{last}"

        def ensuring(tenants: Tenants, name: str = name) -> Any:
            return tenants.ensure(name)

        was_killed = await died(place, last, ensuring, setup=setup)
        credential = await place.tenants(setup=setup).ensure(name)
        await ask(credential, "SELECT * FROM notes")
        if not was_killed:
            return


async def test_claim_renewed_during_long_setup(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant, "LEASE", 3.0)
    renewed = asyncio.Event()
    renewals = 0
    renew = place.store.renew

    async def counted(claim: Claim, lease: float) -> None:
        nonlocal renewals
        await renew(claim, lease)
        renewals += 1
        if renewals > 3:  # longer than the lease
            renewed.set()

    monkeypatch.setattr(place.store, "renew", counted)

    async def setup(_: Credential) -> None:
        nonlocal renewals
        renewals = 0
        await renewed.wait()
        assert await place.store.claim("alpha", 1.0) is None

    credential = await place.tenants(setup=setup).ensure("alpha")

    assert credential == await place.tenants().get("alpha")


async def test_event_for_each_tenant_without_secrets(place: Place) -> None:
    events, credentials = list[TenantEvent](), set[Credential | None]()
    tenants = place.tenants(on_event=events.append, setup=migrate)

    alpha = await tenants.ensure("alpha")
    credentials |= {alpha, await tenants.ensure("alpha")}
    credentials.add(await tenants.role("reader").ensure("alpha"))
    await ask(await admin_of(place.cluster), f"ALTER ROLE \"{alpha.username}\" PASSWORD 'other'")
    for name in ("beta", "gamma"):
        await place.cluster.dbs.create(place.prefix + name)
    for run in (
        tenants.check(["alpha"]),
        tenants.repair(["alpha"]),
        tenants.rotate(["alpha"]),
        tenants.rotate(["alpha"]),
        tenants.revoke_previous(["alpha"]),
        tenants.provision(["beta"]),
        tenants.provision(["gamma"], if_exists="adopt"),
        tenants.provision(["an invalid name"]),
        tenants.remove(["alpha", "nobody"]),
    ):
        credentials |= {outcome.credential async for outcome in run}

    seen = [(event.name, event.role, event.action, event.error) for event in events]
    owner, reader = Role.OWNER, Role.READER
    assert seen[:-2] == [
        ("alpha", owner, TenantAction.CREATED, None),
        ("alpha", owner, TenantAction.KEPT, None),
        ("alpha", reader, TenantAction.CREATED, None),
        ("alpha", owner, TenantAction.CHECKED, None),
        ("alpha", owner, TenantAction.REPAIRED, None),
        ("alpha", owner, TenantAction.ROTATED, None),
        ("alpha", owner, TenantAction.FAILED, "RotationPendingError"),
        ("alpha", owner, TenantAction.REVOKED, None),
        ("beta", owner, TenantAction.FAILED, "NameTakenError"),
        ("gamma", owner, TenantAction.ADOPTED, None),
        ("an invalid name", owner, TenantAction.FAILED, "InvalidArgumentError"),
    ]
    assert set(seen[-2:]) == {
        ("alpha", owner, TenantAction.DELETED, None),
        ("nobody", owner, TenantAction.ABSENT, None),
    }
    for event in events:
        assert event.duration >= 0.0
    assert events[1].requests == 0
    texts = " ".join(map(repr, events))
    secrets = {credential.password for credential in credentials if credential} - {None}
    assert len(secrets) >= 4
    for secret in secrets:
        assert str(secret) not in texts


async def test_an_on_event_that_raises_spoils_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    def on_event(_: TenantEvent) -> None:
        raise RuntimeError("full disk")

    with caplog.at_level(logging.ERROR, logger="aiodbclient"):
        credential = await place.tenants(on_event=on_event).ensure("alpha")

    assert credential == await place.tenants().get("alpha")
    assert "on_event raised" in caplog.text


async def test_event_duration(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the read of the cluster and the setup in it, which take an hour each."""
    events, hours = list[TenantEvent](), 0
    monkeypatch.setattr("aiodbclient.tenants._outcomes.monotonic", lambda: 3600.0 * hours)

    def take_an_hour(*_: object) -> None:
        nonlocal hours
        hours += 1

    async def setup(_: Credential) -> None:
        take_an_hour()

    place.sandbox.faults.add("clusters.get", change=take_an_hour)
    await place.tenants(on_event=events.append, setup=setup).ensure("alpha")

    assert [event.duration for event in events] == [7200.0]
    assert events[0].requests > 0


async def nothing(_: Credential) -> None:
    """Work that does nothing."""


async def version_of(place: Place, name: str) -> str | None:
    return (await record_for(place.store, name)).version


async def test_setup_stores_its_version(place: Place) -> None:
    """Also for a tenant that was made without ``setup``. ``records`` shows it."""
    await place.tenants().ensure("beta")
    tenants = place.tenants(setup=migrate, version="0001")
    await tenants.ensure("alpha")
    assert [(each.name, each.version) async for each in tenants.records()] == [("alpha", "0001"), ("beta", None)]
    await tenants.ensure("beta")
    assert await version_of(place, "beta") == "0001"
    assert (await only(tenants.rotate(["alpha"]))).error is None
    assert await version_of(place, "alpha") == "0001"


async def test_tenants_at_version_are_skipped(place: Place) -> None:
    """The next version runs for all. Without a version ``work`` runs again."""
    tenants = place.tenants(setup=migrate, version="0001")
    await tenants.ensure("alpha")
    ran = list[str]()

    async def work(credential: Credential) -> str:
        ran.append(credential.name)
        return "done"

    skipped = await only(tenants.each(work, version="0001"))
    assert (skipped.action, skipped.value, skipped.error) == (TenantAction.SKIPPED, None, None)
    for version in ("0002", None):
        done = await only(tenants.each(work, version=version))
        assert (done.action, done.value, await version_of(place, "alpha")) == (TenantAction.DONE, "done", "0002")
    assert ran == ["alpha", "alpha"]


@pytest.fixture
async def hundred(place: Place) -> Place:
    """A place with the records of a hundred tenants."""
    await fill(place.store, place.cluster.id, place.prefix)
    return place


async def test_stopped_migration_continues(hundred: Place) -> None:
    """Ten of a hundred fail. What was done does not run again, and what failed keeps its old version."""
    tenants, ran, broken = hundred.tenants(), Counter[str](), set(NAMES[::10])

    async def work(credential: Credential) -> None:
        ran[credential.name] += 1
        if credential.name in broken:
            raise RuntimeError("no such table")

    assert {each.action async for each in tenants.each(nothing, version="0041")} == {TenantAction.DONE}
    run = tenants.each(work, version="0042")
    first = []
    async for outcome in run:
        first.append(outcome)
        if len(first) == 40:
            run.stop()
    assert 40 <= len(first) < 100
    assert set(ran) == {each.name for each in first}

    second = await tenants.each(work, version="0042")
    done = {each.name for each in first if each.error is None}
    assert {each.name for each in second if each.action is TenantAction.SKIPPED} == done
    assert {each.name for each in second.failed} == broken
    assert {each.name: each.version async for each in tenants.records()} == {
        name: "0041" if name in broken else "0042" for name in NAMES
    }
    broken.clear()
    third = await tenants.each(work, version="0042")
    assert Counter(each.action for each in third) == {TenantAction.SKIPPED: 90, TenantAction.DONE: 10}
    failed_at_first = {each.name for each in first if each.error is not None}
    assert ran == {name: 1 + (name in NAMES[::10]) + (name in failed_at_first) for name in NAMES}


def plan_for(place: Place, folder: Path, **more: Any) -> dict[str, Any]:
    plan = {"store": place.path, "cluster": place.cluster.id, "prefix": place.prefix, "version": "0042"}
    return plan | {"ran": folder / "ran", "done": folder / "done"} | more


def lines_of(path: Path) -> Counter[str]:
    return Counter(path.read_text().split())


async def test_killed_before_version_is_stored(hundred: Place, tmp_path: Path) -> None:
    """The migration of that tenant runs again, and of those that were not stored: at most the four at a time."""
    plan = plan_for(hundred, tmp_path)
    await in_processes(1, plan | {"dies": NAMES[50]})
    assert not plan["done"].exists()
    stored = {each.name async for each in hundred.store.records() if each.version == "0042"}
    before = lines_of(plan["ran"])
    assert 0 < len(stored) < len(before) < 100
    expire(hundred.path)
    await in_processes(1, plan)
    assert lines_of(plan["done"]) == {"100": 1}
    assert lines_of(plan["ran"]) == {name: 1 + (name in before and name not in stored) for name in NAMES}
    assert NAMES[50] in before.keys() - stored


@pytest.mark.parametrize("number", [2, pytest.param(16, marks=pytest.mark.thorough)])
async def test_processes_at_once_migrate_each_tenant_once(hundred: Place, tmp_path: Path, number: int) -> None:
    """Without a version, each of the processes runs it for each tenant."""
    plan = plan_for(hundred, tmp_path)
    await in_processes(number, plan)
    assert lines_of(plan["done"]) == {"100": number}
    assert lines_of(plan["ran"]) == dict.fromkeys(NAMES, 1)
    await in_processes(number, plan | {"version": None})
    assert lines_of(plan["ran"]) == dict.fromkeys(NAMES, 1 + number)


class Work:
    """Work that goes on until ``goes_on`` is set."""

    def __init__(self) -> None:
        self.began, self.goes_on, self.cancelled = asyncio.Event(), asyncio.Event(), False

    async def __call__(self, credential: Credential) -> None:
        self.began.set()
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@asynccontextmanager
async def working(tenants: Tenants) -> AsyncIterator[tuple[Work, asyncio.Task[Any]]]:
    """Work that runs for one tenant, and the task that returns its outcome."""
    work = Work()
    task = asyncio.create_task(only(tenants.each(work, version="0042")))
    await work.began.wait()
    yield work, task
    await task


@pytest.mark.parametrize(
    ("operation", "error"),
    [("suspend", SuspendedError), ("remove", TenantNotFoundError)],
)
async def test_suspension_and_removal_take_over(place: Place, operation: str, error: type[Exception]) -> None:
    """They do not wait for ``work``, which is cancelled."""
    tenants = place.tenants()
    await tenants.ensure("alpha")
    async with working(tenants) as (work, task):
        async with asyncio.timeout(20):  # less than a claim is waited for
            assert (await only(getattr(tenants, operation)(["alpha"]))).error is None
            assert isinstance((await task).error, error)
    assert work.cancelled
    record = await place.store.get("alpha")
    assert record is None or record.version is None


async def test_version_of_earlier_database_is_not_stored(place: Place, tenants: Tenants, alpha: Credential) -> None:
    """The tenant was suspended and resumed before anybody looked, and ``work`` does not end by that."""

    async def work(_: Credential) -> None:
        for run in (tenants.suspend(["alpha"]), tenants.resume(["alpha"])):
            (await run).raise_for_errors()

    outcome = await only(tenants.each(work, version="0042"))
    assert isinstance(outcome.error, ClaimLostError)
    assert await version_of(place, "alpha") is None
    assert (await only(tenants.each(nothing, version="0042"))).action is TenantAction.DONE


async def test_other_operations_do_not_wait(place: Place, tenants: Tenants, alpha: Credential) -> None:
    """A rotation leaves the login of ``work`` as it is, so the version is stored."""
    async with working(tenants) as (work, task):
        assert (await only(tenants.rotate(["alpha"]))).action is TenantAction.ROTATED
        work.goes_on.set()
        assert (await task).action is TenantAction.DONE
    assert await version_of(place, "alpha") == "0042"


async def test_claim_is_renewed_while_work_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process waits for it for longer than a lease, and then skips the tenant."""
    monkeypatch.setattr(each_module, "LEASE", 0.5)
    monkeypatch.setattr(each_module, "_POLL_SECONDS", 0.05)
    await place.tenants().ensure("alpha")
    async with place.another_process() as others, working(place.tenants()) as (work, task):
        waiting = asyncio.create_task(only(others.each(work, version="0042")))
        assert not (await asyncio.wait([waiting, task], timeout=1.5))[0]
        work.goes_on.set()
        assert (await task).action is TenantAction.DONE
        assert (await waiting).action is TenantAction.SKIPPED


async def test_lost_claim_cancels_work(place: Place, tenants: Tenants, alpha: Credential) -> None:
    """As when the process was stopped for longer than a lease."""
    async with working(tenants) as (work, task):
        expire(place.path)
        await claimed(place.store, "alpha:each")
        assert isinstance((await task).error, ClaimLostError)
    assert work.cancelled
    assert await version_of(place, "alpha") is None


async def test_no_claim_without_version(
    place: Place, tenants: Tenants, alpha: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def claim(name: str, lease: float) -> None:
        raise StoreError(f"{name} is claimed")

    monkeypatch.setattr(place.store, "claim", claim)
    assert (await only(tenants.each(nothing))).action is TenantAction.DONE
    with pytest.raises(StoreError, match="alpha:each is claimed"):  # it ends the run
        _ = [each async for each in tenants.each(nothing, version="0042")]


async def test_no_claim_is_left(place: Place) -> None:
    """After work that succeeded, failed or was cancelled."""
    tenants, work = place.tenants(), Work()
    await tenants.ensure("alpha")

    async def fail(_: Credential) -> None:
        raise ValueError

    assert isinstance((await only(tenants.each(fail, version="0042"))).error, ValueError)
    task = asyncio.create_task(only(tenants.each(work, version="0042")))
    await work.began.wait()
    with closing(sqlite3.connect(place.path)) as store:
        names = "SELECT name FROM credentials ORDER BY name"
        assert store.execute(names).fetchall() == [("alpha",), ("alpha:each",)]
        task.cancel()
        await asyncio.wait([task])
        assert store.execute(names).fetchall() == [("alpha",)]
        assert (await only(tenants.each(nothing, version="0042"))).error is None
        assert store.execute(names).fetchall() == [("alpha",)]


@pytest.mark.parametrize("version", ["", "a\nb", 42])
async def test_wrong_versions_are_named(place: Place, version: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="version must be a printable string"):
        place.tenants().each(nothing, version=version)
    with pytest.raises(InvalidArgumentError, match="version must be a printable string"):
        place.tenants(setup=nothing, version=version)
    with pytest.raises(InvalidArgumentError, match="there is no setup"):
        place.tenants(version="0042")
    with pytest.raises(InvalidArgumentError, match="version needs the role owner, not writer"):  # who cannot migrate
        place.tenants().role("writer").each(nothing, version="0042")
