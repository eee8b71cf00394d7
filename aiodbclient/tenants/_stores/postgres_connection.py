"""The connection of a PostgresStore. Needs psycopg."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from .._libpq import checked_options, reason_of
from .._own_table import NotOwnError, own_table
from ..errors import StoreError
from .base import Rows, Value

_STATEMENT_TIMEOUT = 10.0  # s for a statement, including waits for locks
_TIMEOUT = 20.0  # s for a statement, including the connect
# Each side notices within half a minute that the other one is gone.
_KEEPALIVE = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_SETTINGS = (
    "SELECT set_config('statement_timeout', %(timeout)s, false),"
    " set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '3', false), set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,"
    " false)"
)
_COLUMNS: LiteralString = """(
    name text COLLATE "C" PRIMARY KEY,
    record text NOT NULL,
    token text,
    expires timestamptz
)
"""


class PostgresConnection:
    """Runs statements one after the other on one connection, until ``aclose``. It connects when necessary."""

    def __init__(self, dsn: str, table: str) -> None:
        self._dsn = _with_keepalive(dsn)
        self._name = table
        self._table = Identifier(*table.split("."))  # with its schema, while there is a connection
        self._connection: AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._running = set[asyncio.Task[Rows]]()
        self._closing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Do nothing: the first statement connects."""

    def submit(self, sql: LiteralString, values: Mapping[str, Value]) -> asyncio.Task[Rows]:
        """Run ``sql`` as a task, with the table for ``{table}``."""
        if self._closing is not None:
            raise StoreError("the store in PostgreSQL is closed")
        task = asyncio.create_task(self._run(sql, values), name="aiodbclient-store")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def aclose(self) -> None:
        """Finish what was submitted, and disconnect."""
        self._closing = self._closing or asyncio.create_task(self._close(), name="aiodbclient-store")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if self._running:
                await asyncio.wait(self._running)
        finally:
            await self._disconnect()

    def _ended(self, task: asyncio.Task[Rows]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # so that asyncio does not log it, if its caller was cancelled

    async def _run(self, sql: LiteralString, values: Mapping[str, Value]) -> Rows:
        async with self._turn:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    connection = await self._connected()
                    cursor = await connection.execute(SQL(sql).format(table=self._table), values)
                    return await cursor.fetchall()
            except TimeoutError:
                await self._disconnect()
                reason = f"no answer within {_TIMEOUT:.0f} s"
            except (psycopg.Error, OSError, ValueError, NotOwnError) as error:
                reason = _reason(error)
        raise StoreError(f"cannot use the store in PostgreSQL: {reason}")

    async def _connected(self) -> AsyncConnection[Any]:
        """Return the connection if it still works, otherwise a new one."""
        if self._connection is not None and _is_readable(self._connection):
            try:
                await self._connection.execute("")
            except psycopg.Error:
                await self._disconnect()
        if self._connection is None or self._connection.closed:
            await self._disconnect()
            self._connection = await AsyncConnection.connect(self._dsn, autocommit=True)
            await self._connection.execute(_SETTINGS, {"timeout": str(int(_STATEMENT_TIMEOUT * 1000))})
            self._table = await own_table(self._connection, self._name, _COLUMNS)
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _with_keepalive(dsn: str) -> str:
    return make_conninfo("", **{**_KEEPALIVE, **checked_options("the DSN of the store", dsn)})


def _is_readable(connection: AsyncConnection[Any]) -> bool:
    """Whether there is unexpected data to read: the server closed the connection, or is about to."""
    if connection.closed:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError) or (isinstance(error, psycopg.DataError) and not error.sqlstate):
        return "it cannot hold this text"
    return reason_of(error)
