"""A tenant's own program: it logs in with its credential, on PostgreSQL or MySQL, and runs SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg
import pymysql
from psycopg import AsyncConnection

from aiodbclient import Cluster
from aiodbclient.engines import MYSQL
from aiodbclient.tenants import Credential
from aiodbclient.tenants._servers.mysql.connection import Cursor, Session


async def run(connection: Any, *statements: str) -> list[Any]:
    """Run statements, and return the rows of the last one."""
    rows = list[Any]()
    async with connection.cursor() as cursor:
        for statement in statements:
            await cursor.execute(statement)
            rows = [] if cursor.description is None else list(await cursor.fetchall())
    return rows


async def ask(credential: Credential, *statements: str, database: str | None = None) -> list[Any]:
    """Run statements in a new session, and return the rows of the last one."""
    async with _session(credential, credential.database if database is None else database) as connection:
        rows = await run(connection, *statements)
        if credential.engine in MYSQL:
            await connection.ensure_closed()
        return rows


async def admin_of(cluster: Cluster, database: str | None = None) -> Credential:
    """The primary user of a cluster, in a database."""
    info = await cluster.info()
    connection = info.connection
    user = await cluster.users.get("doadmin")
    return Credential(
        name="doadmin",
        username=user.name,
        password=user.password,
        database=database or connection.database or "",
        host=connection.host or "",
        port=connection.port or 0,
        engine=info.engine,
        ca=await cluster.ca() if connection.ssl else None,
        cluster=cluster.id,
        cluster_name="tenants",
        created=datetime.now(UTC),
    )


async def refusal(credential: Credential, *statements: str, database: str | None = None) -> str:
    """The server's error for the login or a statement; ``""`` if there is none."""
    try:
        await ask(credential, *statements, database=database)
    except (psycopg.Error, pymysql.Error) as error:
        return str(error)
    return ""


async def enters(credential: Credential) -> bool:
    return not await refusal(credential, "SELECT 1")


@asynccontextmanager
async def session_of(credential: Credential) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """An open session, which runs a statement at each call."""
    async with _session(credential) as connection:
        yield partial(run, connection)


@asynccontextmanager
async def _session(credential: Credential, database: str | None = None) -> AsyncIterator[Any]:
    if credential.engine not in MYSQL:
        async with await AsyncConnection.connect(credential.uri, dbname=database, autocommit=True) as session:
            yield session
        return
    connection: Any = Session(  # aiomysql's own leaks its socket if its login is cancelled
        host=credential.host,
        port=credential.port,
        user=credential.username,
        password=credential.password or "",
        db=credential.database if database is None else database,
        charset="utf8mb4",
        autocommit=True,
        cursorclass=Cursor,  # MySQL has notes about SHOW PROCESSLIST
    )
    try:
        await connection._connect()
        yield connection
    finally:
        connection.close()
