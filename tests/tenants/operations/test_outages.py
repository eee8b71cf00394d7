"""The database server or the API is away during a check or a repair: that is an error, and no problem of the tenant."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

from attrs import evolve

from aiodbclient import ClusterInfo, Connection, DatabaseClient, RateLimiter
from aiodbclient.errors import DatabaseClientError, ServerError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import TenantAction, Tenants, _clusters
from aiodbclient.tenants._servers import connection_of
from aiodbclient.tenants.errors import GrantError

from ...proxy import Proxy
from ..conftest import Place, only

NAMES = ["alpha", "beta", "gamma", "delta"]


async def logins_on_record(place: Place) -> set[str]:
    """The logins on record, without the test's prefix."""
    logins = [each async for record in place.store.records() for each in record.logins if each.replaced is None]
    return {each.username.removeprefix(place.prefix) for each in logins}


@asynccontextmanager
async def behind(place: Place) -> AsyncIterator[Proxy]:
    """A proxy in front of the place's server, through which all tenants connect."""
    there = (await place.cluster.info()).connection
    with Proxy(there.port or 0, any_protocol=True) as proxy:

        def through(cluster: ClusterInfo, **options: bool) -> Connection:
            found = connection_of(cluster, **options)
            return evolve(found, host="127.0.0.1", port=proxy.port) if found.port == there.port else found

        with patch.object(_clusters, "connection_of", through):
            yield proxy


async def failure_of(run: AsyncIterable[Any]) -> Exception | None:
    """The error of a run for one name, or of the run itself."""
    try:
        error: Exception | None = (await only(run)).error
    except DatabaseClientError as ended:
        return ended
    return error


async def test_outage_is_no_tenant_problem(anywhere: Place) -> None:
    place = anywhere
    async with behind(place) as proxy:
        tenants = place.tenants()
        credential = await tenants.ensure("alpha")
        proxy.add(cut=True)
        another = place.tenants()  # of a process that reads the cluster only now
        for run in (tenants.check, lambda: tenants.repair(all=True), another.check):
            assert isinstance(await failure_of(run()), GrantError)
        proxy.rules.clear()
        assert (await only(tenants.check())).problems == ()

        place.sandbox.faults.add("*", status=503)
        assert (await only(tenants.check())).problems == ()  # it needs no request
        assert (await only(tenants.repair(all=True))).action is TenantAction.KEPT
        assert isinstance(await failure_of(place.tenants().check()), ServerError)
        place.sandbox.faults.clear()
        assert await tenants.get("alpha") == credential


async def test_outage_error_for_each_tenant(anywhere: Place) -> None:
    async with behind(anywhere) as proxy:
        assert all([outcome.error is None async for outcome in anywhere.tenants().provision(NAMES)])
        proxy.add(cut=True)
        errors = [outcome.error async for outcome in anywhere.tenants().check()]
        assert len({id(error) for error in errors}) == len(NAMES)
        assert len({str(error) for error in errors}) == 1
        assert {isinstance(error, GrantError) for error in errors} == {True}


async def test_new_tenants_avoid_unreachable_server(place: Place) -> None:
    """Its API answers."""
    async with (
        Sandbox(windows=[]) as sandbox,
        DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client,
        behind(place) as proxy,
    ):
        a, b = place.cluster, client.cluster(await sandbox.add_cluster("pg", backend="postgres"))
        tenants = Tenants([a, b], place.store, prefix=place.prefix)
        for name in NAMES:
            await tenants.ensure(name)
        proxy.add(cut=True)
        for name in ("next", "last"):  # a has as few tenants as b
            assert (await tenants.ensure(name)).cluster == b.id
        proxy.rules.clear()
        assert (await tenants.ensure("after")).cluster == a.id


async def test_outage_error_says_state_on_record(anywhere: Place) -> None:
    async with behind(anywhere) as proxy:
        tenants = anywhere.tenants()
        await tenants.ensure("alpha")
        for verb in (tenants.rotate, tenants.revoke_previous):
            assert (await only(verb(["alpha"]))).error is None
        proxy.add(cut=True)
        rotated = await only(tenants.rotate(["alpha"]))
        proxy.rules.clear()
        assert (await only(tenants.suspend(["alpha"]))).error is None
        proxy.add(cut=True)
        resumed = await only(tenants.resume(["alpha"]))
        assert "the credential in use was not touched" in str(rotated.error)
        assert "its state on record is suspended" in str(resumed.error)
        proxy.rules.clear()
        for number in count(1, 3):  # until the server stops after the resumption has begun
            proxy.add(nth=number, cut=True)
            error = await failure_of(anywhere.tenants().resume(["alpha"]))
            proxy.rules.clear()
            assert error is not None
            if "its state on record is resuming" in str(error):
                break


async def test_server_stops_during_check(anywhere: Place) -> None:
    """It stops at messages of a check in turn."""
    async with behind(anywhere) as proxy:
        tenants = anywhere.tenants()
        assert all([outcome.error is None async for outcome in tenants.provision(NAMES)])
        failed = 0
        for number in count(1, 9):
            outage = proxy.add(nth=number, cut=True)
            outcomes = [outcome async for outcome in tenants.check()]
            assert sorted(outcome.name for outcome in outcomes) == sorted(NAMES)
            assert {outcome.problems for outcome in outcomes if outcome.error is None} <= {()}
            errors = [outcome.error for outcome in outcomes if outcome.error is not None]
            assert all(isinstance(error, GrantError) for error in errors), errors
            if not outage.fired:
                assert errors == []
                break
            failed += bool(errors)  # none, if it stops at the last message of a session
            proxy.rules.clear()
            assert {outcome.problems async for outcome in tenants.check()} == {()}
        assert failed > 2


async def test_server_stops_during_repair(anywhere: Place) -> None:
    """It stops at messages of a repair in turn."""
    users = anywhere.cluster.users
    async with behind(anywhere) as proxy:
        tenants = anywhere.tenants()
        assert all([outcome.error is None async for outcome in tenants.provision(NAMES[:2])])
        failed = 0
        for number in count(1, 21):
            before = {name: await tenants.get(name) for name in NAMES[:2]}
            if one := before["alpha"]:
                await users.delete(one.username)
            if other := before["beta"]:
                await users.reset_auth(other.username)
            outage = proxy.add(nth=number, cut=True)
            try:
                outcomes = [outcome async for outcome in tenants.repair(all=True)]
            except GrantError as ended:  # the whole run, which could not begin
                errors: list[Exception] = [ended]
            else:
                errors = [outcome.error for outcome in outcomes if outcome.error is not None]
            assert all(isinstance(error, GrantError) for error in errors), errors
            stopped = bool(outage.fired)
            proxy.rules.clear()
            assert stopped or errors == []
            failed += bool(errors)
            assert all([outcome.error is None async for outcome in tenants.repair(all=True)])
            assert {outcome.problems async for outcome in tenants.check()} == {()}
            assert await anywhere.logins() == sorted(await logins_on_record(anywhere))
            if not stopped:
                break
        assert failed > 2
