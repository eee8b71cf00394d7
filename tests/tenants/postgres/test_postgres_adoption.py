"""An existing database becomes a tenant's on PostgreSQL, with what is in it. Its login works on until it is ended."""

from __future__ import annotations

from contextlib import closing
from typing import LiteralString

import psycopg
import pytest
from attrs import evolve
from psycopg import Connection

from aiodbclient import Engine
from aiodbclient.errors import ConflictError
from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers import ServerState
from aiodbclient.tenants._servers.postgres import PostgresServer

from ..conftest import present
from ..managed import Managed
from ..tenant import Tenant

_used = iter(range(10**6))

# What the administrator granted to the login before, and it may still do.
BEFORE: list[LiteralString] = [
    "INSERT INTO theirs VALUES (1)",
    "SELECT x FROM in_part",
    "UPDATE in_part SET x = 1",
    "SELECT nextval('numbers')",
    "SELECT s.private()",
    "CREATE TABLE s.mine (x int)",
    "SELECT * FROM by_membership",
    "ALTER TABLE its_own ADD y int",
]


@pytest.fixture
def older(managed: Managed, server: PostgresServer) -> Tenant:
    """A login that works in the administrator's database."""
    tenant = Tenant(server, managed.make(f"older{next(_used)}"))
    login, group = tenant.database, f"{tenant.database}_group"
    with Connection.connect(managed.admin, dbname=tenant.database, autocommit=True) as administrator:
        for statement in (
            f"CREATE TABLE theirs (x int); GRANT SELECT, INSERT ON theirs TO {login}",
            f"CREATE TABLE in_part (x int, y int); GRANT SELECT (x), UPDATE (x) ON in_part TO {login}",
            f"CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE numbers TO {login}",
            f"CREATE SCHEMA s; GRANT USAGE, CREATE ON SCHEMA s TO {login}; GRANT CREATE ON SCHEMA public TO {login}",
            "CREATE FUNCTION s.private() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            f"REVOKE EXECUTE ON FUNCTION s.private FROM PUBLIC; GRANT EXECUTE ON FUNCTION s.private TO {login}",
            f"CREATE ROLE {group}; GRANT {group} TO {login}",
            f"CREATE TABLE by_membership (x int); GRANT SELECT ON by_membership TO {group}",
            f"CREATE POLICY p ON theirs TO {login}",
        ):
            administrator.execute(statement)
        if administrator.execute("SELECT FROM pg_available_extensions WHERE name = 'pgcrypto'").fetchone():
            administrator.execute("CREATE EXTENSION pgcrypto")
    managed.run(tenant, "CREATE TABLE its_own AS SELECT 1 AS x; SELECT lo_create(4711)", login=tenant.database)
    return tenant


def can(managed: Managed, tenant: Tenant, login: str) -> None:
    with managed.open(login, tenant.database) as session:
        for statement in BEFORE:
            with session.transaction(force_rollback=True):
                session.execute(statement)


def owners(managed: Managed) -> dict[str, str]:
    """Who owns each database."""
    return dict(managed.api("SELECT datname::text, pg_get_userbyid(datdba)::text FROM pg_database"))


async def adopt(tenant: Tenant) -> str:
    """Adopt the database. Return the login that goes on."""
    login = present(await tenant.steps.adopt())
    tenant.on_record = {login: Role.OWNER}
    return login


@pytest.mark.parametrize("more", [None, "owns"])
async def test_adopted_login_keeps_its_rights(
    managed: Managed, server: PostgresServer, older: Tenant, evil: Tenant, more: str | None
) -> None:
    old = older.database
    if more == "owns":  # the database, too
        managed.api(f"ALTER DATABASE {old} OWNER TO {old}")
    can(managed, older, old)
    found, before = await server.inspect(older.names), owners(managed)
    assert evolve(found, mismatch="") == ServerState(database=True, same_name_login=True, not_ours=True)
    with (
        closing(managed.open(evil.logins[0], older.database)) as neighbour,
        closing(managed.open(old, older.database)) as its,
    ):
        assert not await older.steps.create()  # it is somebody's
        for _ in range(2):
            assert await adopt(older) == old
        with pytest.raises(psycopg.OperationalError):
            neighbour.execute("SELECT 1")
        its.execute("CREATE TABLE s.meanwhile (x int)")
    assert not managed.lets_in(evil.logins[0], older.database)
    new = await older.add()

    can(managed, older, old)
    can(managed, older, new)
    assert await older.problems() == frozenset()
    assert owners(managed) == before | {older.database: "doadmin"}
    managed.run(
        older, "DROP TABLE theirs, its_own, s.meanwhile; SELECT lo_unlink(4711); CREATE TABLE t (x int)", login=new
    )

    assert await older.end(old)
    assert await older.problems() == frozenset()
    assert owners(managed) == before | {older.database: "doadmin"}


