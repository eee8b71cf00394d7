"""The recipes of docs/how-to/pools.md on a server with TLS: they connect with the right CA, and refuse another."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncmy.errors
import psycopg
import pymongo.errors
import pymysql
import pytest
import sqlalchemy
from attrs import define

from aiodbclient.engines import Engine
from aiodbclient.tenants import Credential, TenantPools

from ...connecting.conftest import PASSWORD, TLSServer, mysql, postgresql

__all__ = ["mysql", "postgresql"]

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "pools.md").read_text()
REFUSED = (
    OSError,
    psycopg.OperationalError,
    pymysql.err.OperationalError,
    asyncmy.errors.OperationalError,
    pymongo.errors.PyMongoError,
    sqlalchemy.exc.SQLAlchemyError,
)


@define
class Records:
    """A substitute for ``Tenants``."""

    credential: Credential

    async def get(self, name: str) -> Credential | None:
        return self.credential


def recipe(*headings: str, seconds: float = 30.0) -> tuple[Any, Any]:
    """The functions to open and close a pool, from the sections of the page, with another timeout."""
    names: dict[str, Any] = {}
    for heading in headings:
        _, _, below = PAGE.replace("timeout=10.0", f"timeout={seconds}").partition(f"{heading}\n")
        [block, *_] = re.findall(r"^```python\n(.*?)^```$", below, re.MULTILINE | re.DOTALL)
        exec(block.partition("\nasync with ")[0], names)  # without the surrounding program
    found = {name.partition("_")[0]: value for name, value in names.items() if name.startswith(("open_", "close_"))}
    return found["open"], found.get("close") or names["asyncpg"].Pool.close


def credential_on(server: TLSServer, ca_file: str | None = None) -> Credential:
    connection = server.connection
    assert connection.port is not None
    return a_credential(
        Engine(connection.engine or ""), connection.port, Path(ca_file or server.ca_file), connection.database
    )


def a_credential(engine: Engine, port: int, ca: Path, database: str | None, name: str = "alice") -> Credential:
    password = PASSWORD
    where: dict[str, Any] = {"engine": engine, "host": "127.0.0.1", "port": port, "database": database}
    more: dict[str, Any] = {
        "cluster": "cluster",
        "cluster_name": "tenants",
        "created": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return Credential(name="alpha", username=name, password=password, ca=ca.read_text(), **where, **more)


async def by_asyncpg(pool: Any) -> Any:
    return await pool.fetchval("SELECT current_user")


async def by_psycopg(pool: Any) -> Any:
    async with pool.connection() as connection:
        return (await (await connection.execute("SELECT current_user")).fetchone())[0]


async def by_sqlalchemy(engine: Any) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(sqlalchemy.text("SELECT current_user"))


async def by_aiomysql(pool: Any) -> Any:
    async with pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute("SELECT current_user()")
        return (await cursor.fetchone())[0]


@pytest.mark.parametrize(
    ("headings", "query"),
    [
        (["## Open and use a pool"], by_asyncpg),
        (["### psycopg_pool"], by_psycopg),
        (["### SQLAlchemy with asyncpg"], by_sqlalchemy),
        (["### SQLAlchemy with asyncpg", "### SQLAlchemy with psycopg"], by_sqlalchemy),
    ],
    ids=["asyncpg", "psycopg_pool", "SQLAlchemy, asyncpg", "SQLAlchemy, psycopg"],
)
async def test_postgresql_pool_verifies_and_follows_rotation(
    headings: list[str], query: Any, postgresql: TLSServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_pool, close_pool = recipe(*headings)
    alice = credential_on(postgresql)
    bob = a_credential(Engine.PG, alice.port, Path(postgresql.ca_file), alice.database, "bob")
    with psycopg.connect(postgresql.connection.uri or "", autocommit=True) as administrator:
        administrator.execute("DROP ROLE IF EXISTS bob")
        administrator.execute(f"CREATE ROLE bob LOGIN PASSWORD '{bob.password}'".encode())
    records = Records(alice)
    Path("ca.pem").write_text(Path(postgresql.ca_file).read_text())
    async with TenantPools(records, open=open_pool, close=close_pool, max_pools=20, refresh=0) as pools:
        async with pools.use("alpha") as pool:
            assert await query(pool) == "alice"
        records.credential = bob
        async with pools.use("alpha") as pool:
            assert await query(pool) == "bob"
    await is_refused(*recipe(*headings, seconds=2.0), credential_on(postgresql, postgresql.wrong_ca_file))


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
async def test_a_pool_of_mysql_verifies_the_server(
    driver: str, mysql: TLSServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_pool, close_pool = recipe(f"### {driver}")
    pools = TenantPools(Records(credential_on(mysql)), open=open_pool, close=close_pool, max_pools=20)
    async with pools, pools.use("alpha") as pool:
        assert await by_aiomysql(pool) == "alice@%"
    await is_refused(open_pool, close_pool, credential_on(mysql, mysql.wrong_ca_file))


async def is_refused(open_pool: Any, close_pool: Any, credential: Credential) -> None:
    """Check that ``credential`` cannot log in, and that nothing of it is left."""
    Path("ca.pem").write_text(credential.ca or "")
    async with (
        asyncio.timeout(100),
        TenantPools(Records(credential), open=open_pool, close=close_pool, max_pools=20) as pools,
    ):
        with pytest.raises(REFUSED):
            async with pools.use("alpha"):
                pass
        assert repr(pools) == "<TenantPools: 0 open>"
