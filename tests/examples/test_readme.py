"""The README: each block of code runs, and what it links to is there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aiodbclient
from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
TESTS = [block for block in BLOCKS if "def test_" in block]
PROGRAMS = [block for block in BLOCKS if "asyncio.run(" in block]


@pytest.fixture
async def cluster_id(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cluster that the environment names, at which every client of the README ends up."""

    class OnTheSandbox(DatabaseClient):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"base_url": sandbox.url, **options})

    cluster_id = await sandbox.add_cluster("pg", backend="memory")
    monkeypatch.setattr(aiodbclient, "DatabaseClient", OnTheSandbox)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", sandbox.token)
    monkeypatch.setenv("DIGITALOCEAN_CLUSTER_ID", cluster_id)
    return cluster_id


def test_all_kinds_of_blocks_are_there() -> None:
    assert len(TESTS) == len(PROGRAMS) == 1
    assert len(BLOCKS) == 2


def test_every_page_that_it_sends_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)

    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


async def test_the_program_runs(cluster_id: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    [program] = PROGRAMS

    await asyncio.to_thread(exec, program, {"__name__": "__main__"})

    assert sorted(capsys.readouterr().out.splitlines()) == [
        f"{name} created None" for name in ("beta", "delta", "gamma")
    ]
    assert sandbox.counts["users.create", 201] == 4


def test_the_test_passes(tmp_path: Path) -> None:
    [block] = TESTS
    (tmp_path / "test_signup.py").write_text(block)
    options = ["-p", "no:cacheprovider", "-p", "no:schemathesis", "-o", "asyncio_mode=auto"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