async def test_adopted_login_keeps_objects_elsewhere(managed: Managed, server: PostgresServer, older: Tenant) -> None:
    """Neither taken nor dropped, at adoption and when it is ended: then the login stays, without LOGIN."""
    old = older.database
    elsewhere = Tenant(server, managed.make(f"{old}_elsewhere"))
    managed.api(f"ALTER DATABASE {elsewhere.database} OWNER TO {old}; GRANT CREATE ON DATABASE {old} TO {old}")
    managed.run(
        older,
        "CREATE TABLE kept AS SELECT 1 AS x; CREATE SCHEMA s CREATE TABLE inner_t (x int)",
        login=old,
        database=elsewhere.database,
    )

    await adopt(older)
    await older.add()
    managed.run(older, "INSERT INTO kept VALUES (2)", login=old, database=elsewhere.database)
    assert await older.problems() == frozenset()

    assert not await older.end(old)

    assert managed.exists(old)
    assert not managed.lets_in(old, elsewhere.database)
    assert owners(managed)[elsewhere.database] == old
    owned = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE tablename IN ('kept', 'inner_t')"
    assert managed.api(owned, elsewhere.database) == [(old,)]
    assert managed.api("TABLE public.kept", elsewhere.database) == [(1,), (2,)]
    assert managed.api("SELECT DISTINCT tableowner::text FROM pg_tables WHERE tablename = 'its_own'", old) == [
        (older.owner,)
    ]
    assert await older.problems() == frozenset()
    managed.drop(elsewhere.database)
    assert await older.end(old)


async def test_objects_of_third_logins_are_taken(managed: Managed, older: Tenant) -> None:
    """Those of a role that the administrator may not alter are reported."""
    third = f"{older.database}_third"
    managed.make_login(third)
    stranger = "CREATE ROLE unreachable2; CREATE TABLE public.t (x int); ALTER TABLE public.t OWNER TO unreachable2"
    managed.api(f"GRANT CREATE ON SCHEMA public TO {third}; {stranger}", older.database)
    managed.run(older, "CREATE TABLE of_third AS SELECT 1 AS x", login=third)

    await adopt(older)

    new = await older.add()
    expected = [Problem(ProblemKind.OWNED_BY_OTHERS, "unreachable2")] if managed.version >= 16 else []
    assert await older.problems() == {*expected}
    assert not managed.lets_in(third, older.database)
    managed.run(older, "ALTER TABLE of_third ADD y int", login=new)
    managed.api("DROP TABLE public.t; DROP ROLE unreachable2", older.database)


async def test_schema_of_the_logins_name_is_a_conflict(managed: Managed, older: Tenant) -> None:
    """A new login would not look there: its "$user" is the owner role. The error says the statement that helps."""
    old, before = older.database, owners(managed)
    with Connection.connect(managed.admin, dbname=old, autocommit=True) as administrator:
        administrator.execute(f"GRANT CREATE ON DATABASE {old} TO {old}")
    managed.run(older, f"CREATE SCHEMA {old}", "CREATE TABLE in_schema (x int)", login=old)

    with pytest.raises(
        ConflictError, match=f"ALTER DATABASE .* SET search_path = .*{old}.*nothing was changed"
    ) as caught:
        await older.steps.adopt()

    assert owners(managed) == before
    assert not managed.exists(older.owner)
    statement = str(caught.value).partition("run ")[2].partition("; nothing")[0]
    managed.api(statement)
    await adopt(older)
    for login in (old, await older.add()):
        managed.run(older, "TABLE in_schema", login=login)


# What is not the tenant's to take. ``{login}`` is the login. A superuser runs it.
CANNOT: dict[str, tuple[LiteralString, str]] = {
    "CREATEDB": ("ALTER ROLE {login} CREATEDB", "has the attribute CREATEDB"),
    "REPLICATION": ("ALTER ROLE {login} REPLICATION", "has the attribute REPLICATION"),
    "a superuser": ("ALTER ROLE {login} SUPERUSER", "has the attribute SUPERUSER"),
    "everything": ("GRANT pg_read_all_data TO {login}", "has the rights of pg_read_all_data"),
    "the administrator": ("GRANT doadmin TO {login}", "has the rights of doadmin"),
    "no ADMIN": ("REVOKE {login} FROM doadmin", "the administrator may not alter it"),
    "a stranger's": ("ALTER DATABASE {login} OWNER TO _dodb_repl", "belongs to '_dodb_repl'"),
}


@pytest.mark.parametrize("what", CANNOT)
async def test_what_is_not_the_tenants_is_a_conflict(managed: Managed, older: Tenant, what: str) -> None:
    if what in {"no ADMIN", "a stranger's"} and managed.version < 16:
        pytest.skip("CREATEROLE suffices there")
    if what == "the administrator" and managed.version >= 16:
        pytest.skip("it is a member of the login there")
    statement, reason = CANNOT[what]
    managed.api(statement.format(login=older.database))
    before = owners(managed)

    with pytest.raises(ConflictError, match=reason) as caught:
        await older.steps.adopt()

    assert "nothing was changed" in str(caught.value)
    assert owners(managed) == before
    assert not managed.exists(older.owner)
    managed.run(older, "INSERT INTO theirs VALUES (1)", login=older.database)


async def test_killed_creation_is_finished(managed: Managed, server: PostgresServer) -> None:
    """Whether the process died when the database was closed, or before the schema ``public`` was the owner role's."""
    tenant = Tenant(server, names_of("killed", Engine.PG))
    managed.as_admin("CREATE DATABASE killed TEMPLATE template0 ALLOW_CONNECTIONS false")
    for _ in range(2):
        assert not await tenant.steps.create()
        await tenant.add()
        managed.run(tenant, "CREATE TABLE t (); DROP TABLE t")
        managed.api("ALTER SCHEMA public OWNER TO pg_database_owner", "killed")
    await tenant.remove()


async def test_database_of_administrator_is_not_opened(managed: Managed, server: PostgresServer) -> None:
    """One that a process did not make: somebody else made it after the process died."""
    tenant = Tenant(server, names_of("somebodys", Engine.PG))
    managed.as_admin("CREATE DATABASE somebodys")
    assert not await tenant.steps.create()
    assert (await server.inspect(tenant.names)).not_ours
    assert not managed.exists(tenant.owner)
    managed.drop("somebodys")
