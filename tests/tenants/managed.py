"""A PostgreSQL with the rights of a managed cluster. Its superuser acts as the provider's API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier, Literal

from aiodbclient import Engine
from aiodbclient.sandbox import _postgres, _provider
from aiodbclient.sandbox._embedded import binaries
from aiodbclient.tenants._credential import Secret
from aiodbclient.tenants._naming import Names, names_of
from aiodbclient.tenants._servers.postgres import PostgresServer

from .servers import RestartablePostgres
from .tenant import PASSWORD, Tenant

# The newest is embedded. `make test-all` tests the others that are installed too.
INSTALLED = [
    *filter(None, [binaries()]),
    *(
        pytest.param(found, marks=pytest.mark.thorough)
        for found in sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if (found / "initdb").exists()
    ),
]


class Managed:
    """One such server."""

    def __init__(self, programs: Path) -> None:
        self.server = RestartablePostgres(programs)
        self.superuser = self.server.dsn
        asyncio.run(self._make_provider())
        self.api("CREATE DATABASE defaultdb OWNER doadmin")
        self.admin = make_conninfo(self.superuser, user="doadmin", password="doadmin-secret", dbname="defaultdb")

    async def _make_provider(self) -> None:
        async with await AsyncConnection.connect(self.superuser, autocommit=True) as connection:
            await connection.execute(_provider.MAKE_SYSTEM_ROLES)
            await _postgres.make_primary(connection, self.version, "doadmin-secret")

    @cached_property
    def version(self) -> int:
        with Connection.connect(self.superuser) as connection:
            return connection.info.server_version // 10_000

    def postgres(self, **options: Any) -> PostgresServer:
        return PostgresServer(Secret(self.admin), None, **options)

    def api(self, statement: LiteralString | Composed, database: str = "postgres") -> list[Any]:
        """A superuser's session, for what the API does. A tenant may have set a timeout on its database."""
        with Connection.connect(
            self.superuser, dbname=database, autocommit=True, options="-c statement_timeout=0 -c search_path="
        ) as connection:
            cursor = connection.execute(SQL(statement) if isinstance(statement, str) else statement)
            return [] if cursor.description is None else cursor.fetchall()

    def open(self, login: str, database: str | None, password: str = PASSWORD) -> Connection[Any]:
        """A session of a tenant's program, or of an attacker with its credential."""
        return Connection.connect(
            make_conninfo(self.superuser, user=login, password=password, dbname=database), autocommit=True
        )

    def make(self, tenant: str) -> Names:
        """As the API: create a database, and a login of its name."""
        names = names_of(tenant, Engine.PG)
        self.api(SQL("CREATE DATABASE {} OWNER doadmin").format(Identifier(names.database)))
        self.make_login(names.database)
        return names

    def make_login(self, login: str) -> None:
        """As the API: create a login, which the administrator may alter."""
        name = Identifier(login)
        self.api(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, Literal(PASSWORD)))
        if self.version >= 16:
            self.api(SQL("GRANT {} TO doadmin WITH ADMIN TRUE, INHERIT TRUE, SET TRUE").format(name))

    async def tenant(self, name: str, server: PostgresServer, logins: int = 2) -> Tenant:
        """A tenant with two logins, as after a rotation."""
        tenant = Tenant(server, names_of(name, Engine.PG))
        assert await tenant.steps.create()
        for _ in range(logins):
            await tenant.add()
        return tenant

    def reset(self, login: str, password: str) -> None:
        self.api(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(login), Literal(password)))

    def exists(self, role: str) -> bool:
        return bool(self.api(SQL("SELECT FROM pg_roles WHERE rolname = {}").format(Literal(role))))

    def delete(self, login: str) -> None:
        """As a superuser: delete a login with all that it has."""
        for (database,) in self.api("SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2"):
            self.api(SQL("DROP OWNED BY {} CASCADE").format(Identifier(login)), database)
        self.api(SQL("DROP ROLE {}").format(Identifier(login)))

    def drop(self, database: str) -> None:
        self.api(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(database)))

    def sessions(self, login: str) -> int:
        [(number,)] = self.api(SQL("SELECT count(*) FROM pg_stat_activity WHERE usename = {}").format(Literal(login)))
        return int(number)

    async def closed(self, login: str) -> None:
        """Wait until the server has ended the sessions that a login has closed: they count until then."""
        while self.sessions(login):
            await asyncio.sleep(0.01)

    def running(self, code: str) -> int:
        """How many sessions of others run a statement with this text."""
        active = (
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename <> 'postgres' AND query LIKE {}"
        )
        [(number,)] = self.api(SQL(active).format(Literal(f"%{code}%")))
        return int(number)

    def reload(self) -> None:
        """Let the server read its settings again, and wait until it has: a session begins with what was read then."""
        before = self.api("SELECT pg_conf_load_time()")
        self.api("SELECT pg_reload_conf()")
        while self.api("SELECT pg_conf_load_time()") == before:
            time.sleep(0.01)

    def lets_in(self, login: str, database: str | None, password: str = PASSWORD) -> bool:
        try:
            self.open(login, database, password).close()
        except psycopg.OperationalError:
            return False
        return True


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
