"""Servers outlive their clusters, and the next cluster gets one that looks new."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox, warm_servers
from aiodbclient.sandbox import _embedded as embedded
from aiodbclient.sandbox._embedded import EmbeddedPostgres, Pool

from ..requirements import postgres_with_tls
from .conftest import Call, caller, log_in, make, rows

LEFT: list[LiteralString] = [
    "CREATE ROLE owner NOLOGIN",
    "CREATE ROLE other IN ROLE owner",
    "GRANT owner TO a, b WITH ADMIN OPTION",
    "GRANT owner TO CURRENT_USER WITH SET TRUE",
    "ALTER DATABASE a OWNER TO owner",
    "ALTER DATABASE a SET statement_timeout = 1",
    "ALTER DATABASE a CONNECTION LIMIT 0",
    "ALTER DATABASE a IS_TEMPLATE true",
    "ALTER ROLE owner SET work_mem = '1MB'",
    "COMMENT ON DATABASE defaultdb IS 'mine'",
    "GRANT CONNECT ON DATABASE a TO b WITH GRANT OPTION",
    "CREATE DATABASE by_hand",
    "CREATE TABLE left_behind (a int)",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO b",
    "SELECT lo_create(4242)",
]
# Traces of earlier clients that a client could see.
TRACES: LiteralString = """
    SELECT 'database', datname, pg_get_userbyid(datdba), datacl::text, datconnlimit::text FROM pg_database
    UNION ALL SELECT 'role', rolname, rolcanlogin::text, rolcreaterole::text, rolconnlimit::text FROM pg_roles
    UNION ALL SELECT 'setting', setdatabase::text, setrole::regrole::text, setconfig::text, '' FROM pg_db_role_setting
    UNION ALL SELECT 'member', roleid::regrole::text, member::regrole::text, '', '' FROM pg_auth_members
    UNION ALL SELECT 'slot', slot_name, '', '', '' FROM pg_replication_slots
    UNION ALL SELECT 'relation', oid::regclass::text, relowner::regrole::text, relacl::text, '' FROM pg_class
    UNION ALL SELECT 'blob', oid::text, '', '', '' FROM pg_largeobject_metadata
    UNION ALL SELECT 'comment', description, '', '', '' FROM pg_shdescription
    UNION ALL SELECT 'session', usename, '', '', '' FROM pg_stat_activity
        WHERE usename <> 'postgres' AND pid <> pg_backend_pid()
    ORDER BY 1, 2, 3, 4, 5
"""


@pytest.fixture(autouse=True)
def warm(own_pool: None) -> Iterator[None]:
    with warm_servers():
        yield


@asynccontextmanager
async def cluster(**options: Any) -> AsyncIterator[tuple[Call, EmbeddedPostgres]]:
    """A cluster in a sandbox of its own, as in each test of another project, and its server."""
    async with Sandbox(windows=[]) as sandbox:
        cluster_id = await sandbox.add_cluster("pg", backend="postgres", **options)
        server = sandbox._clusters[cluster_id].backend.embedded
        assert isinstance(server, EmbeddedPostgres)
        async with caller(sandbox, f"/v2/databases/{cluster_id}") as call:
            yield call, server


async def traces(call: Call) -> list[Any]:
    async with await log_in(call) as session:
        return await rows(session, TRACES)


async def test_next_cluster_looks_new() -> None:
    """It has the same server, with other secrets, and nothing of its first client."""
    async with cluster() as (call, server):
        supervisor, uri = server._supervisor, (await call("GET", "")).json["database"]["connection"]["uri"]
        as_new = await traces(call)
        replica = await make(call, "user", "a", settings={"pg_allow_replication": True})
        await make(call, "user", "b")
        await make(call, "db", "a")
        admin = await log_in(call)
        for statement in LEFT:
            await admin.execute(statement)
        user = await log_in(call, replica)
        await user.execute("SELECT pg_create_physical_replication_slot('mine', true)")
        await user.execute("SET ROLE NONE; BEGIN; ALTER ROLE CURRENT_USER SET role = 'owner'")  # stays open
        await admin.execute("BEGIN; ALTER DATABASE by_hand CONNECTION LIMIT 7")
    async with cluster() as (call, server):
        assert server._supervisor is supervisor
        assert await traces(call) == as_new
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await psycopg.AsyncConnection.connect(uri)
    for session in (admin, user):
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
        await session.close()


@pytest.mark.thorough
async def test_settings_have_their_servers() -> None:
    """Servers of other programs, or with other settings, are not mixed up."""
    other = postgres_with_tls()
    async with cluster() as (_, plain), cluster(connections=22) as (_, small), cluster(server=other) as (call, secure):
        assert len({plain.port, small.port, secure.port}) == 3
        assert (await call("GET", "")).json["database"]["connection"]["ssl"] is True
    async with cluster(server=other) as (_, again), cluster() as (_, plain_again):
        assert (again.port, plain_again.port) == (secure.port, plain.port)


async def change_template1(call: Call, _: EmbeddedPostgres) -> None:
    async with await log_in(call, database="template1") as session:
        await session.execute("SELECT lo_create(4242)")


async def kill(_: Call, server: EmbeddedPostgres) -> None:
    assert server._supervisor is not None
    server._supervisor.kill()
    server._supervisor.wait()


async def stop(_: Call, server: EmbeddedPostgres) -> None:
    await server.shut_down(graceful=False)


@pytest.mark.parametrize("spoil", [change_template1, kill, stop])
async def test_spoiled_server_is_not_used_again(spoil: Callable[[Call, EmbeddedPostgres], Awaitable[None]]) -> None:
    async with cluster() as (call, server):
        folder = server.folder
        await spoil(call, server)
        assert folder.exists()
    assert not folder.exists()
    async with cluster() as (_, server):
        assert server.folder != folder


def test_closed_pool_leaves_nothing() -> None:
    pool = Pool()
    pool.open()
    server = EmbeddedPostgres(in_memory=True)
    asyncio.run(server.start())
    supervisor, folder = server._supervisor, server.folder
    assert supervisor is not None
    assert pool.release(server)
    assert [pool.release(EmbeddedPostgres()) for _ in range(4)] == [True, True, True, False]  # it keeps four
    pool.open()
    pool.close()
    assert supervisor.poll() is None  # the pool is still open elsewhere
    assert folder.exists()
    pool.close()
    assert supervisor.poll() is not None
    assert not folder.exists()
    assert not pool.release(server)


@pytest.mark.parametrize(("chosen", "in_memory"), [(False, True), (True, False)])
def test_files_are_in_memory_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: bool, in_memory: bool
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    if not embedded.has_space("/dev/shm"):
        pytest.skip("there is no GiB of memory for files")
    if chosen:
        monkeypatch.setenv("TMPDIR", "/tmp")
    server = EmbeddedPostgres(in_memory=True)
    asyncio.run(server.start())
    assert (server.folder.parts[1] == "dev") is in_memory
    server.end()
    monkeypatch.setattr(embedded, "_MIN_FREE_BYTES", 2**60)
    assert not embedded.has_space("/dev/shm")
    assert not embedded.has_space("/nowhere")
