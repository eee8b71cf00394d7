"""The connection of a PostgresStore. It commits simultaneous changes together. Needs psycopg."""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from typing import LiteralString, TypeAlias

import psycopg
from attrs import field, frozen
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from ..._libpq import one_line, options_of
from ...errors import InvalidArgumentError, StoreError
from .base import Value

Rows: TypeAlias = list[tuple[object, ...]]

_STATEMENT_TIMEOUT = 10.0  # s for a statement, including waits for locks
_BATCH_TIMEOUT = 20.0  # s for a whole batch, including the connect
_PER_BATCH = 100  # statements of one batch
# Each side notices within half a minute that the other one is gone.
_KEEPALIVE = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_SETTINGS = (
    "SELECT set_config('statement_timeout', %(timeout)s, false),"
    " set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '3', false), set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,"
    " false), to_regclass(%(table)s) IS NOT NULL"
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS {table} (
    name text COLLATE "C" PRIMARY KEY,
    record text NOT NULL,
    token text,
    owner bigint,
    started timestamptz,
    expires timestamptz
)
"""


@frozen
class _Statement:
    sql: LiteralString
    values: dict[str, Value]
    done: asyncio.Future[Rows] = field(factory=lambda: asyncio.get_running_loop().create_future())


class PostgresConnection:
    """Runs statements on one connection, in a task that lives until ``aclose``. Connects when necessary.

    Args:
        dsn: The connection string.
        table: The table.
        owner: The number of this store. The connection holds an advisory lock on it.
        make: Whether to create the table if it does not exist.

    Raises:
        InvalidArgumentError: ``dsn`` is not a connection string.
    """

    def __init__(self, dsn: str, table: str, owner: int, *, make: bool = True) -> None:
        self._dsn = _with_keepalive(dsn)
        self._table = Identifier(*table.split("."))
        self._owner = owner
        self._make = make
        self._connection: AsyncConnection[tuple[object, ...]] | None = None
        self._pending: deque[_Statement] = deque()
        self._wanted = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._work(), name="aiodbclient-store")

    def submit(self, sql: LiteralString, **values: Value) -> asyncio.Future[Rows]:
        """Run ``sql``, with the table's name for ``{table}``, together with other pending statements.

        Returns:
            The rows, once it is committed, or a StoreError.

        Raises:
            StoreError: The connection is closed.
        """
        if self._task.done():
            raise StoreError("the store in PostgreSQL is closed")
        statement = _Statement(sql, values)
        self._pending.append(statement)
        self._wanted.set()
        return statement.done

    async def aclose(self) -> None:
        """Finish what was submitted, and disconnect."""
        self._closing = True
        self._wanted.set()
        await asyncio.shield(self._task)

    async def _work(self) -> None:
        try:
            while self._pending or not self._closing:
                if not self._pending:
                    self._wanted.clear()
                    await self._wanted.wait()
                taken = [self._pending.popleft() for _ in range(min(len(self._pending), _PER_BATCH))]
                # Ordered by name, so that two stores never deadlock.
                waiting = [statement for statement in taken if not statement.done.done()]
                await self._run_batch(sorted(waiting, key=_name))
        finally:
            for statement in self._pending:
                statement.done.cancel()
            await self._disconnect()

    async def _run_batch(self, batch: list[_Statement]) -> None:
        """Run ``batch``, and give the caller of each statement its rows or its error."""
        if not batch:
            return
        try:
            async with asyncio.timeout(_BATCH_TIMEOUT):
                connection = await self._connected()
                for statement, rows in zip(batch, await self._commit(connection, batch), strict=True):
                    if not statement.done.done():
                        statement.done.set_result(rows)
        except (psycopg.DataError, ValueError) as error:
            if len(batch) == 1:
                _fail(batch, _reason(error))
                return
            for statement in batch:  # one of them has a text that the server cannot store; the others can succeed
                await self._run_batch([statement])
        except TimeoutError:
            await self._disconnect()
            _fail(batch, f"no answer within {_BATCH_TIMEOUT:.0f} s")
        except (psycopg.Error, OSError) as error:
            _fail(batch, _reason(error))
        finally:
            for statement in batch:
                statement.done.cancel()  # if this task is cancelled

    async def _commit(self, connection: AsyncConnection[tuple[object, ...]], batch: list[_Statement]) -> list[Rows]:
        async with connection.pipeline(), connection.transaction():
            cursors = [await connection.execute(self._query(statement.sql), statement.values) for statement in batch]
            return [await cursor.fetchall() for cursor in cursors]

    def _query(self, sql: LiteralString) -> bytes:
        return SQL(sql).format(table=self._table).as_bytes(None)

    async def _connected(self) -> AsyncConnection[tuple[object, ...]]:
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

    async def _set_up(self, connection: AsyncConnection[tuple[object, ...]]) -> None:
        values = {"timeout": str(int(_STATEMENT_TIMEOUT * 1000)), "table": self._table.as_string(None)}
        row = await (await connection.execute(_SETTINGS, values)).fetchone()
        await connection.execute("SELECT pg_advisory_lock_shared(%s)", [self._owner])
        if self._make and row is not None and not row[-1]:
            async with connection.transaction():
                # CREATE TABLE IF NOT EXISTS fails if two sessions run it at once.
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext('aiodbclient'), 0)")
                await connection.execute(self._query(_SCHEMA))

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _with_keepalive(dsn: str) -> str:
    options = options_of(dsn)
    if options is None:
        raise InvalidArgumentError(
            "the DSN of the store is not a connection string of PostgreSQL: postgresql://USER:PASSWORD@HOST/DB, with @ "
            "and / in the password written as %40 and %2F"
        )
    return make_conninfo("", **{**_KEEPALIVE, **options})


def _is_readable(connection: AsyncConnection[tuple[object, ...]]) -> bool:
    """Whether there is unexpected data to read: the server closed the connection, or is about to."""
    if connection.closed:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))


def _name(statement: _Statement) -> str:
    return str(statement.values.get("name", ""))


def _fail(batch: list[_Statement], why: str) -> None:
    for statement in batch:
        if not statement.done.done():
            statement.done.set_exception(StoreError(f"the store in PostgreSQL cannot be used: {why}"))


def _reason(error: Exception) -> str:
    """Return why it failed, without the server's DETAIL, which may quote a row."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{error.diag.message_primary} (SQLSTATE {error.sqlstate})"
    if isinstance(error, UnicodeError | psycopg.DataError):
        return "it cannot hold this text"
    return one_line(error)
