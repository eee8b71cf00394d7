"""``PostgresServer``: connections to the PostgreSQL of a cluster, as its superuser. Needs psycopg."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier, Literal

from .._libpq import options_of
from ._answers import Refusal, not_found
from ._backends import derived_password
from ._embedded import OWN_DATABASE, POOL, RESERVED, SUPERUSER, EmbeddedPostgres
from ._postgres_provider import hide_database, warn
from ._reach import LOOPBACK

_log = logging.getLogger("aiodbclient.sandbox")
_CONNECTIONS = 8
_CONNECT_TRIES = 100
_EMPTY_SECONDS = 5.0

_ABOUT = SQL("SELECT rolsuper, current_setting('password_encryption') FROM pg_roles WHERE rolname = current_user")
# Everything that initdb did not create: its oids are below 16384 (FirstNormalObjectId).
_MADE_DATABASES = SQL("SELECT datname FROM pg_database WHERE oid >= 16384")
_MADE_ROLES = SQL("SELECT rolname FROM pg_roles WHERE oid >= 16384")
_SESSIONS = SQL(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()"
)
_CLIENTS = SQL("{} AND usename <> {}").format(_SESSIONS, Literal(SUPERUSER))
# What PostgreSQL says with XX000 of a role that SQL dropped while a statement worked on it.
_DROPPED = re.compile("tuple concurrently deleted|cache lookup failed for role|could not find tuple for role")
_SLOTS = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"

Row = tuple[Any, ...]


class PostgresServer:
    """The server of a DSN, or an embedded server that starts and stops with this object."""

    def __init__(self, server: EmbeddedPostgres | str) -> None:
        self.embedded = None if isinstance(server, str) else server
        self._dsn = server if isinstance(server, str) else ""
        self.host, self.port = LOOPBACK, 0
        self.database = ""  # of the DSN
        self.password = ""  # of the primary user on the server of a DSN
        self.version = ""
        self.major = 0
        self.password_encryption = ""
        self.tls = False
        self.ca: str | None = None
        self._idle: list[AsyncConnection[Row]] = []
        is_small = self.embedded is not None and "max_connections" in self.embedded.settings
        self._most_idle = 0 if is_small else _CONNECTIONS
        self._turns = asyncio.Semaphore(RESERVED if is_small else _CONNECTIONS)

    async def start(self) -> None:
        """Start the embedded server, or connect to the server of the DSN."""
        if self.embedded is not None:
            await self.embedded.start()
        elif options_of(self._dsn) is None:
            raise RuntimeError(
                "the DSN is not a PostgreSQL connection string: write postgresql://USER:PASSWORD@HOST/DB, "
                "with %40 for @ and %2F for / in the password"
            )
        try:
            if self.embedded is not None:
                await self._open_embedded(self.embedded)
            connection = await self.connect()
            self._idle.append(connection)
            [(superuser, self.password_encryption)] = await rows(connection, _ABOUT)
        except psycopg.Error as error:
            which = "embedded PostgreSQL" if self.embedded else "the PostgreSQL server of the DSN"
            raise RuntimeError(f"{which} cannot be used: {error}") from None
        info = connection.info
        self.version = (info.parameter_status("server_version") or "0").split()[0]  # a distribution may append text
        self.major = info.server_version // 10_000
        if self.embedded is not None:
            authority = self.embedded.authority
            self.host, self.port, self.tls = self.embedded.reach.public_host, self.embedded.port, authority is not None
            self.ca = authority.certificate() if authority else None
            return
        self.tls = connection.pgconn.ssl_in_use
        self.ca = _verifying_ca(connection)
        self.host, self.port, self.database = info.host or info.hostaddr, info.port, info.dbname
        self.password = derived_password(info.user, info.password)
        if not superuser:
            raise RuntimeError(f"the DSN's role {info.user!r} must be a superuser to change other roles")
        await warn(connection)

    async def _open_embedded(self, embedded: EmbeddedPostgres) -> None:
        """Give a new server the databases of the provider."""
        if embedded.own_database != OWN_DATABASE:
            template = _superusers_dsn(embedded, "template1")
            async with await AsyncConnection.connect(template, autocommit=True) as session:
                await hide_database(session)
            embedded.own_database = OWN_DATABASE
        self._dsn = _superusers_dsn(embedded, OWN_DATABASE)

    async def log_in(self, user: str, password: str, database: str) -> None:
        """Log in as a role, or raise psycopg.OperationalError."""
        await (await AsyncConnection.connect(self._dsn, user=user, password=password, dbname=database)).close()

    async def stop(self) -> None:
        """Close the connections, and stop the embedded server or pool it for the next cluster."""
        embedded, kept = self.embedded, False
        try:
            while self._idle:
                await self._idle.pop().close()
            if embedded is not None and POOL.is_open and self._dsn and not embedded.has_failed():
                kept = await self._empty(embedded) and POOL.give(embedded)
        finally:
            if embedded is not None and not kept:
                await embedded.stop()

    async def _empty(self, embedded: EmbeddedPostgres) -> bool:
        """Remove everything that was created on an embedded server, or return False."""
        if embedded.data is not None:
            return False
        try:
            embedded.ask(faults=[], open=True)
            async with asyncio.timeout(_EMPTY_SECONDS), await self.connect() as connection:
                while await rows(connection, _SESSIONS):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
                await connection.execute(_SLOTS)
                for (name,) in await rows(connection, _MADE_DATABASES):
                    await connection.execute(SQL("ALTER DATABASE {} IS_TEMPLATE false").format(Identifier(name)))
                    await connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
                roles = SQL(", ").join([Identifier(name) for (name,) in await rows(connection, _MADE_ROLES)])
                await connection.execute(SQL("DROP ROLE {}").format(roles))
                await connection.execute(_SESSIONS)  # sessions that began meanwhile
        except (psycopg.Error, TimeoutError, RuntimeError) as error:
            _log.info("cannot empty an embedded PostgreSQL, so it is stopped: %s", type(error).__name__)
            return False
        embedded.is_new = True
        return True

    async def let_in(self, clients: bool, *, graceful: bool = False) -> None:
        """``Backend.let_in`` of an embedded server."""
        assert self.embedded is not None
        await asyncio.to_thread(self.embedded.ask, open=clients, sessions=not graceful)
        if clients:
            return
        async with self.connection() as connection:
            while await rows(connection, _CLIENTS):  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def connect(self, database: str | None = None) -> AsyncConnection[Row]:
        """Connect to ``database``, or to the maintenance database."""
        where = self._dsn if database is None else make_conninfo(self._dsn, dbname=database)
        for _ in range(_CONNECT_TRIES - 1):
            try:
                return await AsyncConnection.connect(where, autocommit=True)
            except psycopg.OperationalError as error:
                if "too many clients" not in str(error):
                    raise
                await asyncio.sleep(0.01)  # a server with few slots still ends a session that was closed
        return await AsyncConnection.connect(where, autocommit=True)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection[Row]]:
        """Borrow one of ``_CONNECTIONS`` connections, and turn an unexpected error of PostgreSQL into the API's 500."""
        async with self._turns:
            try:
                connection = self._idle.pop() if self._idle else await self.connect()
                try:
                    yield connection
                finally:
                    if connection.closed or len(self._idle) >= self._most_idle:
                        await connection.close()
                    else:
                        self._idle.append(connection)
            except psycopg.Error as error:
                if isinstance(error, psycopg.errors.UndefinedObject) or _DROPPED.search(str(error)):
                    raise not_found() from None
                _log.warning(
                    "PostgreSQL failed an operation of the sandbox: %s %s", type(error).__name__, error.sqlstate
                )
                raise Refusal(500, "Unexpected server-side error") from None


def _superusers_dsn(server: EmbeddedPostgres, database: str) -> str:
    return make_conninfo(
        host=LOOPBACK,
        port=server.inner_port,
        user=SUPERUSER,
        password=server.password,
        dbname=database,
        sslmode="disable",
        gssencmode="disable",
    )


def _verifying_ca(connection: AsyncConnection[Row]) -> str | None:
    file = Path(connection.info.get_parameters().get("sslrootcert", ""))
    return file.read_text() if file.is_file() else None


async def rows(connection: AsyncConnection[Row], query: Composed | SQL) -> list[Row]:
    """Execute ``query`` and return all rows."""
    return await (await connection.execute(query)).fetchall()
