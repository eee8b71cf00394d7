"""A tenant is removed from PostgreSQL, whatever it or another tenant did to prevent it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from aiodbclient.tenants import Role
from aiodbclient.tenants._naming import Names
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants.errors import GrantError

from .managed import Managed, ended, ready, work


def left(managed: Managed, names: Names) -> list[Any]:
    """The existing roles of the tenant."""
    every = SQL("SELECT rolname::text FROM pg_roles WHERE rolname = ANY ({}) ORDER BY 1")
    return [name for (name,) in managed.api(every.format(Literal(sorted(names.everything))))]


async def removed(managed: Managed, server: PostgresServer, names: Names) -> None:
    """Remove a tenant, as ``Tenants.remove`` does."""
    for login in names.logins:
        await server.end_logins(work(names), [login])
    await server.drop_database(work(names))
    for login in names.logins:
        await server.drop_login(work(names), login)
    await server.forget(work(names))
    assert left(managed, names) == []


def session(managed: Managed, names: Names, database: str | None = None) -> Connection[Any]:
    return managed.open(names.logins[0], database or names.database)


async def test_a_template_with_something_left_in_defaultdb_is_removed(
    managed: Managed, server: PostgresServer, names: Names
) -> None:
    with session(managed, names, "defaultdb") as connection:
        connection.execute("SELECT lo_create(0)")
        connection.execute(SQL("ALTER DATABASE {} IS_TEMPLATE true").format(Identifier(names.database)))
    await removed(managed, server, names)


# What another tenant may grant in its own database. ``{victim}`` is the owner role of the removed tenant.
GRANTS = [
    "GRANT CONNECT ON DATABASE {evil} TO {victim}",
    "GRANT TEMPORARY ON DATABASE {evil} TO {victim} WITH GRANT OPTION",
    "CREATE TABLE t (x int); GRANT SELECT ON t TO {victim}",
    "CREATE TABLE c (x int); GRANT SELECT (x) ON c TO {victim}",
    'CREATE SCHEMA "Odd ""name"; GRANT USAGE ON SCHEMA "Odd ""name" TO {victim}',
    "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT EXECUTE ON FUNCTION f TO {victim}",
    "CREATE TYPE y AS ENUM ('a'); GRANT USAGE ON TYPE y TO {victim}",
    "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO {victim}",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {victim}",
    "CREATE TABLE p (x int); CREATE POLICY p ON p TO {victim}",
    # Granted on by the login itself:
    "GRANT CONNECT ON DATABASE {evil} TO {login} WITH GRANT OPTION; SET ROLE NONE;"
    " GRANT CONNECT ON DATABASE {evil} TO {victim}; SET ROLE {owner}",
    "CREATE TABLE t2 (x int); GRANT SELECT ON t2 TO {login} WITH GRANT OPTION; SET ROLE NONE;"
    " GRANT SELECT ON t2 TO {victim}; SET ROLE {owner}",
]
BY_LOGIN = "SET ROLE NONE; SELECT lo_create(4712); GRANT SELECT ON LARGE OBJECT 4712 TO {victim}"


def grant(managed: Managed, evil: Names, victim: Names, statement: str, database: str) -> None:
    with session(managed, evil, database) as connection:
        connection.execute(
            SQL(statement).format(
                evil=Identifier(evil.database),
                owner=Identifier(evil.owner),
                login=Identifier(evil.logins[0]),
                victim=Identifier(victim.owner),
            )
        )


def gone(managed: Managed) -> list[Any]:
    """Roles that belong to no tenant any more and could not be dropped."""
    return managed.api("SELECT oid FROM pg_roles WHERE starts_with(rolname, 'aiodbclient_gone_')")


async def test_another_tenant_cannot_keep_one_from_being_removed(
    managed: Managed, server: PostgresServer, names: Names, evil: Names
) -> None:
    for statement in [*GRANTS, BY_LOGIN]:
        grant(managed, evil, names, statement, evil.database)
    grant(managed, evil, names, GRANTS[7], "defaultdb")

    await removed(managed, server, names)
    for (role,) in gone(managed):  # what several passed on may leave a role without a login and members
        row = SQL("SELECT rolcanlogin FROM pg_roles WHERE oid = {}").format(Literal(role))
        assert managed.api(row) == [(False,)]


async def test_what_only_a_superuser_can_revoke_leaves_a_useless_role_and_a_free_name(
    managed: Managed, server: PostgresServer, names: Names
) -> None:
    managed.api("CREATE TABLE public.theirs (x int)", "defaultdb")
    both = SQL("GRANT SELECT ON public.theirs TO {}, {}").format(Identifier(names.owner), Identifier(names.logins[0]))
    managed.api(both, "defaultdb")
    before = gone(managed)
    await removed(managed, server, names)
    roles = {role for (role,) in set(gone(managed)) - set(before)}
    assert len(roles) == 2
    for role in roles:
        members = managed.api(
            SQL("SELECT member::regrole::text FROM pg_auth_members WHERE roleid = {}").format(Literal(role))
        )
        assert set(members) <= {("doadmin",)}
        row = SQL("SELECT rolcanlogin FROM pg_roles WHERE oid = {}").format(Literal(role))
        assert managed.api(row) == [(False,)]

    again = await managed.tenant(names.tenant, server)
    await removed(managed, server, again)
    managed.api("DROP TABLE public.theirs", "defaultdb")


async def test_an_owner_that_still_has_its_database_is_not_forgotten(
    managed: Managed, server: PostgresServer, names: Names
) -> None:
    with session(managed, names) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    with pytest.raises(GrantError, match="still exists"):
        await server.forget(work(names))
    with session(managed, names) as connection:
        assert connection.execute("TABLE t").fetchone() == (1,)


async def test_a_reader_is_forgotten_and_its_tenant_stays(
    managed: Managed, server: PostgresServer, names: Names
) -> None:
    reader, writer = [await managed.role(names.tenant, role, server) for role in (Role.READER, Role.WRITER)]
    with session(managed, names) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")

    assert await ended(server, reader, reader.logins[0])
    await server.forget(work(reader))

    assert reader.group not in left(managed, names)
    assert await server.problems(names, names.logins) == frozenset()
    with managed.open(writer.logins[0], names.database) as connection:
        assert connection.execute("TABLE t").fetchone() == (1,)


async def test_the_administrator_inherits_nothing_and_is_a_member_of_nothing(
    managed: Managed, server: PostgresServer, names: Names
) -> None:
    with session(managed, names) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    await server.repair(work(names), names.logins)
    with (
        Connection.connect(managed.admin, dbname=names.database) as administrator,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        administrator.execute("TABLE t")
    member = SQL(
        "SELECT pg_get_userbyid(roleid) FROM pg_auth_members WHERE pg_get_userbyid(member) = 'doadmin'"
        " AND NOT admin_option AND pg_get_userbyid(roleid) LIKE {}"
    )
    assert managed.api(member.format(Literal(f"%{names.tenant}%"))) == []
    with Connection.connect(managed.admin, dbname=names.database, autocommit=True) as administrator:  # the control
        administrator.execute(SQL("GRANT {} TO doadmin").format(Identifier(names.owner)))
        administrator.execute("TABLE t")
    assert managed.api(member.format(Literal(f"%{names.tenant}%"))) == [(names.owner,)]


async def test_rights_granted_by_suspended_tenant_end(
    managed: Managed, server: PostgresServer, names: Names, evil: Names
) -> None:
    with session(managed, names) as connection:
        give = SQL("GRANT CONNECT ON DATABASE {} TO {} WITH GRANT OPTION")
        for grantee in (evil.owner, evil.logins[0]):
            connection.execute(give.format(Identifier(names.database), Identifier(grantee)))
    assert set(await server.other_grantees(names)) == {evil.owner, evil.logins[0]}
    with closing(managed.open(evil.logins[0], names.database)) as neighbour:
        await server.end_logins(work(names), names.logins)
        for _ in range(2):
            await server.shut(work(names))
        with pytest.raises(psycopg.OperationalError):
            neighbour.execute("SELECT 1")
    assert not managed.lets_in(evil.logins[0], names.database)
    assert await server.other_grantees(names) == ()
    assert await server.problems(names, None) == frozenset()
    await ready(server, names, names.logins[0])
    assert await server.problems(names, [names.logins[0]]) == frozenset()


@pytest.mark.parametrize("step", ["drop_database", "move"])
async def test_prepared_transaction_in_database_named(
    managed: Managed, server: PostgresServer, names: Names, step: str
) -> None:
    """Somebody could commit it. A suspension leaves it alone."""
    with managed.open(names.logins[0], names.database) as connection:
        connection.execute("SET ROLE NONE; BEGIN; SELECT 1; PREPARE TRANSACTION 'held'")
    await server.end_logins(work(names), names.logins)
    await server.shut(work(names))

    async def again() -> None:
        await (server.drop_database(work(names)) if step == "drop_database" else server.shut(work(names), still=True))

    with pytest.raises(GrantError, match=f"has the prepared transaction 'held' of '{names.logins[0]}'"):
        await again()
    managed.api("ROLLBACK PREPARED 'held'", names.database)
    await again()


@pytest.mark.parametrize("whose", ["its own", "a neighbour's"])
async def test_a_database_whose_deletion_was_interrupted_does_not_keep_a_login(
    managed: Managed, server: PostgresServer, names: Names, evil: Names, whose: str
) -> None:
    """PostgreSQL lets nobody into it: all that is left to do is to drop it."""
    with session(managed, evil) as connection:
        name, owner, login = Identifier(evil.database), Identifier(names.owner), Identifier(names.logins[0])
        connection.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, login))
        connection.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}, {}").format(owner, login))
    with session(managed, names, evil.database) as connection:
        connection.execute("CREATE TABLE public.t (x int); SET ROLE NONE; CREATE TABLE public.u (x int)")
    with session(managed, names) as connection:
        connection.execute("CREATE TABLE public.t (x int)")
    invalid = names.database if whose == "its own" else evil.database
    managed.api(SQL("UPDATE pg_database SET datconnlimit = -2 WHERE datname = {}").format(invalid))

    await server.end_logins(work(names), [names.logins[0]])
    if whose == "its own":
        await removed(managed, server, names)
    else:
        assert not await server.drop_login(work(names), names.logins[0])
        managed.drop(invalid)
        assert await server.drop_login(work(names), names.logins[0])
