"""For every pair of tenants: no connection, no read, no write. Their names break careless SQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pymysql
import pytest
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore, Tenants

from ...thorough import first_of
from ..clients import client_of
from ..programs import admin_of, ask, session_of

# Pairs that a pattern, truncation or case folding would confuse, and names that need quotes.
FEW = ["a_c", "abc", "a.c", "a-c", "a", "A"]
NAMES = [*FEW, "a_", "a__", "_", "_.-", "1", "1e1", "0x61", "a--", "a.b.c", "select", "user"]
MAY_CONNECT = """
SELECT login, database FROM unnest(%s::text[]) login, unnest(%s::text[]) database
WHERE has_database_privilege(login, database, 'CONNECT')
"""


def long(most: int) -> list[str]:
    """Two names that differ in the last of the characters that an engine takes."""
    return ["l" * (most - 1) + end for end in "12"]


@asynccontextmanager
async def made(sandbox: Sandbox, cluster: str, names: list[str], folder: Path) -> AsyncIterator[dict[str, Credential]]:
    """The tenants, each with a second login. The keys of the credentials are ``name`` and ``name/old``."""
    async with (
        DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client,
        SQLiteStore(folder / "tenants.db") as store,
    ):
        tenants = Tenants(client.cluster(cluster), store)
        credentials: dict[str, Credential] = {}
        async for outcome in tenants.provision(names):
            assert outcome.error is None, outcome.error
            assert outcome.credential is not None
            credentials[f"{outcome.name}/old"] = outcome.credential
        async for outcome in tenants.rotate(names):
            assert outcome.error is None, outcome.error
            assert outcome.credential is not None
            credentials[outcome.name] = outcome.credential
        yield credentials
        errors = [outcome.error async for outcome in tenants.remove(names)]  # other tests have the same names
        assert set(errors) == {None}


def others(credentials: dict[str, Credential]) -> list[tuple[Credential, str]]:
    """Each login, with each database of another tenant."""
    databases = {each.database for each in credentials.values() if each.database is not None}
    return [(one, each) for one in credentials.values() for each in databases if each != one.database]


@pytest.mark.parametrize("names", first_of([FEW, NAMES]))
async def test_postgresql_keeps_every_pair_of_tenants_apart(
    pg_cluster: tuple[Sandbox, str], tmp_path: Path, names: list[str]
) -> None:
    sandbox, cluster = pg_cluster
    async with made(sandbox, cluster, names + long(63), tmp_path) as credentials:
        for credential in credentials.values():
            create = "CREATE TABLE IF NOT EXISTS t AS SELECT current_database() AS mine"
            assert await ask(credential, create, "TABLE t") == [(credential.database,)]

        async def enter(one: Credential, database: str) -> None:
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                await AsyncConnection.connect(one.uri, dbname=database)

        pairs = others({name: each for name, each in credentials.items() if not name.endswith("/old")})
        for start in range(0, len(pairs), 16):
            await asyncio.gather(*(enter(*pair) for pair in pairs[start : start + 16]))

        one, other = credentials["a"], credentials["abc"]
        own = [(each.username, each.database) for each in credentials.values()]
        async with client_of(sandbox) as client:
            admin = await admin_of(client.cluster(cluster))
        async with await AsyncConnection.connect(admin.uri, autocommit=True) as letting_in:
            rows = await letting_in.execute(MAY_CONNECT, [*map(list, zip(*own, strict=True))])
            assert {*await rows.fetchall()} == {*own}
            pair = Identifier(other.database or ""), Identifier(one.username)  # the control
            await letting_in.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(*pair))
            await (await AsyncConnection.connect(one.uri, dbname=other.database)).close()
            await letting_in.execute(SQL("REVOKE CONNECT ON DATABASE {} FROM {}").format(*pair))


STATEMENTS = ("USE {}", "SELECT * FROM {}.t", "INSERT INTO {}.t VALUES (1)", "DROP DATABASE {}")


def quoted(name: str | None) -> str:
    return "`{}`".format((name or "").replace("`", "``"))


@pytest.mark.parametrize("names", first_of([FEW, NAMES]))
async def test_mysql_keeps_every_pair_of_tenants_apart(
    mysql_cluster: tuple[Sandbox, str], tmp_path: Path, names: list[str]
) -> None:
    sandbox, cluster = mysql_cluster
    async with made(sandbox, cluster, names + long(64), tmp_path) as credentials:
        for name, credential in credentials.items():
            if name.endswith("/old"):
                await ask(credential, "CREATE TABLE t (mine varchar(64) PRIMARY KEY) AS SELECT DATABASE() AS mine")
            assert await ask(credential, "SELECT mine FROM t") == [(credential.database,)]
            seen = {name for (name,) in await ask(credential, "SHOW DATABASES")}
            assert credential.database in seen
            assert seen <= {credential.database, "information_schema", "performance_schema"}
        for one in credentials.values():
            async with session_of(one) as run:
                await run(f"USE {quoted(one.database)}")  # the control: its own schema
                assert await run(f"SELECT * FROM {quoted(one.database)}.t") == [(one.database,)]
                for database in [database for login, database in others(credentials) if login is one]:
                    for statement in STATEMENTS:
                        with pytest.raises(pymysql.OperationalError, match="denied"):
                            await run(statement.format(quoted(database)))
