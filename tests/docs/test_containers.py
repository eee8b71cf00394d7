"""The section "In a container" works, as far as possible without an image."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import psycopg
import yaml

from aiodbclient import DatabaseClient
from aiodbclient.models import Connection
from aiodbclient.sandbox import Sandbox

from ..proc import line, python

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "testing.md").read_text()
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
