"""The page about testing and its example project: the tests pass as printed, and the container serves an app."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, create_autospec

import psycopg
import pytest
import yaml

from aiodbclient import Cluster, ClustersAPI, DatabaseClient, DatabasesAPI, UsersAPI
from aiodbclient.models import Connection
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Tenants

from ..proc import line, passed_in, python

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "testing.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
[SETTINGS] = re.findall(r"^```text\n(\[tool.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.thorough
def test_blocks_pass_as_printed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    for number, block in enumerate(BLOCKS):
        named = re.match(r"# (\w+\.py)\n", block)
        (tmp_path / (named[1] if named else f"test_{number}.py")).write_text(block)
    assert passed_in(tmp_path, "-p", "no:schemathesis")[0] == 9


@pytest.mark.parametrize("api", [DatabaseClient, ClustersAPI, Cluster, UsersAPI, DatabasesAPI, Tenants])
def test_methods_can_be_replaced(api: type) -> None:
    """On an instance, and in an autospec, whose async methods are async."""
    made: Any = object.__new__(api)
    mock = create_autospec(api, instance=True)

    for name, method in vars(api).items():
        if inspect.iscoroutinefunction(method) and not name.startswith("_"):
            setattr(made, name, AsyncMock())
            assert inspect.iscoroutinefunction(getattr(mock, name)), name


@pytest.mark.thorough
def test_example_project_passes() -> None:
    project = ROOT / "examples" / "testing_your_app"
    tests = re.findall(r"^async def test_", (project / "test_signup_service.py").read_text(), re.MULTILINE)
    assert passed_in(project, "-p", "no:schemathesis")[0] == len(tests)


SECTION = PAGE.partition("## In a container")[2].partition("\n## ")[0]
IMAGE, COMPOSE = re.findall(r"^```text\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def test_container_command_serves_app() -> None:
    """The app's container shares the sandbox's network, so what works here on 127.0.0.1 works there."""
    command = json.loads(IMAGE.partition("CMD ")[2].replace("\\\n", ""))
    services = yaml.safe_load(COMPOSE)["services"]
    app = services["app"]["environment"]
    assert services["app"]["network_mode"] == "service:sandbox"
    assert "sandbox" in services
    assert command.pop(0) == "python"
    place = command.index("--port") + 1
    assert app["DIGITALOCEAN_API_URL"] == f"http://127.0.0.1:{command[place]}"
    command[place] = "0"  # another test may have that port

    with python(*command, "--json") as process:
        started = json.loads(line(process))
        connection = asyncio.run(connection_of(app | {"DIGITALOCEAN_API_URL": started["url"]}))
        assert connection.host == "127.0.0.1"
        assert connection.uri is not None
        psycopg.connect(connection.uri).close()


async def connection_of(environment: dict[str, str]) -> Connection:
    """Read the connection as the app does."""
    token, url = environment["DIGITALOCEAN_TOKEN"], environment["DIGITALOCEAN_API_URL"]
    async with DatabaseClient(token, base_url=url) as client:
        return (await client.cluster(environment["DIGITALOCEAN_CLUSTER_ID"]).info()).connection


def test_extensions_of_page_are_trusted() -> None:
    listed = re.search(r"can create these extensions:\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert listed is not None
    with Sandbox(windows=[]) as sandbox:
        asyncio.run(sandbox.add_cluster("pg", backend="postgres"))
        [cluster] = sandbox._clusters.values()
        primary = cluster.backend.primary()
        with psycopg.connect(
            host="127.0.0.1", port=primary.port, user="doadmin", password=primary.password, dbname="defaultdb"
        ) as admin:
            there = admin.execute(
                "SELECT DISTINCT name FROM pg_available_extension_versions"
                " WHERE trusted AND name <> 'plpgsql' ORDER BY name"
            ).fetchall()
    assert listed[1].split() == [name for (name,) in there]
