"""Sessions of the administrator on a PostgreSQL with TLS."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from psycopg import AsyncConnection
from psycopg.sql import SQL

from aiodbclient.engines import Engine
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants._naming import Role, names_of
from aiodbclient.tenants._servers import server_of
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants._servers.postgres.connection import CAFile

from ...requirements import postgres_with_tls
from ..conftest import Place, placed
from ..operations.test_check_and_repair import admin_of
from ..programs import ask
from ..tenant import Tenant


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A place on a server with TLS. The others share one without, which is faster."""
    with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster("pg", server=str(postgres_with_tls()))
        async with placed(sandbox, cluster, tmp_path / "tenants.db") as place:
            yield place


def test_authority_file_lives_as_long_as_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ca = CAFile("the authority")
    path = Path(ca.path())
    assert path.read_text() == "the authority"
    assert path.stat().st_mode & 0o077 == 0
    assert ca.path() == str(path)

    path.unlink()  # as what cleans /tmp does
    again = Path(ca.path())
    assert again.read_text() == "the authority"

    del ca
    gc.collect()
    assert os.listdir(tmp_path) == []


async def test_first_sessions_have_the_settings(place: Place) -> None:
    """Those that connect at once too, before one of them knows the version of the server."""
    info = await place.cluster.info()
    server = server_of(Engine.PG, info.connection, await place.cluster.ca(), None, None)
    assert isinstance(server, PostgresServer)
    waiting = SQL("SELECT current_setting('transaction_timeout', true), pg_sleep(0.2)")
    found = await asyncio.gather(*(server.ask(waiting) for _ in range(4)))
    assert {timeout for [(timeout, _)] in found} in ({"1min"}, {None})  # None: before 17


async def test_cancelled_step_over_tls_leaves_no_backend(place: Place) -> None:
    credential, admin = await place.tenants().ensure("alpha"), await admin_of(place)
    info = await place.cluster.info()
    server = server_of(Engine.PG, info.connection, await place.cluster.ca(), None, None)
    alpha = Tenant(server, names_of("alpha", Engine.PG, place.prefix), {credential.username: Role.OWNER})
    waiting = (
        "SELECT FROM pg_stat_activity WHERE query LIKE '%REVOKE ALL ON DATABASE%' AND state = 'active' "
        "AND pid <> pg_backend_pid()"
    )
    await ask(admin, f"GRANT CONNECT ON DATABASE {alpha.database} TO PUBLIC")
    async with await AsyncConnection.connect(admin.uri) as locking:
        await locking.execute(f"ALTER DATABASE {alpha.database} CONNECTION LIMIT 7".encode())

        call = asyncio.create_task(alpha.repair())
        async with asyncio.timeout(20):
            while not await ask(admin, waiting):
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert await ask(admin, waiting) == []
