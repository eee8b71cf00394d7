"""Hostile tenants, and a stranger who changes tenants outside of the store, while others work on them."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Any

import psycopg
from attrs import define, field
from psycopg import AsyncConnection
from psycopg.sql import SQL, Composed, Identifier, Literal

from aiodbclient import ClusterClient
from aiodbclient.errors import DatabaseClientError
from aiodbclient.tenants import Credential, PostgresStore, SQLiteStore, Tenants

BOUND = 60.0  # seconds for the sign-up of a well-behaved tenant, on a busy machine
MINE = "mine"

# What a leaked credential of a database's owner can do: locks, settings, grants, and new passwords.
_ACTS = (
    "BEGIN; ALTER DATABASE {d} CONNECTION LIMIT 50",
    "BEGIN; SET ROLE NONE; ALTER ROLE {login} SET work_mem = '5MB'",
    "ALTER DATABASE {d} SET default_transaction_read_only = on",
    "ALTER DATABASE {d} SET statement_timeout = 1",
    "ALTER DATABASE {d} SET search_path = planted",
    "ALTER DATABASE {d} CONNECTION LIMIT 0",
    "ALTER DATABASE {d} IS_TEMPLATE true",
    "GRANT CONNECT ON DATABASE {d} TO PUBLIC",
    "GRANT CONNECT, TEMPORARY ON DATABASE {d} TO {victim}",
    "REVOKE ALL ON DATABASE {d} FROM CURRENT_USER",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {victim}",
    "SELECT lo_create(0)",
    "SET ROLE NONE; ALTER ROLE {login} PASSWORD {mine}",
    "SET ROLE NONE; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = session_user",
)


@define
class Hostile:
    """What the hostile tenants did.

    Attributes:
        leaked: Every credential that they had, by login and password.
        acts: How many statements the server executed.
        broken: How many tenants the stranger broke through the API.
        slowest: The longest sign-up of another tenant, in seconds.
        enough: Set to end them.
    """

    leaked: dict[tuple[str, str | None], Credential] = field(factory=dict[tuple[str, "str | None"], Credential])
    acts: int = 0
    broken: int = 0
    slowest: float = 0.0
    enough: bool = False

    async def attack(self, store: PostgresStore | SQLiteStore, name: str, victim: str, rng: random.Random) -> None:
        """Attack with sessions of every credential that the tenant ``name`` ever had."""
        held: list[AsyncConnection[Any]] = []
        while not self.enough:
            record = await store.get(name)
            for credential in (record.current, record.previous) if record else ():
                if credential is not None:
                    self.leaked[credential.username, credential.password] = credential
            mine = [each for each in self.leaked.values() if each.name == name]
            credential = rng.choice(mine)
            session = await _opened(credential, rng)
            if session is not None:
                held.append(session)
            if held:
                await self._act(rng.choice(held), credential, victim, rng)
            while len(held) > 4:
                await held.pop(0).close()
            await asyncio.sleep(0.05)
        for session in held:
            await session.close()

    async def _act(
        self, session: AsyncConnection[Any], credential: Credential, victim: str, rng: random.Random
    ) -> None:
        statement = _statement(rng.choice(_ACTS), credential, victim)
        with suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(1):
                await session.execute(statement)
                self.acts += 1

    async def vandalize(self, cluster: ClusterClient, names: list[str], rng: random.Random) -> None:
        """Delete logins and reset passwords outside of the store."""
        while not self.enough:
            with suppress(DatabaseClientError):
                name = rng.choice(names)
                await (cluster.users.delete(name) if rng.random() < 0.5 else cluster.users.reset_auth(name))
                self.broken += 1
            await asyncio.sleep(0.4)

    async def sign_up(self, tenants: Tenants) -> None:
        """Other tenants sign up and leave meanwhile, without delay."""
        number = 0
        while not self.enough:
            number += 1
            began = time.monotonic()
            credential = await tenants.ensure(f"visitor-{number}")
            self.slowest = max(self.slowest, time.monotonic() - began)
            async with await AsyncConnection.connect(credential.uri) as own:
                await own.execute("CREATE TABLE t (x int)")
            assert [outcome.ok async for outcome in tenants.remove([credential.name])] == [True]
            await asyncio.sleep(0.1)

    async def still_open(self, current: set[tuple[str, str | None]]) -> list[str]:
        """The leaked credentials, and the passwords that they set, that can log in and are not stored."""
        found = list[str]()
        for (login, password), credential in self.leaked.items():
            for tried in {password, MINE} if (login, password) not in current else {MINE}:
                with suppress(psycopg.OperationalError):
                    await (await AsyncConnection.connect(credential.uri, password=tried)).close()
                    found.append(login)
        return found


async def _opened(credential: Credential, rng: random.Random) -> AsyncConnection[Any] | None:
    password = rng.choice([credential.password, MINE])
    database = rng.choice([credential.database, "defaultdb"])
    with suppress(psycopg.OperationalError):
        return await AsyncConnection.connect(
            credential.uri, password=password, dbname=database, autocommit=True, connect_timeout=30
        )
    return None


def _statement(act: str, credential: Credential, victim: str) -> Composed:
    return SQL(act).format(
        d=Identifier(credential.database or ""),
        login=Identifier(credential.username),
        victim=Identifier(victim),
        mine=Literal(MINE),
    )
