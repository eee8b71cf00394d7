"""The setup of a new tenant, and the events of tenants, which contain no secrets."""

from __future__ import annotations

import asyncio
import logging
from itertools import count
from typing import Any

import pytest

from aiodbclient.tenants import Credential, Role, TenantAction, TenantEvent, Tenants
from aiodbclient.tenants._operations import tenant
from aiodbclient.tenants._stores import Claim

from ..conftest import Place, only
from ..dying import died
from ..own_stores import record_for
from ..programs import ask
from .test_check_and_repair import admin_of


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

    async def run_and_record(run: Any) -> None:
        async for outcome in run:
            credentials.add(outcome.credential)

    alpha = await tenants.ensure("alpha")
    credentials |= {alpha, await tenants.ensure("alpha")}
    credentials.add(await tenants.role("reader").ensure("alpha"))
    await run_and_record(tenants.check(["alpha"]))
    await ask(await admin_of(place), f"ALTER ROLE \"{alpha.username}\" PASSWORD 'other'")
    await run_and_record(tenants.repair(["alpha"]))
    await run_and_record(tenants.rotate(["alpha"]))
    await run_and_record(tenants.rotate(["alpha"]))
    await run_and_record(tenants.revoke_previous(["alpha"]))
    await place.cluster.dbs.create(place.prefix + "beta")
    await run_and_record(tenants.provision(["beta"]))
    await place.cluster.dbs.create(place.prefix + "gamma")
    await run_and_record(tenants.provision(["gamma"], if_exists="adopt"))
    await run_and_record(tenants.provision(["an invalid name"]))
    await run_and_record(tenants.remove(["alpha", "nobody"]))

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
