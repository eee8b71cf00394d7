"""``PostgresBackend``: the PostgreSQL behind a cluster, one that the sandbox starts or of a DSN. Needs psycopg."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from psycopg import AsyncConnection, Error, OperationalError, errors
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from ..._dsn import has_late_at
from ...models import UserRole
from .._embedded import POOL, RESERVED, SUPERUSER, EmbeddedPostgres, address_of
from .._protocol import JSON, Refusal, RequestedUser, name_taken, not_found
from . import DEFAULT_DB, PRIMARY, Backend, Primary, derived_password, new_ca, new_password, provider

Row = tuple[Any, ...]

_log = logging.getLogger("aiodbclient.sandbox")
_CONNECT_TRIES = 100
_EMPTY_SECONDS = 5.0
_ABOUT = SQL("SELECT rolsuper, current_setting('password_encryption') FROM pg_roles WHERE rolname = current_user")
# System roles and databases are hidden, so they cannot be changed: superusers, roles that cannot log in, pg_*, those of
# the provider, templates, and the maintenance database.
_USERS = SQL(
    "SELECT rolname, rolreplication, rolpassword FROM pg_authid"
    " WHERE rolcanlogin AND NOT rolsuper AND NOT starts_with(rolname, 'pg_') AND rolname <> ALL ({system}) {end}"
)
_SYSTEM_DBS = "postgres", provider.MAINTENANCE_DATABASE, "template0", "template1"
_DBS = SQL("SELECT datname FROM pg_database WHERE datname <> ALL ({}) ORDER BY oid").format(Literal([*_SYSTEM_DBS]))
_TERMINATE_USER = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
_DATABASES_WITH_ITS_OBJECTS = SQL(
    "SELECT DISTINCT coalesce(datname, current_database()) FROM pg_shdepend LEFT JOIN pg_database d ON d.oid = dbid"
    " WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_authid WHERE rolname = {})"
)
_TERMINATE_ALL = SQL(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()"
)
# Everything that initdb did not create: its oids are below 16384 (FirstNormalObjectId).
_CREATED_DATABASES = SQL("SELECT datname FROM pg_database WHERE oid >= 16384")
_CREATED_ROLES = SQL("SELECT rolname FROM pg_roles WHERE oid >= 16384")
_DROP_SLOTS = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"


class PostgresBackend(Backend):
    """Maps the API's users to the server's roles, and its dbs to the server's databases."""

    # The roles have the rights of a managed cluster (``_provider.py``). The superuser acts as the provider: it creates
    # the users.

    def __init__(self, server: EmbeddedPostgres | str) -> None:
        self.embedded = None if isinstance(server, str) else server
        self._dsn = server if isinstance(server, str) else ""
        self._passwords: dict[str, tuple[str, str]] = {}  # verifiers and passwords by user
        self._role_lock = asyncio.Lock()  # concurrent changes of one role fail on PostgreSQL
        self._sessions = asyncio.Semaphore(RESERVED)

    async def start(self) -> None:
        embedded, different = self.embedded, dict[str, str]()
        if embedded is not None:
            await embedded.start()
            self._dsn, different = _superusers_dsn(embedded), {"dbname": "template1"}  # its own has another name yet
        elif not _is_unambiguous_url(self._dsn):
            raise RuntimeError(
                "server is not a URL of PostgreSQL: write postgresql://USER:PASSWORD@HOST/DB, "
                "with %40 for @ and %2F for / in the password"
            )
        try:
            async with await connect(self._dsn, **different) as connection:
                await self._prepare(connection)
        except Error as error:
            which = "PostgreSQL" if embedded else "the PostgreSQL server of the DSN"
            raise RuntimeError(f"{which} cannot be used: {error}") from None

    async def _prepare(self, connection: AsyncConnection[Row]) -> None:
        """Read what the server is, and create ``doadmin`` on it."""
        [(superuser, self._password_encryption)] = await rows(connection, _ABOUT)
        info = connection.info
        self.version = (info.parameter_status("server_version") or "0").split()[0]  # a distribution may append text
        self._major = info.server_version // 10_000
        self._ca_file = Path(info.get_parameters().get("sslrootcert", ""))  # it verified the server of a DSN
        if self.embedded is not None:
            host, password = None, new_password()
            with suppress(errors.InvalidCatalogName):  # a server that was emptied
                await connection.execute(provider.RENAME_DATABASE)
            await connection.execute(provider.CREATE_SYSTEM_ROLES)
        elif superuser:
            host, password = info.host or info.hostaddr, derived_password(info.user, info.password)
        else:
            raise RuntimeError(f"the DSN's role {info.user!r} must be a superuser to change other roles")
        verifier, tls = self._verifier(connection, PRIMARY, password), connection.pgconn.ssl_in_use
        self._primary = Primary("postgresql", host, info.port, DEFAULT_DB, None, tls)
        await create_primary(connection, self._major, verifier)
        with suppress(errors.DuplicateDatabase, errors.UniqueViolation):  # another sandbox with the same DSN made it
            await connection.execute(self._create_database(DEFAULT_DB))
        self._passwords[PRIMARY] = verifier, password
        if self.embedded is None:
            await self._check_primary(password)

    async def _check_primary(self, password: str) -> None:
        """Raise RuntimeError if the sandbox did not create ``doadmin`` on the server of the DSN."""
        try:
            session = await connect(self._dsn, user=PRIMARY, password=password, dbname=DEFAULT_DB)
        except OperationalError:
            raise RuntimeError(
                f"{PRIMARY!r} cannot log in to {DEFAULT_DB} on the PostgreSQL server of the DSN: "
                "if the sandbox did not create this role, drop it"
            ) from None
        await session.close()

    async def stop(self) -> None:
        """Stop the server, or pool it for the next cluster."""
        embedded, kept = self.embedded, False
        if embedded is None:
            return
        try:
            if POOL.is_open and self._dsn:
                kept = await _empty(self._dsn) and POOL.release(embedded)
        finally:
            if not kept:
                await embedded.stop()

    def primary(self) -> Primary:
        return self._primary._replace(password=self._passwords[PRIMARY][1])

    def ca(self) -> str | None:
        if self.embedded is not None:
            return self.embedded.ca or new_ca()
        return self._ca_file.read_text() if self._ca_file.is_file() else None

    async def users(self) -> list[JSON]:
        async with self._connection() as connection:
            return [self._user(*row) for row in await rows(connection, _users(SQL("ORDER BY oid")))]

    async def user(self, name: str) -> JSON:
        async with self._connection() as connection:
            return await self._read(connection, name)

    async def create_user(self, new: RequestedUser) -> JSON:
        async with self._role_lock, self._connection() as connection:
            password = new_password()
            verifier = self._verifier(connection, new.name, password)
            try:
                await connection.execute(
                    SQL(provider.create_login(self._major)).format(
                        login=Identifier(new.name),
                        attributes=_replication(new.settings),
                        verifier=Literal(verifier),
                        primary=Identifier(PRIMARY),
                    )
                )
            except (errors.DuplicateObject, errors.UniqueViolation):
                raise name_taken("user") from None
            except errors.ReservedName:
                raise Refusal(422, "user name is reserved") from None
            self._passwords[new.name] = verifier, password
            return await self._read(connection, new.name)

    async def update_user(self, name: str, settings: JSON) -> JSON:
        async with self._role_lock, self._connection() as connection:
            await self._read(connection, name)
            await connection.execute(SQL("ALTER ROLE {} {}").format(Identifier(name), _replication(settings)))
            return await self._read(connection, name)

    async def reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        async with self._role_lock, self._connection() as connection:
            await self._read(connection, name)
            if name == PRIMARY and self.embedded is None:
                raise Refusal(422, "the password of the primary user belongs to the DSN and cannot be reset")
            password = new_password()
            verifier = self._verifier(connection, name, password)
            await connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(name), Literal(verifier)))
            self._passwords[name] = verifier, password
            return await self._read(connection, name)

    async def delete_user(self, name: str) -> None:
        role, primary = Identifier(name), Identifier(PRIMARY)
        async with self._role_lock, self._connection() as connection:
            await self._read(connection, name)
            await connection.execute(SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(role))
            await connection.execute(_TERMINATE_USER, [name])
            for (database,) in await rows(connection, _DATABASES_WITH_ITS_OBJECTS.format(Literal(name))):
                # As at the provider: the primary user becomes the owner of its objects, and its grants are revoked.
                async with await connect(self._dsn, dbname=database) as inside:
                    await inside.execute(SQL("REASSIGN OWNED BY {} TO {}").format(role, primary))
                    await inside.execute(SQL("DROP OWNED BY {}").format(role))
            await connection.execute(SQL("DROP ROLE {}").format(role))
            self._passwords.pop(name, None)

    async def dbs(self) -> list[str]:
        async with self._connection() as connection:
            return [name for (name,) in await rows(connection, _DBS)]

    async def create_db(self, name: str) -> None:
        if name in _SYSTEM_DBS:
            raise name_taken("database")
        async with self._connection() as connection:
            try:
                await connection.execute(self._create_database(name))
            except (errors.DuplicateDatabase, errors.UniqueViolation):
                raise name_taken("database") from None

    def _create_database(self, name: str) -> Composed:
        # template0 has no sessions that would block the copy. Without fsync, copying files is faster than writing WAL.
        strategy = SQL("STRATEGY FILE_COPY" if self.embedded is not None else "")
        statement = SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 {}")
        return statement.format(Identifier(name), Identifier(PRIMARY), strategy)

    async def delete_db(self, name: str) -> None:
        async with self._connection() as connection:
            if (name,) not in await rows(connection, _DBS):
                raise not_found()
            try:
                await connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            except errors.InvalidCatalogName:
                raise not_found() from None
            except errors.WrongObjectType:
                raise Refusal(422, "the database is a template (IS_TEMPLATE) and cannot be deleted") from None

    async def _read(self, connection: AsyncConnection[Row], name: str) -> JSON:
        found = await rows(connection, _users(SQL("AND rolname = {}").format(Literal(name))))
        if not found:
            raise not_found()
        return self._user(*found[0])

    def _user(self, name: str, replication: bool, verifier: str | None) -> JSON:
        role = UserRole.PRIMARY if name == PRIMARY else UserRole.NORMAL
        user: JSON = {"name": name, "role": role.value, "settings": {"pg_allow_replication": replication}}
        stored, password = self._passwords.get(name, (None, None))
        is_derived = name == PRIMARY and self.embedded is None
        if password is not None and (stored == verifier or is_derived):  # else somebody has set another password
            user["password"] = password
        return user

    def _verifier(self, connection: AsyncConnection[Row], name: str, password: str) -> str:
        """What the server stores of a password, so that neither it nor its log ever see the password."""
        method = self._password_encryption.encode()
        return connection.pgconn.encrypt_password(password.encode(), name.encode(), method).decode()

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AsyncConnection[Row]]:
        """Connect for one operation, and turn an unexpected error of PostgreSQL into the API's 500."""
        async with self._sessions:
            try:
                async with await connect(self._dsn) as connection:
                    yield connection
            except Error as error:
                if isinstance(error, errors.UndefinedObject):  # SQL dropped the role meanwhile
                    raise not_found() from None
                _log.warning(
                    "PostgreSQL failed an operation of the sandbox: %s %s", type(error).__name__, error.sqlstate
                )
                raise Refusal(500, "Unexpected server-side error") from None


