"""``PostgresBackend``: the PostgreSQL behind a cluster, embedded or of a DSN. Needs psycopg."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping

from psycopg import AsyncConnection, errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from ..models import UserRole
from ._answers import Refusal, name_taken, not_found
from ._backends import DEFAULT_DB, PRIMARY, Backend, check_db_name, check_user_name, new_password, refuse_primary
from ._embedded import EmbeddedPostgres
from ._postgres_server import PostgresServer, Row, rows
from ._validation import JSON, RequestedUser

# System roles and databases are hidden, so they cannot be changed: superusers (except the DSN's, the primary user),
# roles that cannot log in, pg_*, templates, and the maintenance database.
_USERS = SQL(
    "SELECT rolname, rolreplication, rolpassword FROM pg_authid"
    " WHERE rolcanlogin AND (NOT rolsuper OR rolname = {primary}) AND NOT starts_with(rolname, 'pg_') {end}"
)
_DBS = SQL("SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY oid")
_ALTER_TRIES = 50
_TERMINATE = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
_WHERE_IT_OWNS = SQL(
    "SELECT DISTINCT coalesce(datname, current_database()) FROM pg_shdepend LEFT JOIN pg_database d ON d.oid = dbid"
    " WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_authid WHERE rolname = {})"
)


class PostgresBackend(Backend):
    """Maps the API's users to the server's roles, and its dbs to the server's databases."""

    # On an embedded PostgreSQL the roles have the rights of a managed cluster. The primary user is LOGIN CREATEDB
    # CREATEROLE and owns the databases. A role that clients cannot use creates the users. The server of a DSN keeps its
    # own rights. Its primary user is the superuser of the DSN.

    def __init__(
        self,
        engine: str,
        server: EmbeddedPostgres | str,
        secrets: MutableMapping[str, tuple[str, str]],
        *,
        open_public: bool = False,
    ) -> None:
        self.engine = engine
        self.embedded = None if isinstance(server, str) else server
        self._server = PostgresServer(server)
        self._secrets = secrets
        self._open_public = open_public
        self._roles = asyncio.Lock()  # concurrent changes of one role fail on PostgreSQL

    async def start(self) -> None:
        await self._server.start()
        if self.embedded is not None:
            await self._close_system_databases()
        if self.embedded is not None and self.embedded.is_new:
            await self._make_primary()
            self.embedded.mark_filled()

    async def stop(self) -> None:
        await self._server.stop()

    async def let_in(self, clients: bool, *, graceful: bool = False) -> None:
        if self.embedded is None:
            await super().let_in(clients)  # refuses it
        await self._server.let_in(clients, graceful=graceful)

    async def _close_system_databases(self) -> None:
        """Let only the superuser connect to the databases that belong to the provider."""
        async with self._server.connection() as connection:
            await connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")

    async def _make_primary(self) -> None:
        async with self._server.connection() as connection:
            password = new_password()
            verifier = _verifier(connection, PRIMARY, password)
            await connection.execute(
                SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}").format(
                    Identifier(PRIMARY), Literal(verifier)
                )
            )
        self._secrets[PRIMARY] = verifier, password
        await self.create_db(DEFAULT_DB)

    def version(self) -> str:
        return self._server.version

    def connection(self) -> JSON:
        return {
            "scheme": "postgresql",
            "host": self._server.host,
            "port": self._server.port,
            "database": self._server.database,
            "user": self._server.primary,
            "password": self._server.password if self.embedded is None else self._secrets[PRIMARY][1],
            "ssl": self._server.tls,
        }

    def ca(self) -> str | None:
        return self._server.ca

    async def users(self) -> list[JSON]:
        async with self._server.connection() as connection:
            return [self._user(*row) for row in await rows(connection, self._users(SQL("ORDER BY oid")))]

    async def user(self, name: str) -> JSON:
        async with self._server.connection() as connection:
            return await self._read(connection, name)

    async def create_user(self, new: RequestedUser) -> JSON:
        check_user_name(self.engine, new.name)
        async with self._roles, self._server.connection() as connection:
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
        async with self._roles, self._server.connection() as connection:
            await self._read(connection, name)
            await _alter(connection, SQL("ALTER ROLE {} {}").format(Identifier(name), _replication(settings)))
            return await self._read(connection, name)

    async def reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        async with self._roles, self._server.connection() as connection:
            await self._read(connection, name)
            if name == self._server.primary and self.embedded is None:
                raise Refusal(422, "the password of the DSN's own role cannot be reset")
            password = new_password()
            verifier = _verifier(connection, name, password)
            await _alter(connection, SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(name), Literal(verifier)))
            self._secrets[name] = verifier, password
            return await self._read(connection, name)

    async def delete_user(self, name: str) -> None:
        refuse_primary(name, self._server.primary)
        role, primary = Identifier(name), Identifier(self._server.primary)
        async with self._roles, self._server.connection() as connection:
            await self._read(connection, name)
            await _alter(connection, SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(role))
            await connection.execute(_TERMINATE, [name])
            for (database,) in await rows(connection, _WHERE_IT_OWNS.format(Literal(name))):
                # As at the provider: the primary user becomes the owner of its objects, and its grants are revoked.
                async with await self._server.connect(database) as inside:
                    await inside.execute(SQL("REASSIGN OWNED BY {} TO {}").format(role, primary))
                    await inside.execute(SQL("DROP OWNED BY {}").format(role))
            await connection.execute(SQL("DROP ROLE {}").format(role))
            self._secrets.pop(name, None)

    async def dbs(self) -> list[str]:
        async with self._server.connection() as connection:
            return [name for (name,) in await rows(connection, _DBS)]

    async def create_db(self, name: str) -> None:
        check_db_name(self.engine, name)
        # template0 has no sessions that would block the copy. Without fsync, copying files is faster than writing WAL.
        has_strategies = int(self._server.version.partition(".")[0]) >= 15
        strategy = SQL("STRATEGY FILE_COPY") if self.embedded is not None and has_strategies else SQL("")
        command = SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 {}").format(
            Identifier(name), Identifier(self._server.primary), strategy
        )
        async with self._server.connection() as connection:
            try:
                await connection.execute(command)
            except (errors.DuplicateDatabase, errors.UniqueViolation):
                raise name_taken("database") from None
            if self._open_public:
                async with await self._server.connect(name) as inside:
                    await inside.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")

    async def delete_db(self, name: str) -> None:
        async with self._server.connection() as connection:
            if (name,) not in await rows(connection, _DBS):
                raise not_found()
            if self.embedded is None and name == self._server.database:
                raise Refusal(422, "the database of the DSN cannot be deleted")
            try:
                await connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            except errors.InvalidCatalogName:
                raise not_found() from None
            except errors.WrongObjectType:
                raise Refusal(422, "the database is a template (IS_TEMPLATE) and cannot be deleted") from None

    def _users(self, end: Composable) -> Composed:
        return _USERS.format(primary=Literal(self._server.primary), end=end)

    async def _read(self, connection: AsyncConnection[Row], name: str) -> JSON:
        found = await rows(connection, self._users(SQL("AND rolname = {}").format(Literal(name))))
        if not found:
            raise not_found()
        return self._user(*found[0])

    def _user(self, name: str, replication: bool, verifier: str | None) -> JSON:
        role = UserRole.PRIMARY if name == self._server.primary else UserRole.NORMAL
        user: JSON = {"name": name, "role": role.value, "settings": {"pg_allow_replication": replication}}
        stored, password = self._secrets.get(name, (None, None))
        if stored is not None and stored == verifier:  # otherwise somebody else has set another password
            user["password"] = password
        elif name == self._server.primary and self.embedded is None and self._server.password:
            user["password"] = self._server.password
        return user


async def _alter(connection: AsyncConnection[Row], statement: Composed) -> None:
    """Execute ``ALTER ROLE``, again if a session changes the same role at that moment."""
    for _ in range(_ALTER_TRIES - 1):
        try:
            await connection.execute(statement)
            return
        except errors.InternalError_:  # "tuple concurrently updated"
            await asyncio.sleep(0.005)
    await connection.execute(statement)


def _replication(settings: JSON) -> SQL:
    return SQL("REPLICATION") if settings.get("pg_allow_replication") else SQL("NOREPLICATION")


def _verifier(connection: AsyncConnection[Row], name: str, password: str) -> str:
    """The SCRAM verifier of a password, with which neither the server nor its log ever see the password."""
    return connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
