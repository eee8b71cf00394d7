"""The connection of a PostgresStore. Needs psycopg."""

from __future__ import annotations

import asyncio
import secrets
import selectors
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composable, Identifier, Literal

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
    owner bigint,
    started timestamptz,
    expires timestamptz
)
"""
_REFUSE_CHANGES: LiteralString = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF current_setting(''aiodbclient.copies'', true) IS DISTINCT FROM ''on'' THEN'
    '    RAISE EXCEPTION ''it %'', TG_ARGV[0]; END IF; RETURN NULL; END';
CREATE OR REPLACE TRIGGER refuses BEFORE INSERT OR UPDATE OR DELETE ON {table} EXECUTE FUNCTION {function}({why})
"""
_REFUSAL = """
SELECT convert_from(substr(tgargs, 1, length(tgargs) - 1), 'UTF8') FROM pg_trigger
WHERE tgname = 'refuses' AND tgrelid = to_regclass({name})
"""
# The connection of a living store holds a shared advisory lock on its own number, the ``owner`` of its claims. A
# restart of the server ends the locks but not the stores. So claims from before it are free when their lease expires.
_CLAIM = """
INSERT INTO {table} AS known (name, record, token, owner, started, expires)
VALUES (%(name)s, %(record)s, %(token)s, %(owner)s, pg_postmaster_start_time(),
    clock_timestamp() + make_interval(secs => %(lease)s))
ON CONFLICT (name) DO UPDATE SET
    token = excluded.token, owner = excluded.owner, started = excluded.started, expires = excluded.expires
WHERE known.token IS NULL
    OR known.expires <= clock_timestamp()
    OR known.started = pg_postmaster_start_time() AND NOT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND classid::bigint << 32 | objid::bigint = known.owner
    )
RETURNING record
"""
_IGNORE_REFUSAL = "SET aiodbclient.copies = 'on'"


class PostgresConnection:
    """Runs statements one after the other on one connection, until ``aclose``. It connects when necessary."""

    def __init__(self, dsn: str, table: str, *, make: bool = True) -> None:
        self._dsn = _with_keepalive(dsn)
        self._name = table
        self._table = Identifier(*table.split("."))  # with its schema, while there is a connection
        self._make = make
        self._ignores_refusal = False
        self._owner = secrets.randbits(63)  # the connection holds an advisory lock on it
        self._connection: AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._running = set[asyncio.Task[Rows]]()
        self._closing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Do nothing: the first statement connects."""

    async def fetch(self, sql: LiteralString, **values: Value) -> Rows:
        """Run ``sql`` and return its rows, once it is committed. If this is cancelled, it is run all the same."""
        return await asyncio.shield(self.change_soon(sql, **values))

    async def change(self, sql: LiteralString, **values: Value) -> bool:
        """Run a change that returns what it affected."""
        return bool(await self.fetch(sql, **values))

    def change_soon(self, sql: LiteralString, **values: Value) -> asyncio.Task[Rows]:
        """Run ``sql`` as a task, with the table for ``{table}`` and this store's number for ``%(owner)s``."""
        if self._closing is not None:
            raise StoreError("the store in PostgreSQL is closed")
        task = asyncio.create_task(self._run(sql, values), name="aiodbclient-store")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def claim(self, name: str, token: str, lease: float, new: str) -> str | None:
        """Claim ``name``, unless a living store holds it."""
        rows = await self.fetch(_CLAIM, name=name, record=new, token=token, lease=lease)
        return rows[0][0] if rows else None

    async def refuse_changes(self, why: str) -> None:
        """Make the store refuse every change from now on, also of other processes."""
        beside: Any = f'{self._table.as_string(None)[:-1]}_refuses"'
        await self._run(_REFUSE_CHANGES, None, function=SQL(beside), why=Literal(why))

    async def refusal(self) -> str | None:
        """Return why the store refuses changes; None if it does not."""
        rows = await self.fetch(_REFUSAL)
        return str(rows[0][0]) if rows else None

    async def ignore_refusal(self) -> None:
        """Let this connection alone change the store nevertheless."""
        self._ignores_refusal = True
        await self.fetch(_IGNORE_REFUSAL)

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

    async def _run(self, sql: LiteralString, values: dict[str, Value] | None, **parts: Composable) -> Rows:
        async with self._turn:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    connection = await self._connected()
                    given = None if values is None else {**values, "owner": self._owner}
                    name = Literal(self._table.as_string(None))
                    statement = SQL(sql).format(table=self._table, name=name, **parts)
                    cursor = await connection.execute(statement, given)
                    return await cursor.fetchall() if cursor.description else []
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
            await self._set_up(self._connection)
        return self._connection

    async def _set_up(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_SETTINGS, {"timeout": str(int(_STATEMENT_TIMEOUT * 1000))})
        while not await self._lock(connection):
            self._owner = secrets.randbits(63)  # everybody sees the number in pg_locks, and can lock it
        if self._ignores_refusal:
            await connection.execute(_IGNORE_REFUSAL)
        self._table = await own_table(connection, self._name, _COLUMNS if self._make else None)

    async def _lock(self, connection: AsyncConnection[Any]) -> bool:
        locked = await (await connection.execute("SELECT pg_try_advisory_lock_shared(%s)", [self._owner])).fetchone()
        return locked == (True,)

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
