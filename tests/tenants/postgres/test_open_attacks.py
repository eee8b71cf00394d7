"""Attacks on PostgreSQL that worked once, through the verbs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import timedelta
from inspect import signature
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, Connection

from aiodbclient.tenants import Credential, Problem, ProblemKind, Tenants
from aiodbclient.tenants._servers import postgres

from ..conftest import Place, only, present
from ..moves import Two, administrator_of, enters, sql


@contextmanager
def unkillable(credential: Credential) -> Iterator[int]:
    """The pid of a session that ignores ``pg_terminate_backend``: stopped, as some statements never check for it."""
    with closing(Connection.connect(credential.uri)) as session:
        pid = session.info.backend_pid
        session.pgconn.send_query(b"SELECT pg_sleep(600)")
        with Connection.connect(credential.uri, autocommit=True) as other:
            other.execute("SET ROLE NONE")  # the owner role does not see it
            while other.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() != ("active",):
                time.sleep(0.01)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a session that resists after seconds."""
    monkeypatch.setattr(postgres, "ENDING_SECONDS", 2.0)
    monkeypatch.setattr(postgres.databases, "REMOVAL_SECONDS", 2.0)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("verb", ["suspend", "remove"])
async def test_suspend_refused_by_session(place: Place, verb: str) -> None:
    tenants = place.tenants()
    first = await tenants.ensure("alpha")
    assert (await only(tenants.role("reader").provision(["alpha"]))).error is None
    reader = present(await tenants.role("reader").get("alpha"))
    second = present((await only(tenants.rotate(["alpha"]))).credential)
    assert await enters(reader)
    with unkillable(first) as pid:
        refused = await only(getattr(tenants, verb)(["alpha"]))
        working = [each.username for each in (first, second, reader) if await enters(each)]
    assert working == []
    assert str(pid) in str(refused.error)


@pytest.mark.usefixtures("brief")
async def test_removal_held_by_another_tenant(place: Place) -> None:
    """DROP DATABASE waits until each session of the server has seen it."""
    tenants = place.tenants()
    alpha, evil = await tenants.ensure("alpha"), await tenants.ensure("evil")
    with unkillable(evil):
        refused = await only(tenants.remove(["alpha"]))
        assert not await enters(alpha)
    assert (await only(tenants.remove(["alpha"]))).error is None
    assert "it waits for each process of the server" in str(refused.error)


@asynccontextmanager
async def session_of(two: Two, alpha: Credential, kind: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A session in the tenant's database that is not the tenant's."""
    uri = await administrator_of(two.old, alpha.database)
    if kind == "administrator":
        async with await AsyncConnection.connect(uri, autocommit=True) as session:
            yield session
        return
    async with await AsyncConnection.connect(uri, autocommit=True) as administrator:
        await administrator.execute("CREATE ROLE dropped LOGIN PASSWORD 'dropped'")
        grants = f'GRANT CONNECT ON DATABASE "{alpha.database}" TO dropped'
        await administrator.execute(grants.encode())
        uri = psycopg.conninfo.make_conninfo(uri, user="dropped", password="dropped")
        async with await AsyncConnection.connect(uri, autocommit=True) as session:
            await administrator.execute(grants.replace("GRANT", "REVOKE").replace(" TO ", " FROM ").encode())
            await administrator.execute("DROP ROLE dropped")
            yield session


@pytest.mark.parametrize("kind", ["administrator", "dropped"])
async def test_move_loses_writes(two: Two, tenants: Tenants, alpha: Credential, kind: str) -> None:
    await sql(alpha, "CREATE TABLE t (n int PRIMARY KEY)", "GRANT INSERT ON t TO PUBLIC")
    acknowledged = set[int]()
    async with session_of(two, alpha, kind) as session:

        async def write() -> None:
            with suppress(psycopg.Error):
                while True:
                    number = len(acknowledged)
                    await session.execute("INSERT INTO t VALUES (%s)", [number])
                    acknowledged.add(number)

        writing = asyncio.create_task(write())
        moved = await only(tenants.move(["alpha"], to=two.new))
        await writing  # the session has ended
    assert moved.error is None
    assert len(acknowledged) > 10
    assert acknowledged <= {number for (number,) in await sql(moved.credential, "SELECT n FROM t")}


@pytest.mark.parametrize("role", ["reader", "writer"])
async def test_large_object_stops_move(two: Two, role: str) -> None:
    """No dump of the owner role would have it. A repair hands it over."""
    tenants = two.tenants()
    await tenants.ensure("alpha")
    assert (await only(tenants.role(role).provision(["alpha"]))).error is None
    login = present(await tenants.role(role).get("alpha"))
    await sql(login, "SELECT lo_from_bytea(4711, 'large')")
    assert (await only(tenants.check(["alpha"]))).problems == (Problem(ProblemKind.OWNED_BY_OTHERS, login.username),)
    assert (await only(tenants.repair(["alpha"]))).error is None
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    assert await sql(moved.credential, "SELECT lo_get(4711)") == [(b"large",)]


def test_move_is_limited_by_default() -> None:
    """An index function of the tenant may sleep for ever. Other tests show that a limit ends such a move."""
    assert signature(Tenants.move).parameters["max_frozen"].default == timedelta(minutes=10)
