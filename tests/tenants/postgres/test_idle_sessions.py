"""Two idle sessions of a tenant can stop a server, and no client mends that: each call ends in time, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from aiodbclient.tenants import Credential, TenantEvent, Tenants
from aiodbclient.tenants._servers import postgres
from aiodbclient.tenants._servers.postgres import connection, scram
from aiodbclient.tenants.errors import GrantError

from ..conftest import Place, only, present
from ..programs import enters

LOCK_DATABASE = "SET ROLE NONE; BEGIN; ALTER ROLE CURRENT_USER IN DATABASE {} SET work_mem = '1MB'"
CREATE_RULE = "CREATE RULE no AS ON INSERT TO pg_catalog.{} DO NOTHING"
# What one session does and then idles, and the statement of the other. It waits for the first one, before PostgreSQL
# looks whether it is allowed, and all that need the same lock wait behind it.
PAIRS = {
    "defaultdb": (LOCK_DATABASE.format("defaultdb"), "DROP DATABASE defaultdb"),
    "template0": (LOCK_DATABASE.format("template0"), "DROP DATABASE template0"),
    "pg_authid": ("BEGIN; SELECT FROM pg_roles", CREATE_RULE.format("pg_authid")),
    "pg_database": ("BEGIN; SELECT FROM pg_database", CREATE_RULE.format("pg_database")),
    "pg_class": ("BEGIN; SELECT FROM pg_class", CREATE_RULE.format("pg_class")),
}


@asynccontextmanager
async def idle(evil: Credential, pair: str) -> AsyncIterator[None]:
    """Two sessions of a tenant, in ``template1`` or, for ``pg_class``, in its own database."""
    first, second = PAIRS[pair]
    uri = evil.uri if pair == "pg_class" else make_conninfo(evil.uri, dbname="template1")
    async with (
        await AsyncConnection.connect(uri, autocommit=True) as waiting,
        await AsyncConnection.connect(uri, autocommit=True) as holding,
    ):
        await holding.execute(first.encode())
        asking = asyncio.create_task(waiting.execute(second.encode()))
        locks = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"
        try:
            while not await (await holding.execute(locks, [waiting.info.backend_pid])).fetchall():
                assert not asking.done()
                await asyncio.sleep(0.01)
            yield
        finally:
            await holding.close()
            with suppress(psycopg.Error):
                await asking


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connection, scram):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 2)  # libpq's least
    monkeypatch.setattr(postgres, "ENDING_SECONDS", 5.0)
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 1.0)


@pytest.fixture
async def evil(tenants: Tenants) -> Credential:
    return await tenants.ensure("evil")


@pytest.mark.thorough
@pytest.mark.parametrize(("pair", "operation"), [("pg_authid", "suspend"), ("pg_database", "rotate")])
async def test_all_logins_wait(tenants: Tenants, evil: Credential, pair: str, operation: str) -> None:
    """Nobody enters the server. A call fails in time, and changes nothing."""
    async with idle(evil, pair):
        refused = await only(getattr(tenants, operation)(["evil"]))
    assert isinstance(refused.error, GrantError)
    assert "the administrator of the tenants cannot log in: connection timeout" in str(refused.error)
    assert "the credential in use was not touched" in str(refused.error)
    assert await tenants.get("evil") == evil
    assert await enters(evil)
    assert (await only(getattr(tenants, operation)(["evil"]))).error is None


@pytest.mark.thorough
async def test_locked_database_of_administrator(tenants: Tenants, alpha: Credential, evil: Credential) -> None:
    """Nobody enters ``defaultdb``. The administrator has another way in, and suspends the tenant."""
    async with idle(evil, "defaultdb"):
        assert not await _enters(make_conninfo(alpha.uri, dbname="defaultdb"))
        assert (await only(tenants.rotate(["alpha"]))).error is None
        assert (await only(tenants.suspend(["evil"]))).error is None
        assert await _enters(make_conninfo(present(await tenants.get("alpha")).uri, dbname="defaultdb"))


async def test_locked_template0(place: Place, evil: Credential) -> None:
    """A sign-up waits for it. The sessions are terminated, and the event names their login."""
    events = list[TenantEvent]()
    async with idle(evil, "template0"):
        await place.tenants(on_event=events.append).ensure("beta")
    assert events[-1].terminated == (evil.username,)


@pytest.mark.thorough
async def test_template0_locked_in_turns(tenants: Tenants, evil: Credential, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that take over from each other are terminated too: they have the same login."""
    monkeypatch.setattr(postgres, "ENDING_SECONDS", 30.0)

    async def in_turns() -> None:
        while True:
            with suppress(psycopg.Error):
                async with idle(evil, "template0"):
                    await asyncio.sleep(0.3)

    turns = [asyncio.create_task(in_turns()) for _ in range(3)]
    await asyncio.sleep(0.5)
    try:
        await tenants.ensure("beta")
    finally:
        for turn in turns:
            turn.cancel()
        await asyncio.wait(turns)


@pytest.mark.thorough
async def test_locked_pg_class_of_own_database(tenants: Tenants, evil: Credential) -> None:
    """The tenant stops its own rotation, and no suspension."""
    async with idle(evil, "pg_class"):
        refused = await only(tenants.rotate(["evil"]))
        assert "could not be tested: the server did not answer within 2 s" in str(refused.error)
        assert await tenants.get("evil") == evil
        assert (await only(tenants.suspend(["evil"]))).error is None
    assert (await only(tenants.resume(["evil"]))).error is None


async def _enters(uri: str) -> bool:
    with suppress(psycopg.OperationalError):
        await (await AsyncConnection.connect(uri, connect_timeout=2)).close()
        return True
    return False
