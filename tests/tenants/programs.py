"""A tenant's own program: it logs in with its credential, on PostgreSQL or MySQL, and runs SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pymysql
from psycopg import AsyncConnection

from aiodbclient.engines import MYSQL
from aiodbclient.tenants import Credential
from aiodbclient.tenants._servers.mysql.session import Cursor, Session


async def ask(credential: Credential, *statements: str, database: str | None = None) -> list[Any]:
    """Run statements in a new session, and return the rows of the last one."""
    database = credential.database if database is None else database
    if credential.engine in MYSQL:
        return await _ask_mysql(credential, database, statements)
    async with await AsyncConnection.connect(credential.uri, dbname=database, autocommit=True) as connection:
        cursor = None
        for statement in statements:
            cursor = await connection.execute(statement)
        return [] if cursor is None or cursor.description is None else await cursor.fetchall()


async def refusal(credential: Credential, *statements: str, database: str | None = None) -> str:
    """The server's error for the login or a statement; ``""`` if there is none."""
    try:
        await ask(credential, *statements, database=database)
    except (psycopg.Error, pymysql.Error) as error:
        return str(error)
    return ""


@asynccontextmanager
async def session_of(credential: Credential) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """An open session, which runs a statement at each call."""
    if credential.engine in MYSQL:
        async with _mysql_session(credential, credential.database) as connection, connection.cursor() as cursor:
            yield cursor.execute
        return
    async with await AsyncConnection.connect(credential.uri, autocommit=True) as connection:
        yield lambda statement: connection.execute(statement.encode())


async def _ask_mysql(credential: Credential, database: str | None, statements: tuple[str, ...]) -> list[Any]:
    async with _mysql_session(credential, database) as connection:
        async with connection.cursor() as cursor:
            rows: list[Any] = []
            for statement in statements:
                await cursor.execute(statement)
                rows = list(await cursor.fetchall())
        await connection.ensure_closed()
        return rows


@asynccontextmanager
async def _mysql_session(credential: Credential, database: str | None) -> AsyncIterator[Any]:
    connection: Any = Session(  # aiomysql's own leaks its socket if its login is cancelled
        host=credential.host,
        port=credential.port,
        user=credential.username,
        password=credential.password or "",
        db=database,
        charset="utf8mb4",
        autocommit=True,
        cursorclass=Cursor,  # MySQL has notes about SHOW PROCESSLIST
    )
    try:
        await connection._connect()
        yield connection
    finally:
        connection.close()
