"""Both stores of the package, side by side, and one that a test steps into."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from aiodbclient.tenants import Claim, Credential, Login, PostgresStore, SQLiteStore, Store, TenantRecord

Hook = Callable[[Claim, TenantRecord | None, bool], Awaitable[object]]


def expire(path: Path) -> None:
    """Let the leases of all claims in a file run out, as they do half a minute after a process died."""
    with closing(sqlite3.connect(path)) as store:
        store.execute("UPDATE credentials SET expires = 0")
        store.commit()


class HookedStore(SQLiteStore):
    """A store that calls functions of the test before and after each ``save``, if there are some."""

    before_save: Hook | None = None
    after_save: Hook | None = None

    async def save(self, claim: Claim, record: TenantRecord | None, *, release: bool = False) -> None:
        if self.before_save is not None:
            await self.before_save(claim, record, release)
        await super().save(claim, record, release=release)
        if self.after_save is not None:
            await self.after_save(claim, record, release)


async def password(store: Store, name: str) -> str | None:
    record = await store.get(name)
    login = None if record is None else record.current()
    assert login is not None
    return login.password


def record_of(credential: Credential, **more: Any) -> TenantRecord:
    """The record of a tenant of which this is the credential."""
    login = Login(
        username=credential.username,
        role=credential.role,
        password=credential.password,
        created=credential.created,
    )
    names = ("name", "cluster", "cluster_name", "database", "host", "port", "engine", "ca")
    return TenantRecord(**{name: getattr(credential, name) for name in names} | {"logins": (login,)} | more)


async def record_for(store: Store, name: str) -> TenantRecord:
    """The record of a tenant that has one."""
    record = await store.get(name)
    assert record is not None
    return record


class Stores:
    """Stores in files of ``folder``, or in tables of the server at ``dsn``. The same name gives the same records."""

    def __init__(self, folder: Path, dsn: str | None) -> None:
        self.folder, self.dsn, self._run = folder, dsn, secrets.token_hex(4)

    def store(self, name: str, key: Any = None) -> SQLiteStore | PostgresStore:
        if self.dsn is None:
            return SQLiteStore(self.folder / name, key)
        return PostgresStore(self.dsn, f"{name}_{self._run}", key)

    def execute(self, name: str, statement: str, *values: object) -> list[Any]:
        """Run a statement on the records, with ``{}`` and ``?`` for the table and each value."""
        if self.dsn is None:
            with closing(sqlite3.connect(self.folder / name, isolation_level=None)) as database:
                return database.execute(statement.replace("{}", "credentials"), values).fetchall()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            statement = statement.replace("{}", f"{name}_{self._run}").replace("?", "%s")
            cursor = connection.execute(statement.encode(), values)
            return [] if cursor.description is None else cursor.fetchall()
