"""Servers outlive their clusters, and the next cluster gets one that looks new."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox, warm_servers
from aiodbclient.sandbox import _embedded as embedded
from aiodbclient.sandbox import _postgres as postgres
from aiodbclient.sandbox._embedded import EmbeddedPostgres, Pool

from ..requirements import postgres_with_tls
from .conftest import Answer, caller

JSON = dict[str, Any]
# Traces of earlier clients that a client could see.
TRACES = """
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


class Cluster:
    """A cluster in its own sandbox, as in each test of another project."""

    def __init__(self, server: Path | None = None) -> None:
        self._sandbox = Sandbox(windows=[])
        self._server = server

    async def __aenter__(self) -> Cluster:
        await self._sandbox.__aenter__()
        self.path = "/v2/databases/" + await self._sandbox.add_cluster("pg", backend="postgres", server=self._server)
        self._caller = caller(self._sandbox)
        self._call = await self._caller.__aenter__()
        self.connection: JSON = (await self.call("GET", "")).json["database"]["connection"]
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._caller.__aexit__()
        await self._sandbox.__aexit__(None, None, None)

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        return await self._call(method, self.path + path, body)

    @property
    def server(self) -> EmbeddedPostgres:
        [cluster] = self._sandbox._clusters.values()
        server = cluster.backend.embedded
        assert isinstance(server, EmbeddedPostgres)
        return server

    async def login(self, **different: Any) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self.connection["uri"], autocommit=True, **different)

    async def traces(self) -> list[Any]:
        async with await self.login() as connection:
            return await (await connection.execute(TRACES)).fetchall()


async def test_next_cluster_has_other_secrets() -> None:
    """It has the same server."""
    async with Cluster() as first:
        process = first.server._keeper
        before = first.connection
    async with Cluster() as second:
        assert second.server._keeper is process
        assert second.connection["port"] == before["port"]
        assert second.connection["password"] != before["password"]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await psycopg.AsyncConnection.connect(before["uri"])


async def test_next_cluster_looks_new() -> None:
    async with Cluster() as first:
        as_new = await first.traces()
        replica = (await first.call("POST", "/users", {"name": "a", "settings": {"pg_allow_replication": True}})).json
        await first.call("POST", "/users", {"name": "b"})
        await first.call("POST", "/dbs", {"name": "a"})
        admin = await first.login()
        for statement in (
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
        ):
            await admin.execute(statement)
        user = await first.login(user="a", password=replica["user"]["password"])
        await user.execute("SELECT pg_create_physical_replication_slot('mine', true)")
        await user.execute("SET ROLE NONE; BEGIN; ALTER ROLE CURRENT_USER SET role = 'owner'")  # stays open
        await admin.execute("BEGIN; ALTER DATABASE by_hand CONNECTION LIMIT 7")
        process = first.server._keeper
    async with Cluster() as second:
        assert second.server._keeper is process
        assert await second.traces() == as_new
    for session in (admin, user):
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
        await session.close()


async def test_changed_template1_is_not_used_again() -> None:
    async with Cluster() as first:
        folder = first.server.folder
        async with await first.login(dbname="template1") as session:
            await session.execute("SELECT lo_create(4242)")
    assert not folder.exists()


async def test_clusters_with_other_settings_have_other_servers() -> None:
    async with Cluster() as first:
        port = first.connection["port"]
    async with Sandbox(windows=[]) as sandbox, caller(sandbox) as call:
        path = "/v2/databases/" + await sandbox.add_cluster("pg", backend="postgres", connections=22)
        assert (await call("GET", path)).json["database"]["connection"]["port"] != port


async def test_clusters_have_a_server_each() -> None:
    other = postgres_with_tls()
    async with Cluster() as first, Cluster() as second, Cluster(other) as third:
        assert len({each.connection["port"] for each in (first, second, third)}) == 3
        ports = {each.connection["port"] for each in (first, second)}
        secure = third.connection["port"]
    async with Cluster(other) as fourth, Cluster() as fifth:
        assert (fourth.connection["port"], fourth.connection["ssl"]) == (secure, True)
        assert fifth.connection["port"] in ports


async def test_killed_server_is_not_used_again() -> None:
    async with Cluster() as first:
        keeper = first.server._keeper
        assert keeper is not None
        keeper.kill()
        keeper.wait()
    async with Cluster() as second:
        assert second.server._keeper is not keeper


async def test_a_server_that_cannot_be_emptied_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Cluster() as first:
        folder = first.server.folder
        monkeypatch.setattr(postgres, "_SLOTS", "SELECT 1 / 0")
    assert not folder.exists()


def test_closed_pool_leaves_nothing() -> None:
    pool = Pool()
    pool.open()
    server = EmbeddedPostgres(in_memory=True)
    asyncio.run(server.start())
    keeper, folder = server._keeper, server.folder
    assert keeper is not None
    assert pool.give(server)
    pool.open()
    pool.close()
    assert keeper.poll() is None  # the pool is still open elsewhere
    assert folder.exists()
    pool.close()
    assert keeper.poll() is not None
    assert not folder.exists()
    assert not pool.give(server)


@pytest.mark.parametrize(("chosen", "in_memory"), [(False, True), (True, False)])
def test_files_are_in_memory_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: bool, in_memory: bool
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    if not embedded._is_roomy("/dev/shm"):
        pytest.skip("there is no GiB of memory for files")
    if chosen:
        monkeypatch.setenv("TMPDIR", "/tmp")
    server = EmbeddedPostgres(in_memory=True)
    asyncio.run(server.start())
    assert (server.folder.parts[1] == "dev") is in_memory
    server.end()
    monkeypatch.setattr(embedded, "_ROOM", 2**60)
    assert not embedded._is_roomy("/dev/shm")
    assert not embedded._is_roomy("/nowhere")
