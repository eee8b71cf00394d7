"""The guide for operators: its commands run in order, and print what the guide shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox

from ..requirements import postgres_with_tls
from .conftest import Command, with_tenants

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "operate.md"
# Output that differs each time.
VARIES = [
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"(AVNS_|Aa1-)[\w-]+", "PASSWORD"),
    (r"_[0-9a-f]{12}_[0-9a-f]{8}\b", "_LOGIN"),
    (r"doctor-[0-9a-f]{8}(_[0-9a-f]{16})?", "TENANT"),
    (r"\d+\.\d s|\b\d+s\b", "SECONDS"),
    (r"\d{4}-\d\d-\d\dT[\d:]+\+00:00", "TIME"),
    (r"^[\w-]{43}=$", "KEY"),
    (r"\b127\.0\.0\.1:\d+|\b\d+ +127\.0\.0\.1\b", "ADDRESS"),
    (r"sslmode=\w+|\?$", ""),
    (r" +", " "),
    (r" *\n", "\n"),
]


def steps() -> list[tuple[str, str]]:
    """The commands with their output."""
    blocks = re.findall(r"^```console\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return [(step.partition("\n")[0], step.partition("\n")[2]) for block in blocks for step in block.split("$ ")[1:]]


def write_files(folder: Path) -> None:
    """The files that the guide's commands read."""
    (folder / "names.csv").write_text("name,plan\nalpha,gold\nbeta,silver\ngamma,gold\n")
    missing = """echo 'ERROR: relation "orders" does not exist' >&2; exit 3"""
    (folder / "migrate.sh").write_text(f"test $PGDATABASE != beta || {{ {missing}; }}\n")
    (folder / "users.yaml").write_text("users:\n- name: replica\n  settings: {pg_allow_replication: true}\n")


def runnable(line: str) -> str:
    """The command, with Python instead of psql, which may be missing."""
    run = "import sys, psycopg; done = psycopg.connect('', autocommit=True).execute(sys.argv[1]); "
    run += "done.description and print(done.fetchone()[0])"
    return re.sub(r"psql -q?At -c", lambda _: f'{sys.executable} -c "{run}"', line)


def settled(text: str) -> str:
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text


@pytest.fixture
def alone() -> Iterator[Sandbox]:
    """A sandbox that no other test has used."""
    yield from with_tenants(postgres_with_tls())


@pytest.mark.thorough
def test_the_guide_is_true(command: Command, alone: Sandbox) -> None:
    write_files(command.folder)
    path = f"{Path(sys.executable).parent}:{command.environment['PATH']}"
    environment = command.environment | {"DIGITALOCEAN_API_URL": alone.url, "PATH": path}
    exported = ""
    for line, said in steps():
        bash = ["bash", "-c", f"exec 2>&1; {exported}{runnable(line)}"]
        done = subprocess.run(bash, cwd=command.folder, env=environment, capture_output=True, text=True)
        assert settled(done.stdout) == settled(said), line
        exported += f"{line}\n" if line.startswith("export ") else ""
    assert len(steps()) > 20
