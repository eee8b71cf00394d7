"""Another process that holds a claim, and the leases of processes that died."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


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
