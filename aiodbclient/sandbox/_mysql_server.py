"""``MySQLServer``: statements to the MySQL or MariaDB server of a DSN. Needs aiomysql."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote

import pymysql
from attrs import frozen
from pymysql.constants import CR, ER

from .._aiomysql import NOT_MYSQL, Connection, Cursor
from .._dsn import mysql_parts
from ..models import MySQLAuthPlugin
from ._backends import PRIMARY, derived_password

_log = logging.getLogger("aiodbclient.sandbox")
_CONNECTIONS = 8
_CONNECT_SECONDS = 5
_LOCK_SECONDS = 5
_SYSTEM_USERS = frozenset(
    {"", "root", "mysql", "mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "debian-sys-maint"}
)
SYSTEM_DBS = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
# The server-wide rights of doadmin and of the API's users, besides all rights in every schema, WITH GRANT OPTION: no
# right of an administrator, such as SUPER, CONNECTION_ADMIN or SYSTEM_USER. See docs/why/provider.md.
_SERVER_RIGHTS = frozenset(
    {"CREATE USER", "EVENT", "PROCESS", "RELOAD", "REPLICATION CLIENT", "REPLICATION SLAVE", "SHOW DATABASES"}
)
_OF_MYSQL = "CREATE ROLE", "DROP ROLE"
_DYNAMIC = "REPLICATION_APPLIER, ROLE_ADMIN"  # of MySQL alone
# What they may not do in these schemas, where the server has partial revokes.
_GUARDED = ("mysql", "sys")
_READS = frozenset({"SELECT", "SHOW VIEW"})
# The settings of the provider's servers that tenants notice, and what this looks for in their values.
_SETTINGS = {
    "partial_revokes": {"1"},
    "sql_require_primary_key": {"1"},
    "sql_mode": {"ANSI_QUOTES", "PIPES_AS_CONCAT", "ONLY_FULL_GROUP_BY", "STRICT_ALL_TABLES"},
}
# A MySQL role is an account that CREATE ROLE leaves locked, expired and without a secret (manual, "CREATE ROLE").
_NO_ROLE = "NOT (account_locked = 'Y' AND password_expired = 'Y' AND authentication_string = '')"


@frozen
class MySQLAccount:
    """A row of ``mysql.user``, of which a user of the API has one per host that it may connect from."""

    name: str
    host: str
    plugin: str
    secret: str


class MySQLServer:
    """At most ``_CONNECTIONS`` connections to the server, each of which is opened again if it is lost."""

    def __init__(self, dsn: str) -> None:
        parts = mysql_parts(dsn)
        if parts is None:
            raise ValueError(
                "the DSN must have the form mysql://USER:PASSWORD@HOST:PORT, with / ? and # in the password written as "
                "%2F, %3F and %23; add ?ssl-ca=FILE to verify the server"
            )
        options = dict(parse_qsl(parts.query))
        self.host, self.port = parts.hostname or "", parts.port or 3306
        self.database = unquote(parts.path.removeprefix("/"))
        self.ca_file = options.get("ssl-ca")  # verifies the server
        self._login, self._login_password = unquote(parts.username or ""), unquote(parts.password or "")
        is_primary = self._login == PRIMARY  # its password:
        self.password = self._login_password if is_primary else derived_password(self._login, self._login_password)
        self.version, self.tls, self._partial_revokes = "", False, False  # read by ``open``
        self._without_tls = options.get("ssl-mode", "").upper() == "DISABLED"
        self._context: ssl.SSLContext | None = None
        self._idle: list[Any] = []
        self._turns = asyncio.Semaphore(_CONNECTIONS)

    async def open(self) -> None:
        """Connect, and create the primary user if it does not exist."""
        if not self._without_tls:
            self._context = _context(self.ca_file)
        self.version = str((await self.rows("SELECT VERSION()"))[0][0])
        self.tls = bool((await self.rows("SHOW STATUS LIKE 'Ssl_cipher'"))[0][1])
        if not self.is_mariadb:
            await self._read_settings()
        if self._login != PRIMARY:
            await self._make_primary()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    @property
    def is_mariadb(self) -> bool:
        """Whether it is MariaDB, which has only one of the API's plugins, ``mysql_native_password``."""
        return "MariaDB" in self.version

    @property
    def reserved_users(self) -> frozenset[str]:
        """The names of accounts that belong to the server or the sandbox itself."""
        return _SYSTEM_USERS | {self._login}

    async def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute ``statement``, with ``values`` for each ``%s`` in it, and return all rows."""
        async with self._connection() as connection, connection.cursor() as cursor:
            await cursor.execute(statement, values)
            return list(await cursor.fetchall())

    async def accounts(self) -> list[MySQLAccount]:
        """The accounts of the API's users, the primary user first."""
        people = "is_role = 'N'" if self.is_mariadb else _NO_ROLE
        rows = await self.rows(f"SELECT User, Host, plugin, authentication_string FROM mysql.user WHERE {people}")
        hidden = self.reserved_users - {PRIMARY}
        found = [MySQLAccount(*map(str, row)) for row in rows]
        return sorted((one for one in found if one.name not in hidden), key=lambda one: one.name != PRIMARY)

    async def dbs(self) -> list[str]:
        """The schemas that are dbs of the API."""
        return [name for (name,) in await self.rows("SHOW DATABASES") if name not in SYSTEM_DBS]

    async def grant(self, name: str) -> None:
        """Grant all rights in every schema, with the grant option, but no rights of an administrator."""
        listed = await self.rows("SHOW PRIVILEGES")
        in_schemas = {str(right).upper() for right, context, _ in listed if not context.startswith(("Server", "File"))}
        in_schemas -= {"GRANT OPTION"}
        rights = sorted(in_schemas | _SERVER_RIGHTS)
        for each in [rights] if self.is_mariadb else [[*rights, *_OF_MYSQL], [_DYNAMIC]]:
            await self.rows(f"GRANT {', '.join(each)} ON *.* TO %s@'%%' WITH GRANT OPTION", name)
        if not self._partial_revokes or self._login == PRIMARY:  # what it grants has its own restrictions
            return
        for schema in _GUARDED:
            await self.rows(
                f"REVOKE {', '.join(sorted((in_schemas | {'EVENT'}) - _READS))} ON {schema}.* FROM %s@'%%'", name
            )

    def identified(self, plugin: str | None) -> str:
        """The clause of CREATE USER and ALTER USER that sets a password, with ``plugin`` or the default plugin."""
        if self.is_mariadb:
            return f"IDENTIFIED VIA {MySQLAuthPlugin.MYSQL_NATIVE_PASSWORD.value} USING PASSWORD(%s)"
        return f"IDENTIFIED WITH {plugin or MySQLAuthPlugin.CACHING_SHA2_PASSWORD.value} BY %s"

    async def kill(self, which: str, value: str) -> None:
        """End the connections that have this value in this column of the process list."""
        schema = "information_schema" if self.is_mariadb else "performance_schema"
        for process, found in await self.rows(f"SELECT ID, {which} FROM {schema}.processlist"):
            if found != value:  # the server would ignore case and accents, and end connections of other users
                continue
            try:
                await self.rows("KILL %s", process)
            except pymysql.OperationalError as error:
                if error.args[0] != ER.NO_SUCH_THREAD:  # it has ended meanwhile
                    raise

    async def _read_settings(self) -> None:
        """Read how the server takes REVOKE, and warn of settings that differ from the provider's."""
        [found] = await self.rows("SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in _SETTINGS))
        for (name, wanted), value in zip(_SETTINGS.items(), found, strict=True):
            if missing := wanted - set(str(value).split(",")):
                lacks = "=OFF" if missing == {"1"} else f" without {', '.join(sorted(missing))}"
                option = "ON" if missing == {"1"} else ",".join(sorted(wanted))
                _log.warning(
                    "MySQL runs with %s%s: start it with --%s=%s, as the provider does",
                    name,
                    lacks,
                    name.replace("_", "-"),
                    option,
                )
        self._partial_revokes = bool(found[0])

    async def _make_primary(self) -> None:
        """Create ``doadmin``, which sandboxes with the same DSN share, if it does not exist."""
        if not any(account.name == PRIMARY for account in await self.accounts()):
            await self.rows(f"CREATE USER IF NOT EXISTS %s@'%%' {self.identified(None)}", PRIMARY, self.password)
            await self.grant(PRIMARY)
        try:
            (await self._connect(PRIMARY, self.password)).close()
        except pymysql.OperationalError:
            raise RuntimeError(
                f"the MySQL server of the DSN has an account {PRIMARY!r} that the sandbox did not create: pass the DSN"
                f" of {PRIMARY!r} itself, or drop that account"
            ) from None

    async def _connect(self, user: str, password: str) -> Any:
        """Log in, to wait at most ``_LOCK_SECONDS`` for a lock."""
        connection: Any = Connection(
            host=self.host,
            port=self.port,
            user=user,
            password=password,
            charset="utf8mb4",
            autocommit=True,
            init_command=f"SET SESSION lock_wait_timeout = {_LOCK_SECONDS}",
            cursorclass=Cursor,
            ssl=self._context,
        )
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await connection._connect()  # aiomysql.connect leaks the connection if it is cancelled
        except NOT_MYSQL as error:
            connection.close()
            raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, f"no MySQL answers: {type(error).__name__}") from None
        except BaseException:
            connection.close()
            raise
        return connection

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Any]:
        """Borrow a connection."""
        async with self._turns:
            connection = await self._alive()
            try:
                yield connection
            finally:
                if not connection.closed:
                    self._idle.append(connection)

    async def _alive(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.ping(reconnect=False)
                return connection
            except pymysql.Error:
                connection.close()
        return await self._connect(self._login, self._login_password)


def _context(ca_file: str | None) -> ssl.SSLContext:
    """Verify the server with ``ca_file``; without a file, use TLS if the server supports it, and verify nothing."""
    context = ssl.create_default_context(cafile=ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the CA that MySQL creates for itself lacks an extension
    if ca_file is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def quoted(name: str) -> str:
    """Quote a name as an identifier (manual, "Schema Object Names": backticks are doubled)."""
    escaped = name.replace("`", "``").replace("%", "%%")  # aiomysql formats statements with %
    return f"`{escaped}`"
