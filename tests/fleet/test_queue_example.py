"""``examples/fleet_queue``: a worker is killed, and each tenant's credential is on record once and works."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from benchmarks.valkey_server import ValkeyServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet_queue"


async def test_the_queue_outlives_a_worker(valkey: ValkeyServer) -> None:
    run = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE / "run.py"),
        "--tenants",
        "60",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, log = (text.decode() for text in await run.communicate())
    assert run.returncode == 0, told + log
    assert "60 of 60 credentials on record, 60 of them work" in told
    killed_at = re.search(r"killed a worker when (\d+) ", told)
    assert killed_at is not None
    assert 0 < int(killed_at[1]) < 60
    assert len(re.findall(r"^by worker: \d+, \d+$", told, re.MULTILINE)) == 1
    assert "users.create 201: 60" in told
    assert "429" not in told


async def test_a_credential_is_put_on_record_once_for_its_owner_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    from store import CredentialStore  # pyright: ignore[reportMissingImports]

    path = tmp_path / "credentials.sqlite"
    store = CredentialStore(path)
    store.put("alpha", "first", "1")
    with pytest.raises(sqlite3.IntegrityError):
        store.put("alpha", "second", "2")
    assert CredentialStore(path).all() == [("alpha", "first", "1")]
    assert store.missing(["beta", "alpha", "gamma"]) == ["beta", "gamma"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
