"""Who has signed up, and with which DSN: what the web examples keep.

An SQLite file here; in your backend a table of the database that it has anyway, with the DSN encrypted.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager


class Credentials:
    """A row for each tenant, written before anything is created for it; its DSN follows before anybody is told of it.

    So whatever ends the process, each user on the cluster has its DSN here, or its tenant is among the ``pending``.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._one_at_a_time = threading.Lock()

    @classmethod
    @contextmanager
    def open(cls, path: str) -> Generator[Credentials]:
        """Those in the file ``path``, which is made if there is none."""
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE IF NOT EXISTS tenants (name TEXT PRIMARY KEY, dsn TEXT)")
            yield cls(db)

    async def intend(self, tenant: str) -> bool:
        """Write down that ``tenant`` is signing up. False where it has its DSN already."""
        await self._run("INSERT OR IGNORE INTO tenants (name) VALUES (?)", tenant)
        return await self.dsn_of(tenant) is None

    async def keep(self, tenant: str, dsn: str) -> None:
        await self._run("UPDATE tenants SET dsn = ? WHERE name = ?", dsn, tenant)

    async def dsn_of(self, tenant: str) -> str | None:
        rows = await self._run("SELECT dsn FROM tenants WHERE name = ?", tenant)
        return rows[0][0] if rows else None

    async def pending(self) -> list[str]:
        """The tenants whose signup broke off, and who may have a user whose password nobody knows."""
        return [name for (name,) in await self._run("SELECT name FROM tenants WHERE dsn IS NULL ORDER BY name")]

    async def _run(self, statement: str, *values: str) -> list[tuple[str, ...]]:
        # In a thread, since it may wait for the disk, which the event loop must not.
        return await asyncio.to_thread(self._run_now, statement, values)

    def _run_now(self, statement: str, values: tuple[str, ...]) -> list[tuple[str, ...]]:
        with self._one_at_a_time:
            return self._db.execute(statement, values).fetchall()
