"""The options of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox

from .conftest import Call, caller

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


async def test_the_api_returns_the_options(sandbox: Sandbox, call: Call) -> None:
    cluster = await sandbox.add_cluster("redis", version="6", tags=("a",))
    shown = (await call("GET", f"/v2/databases/{cluster}")).json["database"]
    assert (shown["version"], shown["tags"]) == ("6", ["a"])


@pytest.mark.skipif(not PROGRAMS, reason="no PostgreSQL is installed on this machine")
@pytest.mark.parametrize("programs", PROGRAMS, ids=lambda folder: folder.parent.name)
async def test_installed_postgresql_behind_cluster(programs: Path) -> None:
    async with Sandbox(windows=[]) as sandbox, caller(sandbox) as call:
        cluster = f"/v2/databases/{await sandbox.add_cluster('pg', server=programs)}"
        shown = (await call("GET", cluster)).json["database"]
        assert shown["version"] == programs.parent.name
        user = (await call("POST", f"{cluster}/users", {"name": "app"})).json["user"]
        assert (await call("POST", f"{cluster}/dbs", {"name": "app"})).status == 201
        where = {key: shown["connection"][key] for key in ("host", "port")}
        async with await psycopg.AsyncConnection.connect(
            **where, user="app", password=user["password"], dbname="app", sslmode="require"
        ) as session:
            rows = await session.execute("SELECT name FROM pg_available_extensions")
            assert ("plpgsql",) in await rows.fetchall()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"connections": 0}, "connections must be at least 1"),
        ({"password_encryption": "plain"}, "'scram-sha-256' or 'md5', not 'plain'"),
        ({"connections": 22, "server": "postgresql://postgres@127.0.0.1:1/postgres"}, "set them on the server"),
        ({"password_encryption": "md5", "backend": "memory"}, "only a PostgreSQL that the sandbox starts"),
    ],
)
async def test_what_only_an_embedded_postgresql_has(sandbox: Sandbox, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        await sandbox.add_cluster("pg", **options)


async def test_a_folder_without_postgresql_is_a_clear_error(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="has no initdb"):
        await sandbox.add_cluster("pg", server=tmp_path)
