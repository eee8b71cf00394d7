"""Where the credentials go: each tenant's once. A file that only its owner can read.

A stand-in for your vault. It encrypts nothing, and the workers of several machines cannot share it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path


class CredentialStore:
    """``path`` is created if it is not there. Calls block for as long as a disk takes: from asyncio use a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(self._open()) as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS credentials (tenant TEXT PRIMARY KEY, password TEXT NOT NULL, worker TEXT)"
            )

    def put(self, tenant: str, password: str, worker: str) -> None:
        """Put on record, for good when this returns. Raises sqlite3.IntegrityError if the tenant is on record."""
        with closing(self._open()) as database:
            database.execute("INSERT INTO credentials VALUES (?, ?, ?)", (tenant, password, worker))

    def missing(self, tenants: Iterable[str]) -> list[str]:
        """Those that are not on record, in the order given."""
        known = {tenant for tenant, _, _ in self.all()}
        return [tenant for tenant in tenants if tenant not in known]

    def all(self) -> list[tuple[str, str, str]]:
        """Tenant, password and worker of each record."""
        with closing(self._open()) as database:
            return database.execute("SELECT tenant, password, worker FROM credentials").fetchall()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        database.execute("PRAGMA synchronous = FULL")
        return database
