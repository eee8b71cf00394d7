"""The recipes of docs/how-to/migrations.md with several tenants at once: each migrates its own database."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore, Tenants

from .test_guides import PAGES, blocks_of

NAMES = [f"t{n:02}" for n in range(12)]
TABLES = "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = 'public' ORDER BY 1"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page defines, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "guide"}
    for block in blocks_of("how-to/migrations.md"):
        definitions = block.partition("\nasync for ")[0]
        if "await tenants.ensure" not in block and "failed" not in block and "AsyncExitStack" not in block:
            exec(definitions, names)
    return names


async def tables(credential: Credential) -> list[str]:
    async with await AsyncConnection.connect(credential.uri) as connection:
        return [name for (name,) in await (await connection.execute(TABLES)).fetchall()]


@pytest.mark.parametrize(
    ("recipe", "expected"), [("migrate", ["alembic_version", "notes"]), ("migrate_by_sql", ["tags"])]
)
async def test_each_tenant_is_migrated(
    page: dict[str, Any], aiodbclient_tenants: Tenants, recipe: str, expected: list[str]
) -> None:
    """All at once, each in its own database."""
    tenants = aiodbclient_tenants
    assert all([outcome.error is None async for outcome in tenants.provision(NAMES)])
    outcomes = [outcome async for outcome in tenants.each(page[recipe], concurrency=len(NAMES))]
    assert [(outcome.name, outcome.error) for outcome in outcomes if outcome.error is not None] == []
    there = {outcome.name: outcome.value async for outcome in tenants.each(tables)}
    assert there == dict.fromkeys(NAMES, expected)


@pytest.mark.thorough
async def test_command_migrates_each_tenant(page: dict[str, Any], sandbox: Sandbox, tmp_path: Path) -> None:
    [command] = re.findall(r"^```console\n(.*?)^```$", PAGES["how-to/migrations.md"], re.MULTILINE | re.DOTALL)
    cluster_id = await sandbox.add_cluster("pg", backend="postgres")
    async with (
        DatabaseClient(sandbox.token, base_url=sandbox.url) as client,
        SQLiteStore(tmp_path / "tenants.db") as store,
    ):
        tenants = Tenants(client.cluster(cluster_id), store)
        assert all([outcome.error is None async for outcome in tenants.provision(NAMES[:3])])
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DIGITALOCEAN_TOKEN": sandbox.token,
            "DIGITALOCEAN_API_URL": sandbox.url,
            "DIGITALOCEAN_CLUSTER_ID": cluster_id,
        }
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", command, cwd=tmp_path, env=environment, stdout=PIPE, stderr=STDOUT
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        async for outcome in tenants.each(tables):
            assert outcome.value == ["alembic_version", "notes"], outcome.name