async def rows(connection: AsyncConnection[Row], query: Composed | SQL) -> list[Row]:
    return await (await connection.execute(query)).fetchall()


async def connect(dsn: str, **different: Any) -> AsyncConnection[Row]:
    """Connect, with what is ``different`` from the DSN; a full server may still be ending a session that was closed."""
    for _ in range(_CONNECT_TRIES - 1):
        try:
            return await AsyncConnection.connect(dsn, autocommit=True, **different)
        except OperationalError as error:
            if "too many clients" not in str(error):
                raise
            await asyncio.sleep(0.01)
    return await AsyncConnection.connect(dsn, autocommit=True, **different)


async def create_primary(connection: AsyncConnection[Row], version: int, verifier: str) -> None:
    """Create ``doadmin`` and its groups; on a server of one's own they may exist."""
    for part in provider.create_primary(version):
        with suppress(errors.DuplicateObject, errors.UniqueViolation):
            await connection.execute(SQL(part).format(primary=Identifier(PRIMARY), verifier=Literal(verifier)))


def _superusers_dsn(server: EmbeddedPostgres) -> str:
    """The DSN of the sandbox's own database on ``server``, which is ``postgres`` under another name."""
    return make_conninfo(
        host=address_of(server.bind),
        port=server.port,
        user=SUPERUSER,
        password=server.password,
        dbname=provider.MAINTENANCE_DATABASE,
        sslmode="prefer",
        gssencmode="disable",
    )


