"""The recipes of docs/how-to/pools.md on a server with TLS: they connect with the right CA, and refuse another."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import asyncmy.errors
import psycopg
import pymongo.errors
import pymysql
import pytest
import sqlalchemy
from attrs import define, evolve

from aiodbclient.engines import Engine
from aiodbclient.tenants import Credential, TenantPools

from ...connecting.conftest import PASSWORD, TLSServer, mysql, postgresql
from ..store_contract import a_credential

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
    engine, port, database = Engine(connection.engine or ""), connection.port or 0, connection.database or ""
    where: dict[str, Any] = {"engine": engine, "host": "127.0.0.1", "port": port, "database": database}
    ca = Path(ca_file or server.ca_file).read_text()
    return evolve(a_credential("alpha", PASSWORD), username="alice", ca=ca, **where)


def pools_of(open_pool: Any, close_pool: Any, credential: Credential) -> TenantPools[Any]:
    Path("ca.pem").write_text(credential.ca or "")
    return TenantPools(Records(credential), open=open_pool, close=close_pool, max_pools=20)


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


RECIPES: dict[str, tuple[str, list[str], Any]] = {
    "asyncpg": ("postgresql", ["## Open and use a pool"], by_asyncpg),
    "psycopg_pool": ("postgresql", ["### psycopg_pool"], by_psycopg),
    "SQLAlchemy, asyncpg": ("postgresql", ["### SQLAlchemy with asyncpg"], by_sqlalchemy),
    "SQLAlchemy, psycopg": (
        "postgresql",
        ["### SQLAlchemy with asyncpg", "### SQLAlchemy with psycopg"],
        by_sqlalchemy,
    ),
    "aiomysql": ("mysql", ["### aiomysql"], by_aiomysql),
    "asyncmy": ("mysql", ["### asyncmy"], by_aiomysql),
}


@pytest.fixture
def server(driver: str, request: pytest.FixtureRequest) -> TLSServer:
    found: TLSServer = request.getfixturevalue(RECIPES[driver][0])
    return found


@pytest.mark.parametrize("driver", RECIPES)
async def test_pool_verifies_the_server(
    driver: str, server: TLSServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a server that is not verified, nothing is left. test_pools.py has the rotations."""
    _, headings, query = RECIPES[driver]
    monkeypatch.chdir(tmp_path)
    async with pools_of(*recipe(*headings), credential_on(server)) as pools, pools.use("alpha") as pool:
        assert await query(pool) in ("alice", "alice@%")
    open_and_close, wrong = recipe(*headings, seconds=2.0), credential_on(server, server.wrong_ca_file)
    async with asyncio.timeout(100), pools_of(*open_and_close, wrong) as pools:
        with pytest.raises(REFUSED):
            async with pools.use("alpha"):
                pass
        assert repr(pools) == "<TenantPools: 0 open>"
