"""``PostgresStore``: credentials in a table of PostgreSQL, for the processes of any number of machines."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, LiteralString

from ..._masking import hidden
from ...errors import ConfigurationError, InvalidArgumentError
from ..errors import StoreError
from .codec import Key
from .sql import PARAMETERS, Rows, SQLStore, Value

try:
    import psycopg
    from psycopg import AsyncConnection, errors
    from psycopg.conninfo import make_conninfo
    from psycopg.sql import SQL, Identifier, Placeholder
except ImportError as missing:
    raise ConfigurationError(f"PostgresStore needs the extra: pip install 'aiodbclient[tenants]' ({missing})") from None

from .._libpq import one_line, options_of

_STATEMENT_TIMEOUT = 10.0  # s for a statement, including waits for locks
_TIMEOUT = 20.0  # s for a statement, including the wait for earlier ones, and the connect
# Each side notices within half a minute that the other one is gone.
_KEEPALIVE = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_SETTINGS = (
    "SELECT set_config('statement_timeout', %(timeout)s, false),"
    " set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '3', false), set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,"
    " false)"
)
# No setting changes the form of this time.
_SYNTAX = {name: Placeholder(name) for name in PARAMETERS} | {
    "now": SQL("extract(epoch FROM clock_timestamp())::float8")
}
_CREATE = """
CREATE TABLE {} (
    name text COLLATE "C" PRIMARY KEY,
    record text,
    token text,
    expires float8
)
"""
# Others may have planted the table. Who owns its schema can replace it; the owner of the database and superusers can do
# so anyway.
_TRUSTED = (
    "{} IN (SELECT oid FROM pg_roles WHERE rolsuper OR rolname IN (current_user, 'pg_database_owner')"
    " UNION SELECT datdba FROM pg_database WHERE datname = current_database())"
)
_FIND = f"""
SELECT nspname, relname, {_TRUSTED.format("nspowner")}, relname IS NULL OR {_TRUSTED.format("relowner")},
    pg_get_userbyid(nspowner), pg_get_userbyid(relowner)
