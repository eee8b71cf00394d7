"""A PostgreSQL with the rights of a managed cluster. Its superuser acts as the provider's API."""

from __future__ import annotations

import asyncio
from functools import cached_property
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import make_conninfo

from aiodbclient import Engine
from aiodbclient._masking import Secret
from aiodbclient.sandbox._backends import postgres, provider
from aiodbclient.sandbox._embedded import wheel_programs
from aiodbclient.tenants._naming import Names, names_of
from aiodbclient.tenants._servers.postgres import PostgresServer

from ..waiting import until, wait_until
from .servers import RestartablePostgres
from .tenant import PASSWORD, Tenant

# The newest is embedded. `make test-all` tests the others that are installed too.
INSTALLED = [
    *filter(None, [wheel_programs()]),
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
            await connection.execute(provider.CREATE_SYSTEM_ROLES)
            await postgres.create_primary(connection, self.version, "doadmin-secret")

    @cached_property
    def version(self) -> int:
        with Connection.connect(self.superuser) as connection:
            return connection.info.server_version // 10_000

    def postgres(self, **options: Any) -> PostgresServer:
        return PostgresServer(Secret(self.admin), None, **options)

    def api(self, statement: LiteralString, database: str = "postgres") -> list[Any]:
        """A superuser's session, for what the API does. A tenant may have set a timeout on its database."""
        with Connection.connect(
            self.superuser, dbname=database, autocommit=True, options="-c statement_timeout=0 -c search_path="
        ) as connection:
            cursor = connection.execute(statement)
            return [] if cursor.description is None else cursor.fetchall()

    def open(self, login: str, database: str | None, password: str = PASSWORD, **more: str) -> Connection[Any]:
        """A session of a tenant's program, or of an attacker with its credential."""
        return Connection.connect(
            make_conninfo(self.superuser, user=login, password=password, dbname=database, **more), autocommit=True
        )

    def run(self, tenant: Tenant, *statements: LiteralString, login: str = "", database: str = "") -> list[Any]:
        """Run statements, by default with the tenant's oldest login in its own database. Return the last one's rows."""
        rows = list[Any]()
        with self.open(login or tenant.logins[0], database or tenant.database) as session:
            for statement in statements:
                cursor = session.execute(statement)
                rows = [] if cursor.description is None else cursor.fetchall()
        return rows

    def as_admin(self, statement: LiteralString, database: str = "defaultdb") -> list[Any]:
        """A session of the administrator, who owns the tenants' databases."""
        with Connection.connect(self.admin, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return [] if cursor.description is None else cursor.fetchall()

    def let_in(self, tenant: Tenant, guest: str) -> None:
        """An administrator lets another role into a tenant's database. A tenant cannot."""
        self.as_admin(f"GRANT CONNECT ON DATABASE {tenant.database} TO {guest}")
        self.run(tenant, f"GRANT USAGE, CREATE ON SCHEMA public TO {guest}")

    def make(self, tenant: str) -> Names:
        """As the API: create a database, and a login of its name."""
        names = names_of(tenant, Engine.PG)
        self.api(f'CREATE DATABASE "{names.database}" OWNER doadmin')
        self.make_login(names.database)
        return names

    def make_login(self, login: str) -> None:
        """As the API: create a login, which the administrator may alter."""
        self.api(f"CREATE ROLE \"{login}\" LOGIN PASSWORD '{PASSWORD}'")
        if self.version >= 16:
            self.api(f'GRANT "{login}" TO doadmin WITH ADMIN TRUE, INHERIT TRUE, SET TRUE')

    async def tenant(self, name: str, server: PostgresServer, logins: int = 2) -> Tenant:
        """A tenant with two logins, as after a rotation."""
        tenant = Tenant(server, names_of(name, Engine.PG))
        assert await tenant.steps.create()
        for _ in range(logins):
            await tenant.add()
        return tenant

    def owner_of(self, database: str) -> str:
        [(owner,)] = self.api(f"SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = '{database}'")
        return str(owner)

    def exists(self, role: str) -> bool:
        return bool(self.api(f"SELECT FROM pg_roles WHERE rolname = '{role}'"))

    def delete(self, login: str) -> None:
        """As a superuser: delete a login with all that it has."""
        for (database,) in self.api("SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2"):
            self.api(f'DROP OWNED BY "{login}" CASCADE', database)
        self.api(f'DROP ROLE "{login}"')

    def drop(self, database: str) -> None:
        self.api(f'DROP DATABASE "{database}" WITH (FORCE)')

    def sessions(self, login: str) -> int:
        return len(self.api(f"SELECT FROM pg_stat_activity WHERE usename = '{login}'"))

    async def closed(self, login: str) -> None:
        """Wait until the server has ended the sessions that a login has closed: they count until then."""
        await until(lambda: not self.sessions(login))

    async def left(self, database: str) -> None:
        """Wait until the server has ended the sessions that were closed in a database."""
        await until(lambda: not self.api(f"SELECT FROM pg_stat_activity WHERE datname = '{database}'"))

    def running(self, code: str) -> int:
        """How many sessions of others run a statement with this text."""
        active = "SELECT FROM pg_stat_activity WHERE state = 'active' AND usename <> 'postgres'"
        return len(self.api(f"{active} AND query LIKE '%{code}%'"))

    def reload(self) -> None:
        """Let the server read its settings again, and wait until it has: a session begins with what was read then."""
        before = self.api("SELECT pg_conf_load_time()")
        self.api("SELECT pg_reload_conf()")
        wait_until(lambda: self.api("SELECT pg_conf_load_time()") != before)

    def lets_in(self, login: str, database: str | None, password: str = PASSWORD) -> bool:
        try:
            self.open(login, database, password).close()
        except psycopg.OperationalError:
            return False
        return True