async def _empty(dsn: str) -> bool:
    """Remove everything that was created on a server with this ``_superusers_dsn``, or return False."""
    try:
        async with asyncio.timeout(_EMPTY_SECONDS), await connect(dsn) as connection:
            while await rows(connection, _TERMINATE_ALL):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            await connection.execute(_DROP_SLOTS)
            for (name,) in await rows(connection, _CREATED_DATABASES):
                await connection.execute(SQL("ALTER DATABASE {} IS_TEMPLATE false").format(Identifier(name)))
                await connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            roles = SQL(", ").join([Identifier(name) for (name,) in await rows(connection, _CREATED_ROLES)])
            await connection.execute(SQL("DROP ROLE {}").format(roles))
            await connection.execute(_TERMINATE_ALL)  # sessions that began meanwhile
    except (Error, TimeoutError) as error:
        _log.info("cannot empty a PostgreSQL, so it is stopped: %s", type(error).__name__)
        return False
    return True


def _is_unambiguous_url(dsn: str) -> bool:
    """Whether ``dsn`` is a URL of PostgreSQL, in which libpq cannot take a part of the password for the host."""
    try:
        is_clear = dsn.partition("?")[0].count("@") < 2 and not has_late_at(dsn)
        return is_clear and urlsplit(dsn).scheme in ("postgresql", "postgres")
    except ValueError:
        return False


def _users(end: Composable) -> Composed:
    return _USERS.format(system=Literal(list(provider.SYSTEM_ROLES)), end=end)


def _replication(settings: JSON) -> SQL:
    return SQL("REPLICATION") if settings.get("pg_allow_replication") else SQL("NOREPLICATION")
