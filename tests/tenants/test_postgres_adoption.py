"""An existing database becomes a tenant's on PostgreSQL, with what is in it. Its login works on until it is ended."""

from __future__ import annotations

from contextlib import closing
from typing import LiteralString

import psycopg
import pytest
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from aiodbclient.errors import ConflictError
from aiodbclient.tenants import ProblemKind, Role
from aiodbclient.tenants._naming import Names
from aiodbclient.tenants._servers.postgres import PostgresServer

from .managed import Managed, ended, ready, work
from .problems import kinds

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
def names(managed: Managed) -> Names:
    """A login that works in the administrator's database."""
    names = managed.make(f"older{next(_used)}")
    login, group = Identifier(names.logins[0]), Identifier(f"{names.database}_group")
    with Connection.connect(managed.admin, dbname=names.database, autocommit=True) as administrator:
        for statement in (
            "CREATE TABLE theirs (x int); GRANT SELECT, INSERT ON theirs TO {login}",
            "CREATE TABLE in_part (x int, y int); GRANT SELECT (x), UPDATE (x) ON in_part TO {login}",
            "CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE numbers TO {login}",
            "CREATE SCHEMA s; GRANT USAGE, CREATE ON SCHEMA s TO {login}; GRANT CREATE ON SCHEMA public TO {login}",
            "CREATE FUNCTION s.private() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "REVOKE EXECUTE ON FUNCTION s.private FROM PUBLIC; GRANT EXECUTE ON FUNCTION s.private TO {login}",
            "CREATE ROLE {group}; GRANT {group} TO {login}",
            "CREATE TABLE by_membership (x int); GRANT SELECT ON by_membership TO {group}",
            "CREATE POLICY p ON theirs TO {login}",
        ):
            administrator.execute(SQL(statement).format(login=login, group=group))
        if administrator.execute("SELECT FROM pg_available_extensions WHERE name = 'pgcrypto'").fetchone():
            administrator.execute("CREATE EXTENSION pgcrypto")
    with managed.open(names.logins[0], names.database) as session:
        session.execute("CREATE TABLE its_own AS SELECT 1 AS x; SELECT lo_create(4711)")
    return names


def can(managed: Managed, names: Names, login: str) -> None:
    with managed.open(login, names.database) as session:
        for statement in BEFORE:
            with session.transaction(force_rollback=True):
                session.execute(statement)


def owners(managed: Managed) -> dict[str, str]:
    """Who owns each database."""
    return dict(managed.api("SELECT datname::text, pg_get_userbyid(datdba)::text FROM pg_database"))


@pytest.mark.parametrize("more", [None, "owns"])
async def test_an_adopted_login_can_do_what_it_could_and_so_can_the_new_one(
    managed: Managed, server: PostgresServer, names: Names, evil: Names, more: str | None
) -> None:
    old, new = names.logins
    if more == "owns":  # the database, too
        managed.api(SQL("ALTER DATABASE {} OWNER TO {}").format(Identifier(names.database), Identifier(old)))
    can(managed, names, old)
    found, before = await server.find(names), owners(managed)
    assert (found.database, found.logins, found.ended) == (True, (old,), ())
    with (
        closing(managed.open(evil.logins[0], names.database)) as neighbour,
        closing(managed.open(old, names.database)) as its,
    ):
        assert not await server.create(work(names))  # it is somebody's
        for _ in range(2):
            await server.adopt(work(names), old)
        with pytest.raises(psycopg.OperationalError):
            neighbour.execute("SELECT 1")
        its.execute("CREATE TABLE s.meanwhile (x int)")
    assert not managed.lets_in(evil.logins[0], names.database)
    await ready(server, names, new)

    can(managed, names, old)
    can(managed, names, new)
    assert await server.problems(names, names.logins) == frozenset()
    assert owners(managed) == before | {names.database: names.owner}
    with managed.open(new, names.database) as session:
        session.execute("DROP TABLE theirs, its_own, s.meanwhile; SELECT lo_unlink(4711); CREATE TABLE t (x int)")

    assert await ended(server, names, old)
    assert await server.problems(names, [new]) == frozenset()
    assert owners(managed) == before | {names.database: names.owner}