FROM pg_namespace LEFT JOIN pg_class ON pg_class.oid = to_regclass(%(table)s)
WHERE pg_namespace.oid = coalesce(
    relnamespace, to_regnamespace(coalesce(%(schema)s::text, quote_ident(current_schema())))
)
"""


class PostgresStore(SQLStore):
    """Credentials in a table of PostgreSQL, for processes on any number of machines.

    It is an async context manager: entering it connects, and creates the table if there is none. When a method returns,
    its change is committed. It has one connection. Every method is safe to cancel: it makes its whole change or none of
    it. While the server is unreachable, methods raise StoreError. Afterwards they connect again by themselves.

    The claims of a process that dies are free when their leases expire, by the server's clock.

    Args:
        dsn: A connection string of libpq. Add ``sslmode=verify-full`` and ``sslrootcert=`` to verify the server. Its
            role needs SELECT, INSERT, UPDATE and DELETE on the table, and CREATE on its schema to create the table. The
            table and its schema must belong to this role, to the owner of the database or to a superuser: others could
            have planted them.
        table: The table's name, or ``schema.name``.
        key: Encrypts the credentials: a key of ``cryptography.fernet.Fernet.generate_key()``, or several: the first
            encrypts, all decrypt. None: everybody who can read the table can read the credentials.

    Raises:
        InvalidArgumentError: ``dsn`` or ``table`` is not a string, or ``key`` is not a key of Fernet. On entering:
            ``dsn`` is not a connection string.
        ConfigurationError: There is a key, and ``cryptography`` is not installed. On entering: it is open already. On
            import: psycopg is not installed.
        StoreError: On entering: the server cannot be reached or used, the table or its schema belongs to somebody else,
            or the table was written with another key.
    """

    def __init__(self, dsn: str, table: str = "aiodbclient_credentials", key: Key = None) -> None:
        dsn, key = hidden(dsn), hidden(key)
        if not isinstance(dsn, str) or not isinstance(table, str):
            raise InvalidArgumentError("dsn and table must be strings")  # not quoted: dsn may hold a password
        super().__init__(key, partial(PostgresConnection, dsn, table))
        self._table = table

    def __repr__(self) -> str:
        return f"{type(self).__name__}('********', {self._table!r})"


class PostgresConnection:
    """Runs statements one after the other on one connection, which it opens when necessary, until ``aclose``."""

    def __init__(self, dsn: str, table: str) -> None:
        self._dsn = make_conninfo("", **{**_KEEPALIVE, **options_of(dsn, "the DSN of the store")})
        self._name = table
        self._table = Identifier(*table.split("."))  # with its schema, while there is a connection
        self._connection: AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self._running = set[asyncio.Task[Rows]]()
        self._closing: asyncio.Task[None] | None = None

    def submit(self, statement: LiteralString, values: Mapping[str, Value]) -> asyncio.Task[Rows]:
        task = asyncio.create_task(self._run(statement, values), name="aiodbclient-store")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def aclose(self) -> None:
        self._closing = asyncio.create_task(self._close(), name="aiodbclient-store")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        async with self._lock:  # after all that was submitted
            await self._disconnect()

    def _ended(self, task: asyncio.Task[Rows]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # so that asyncio does not log it, if its caller was cancelled

    async def _run(self, statement: LiteralString, values: Mapping[str, Value]) -> Rows:
        try:
            async with asyncio.timeout(_TIMEOUT), self._lock:
                try:
                    connection = await self._connected()
                    cursor = await connection.execute(SQL(statement).format(table=self._table, **_SYNTAX), values)
                    return await cursor.fetchall()
                except asyncio.CancelledError:  # by the timeout, or when the event loop ends
                    await self._disconnect()
                    raise
        except TimeoutError:
            reason = f"no answer within {_TIMEOUT:.0f} s"
        except (psycopg.Error, OSError, ValueError) as error:
            reason = _reason(error)
        raise _unusable(reason)

    async def _connected(self) -> AsyncConnection[Any]:
        """Return the connection if it still works, otherwise a new one."""
        if self._connection is None or not _is_usable(self._connection):
            await self._disconnect()
            self._connection = await AsyncConnection.connect(self._dsn, autocommit=True)
            try:
                await self._connection.execute(_SETTINGS, {"timeout": str(int(_STATEMENT_TIMEOUT * 1000))})
                self._table = await _own_table(self._connection, self._name)
            except BaseException:
                await self._disconnect()  # so that no statement runs on a table or a search_path that was not checked
                raise
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def _own_table(connection: AsyncConnection[Any], name: str) -> Identifier:
    """Find or create the table ``name`` or ``schema.name``, and return its whole name.

    Raises StoreError if others could have planted it.
    """
    schema, _, table = name.rpartition(".")
    values = {
        "table": Identifier(*name.split(".")).as_string(None),
        "schema": Identifier(schema).as_string(None) if schema else None,
    }
    for _ in range(2):
        row = await (await connection.execute(_FIND.encode(), values)).fetchone()
        if row is None:
            raise _unusable(f"there is no schema {values['schema']}" if schema else "search_path has no schema")
        found_in, found, is_own_schema, is_own_table, *owners = row
        if not (is_own_schema and is_own_table):
            what = f"the table {found_in}.{found}" if is_own_schema else f"the schema {found_in}"
            instead = "drop it" if is_own_schema else "drop it, or take it out of search_path"
            reads = "could read and change what is stored there"
            raise _unusable(f"{what} belongs to {owners[is_own_schema]}, who {reads}: {instead}")
        if found:
            # No function or operator that others have planted is called.
            await connection.execute("SELECT set_config('search_path', 'pg_catalog', false)")
            return Identifier(found_in, found)
        with suppress(errors.UniqueViolation, errors.DuplicateObject, errors.DuplicateTable):  # another session's
            await connection.execute(SQL(_CREATE).format(Identifier(found_in, table)))
    raise _unusable(f"another session drops the table {name}, or there is a type of that name")


def _is_usable(connection: AsyncConnection[Any]) -> bool:
    """Whether the connection is open, and nothing that nobody asked for can be read, such as the reason for its end."""
    if connection.closed:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return not selector.select(0)


def _unusable(reason: str) -> StoreError:
    return StoreError(f"cannot use the store in PostgreSQL: {reason}")


def _reason(error: Exception) -> str:
    """Return why it failed, without the server's DETAIL, which may quote a row."""
    if isinstance(error, UnicodeError) or (isinstance(error, psycopg.DataError) and not error.sqlstate):
        return "it cannot hold this text"
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{error.diag.message_primary} (SQLSTATE {error.sqlstate})"
    return one_line(error)
