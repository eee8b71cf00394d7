"""The database server or the API is away during a check or a repair: that is an error, and no problem of the tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

import pytest
from attrs import define, evolve, field

from aiodbclient import Cluster, Connection, DatabaseClient, RateLimiter
from aiodbclient.errors import DatabaseClientError, ServerError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import TenantAction, Tenants, _context
from aiodbclient.tenants._servers import connection_of
from aiodbclient.tenants.errors import GrantError

from .conftest import SQL, Place, only

NAMES = ["alpha", "beta", "gamma", "delta"]


async def logins_on_record(place: Place) -> set[str]:
    """The logins on record, without the test's prefix."""
    credentials = [record.current async for record in place.store.records()]
    return {each.username.removeprefix(place.prefix) for each in credentials if each is not None}


@define
class Gate:
    """A port in front of a server. When it closes, it breaks all connections, and new ones as soon as they are made.

    Attributes:
        closes_at: It closes at this connection, counted from 1; 0 for never.
        connections: How many connections were made.
    """

    host: str
    to: int
    closes_at: int = 0
    connections: int = 0
    is_open: bool = True
    tasks: set[asyncio.Task[None]] = field(factory=set)

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False
        for task in self.tasks:
            task.cancel()

    async def let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.connections == self.closes_at:
            self.close()
        if self.is_open:
            passing = asyncio.create_task(self._pass_on(reader, writer))
            self.tasks.add(passing)
            await asyncio.wait([passing])
            self.tasks.discard(passing)
        writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection(self.host, self.to)
        try:
            await asyncio.gather(_pass(reader, to), _pass(there, writer))
        except OSError:
            pass  # one end is gone
        finally:
            to.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def gated(place: Place) -> AsyncIterator[Gate]:
    """A gate in front of the place's server, through which all tenants connect."""
    connection = (await place.cluster.info()).connection
    assert connection is not None
    gate = Gate(connection.host or "", connection.port or 0)
    async with await asyncio.start_server(gate.let_in, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        def through(cluster: Cluster, **options: bool) -> Connection:
            found = connection_of(cluster, **options)
            return evolve(found, host="127.0.0.1", port=port) if found.port == gate.to else found

        with patch.object(_context, "connection_of", through):
            yield gate
        while gate.tasks:
            await asyncio.wait(gate.tasks)


async def failure_of(run: AsyncIterable[Any]) -> Exception | None:
    """The error of a run for one name, or of the run itself."""
    try:
        error: Exception | None = (await only(run)).error
    except DatabaseClientError as ended:
        return ended
    return error


@pytest.mark.parametrize("its_cluster", SQL, indirect=True)
async def test_outage_is_no_tenant_problem(anywhere: Place) -> None:
    place = anywhere
    async with gated(place) as gate:
        tenants = place.tenants()
        credential = await tenants.ensure("alpha")
        gate.close()
        another = place.tenants()  # of a process that reads the cluster only now
        for run in (tenants.check, lambda: tenants.repair(all=True), another.check):
            assert isinstance(await failure_of(run()), GrantError)
        gate.open()
        assert (await only(tenants.check())).problems == ()

        place.sandbox.faults.add("*", status=503)
        assert (await only(tenants.check())).problems == ()  # it needs no request
        assert (await only(tenants.repair(all=True))).action is TenantAction.KEPT
        assert isinstance(await failure_of(place.tenants().check()), ServerError)
        place.sandbox.faults.clear()
        assert await tenants.get("alpha") == credential


@pytest.mark.parametrize("its_cluster", SQL, indirect=True)
async def test_outage_error_for_each_tenant(anywhere: Place) -> None:
    async with gated(anywhere) as gate:
        assert all([outcome.ok async for outcome in anywhere.tenants().provision(NAMES)])
        gate.close()
        errors = [outcome.error async for outcome in anywhere.tenants().check()]
        assert len({id(error) for error in errors}) == len(NAMES)
        assert len({str(error) for error in errors}) == 1
        assert {isinstance(error, GrantError) for error in errors} == {True}


async def test_new_tenants_avoid_unreachable_server(place: Place) -> None:
    """Its API answers."""
    async with (
        Sandbox(windows=[]) as sandbox,
        DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client,
        gated(place) as gate,
    ):
        a, b = place.cluster, client.cluster(await sandbox.add_cluster("pg", backend="postgres"))
        tenants = Tenants([a, b], place.store, prefix=place.prefix)
        for name in NAMES:
            await tenants.ensure(name)
        gate.close()
        for name in ("next", "last"):  # a has as few tenants as b
            assert (await tenants.ensure(name)).cluster == b.id
        gate.open()
        assert (await tenants.ensure("after")).cluster == a.id


@pytest.mark.parametrize("its_cluster", SQL, indirect=True)
async def test_outage_error_says_state_on_record(anywhere: Place) -> None:
    async with gated(anywhere) as gate:
        tenants = anywhere.tenants()
        await tenants.ensure("alpha")
        for verb in (tenants.rotate, tenants.revoke_previous):
            assert (await only(verb(["alpha"]))).error is None
        gate.close()
        rotated = await only(tenants.rotate(["alpha"]))
        gate.open()
        assert (await only(tenants.suspend(["alpha"]))).error is None
        gate.close()
        resumed = await only(tenants.resume(["alpha"]))
        assert "the credential in use was not touched" in str(rotated.error)
        assert "its state on record is suspended" in str(resumed.error)
        gate.open()
        for number in count(1):  # until the server stops after the resumption has begun
            gate.closes_at = gate.connections + number
            error = await failure_of(anywhere.tenants().resume(["alpha"]))
            gate.open()
            assert error is not None
            if "its state on record is resuming" in str(error):
                break


@pytest.mark.parametrize("its_cluster", SQL, indirect=True)
async def test_server_stops_during_check(anywhere: Place) -> None:
    """It stops at each connection of a check in turn."""
    async with gated(anywhere) as gate:
        tenants = anywhere.tenants()
        assert all([outcome.ok async for outcome in tenants.provision(NAMES)])
        for number in count(1, 2):
            gate.closes_at = gate.connections + number
            outcomes = [outcome async for outcome in tenants.check()]
            assert sorted(outcome.name for outcome in outcomes) == sorted(NAMES)
            assert {outcome.problems for outcome in outcomes if outcome.error is None} <= {()}
            errors = [outcome.error for outcome in outcomes if outcome.error is not None]
            assert all(isinstance(error, GrantError) for error in errors), errors
            if gate.connections < gate.closes_at:
                assert errors == []
                break
            assert errors != []
            gate.open()
            assert {outcome.problems async for outcome in tenants.check()} == {()}
        assert number > len(NAMES)


@pytest.mark.parametrize("its_cluster", SQL, indirect=True)
async def test_server_stops_during_repair(anywhere: Place) -> None:
    """It stops at each connection of a repair in turn."""
    users = anywhere.cluster.users
    async with gated(anywhere) as gate:
        tenants = anywhere.tenants()
        assert all([outcome.ok async for outcome in tenants.provision(NAMES[:2])])
        for number in count(1, 3):
            before = {name: await tenants.get(name) for name in NAMES[:2]}
            if one := before["alpha"]:
                await users.delete(one.username)
            if other := before["beta"]:
                await users.reset_auth(other.username)
            gate.closes_at = gate.connections + number
            outcomes = [outcome async for outcome in tenants.repair(all=True)]
            errors = [outcome.error for outcome in outcomes if outcome.error is not None]
            assert all(isinstance(error, GrantError) for error in errors), errors
            stopped = gate.connections >= gate.closes_at
            assert stopped is bool(errors)
            if stopped:
                gate.open()
                assert all([outcome.ok async for outcome in tenants.repair(all=True)])
            assert {outcome.problems async for outcome in tenants.check()} == {()}
            assert await anywhere.logins() == sorted(await logins_on_record(anywhere))
            if not stopped:
                break
        assert number > 2
