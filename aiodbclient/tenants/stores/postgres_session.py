"""The one connection of a PostgresStore: it commits together what is asked at the same time. Needs psycopg."""

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

Value: TypeAlias = str | int | float
Rows: TypeAlias = list[tuple[object, ...]]

_TIMEOUT = 10.0  # s for a statement, waiting for locks included
_PATIENCE = 20.0  # s for all of a batch, connecting included
_AT_ONCE = 100  # statements of one batch
# So that a server which vanished is noticed within half a minute, on both sides.
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
class _Job:
    statement: LiteralString
    values: dict[str, Value]
    done: asyncio.Future[Rows] = field(factory=lambda: asyncio.get_running_loop().create_future())


class Session:
    """Runs statements by one connection, which it makes when it needs one. Its task lives until ``aclose``.

    Raises:
        InvalidArgumentError: ``dsn`` is no connection string.
    """

    def __init__(self, dsn: str, table: str, owner: int) -> None:
        self._dsn = _with_keepalive(dsn)
        self._table = Identifier(*table.split("."))
        self._owner = owner
        self._connection: AsyncConnection[tuple[object, ...]] | None = None
        self._jobs: deque[_Job] = deque()
        self._wanted = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._work(), name="aiodbclient-store")

    def submit(self, statement: LiteralString, **values: Value) -> asyncio.Future[Rows]:
        """The rows that ``statement`` returns, once they are committed. Raises StoreError."""
        if self._task.done():
            raise StoreError("the store in PostgreSQL is closed")
        job = _Job(statement, values)
        self._jobs.append(job)
        self._wanted.set()
        return job.done

    async def aclose(self) -> None:
        """Finish what was submitted, and disconnect."""
        self._closing = True
        self._wanted.set()
        await asyncio.shield(self._task)

    async def _work(self) -> None:
        try:
            while self._jobs or not self._closing:
                if not self._jobs:
                    self._wanted.clear()
                    await self._wanted.wait()
                taken = [self._jobs.popleft() for _ in range(min(len(self._jobs), _AT_ONCE))]
                # In the order of the names, so that two stores never wait for rows of each other.
                await self._settle(sorted((job for job in taken if not job.done.done()), key=_name))
        finally:
            for job in self._jobs:
                job.done.cancel()
            await self._disconnect()

    async def _settle(self, batch: list[_Job]) -> None:
        """Run ``batch`` and tell each of its jobs how it went."""
        if not batch:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                connection = await self._connected()
                for job, rows in zip(batch, await self._commit(connection, batch), strict=True):
                    if not job.done.done():
                        job.done.set_result(rows)
        except (psycopg.DataError, ValueError) as error:
            if len(batch) == 1:
                _fail(batch, _told(error))
            for job in batch if len(batch) > 1 else ():  # a text that the server cannot hold is the fault of one alone
                await self._settle([job])
        except TimeoutError:
            await self._disconnect()
            _fail(batch, f"no answer within {_PATIENCE:.0f} s")
        except (psycopg.Error, OSError) as error:
            _fail(batch, _told(error))
        finally:
            for job in batch:
                job.done.cancel()  # where this task is cancelled

    async def _commit(self, connection: AsyncConnection[tuple[object, ...]], batch: list[_Job]) -> list[Rows]:
        async with connection.pipeline(), connection.transaction():
            cursors = [await connection.execute(self._query(job.statement), job.values) for job in batch]
            return [await cursor.fetchall() for cursor in cursors]

    def _query(self, statement: LiteralString) -> bytes:
        return SQL(statement).format(table=self._table).as_bytes(None)

    async def _connected(self) -> AsyncConnection[tuple[object, ...]]:
        """The connection: the one there is where it still works, or a new one."""
        if self._connection is not None and _has_something_to_say(self._connection):
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
        values = {"timeout": str(int(_TIMEOUT * 1000)), "table": self._table.as_string(None)}
        row = await (await connection.execute(_SETTINGS, values)).fetchone()
        await connection.execute("SELECT pg_advisory_lock_shared(%s)", [self._owner])
        if row is not None and not row[-1]:
            async with connection.transaction():
                # CREATE TABLE IF NOT EXISTS fails where two do it at once.
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
            "the DSN of the store is no connection string of PostgreSQL: postgresql://USER:PASSWORD@HOST/DB, with @ "
            "and / in the password written as %40 and %2F"
        )
    return make_conninfo("", **{**_KEEPALIVE, **options})


def _has_something_to_say(connection: AsyncConnection[tuple[object, ...]]) -> bool:
    """Whether there is something to read, unasked: a server that goes away says so, or closes the socket."""
    if connection.closed:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))


def _name(job: _Job) -> str:
    return str(job.values.get("name", ""))


def _fail(batch: list[_Job], why: str) -> None:
    for job in batch:
        if not job.done.done():
            job.done.set_exception(StoreError(f"the store in PostgreSQL cannot be used: {why}"))


def _told(error: Exception) -> str:
    """What went wrong, without the server's DETAIL, which may quote a row."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{error.diag.message_primary} (SQLSTATE {error.sqlstate})"
    if isinstance(error, UnicodeError | psycopg.DataError):
        return "it cannot hold this text"
    return one_line(error)
