"""Shared by the tests of both stores: records to store, invalid leases, and another process that holds a claim."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import inf, nan
from pathlib import Path

from aiodbclient.tenants import Store

from .store_contract import LONG, a_credential, put_on_record

BAD_LEASES = [nan, inf, -1, 0, "x", None]


async def keep(store: Store, name: str, password: str = "hunter2") -> None:
    claim = await store.claim(name, LONG)
    assert claim is not None
    await put_on_record(store, claim, a_credential(name, password))


async def password(store: Store, name: str) -> str | None:
    record = await store.get(name)
    assert record is not None
    assert record.current is not None
    return record.current.password


def expire(path: Path) -> None:
    """Let the leases of all claims in a file run out, as they do half a minute after a process died."""
    with closing(sqlite3.connect(path)) as store:
        store.execute("UPDATE credentials SET expires = 0")
        store.commit()


@contextmanager
def claimer(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a claim. It is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tenants.claimer", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
