"""The guide for operators: each command in it runs, in their order, and prints what the guide says."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox

from .conftest import Command

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "operate.md"
# What differs each time.
VARIES = [
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"AVNS_[\w-]+", "PASSWORD"),
    (r"\b127\.0\.0\.1(:|  )\d+", "ADDRESS"),
    (r"sslmode=\w+|\?$", ""),
    (r" +", " "),
    (r" *\n", "\n"),
]


def steps() -> list[tuple[str, str]]:
    """The commands, each with what it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return [(step.partition("\n")[0], step.partition("\n")[2]) for block in blocks for step in block.split("$ ")[1:]]


def settled(text: str) -> str:
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text)
    return text


@pytest.fixture
def alone(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A sandbox where nobody else has been."""
    with Sandbox(windows=[], token=sandbox.token) as alone:
        asyncio.run(alone.add_cluster("pg", "tenants-prod", backend="postgres"))
        yield alone


def test_the_guide_is_true(command: Command, alone: Sandbox) -> None:
    (command.folder / "names.csv").write_text("name,plan\nalpha,gold\nbeta,silver\ngamma,gold\n")
    path = f"{Path(sys.executable).parent}:{command.environment['PATH']}"
    environment = command.environment | {"DIGITALOCEAN_API_URL": alone.url, "PATH": path}
    read_uri = f"{sys.executable} -c 'import json; print(json.loads(input())[\"uri\"])'"  # as jq does

    for line, said in steps():
        ran = line.replace("jq -r .uri", read_uri)
        done = subprocess.run(
            ["bash", "-c", f"exec 2>&1; {ran}"], cwd=command.folder, env=environment, capture_output=True, text=True
        )
        assert settled(done.stdout) == settled(said), line
    assert len(steps()) > 15


def test_the_guide_knows_every_exit_code() -> None:
    codes = re.findall(r"^\| (\d) \|", GUIDE.read_text(), re.MULTILINE)

    assert codes == ["0", "1", "2", "3", "4", "5"]
