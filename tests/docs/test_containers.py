"""The section "In a container" works, as far as possible without an image."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import yaml

from aiodbclient.sandbox import Sandbox

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "testing.md").read_text()
SECTION = PAGE.partition("## In a container")[2].partition("\n## ")[0]
IMAGE, COMPOSE = re.findall(r"^```text\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def test_container_command_serves_app() -> None:
    command = json.loads(IMAGE.partition("CMD ")[2].replace("\\\n", ""))
    services = yaml.safe_load(COMPOSE)["services"]
    app = services["app"]["environment"]
    assert command.pop(0) == "python"
    place = command.index("--port") + 1
    host, port = app["DIGITALOCEAN_API_URL"].removeprefix("http://").split(":")
    assert host in services
    assert command[place] == port
    command[place] = "0"  # another test may have that port

    process = subprocess.Popen([sys.executable, *command, "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        request = urllib.request.Request(
            f"{started['url']}/v2/databases/{app['DIGITALOCEAN_CLUSTER_ID']}",
            headers={"host": f"{host}:{port}", "authorization": f"Bearer {app['DIGITALOCEAN_TOKEN']}"},
        )
        with urllib.request.urlopen(request) as answer:
            connection = json.load(answer)["database"]["connection"]
        assert connection["host"] == host
        # In the containers' network, the name resolves to it.
        psycopg.connect(connection["uri"], hostaddr="127.0.0.1").close()
    finally:
        process.terminate()
        process.communicate()


def test_extensions_of_page_are_trusted() -> None:
    listed = re.search(r"can create these:\n\n```text\n(.*?)```", PAGE, re.DOTALL)
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
