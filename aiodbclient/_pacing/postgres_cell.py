"""A text in PostgreSQL. Needs psycopg, of the extra ``tenants``."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from .._libpq import one_line, options_of
from .._own_table import NotOwnError, own_table
from ..errors import InvalidArgumentError
from .cells import LARGEST, Cell
from .fleet import CellError

# Not logged: after a crash it is empty, and the processes report again.
_TABLE = "aiodbclient_budgets"
_COLUMNS: LiteralString = '(key text COLLATE "C" PRIMARY KEY, state text NOT NULL)'
_SETTINGS = "SELECT set_config('statement_timeout', %s, false), set_config('synchronous_commit', 'off', false)"
_READ = SQL(
    "SELECT coalesce((SELECT left(state, {}) FROM {} WHERE key = %s), ''),"
    " extract(epoch FROM clock_timestamp())::float8"
)
_SWAP = SQL(
    "INSERT INTO {1} AS held VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET state = excluded.state"
    " WHERE left(held.state, {0}) = %s"
)
_MISTAKES = ("28000", "28P01", "3D000", "3F000", "42501")
# Where the server refuses a connection, libpq has only its text.
_REFUSALS = re.compile(
    "authentication failed|does not exist|no pg_hba.conf entry|permission denied|certificate|does not support SSL"
)


class PostgresCell(Cell):
    """The text in one row of the table ``aiodbclient_budgets``."""

    def __init__(self, url: str, key: str, timeout: float) -> None:
        options = options_of(url)
        if options is None:
            raise InvalidArgumentError(
                "url must be like postgresql://USER:PASSWORD@HOST/DB, with @ and / in the password written as %40 and "
                "%2F"
            )
        self.where = f"{options.get('host', 'localhost')}:{options.get('port', 5432)}"
        self._dsn = make_conninfo("", **{"application_name": "aiodbclient-budget", **options})
        self._key = key
        self._milliseconds = str(max(1, round(timeout * 1000)))
        self._connection: AsyncConnection[Any] | None = None
        self._table = Identifier(_TABLE)  # with its schema, once it is known

    async def aclose(self) -> None:
        """As for ``Cell``."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _exchange(self, held: str | None, text: str) -> tuple[str, float] | None:
        if held is not None and (await self._run(_SWAP, self._key, text, held)).rowcount == 1:
            return None
        return await (await self._run(_READ, self._key)).fetchone()

    async def _run(self, statement: SQL, *values: str) -> AsyncCursor[Any]:
        # psycopg does not give up at once what it waits for, but it sees the end of its socket.
        running = asyncio.create_task(self._execute(statement, values))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if self._connection is None:
                running.cancel()
            else:
                _shut_down(self._connection)
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()
            raise

    async def _execute(self, statement: SQL, values: tuple[str, ...]) -> AsyncCursor[Any]:
        try:
            connection = await self._connected()
            return await connection.execute(statement.format(LARGEST + 1, self._table), values)
        except BaseException as error:
            await self.aclose()
            if isinstance(error, psycopg.Error | OSError | UnicodeError | NotOwnError):
                raise _cell_error(error) from None
            raise

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(self._dsn, autocommit=True)
            await self._connection.execute(_SETTINGS, [self._milliseconds])
            self._table = await own_table(self._connection, _TABLE, _COLUMNS, unlogged=True)
        return self._connection


def _shut_down(connection: AsyncConnection[Any]) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as link:
        link.shutdown(socket.SHUT_RDWR)


def _cell_error(error: Exception) -> CellError:
    why = one_line(error)
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        why = f"{error.diag.message_primary} (SQLSTATE {state})"  # without its DETAIL, which may quote a row
    if state == "42501":
        why += f"; as the owner of the database: CREATE UNLOGGED TABLE {_TABLE} {_COLUMNS};"
        why += f" GRANT SELECT, INSERT, UPDATE ON {_TABLE} TO ..."
    refused = isinstance(error, psycopg.OperationalError) and state is None and _REFUSALS.search(why) is not None
    return CellError(why, lasting=refused or state in _MISTAKES or isinstance(error, NotOwnError))