async def test_an_adopted_tenant_has_no_other_logins(managed: Managed, server: PostgresServer, evil: Names) -> None:
    """After a lost store, somebody may know the password of a login that has the name of a tenant's."""
    reader = await managed.role(evil.tenant, Role.READER, server)
    others = [evil.logins[1], reader.logins[0]]
    assert all(managed.lets_in(login, evil.database) for login in others)

    await server.adopt(work(evil), evil.logins[0])

    assert not any(managed.lets_in(login, "defaultdb") for login in others)
    assert managed.lets_in(evil.logins[0], evil.database)
    await ready(server, evil, evil.logins[1], "new")
    assert await server.problems(evil, evil.logins) == frozenset()


# What is not the tenant's to take. ``{login}`` is the login. A superuser runs it.
CANNOT: dict[str, tuple[LiteralString, str]] = {
    "CREATEDB": ("ALTER ROLE {login} CREATEDB", "it has CREATEDB"),
    "REPLICATION": ("ALTER ROLE {login} REPLICATION", "it has REPLICATION"),
    "a superuser": ("ALTER ROLE {login} SUPERUSER", "it has SUPERUSER"),
    "everything": ("GRANT pg_read_all_data TO {login}", "it has the rights of 'pg_read_all_data'"),
    "the administrator": ("GRANT doadmin TO {login}", "it has the rights of 'doadmin'"),
    "elsewhere": ("ALTER DATABASE other OWNER TO {login}", "it owns something in the database 'other'"),
    "no ADMIN": ("REVOKE {login} FROM doadmin", "the administrator may not alter it"),
    "a stranger's": ("ALTER DATABASE {database} OWNER TO _dodb_repl", "belongs to '_dodb_repl'"),
}


@pytest.mark.parametrize("what", CANNOT)
async def test_what_is_not_the_tenants_is_a_conflict_before_anything_is_changed(
    managed: Managed, server: PostgresServer, names: Names, what: str
) -> None:
    if what in {"no ADMIN", "a stranger's"} and managed.version < 16:
        pytest.skip("CREATEROLE suffices there")
    if what == "the administrator" and managed.version >= 16:
        pytest.skip("it is a member of the login there")
    statement, reason = CANNOT[what]
    if what == "elsewhere":
        managed.api("CREATE DATABASE other")
    format_ = {"login": Identifier(names.logins[0]), "database": Identifier(names.database)}
    try:
        managed.api(SQL(statement).format(**format_))
        before = owners(managed)
        with pytest.raises(ConflictError, match=reason) as caught:
            await server.adopt(work(names), names.logins[0])
        assert "nothing was changed" in str(caught.value)
        assert owners(managed) == before
        assert not managed.exists(names.owner)
        with managed.open(names.logins[0], names.database) as session:
            session.execute("INSERT INTO theirs VALUES (1)")
    finally:
        if what == "elsewhere":
            managed.drop("other")


async def test_what_a_stranger_owns_in_it_is_reported(managed: Managed, server: PostgresServer, names: Names) -> None:
    managed.api(
        "CREATE ROLE unreachable2; CREATE TABLE public.t (x int); ALTER TABLE public.t OWNER TO unreachable2",
        names.database,
    )
    await server.adopt(work(names), None)
    await ready(server, names, names.logins[1])
    expected = kinds(ProblemKind.OWNED_BY_OTHERS) if managed.version >= 16 else kinds()
    assert await server.problems(names, names.logins[1:]) == expected
    managed.api("DROP TABLE public.t; DROP ROLE unreachable2", names.database)


async def test_a_creation_that_was_killed_is_finished_and_one_of_a_stranger_is_not(
    managed: Managed, server: PostgresServer, evil: Names
) -> None:
    name = Identifier(evil.database)
    for login in evil.logins:
        assert await ended(server, evil, login)
    managed.api(SQL("ALTER DATABASE {} OWNER TO doadmin").format(name))
    managed.api(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
    assert not await server.create(work(evil))
    assert owners(managed)[evil.database] == evil.owner
    await ready(server, evil, evil.logins[0])

    managed.api(SQL("ALTER DATABASE {} OWNER TO doadmin").format(name))
    assert not await server.create(work(evil))
    assert owners(managed)[evil.database] == "doadmin"
    row = SQL("SELECT rolcanlogin FROM pg_roles WHERE rolname = {}").format(Literal(evil.owner))
    assert managed.api(row) == [(False,)]
