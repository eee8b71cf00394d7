"""A text in PostgreSQL. Needs psycopg, of the extra ``tenants``."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from psycopg.waiting import wait_async

from ..tenants._libpq import checked_options, reason_of
from ..tenants._own_table import NotOwnError, own_table
from .cells import LARGEST, Step
from .fleet import CellError

# Not logged: after a crash it is empty, and the processes report again.
_TABLE = "aiodbclient_budgets"
_COLUMNS: LiteralString = '(key text COLLATE "C" PRIMARY KEY, state text NOT NULL)'
_SETTINGS = (
    "SELECT set_config('statement_timeout', %(ms)s, false), set_config('synchronous_commit', 'off', false),"
    " set_config('idle_in_transaction_session_timeout', %(ms)s, false)"
)
# The clock is read when the row is locked.
_BEGIN = SQL(
    "BEGIN; INSERT INTO {0} VALUES (%(key)s, '') ON CONFLICT DO NOTHING;"
    " WITH held AS MATERIALIZED (SELECT state FROM {0} WHERE key = %(key)s FOR UPDATE)"
    " SELECT left(state, %(most)s), extract(epoch FROM clock_timestamp())::float8 FROM held"
)
_COMMIT = SQL("UPDATE {} SET state = %s WHERE key = %s; COMMIT")


class _Connection(AsyncConnection[Any]):
    """A connection that a cancelled task leaves at once, and then closes."""

    async def wait(self, gen: PQGen[RV], *_: Any, **__: Any) -> RV:
        # psycopg's own would first ask the server to cancel the statement, and wait for its answer.
        return await wait_async(gen, self.pgconn.socket, interval=0.1)


class PostgresCell:
    """The text in one row of the table ``aiodbclient_budgets``, which is locked while it is changed."""

    def __init__(self, url: str, key: str, timeout: float) -> None:
        options = checked_options("url", url)
        self.where = f"{options.get('host', 'localhost')}:{options.get('port', 5432)}"
        self._dsn = make_conninfo("", **{"application_name": "aiodbclient-budget", **options})
        self._key = key
        self._milliseconds = str(max(1, round(timeout * 1000)))
        self._connection: AsyncConnection[Any] | None = None
        self._table = Identifier(_TABLE)  # with its schema, once it is known

    async def change(self, step: Step) -> None:
        try:
            connection = await self._connected()
            text = step(*await self._begin(connection))
            await connection.execute(_COMMIT.format(self._table), [text, self._key])
        except BaseException as error:
            await self.aclose()
            if isinstance(error, psycopg.Error | OSError | UnicodeError | NotOwnError):
                raise _cell_error(error) from None
            raise

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _begin(self, connection: AsyncConnection[Any]) -> tuple[str, float]:
        """Lock the row, and return its text and the time."""
        cursor = await connection.execute(_BEGIN.format(self._table), {"key": self._key, "most": LARGEST + 1})
        while cursor.nextset():
            pass
        text, now = await cursor.fetchone() or ("", 0.0)
        return text, now

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            # This cursor sends several statements in one round trip.
            connection = await _Connection.connect(self._dsn, autocommit=True, cursor_factory=AsyncClientCursor)
            self._connection = connection
            await connection.execute(_SETTINGS, {"ms": self._milliseconds})
            self._table = await own_table(connection, _TABLE, _COLUMNS, unlogged=True)
        return self._connection


def _cell_error(error: Exception) -> CellError:
    why = reason_of(error)
    if getattr(error, "sqlstate", None) == "42501":
        why += f"; as the owner of the database: CREATE UNLOGGED TABLE {_TABLE} {_COLUMNS};"
        why += f" GRANT SELECT, INSERT, UPDATE ON {_TABLE} TO ..."
    return CellError(why, lasting=isinstance(error, NotOwnError))
