"""``PostgresSql``: what ``doctor --try`` does by SQL on PostgreSQL to ask the API about it. Needs psycopg."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from .. import Connection
from .._libpq import one_line
from ..errors import GrantError
from ..tenants._credential import Secret
from ..tenants._servers.postgres.scram import verifier
from ..tenants._servers.postgres.sessions import CAFile, admin_options, clear, connect

_SETTINGS = ("createrole_self_grant", "max_connections", "max_prepared_transactions", "password_encryption")
_OWNER: LiteralString = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'doctor'"


class PostgresSql:
    """The administrator of a cluster."""

    def __init__(self, admin: Secret, connection: Connection, ca: str | None) -> None:
        self._options = admin_options(admin)
        self._ca = None if ca is None or "sslmode" in self._options else CAFile(ca)
        self._cluster_ca = None if ca is None else CAFile(ca)
        self._where = connection.host, connection.port
        self._password = Secret(secrets.token_urlsafe())  # of the login that owns something

    async def settings(self) -> str:
        """The settings of the server that nobody has seen, as text."""
        rows = await self._run("SELECT name, setting FROM pg_settings WHERE name = ANY ({list})", list=[*_SETTINGS])
        return ", ".join(f"{name}={setting or 'none'}" for name, setting in sorted(rows))

    async def shut(self, login: str) -> None:
        """Lock a login."""
        await self._run("ALTER ROLE {login} NOLOGIN", login=login)

    async def is_shut(self, login: str) -> bool:
        """Whether a login is locked."""
        return not await self._run("SELECT FROM pg_roles WHERE rolname = {name} AND rolcanlogin", name=[login])

    async def drop(self, login: str) -> None:
        """Drop a login, if it exists."""
        await self._run("DROP ROLE IF EXISTS {login}", login=login)

    async def make_owner(self, login: str, database: str) -> None:
        """Make a login that owns a table in a database of its own."""
        stored = await verifier(self._password)
        await self._run("CREATE DATABASE {database} TEMPLATE template0", database=database)
        await self._run("REVOKE ALL ON DATABASE {database} FROM PUBLIC", database=database)
        await self._run("CREATE ROLE {login} LOGIN PASSWORD {stored}", login=login, stored=[stored])
        await self._run("GRANT {login} TO CURRENT_USER", login=login)
        await self._run(
            "CREATE SCHEMA own AUTHORIZATION {login}; SET ROLE {login}; CREATE TABLE own.doctor ()",
            inside=database,
            login=login,
        )

    async def drop_database(self, database: str) -> None:
        """Drop a database, if it exists."""
        await self._run("DROP DATABASE IF EXISTS {database} WITH (FORCE)", database=database)

    async def owner_of(self, login: str, database: str) -> str:
        """Whose the table is now, as text without its name."""
        found = [owner for (owner,) in await self._run(_OWNER, inside=database)]
        if not found:
            return "is gone"
        return "is its own still" if found == [login] else f"belongs to {_known(found[0])}"

    async def enters(
        self, login: str, database: str, password: str | None = None, where: tuple[str, int] | None = None
    ) -> bool:
        """Whether a login may enter a database, or a pool that is ``where``."""
        host, port = where or self._where
        options = {"host": host, "port": port, "user": login, "dbname": database, "connect_timeout": 10}
        if self._cluster_ca is not None:
            options |= {"sslmode": "verify-full", "sslrootcert": self._cluster_ca.path()}
        own = Secret(make_conninfo("", **options, password=self._password if password is None else password))
        try:
            await (await AsyncConnection.connect(own)).close()
        except psycopg.OperationalError as error:
            clear(error)  # psycopg's frames hold the password
            return False
        return True

    async def _run(self, statement: LiteralString, inside: str | None = None, **names: Any) -> list[Any]:
        """Run a statement with names, or values in lists, and return its rows."""
        given = {
            key: Identifier(name) if isinstance(name, str) else Literal(name if len(name) > 1 else name[0])
            for key, name in names.items()
        }
        try:
            async with self._session({} if inside is None else {"dbname": inside}) as session:
                cursor = await session.execute(SQL(statement).format(**given))
                return [] if cursor.description is None else await cursor.fetchall()
        except psycopg.Error as error:
            reason = error.diag.message_primary or one_line(error)
        raise GrantError(f"PostgreSQL refused a statement: {reason}")

    @asynccontextmanager
    async def _session(self, different: dict[str, str]) -> AsyncGenerator[AsyncConnection[Any]]:
        session = await connect(self._options | different, self._ca, 0, "aiodbclient-doctor")
        try:
            yield session
        finally:
            await session.close()


def _known(role: str) -> str:
    return role if role in ("doadmin", "postgres", "_dodb") else "another role"
