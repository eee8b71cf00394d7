"""PostgreSQL behind a cluster: an embedded one, or any server by its DSN. Needs psycopg."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from .._libpq import options_of
from ..models import UserRole
from .answers import Refusal, name_taken, not_found
from .authority import Authority
from .backends import DEFAULT_DB, PRIMARY, check_db_name, check_user_name, new_password, refuse_primary
from .embedded import SUPERUSER, EmbeddedPostgres
from .validation import JSON, NewUser

_log = logging.getLogger("aiodbclient.sandbox")
_CONNECTIONS = 8

Row = tuple[Any, ...]

# Roles and databases of the system are out of sight and so out of reach: superusers (but for the one of a DSN, which
# is the primary user), roles that cannot log in, pg_*, templates, and the maintenance database.
_USERS = SQL(
    "SELECT rolname, rolreplication, rolpassword FROM pg_authid"
    " WHERE rolcanlogin AND (NOT rolsuper OR rolname = {primary}) AND NOT starts_with(rolname, 'pg_') {end}"
)
_DBS = SQL("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY oid")
_TERMINATE = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
_WHERE_IT_OWNS = SQL(
    "SELECT DISTINCT coalesce(datname, current_database()) FROM pg_shdepend LEFT JOIN pg_database d ON d.oid = dbid"
    " WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_authid WHERE rolname = {})"
)


class PostgresBackend:
    """Roles are the users and databases the dbs; what the server says is what the API tells.

    A password is told while the server still has the one that was set here. On the embedded PostgreSQL the roles have
    the rights of a managed cluster: the primary user is LOGIN CREATEDB CREATEROLE and owns the databases, users are
    made by a role that nobody has, and nobody but a database's owner creates in its ``public`` schema. Behind
    ``dsn`` the rights are the server's own, and the primary user is the superuser of the DSN.

    Args:
        engine: the cluster's.
        dsn: a server of the user's; None for an embedded one.
        authority: who certifies the embedded PostgreSQL for TLS; None for one without TLS.
        open_public: give everybody CREATE in ``public`` of each db of the embedded PostgreSQL, as up to 14.
    """

    def __init__(
        self,
        engine: str,
        dsn: str | None,
        secrets: MutableMapping[str, tuple[str, str]],
        *,
        embedded: EmbeddedPostgres | None = None,
        authority: Authority | None = None,
        open_public: bool = False,
    ) -> None:
        self.engine = engine
        self._open_public = open_public
        self._authority = authority
        self._embedded = embedded
        self._dsn = dsn or ""
        self._primary = PRIMARY
        self._primary_password: str | None = None
        self._database = DEFAULT_DB
        self._host = "127.0.0.1"
        self._port = 0
        self._version: str | None = None
        self._tls = False
        self._ca: str | None = None
        self._secrets = secrets  # by role: the verifier that was set, and its password
        self._idle: list[AsyncConnection[Row]] = []
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        self._roles = asyncio.Lock()  # PostgreSQL fails what alters one role at the same time

    async def start(self) -> None:
        try:
            if self._embedded is not None:
                await self._embedded.start()
                await self._set_up(self._embedded)
            else:
                await self._look_around()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        try:
            while self._idle:
                await self._idle.pop().close()
        finally:
            if self._embedded is not None:
                await self._embedded.stop()

    async def _set_up(self, embedded: EmbeddedPostgres) -> None:
        self._port = embedded.port
        self._dsn = make_conninfo(
            host=self._host,
            port=self._port,
            user=SUPERUSER,
            password=embedded.password,
            dbname="postgres",
            sslmode="disable" if embedded.ca_file is None else "verify-full",
            sslrootcert=embedded.ca_file,
            gssencmode="disable",
        )
        self._ca = self._authority.certificate() if self._authority else None
        async with self._connection() as connection:
            self._version, self._tls = _version(connection), connection.pgconn.ssl_in_use
        if embedded.is_new:
            await self._make_primary()
            embedded.made()
        self._primary_password = self._secrets[PRIMARY][1]

    async def _make_primary(self) -> None:
        async with self._connection() as connection:
            password = new_password()
            verifier = _verifier(connection, PRIMARY, password)
            await connection.execute(
                SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}").format(
                    Identifier(PRIMARY), Literal(verifier)
                )
            )
        self._secrets[PRIMARY] = verifier, password
        await self.create_db(DEFAULT_DB)

    async def _look_around(self) -> None:
        if options_of(self._dsn) is None:
            raise RuntimeError(
                "the DSN is no connection string of PostgreSQL: postgresql://USER:PASSWORD@HOST/DB, "
                "with %40 and %2F for an @ and a / of the password"
            )
        try:
            async with await self._connect() as connection:
                superuser = await _rows(connection, SQL("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
                self._version, info = _version(connection), connection.info
                self._tls, self._ca = connection.pgconn.ssl_in_use, _ca(connection)
                self._primary, self._primary_password = info.user, info.password or None
                self._host, self._port, self._database = info.host or info.hostaddr, info.port, info.dbname
        except psycopg.Error as error:
            raise RuntimeError(f"the PostgreSQL server of the DSN cannot be used: {error}") from None
        if superuser != [(True,)]:
            raise RuntimeError(f"the DSN's role {self._primary!r} must be a superuser, to change other roles")

    def version(self) -> str | None:
        return self._version

    def connection(self) -> JSON:
        return {
            "scheme": "postgresql",
            "host": self._host,
            "port": self._port,
            "database": self._database,
            "user": self._primary,
            "password": self._primary_password,
            "ssl": self._tls,
        }

    def ca(self) -> str | None:
        return self._ca

    def has_failed(self) -> bool:
        return self._embedded is not None and self._embedded.has_failed()

    async def users(self) -> list[JSON]:
        async with self._connection() as connection:
            return [self._user(*row) for row in await _rows(connection, self._users(SQL("ORDER BY oid")))]

    async def user(self, name: str) -> JSON:
        async with self._connection() as connection:
            return await self._read(connection, name)

    async def create_user(self, new: NewUser) -> JSON:
        check_user_name(self.engine, new.name)
        async with self._roles, self._connection() as connection:
            password = new_password()
            verifier = _verifier(connection, new.name, password)
            command = SQL("CREATE ROLE {} LOGIN {} PASSWORD {}")
            try:
                await connection.execute(
                    command.format(Identifier(new.name), _replication(new.settings), Literal(verifier))
                )
            except (errors.DuplicateObject, errors.UniqueViolation):
                raise name_taken("user") from None
            except errors.ReservedName:
                raise Refusal(422, "user name is reserved") from None
            self._secrets[new.name] = verifier, password
            return await self._read(connection, new.name)

    async def update_user(self, name: str, settings: JSON) -> JSON:
        async with self._roles, self._connection() as connection:
            await self._read(connection, name)
            await connection.execute(SQL("ALTER ROLE {} {}").format(Identifier(name), _replication(settings)))
            return await self._read(connection, name)

    async def reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        async with self._roles, self._connection() as connection:
            await self._read(connection, name)
            if name == self._primary and self._embedded is None:
                raise Refusal(422, "the password of the DSN's own role is not the sandbox's to change")
            password = new_password()
            verifier = _verifier(connection, name, password)
            await connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(name), Literal(verifier)))
            self._secrets[name] = verifier, password
            if name == self._primary:
                self._primary_password = password
            return await self._read(connection, name)

    async def delete_user(self, name: str) -> None:
        refuse_primary(name, self._primary)
        role = Identifier(name)
        async with self._roles, self._connection() as connection:
            await self._read(connection, name)
            await connection.execute(SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(role))
            await connection.execute(_TERMINATE, [name])
            for (database,) in await _rows(connection, _WHERE_IT_OWNS.format(Literal(name))):
                # What it owns goes to the primary user, as with the provider; what it was granted is revoked.
                async with await self._connect(database) as there:
                    await there.execute(SQL("REASSIGN OWNED BY {} TO {}").format(role, Identifier(self._primary)))
                    await there.execute(SQL("DROP OWNED BY {}").format(role))
            await connection.execute(SQL("DROP ROLE {}").format(role))
            self._secrets.pop(name, None)

    async def dbs(self) -> list[str]:
        async with self._connection() as connection:
            return [name for (name,) in await _rows(connection, _DBS)]

    async def create_db(self, name: str) -> None:
        check_db_name(self.engine, name)
        # Nobody can be connected to template0. Where nothing is fsynced, copying files is quicker than the log.
        strategy = SQL("STRATEGY FILE_COPY") if self._embedded is not None else SQL("")
        command = SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 {}").format(
            Identifier(name), Identifier(self._primary), strategy
        )
        async with self._connection() as connection:
            try:
                await connection.execute(command)
            except (errors.DuplicateDatabase, errors.UniqueViolation):
                raise name_taken("database") from None
            if self._open_public:
                async with await self._connect(name) as there:
                    await there.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")

    async def delete_db(self, name: str) -> None:
        async with self._connection() as connection:
            if (name,) not in await _rows(connection, _DBS):
                raise not_found()
            if self._embedded is None and name == self._database:
                raise Refusal(422, "the database of the DSN is not the sandbox's to delete")
            try:
                await connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            except errors.InvalidCatalogName:
                raise not_found() from None

    def _users(self, end: Composable) -> Composed:
        return _USERS.format(primary=Literal(self._primary), end=end)

    async def _read(self, connection: AsyncConnection[Row], name: str) -> JSON:
        rows = await _rows(connection, self._users(SQL("AND rolname = {}").format(Literal(name))))
        if not rows:
            raise not_found()
        return self._user(*rows[0])

    def _user(self, name: str, replication: bool, verifier: str | None) -> JSON:
        role = UserRole.PRIMARY if name == self._primary else UserRole.NORMAL
        user: JSON = {"name": name, "role": role.value, "settings": {"pg_allow_replication": replication}}
        known = self._secrets.get(name)
        if known is not None and known[0] == verifier:
            user["password"] = known[1]
        elif name == self._primary and self._embedded is None and self._primary_password:
            user["password"] = self._primary_password
        return user

    async def _connect(self, database: str | None = None) -> AsyncConnection[Row]:
        if database is None:
            return await AsyncConnection.connect(self._dsn, autocommit=True)
        return await AsyncConnection.connect(self._dsn, autocommit=True, dbname=database)

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AsyncConnection[Row]]:
        """One of at most ``_CONNECTIONS``. What PostgreSQL fails unexpectedly is the API's 500."""
        async with self._slots:
            try:
                connection = self._idle.pop() if self._idle else await self._connect()
                try:
                    yield connection
                finally:
                    if connection.closed:
                        await connection.close()
                    else:
                        self._idle.append(connection)
            except psycopg.Error as error:
                _log.warning(
                    "PostgreSQL failed an operation of the sandbox: %s %s", type(error).__name__, error.sqlstate
                )
                raise Refusal(500, "Unexpected server-side error") from None


def _version(connection: AsyncConnection[Row]) -> str:
    told = connection.info.parameter_status("server_version") or "0"
    return told.split()[0]  # a distribution may add its own words


def _ca(connection: AsyncConnection[Row]) -> str | None:
    """The certificates that the DSN verifies its server with: those of ``sslrootcert``, where it names a file."""
    file = Path(connection.info.get_parameters().get("sslrootcert", ""))
    return file.read_text() if file.is_file() else None


async def _rows(connection: AsyncConnection[Row], query: Composed | SQL) -> list[Row]:
    return await (await connection.execute(query)).fetchall()


def _replication(settings: JSON) -> SQL:
    return SQL("REPLICATION") if settings.get("pg_allow_replication") else SQL("NOREPLICATION")


def _verifier(connection: AsyncConnection[Row], name: str, password: str) -> str:
    """The SCRAM verifier of a password: all of it that the server, and the server's log, ever see."""
    return connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
