"""Who has signed up, and with which DSN: what the web examples keep.

An SQLite file here; in your backend a table of the database that it has anyway, with the DSN encrypted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiosqlite


class Credentials:
    """A row for each tenant, written before anything is created for it; its DSN follows before anybody is told of it.

    So whatever ends the process, each user on the cluster has its DSN here, or its tenant is among the ``pending``.
    """

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    @classmethod
    @asynccontextmanager
    async def open(cls, path: str) -> AsyncGenerator[Credentials]:
        """Those in the file ``path``, which is made if there is none."""
        async with aiosqlite.connect(path, isolation_level=None) as db:
            await db.execute("PRAGMA journal_mode = WAL")
            await db.execute("CREATE TABLE IF NOT EXISTS tenants (name TEXT PRIMARY KEY, dsn TEXT)")
            yield cls(db)

    async def intend(self, tenant: str) -> bool:
        """Write down that ``tenant`` is signing up. False where it has its DSN already."""
        await self._db.execute("INSERT OR IGNORE INTO tenants (name) VALUES (?)", (tenant,))
        return await self.dsn_of(tenant) is None

    async def keep(self, tenant: str, dsn: str) -> None:
        await self._db.execute("UPDATE tenants SET dsn = ? WHERE name = ?", (dsn, tenant))

    async def dsn_of(self, tenant: str) -> str | None:
        async with self._db.execute("SELECT dsn FROM tenants WHERE name = ?", (tenant,)) as rows:
            row = await rows.fetchone()
        return None if row is None else row[0]

    async def pending(self) -> list[str]:
        """The tenants whose signup broke off, and who may have a user whose password nobody knows."""
        async with self._db.execute("SELECT name FROM tenants WHERE dsn IS NULL ORDER BY name") as rows:
            return [name async for (name,) in rows]
