"""A PostgreSQL with the rights of a managed cluster. Its superuser acts as the provider's API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier, Literal

from aiodbclient import Engine
from aiodbclient.sandbox._embedded import binaries
from aiodbclient.tenants import Role
from aiodbclient.tenants._grants.postgres import PostgresGrants
from aiodbclient.tenants._naming import Names, names_of

from .servers import RestartablePostgres

# The newest is embedded. `make test-all` tests the others that are installed too.
INSTALLED = [
    *filter(None, [binaries()]),
    *(
        pytest.param(found, marks=pytest.mark.thorough)
        for found in sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if (found / "initdb").exists()
    ),
]
PASSWORD = "secret"
# The databases in which a role owns something or has a grant. Those of the whole server have no database.
_WHERE_IT_IS = SQL(
    "SELECT DISTINCT coalesce(datname, 'postgres') FROM pg_shdepend JOIN pg_roles ON pg_roles.oid = refobjid"
    " LEFT JOIN pg_database ON pg_database.oid = dbid WHERE rolname = {}"
)


class Managed:
    """One such server."""

    def __init__(self, programs: Path) -> None:
        self.server = RestartablePostgres(programs)
        self.superuser = self.server.dsn
        self.api("CREATE ROLE doadmin LOGIN CREATEDB CREATEROLE PASSWORD 'doadmin-secret'")
        self.api("CREATE DATABASE defaultdb OWNER doadmin")
        self.admin = make_conninfo(self.superuser, user="doadmin", password="doadmin-secret", dbname="defaultdb")

    @property
    def version(self) -> int:
        with Connection.connect(self.superuser) as connection:
            return connection.info.server_version // 10_000

    def grants(self, **options: Any) -> PostgresGrants:
        return PostgresGrants(self.admin, None, **options)

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
        """Create a database and its owner's two logins."""
        names = names_of(tenant, Engine.PG)
        self.api(SQL("CREATE DATABASE {} OWNER doadmin").format(Identifier(names.database or "")))
        for login in names.logins:
            self.make_login(login)
        return names

    def make_login(self, login: str) -> None:
        self.api(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(login), Literal(PASSWORD)))

    async def tenant(self, tenant: str, grants: PostgresGrants) -> Names:
        """A tenant with its first login in use and its second ready."""
        names = self.make(tenant)
        for login in names.logins:
            await ready(grants, names, login)
        return names

    async def role(self, tenant: str, role: Role, grants: PostgresGrants) -> Names:
        """A reader or writer of a tenant."""
        names = names_of(tenant, Engine.PG, role=role)
        self.make_login(names.logins[0])
        await ready(grants, names, names.logins[0])
        return names

    def reset(self, login: str, password: str) -> None:
        self.api(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(login), Literal(password)))

    def delete(self, login: str) -> None:
        """Delete a login as the provider does: the administrator gets its objects, and its grants are revoked."""
        for (database,) in self.api(_WHERE_IT_IS.format(Literal(login))):
            self.api(SQL("REASSIGN OWNED BY {0} TO doadmin; DROP OWNED BY {0}").format(Identifier(login)), database)
        self.api(SQL("DROP ROLE IF EXISTS {}").format(Identifier(login)))

    def deletes(self, login: str) -> Callable[[], Awaitable[None]]:
        async def delete() -> None:
            self.delete(login)

        return delete

    def drop(self, database: str) -> None:
        self.api(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(database)))

    def lets_in(self, login: str, database: str | None, password: str = PASSWORD) -> bool:
        try:
            self.open(login, database, password).close()
        except psycopg.OperationalError:
            return False
        return True


async def ready(grants: PostgresGrants, names: Names, login: str, password: str = PASSWORD) -> None:
    """Grant a login its rights and log in, as provision, rotate and repair do."""
    await grants.give(names, login)
    assert await grants.log_in(names, login, password) is None
    assert await grants.problems(names, [login]) == frozenset()


async def ended(
    grants: PostgresGrants, names: Names, login: str, password: str | None, delete: Callable[[], Awaitable[None]]
) -> str | None:
    """End a login and delete it, as ``remove`` does. Returns why it was unusable."""
    refused = await grants.end_login(names, login, password)
    if refused is None:
        await grants.before_deletion(names, login)
        await delete()
    return refused
