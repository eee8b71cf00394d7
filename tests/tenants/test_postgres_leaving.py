"""A tenant is removed from PostgreSQL, whatever it or another tenant did to prevent it."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from aiodbclient.tenants import Role
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants.errors import GrantError

from .managed import Managed
from .tenant import Tenant


async def removed(managed: Managed, tenant: Tenant) -> None:
    """Remove a tenant. At most ended logins are left of it."""
    await tenant.remove()
    found = await tenant.server.find(tenant.names)
    assert not found
    every = SQL("SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, {}) ORDER BY 1")
    assert managed.api(every.format(Literal(tenant.names.stem))) == [(login,) for login in found.ended]


def session(managed: Managed, victim: Tenant, database: str | None = None) -> Connection[Any]:
    return managed.open(victim.logins[0], database or victim.database)


async def test_template_database_is_removed(managed: Managed, victim: Tenant) -> None:
    with session(managed, victim, "defaultdb") as connection:
        connection.execute("SELECT lo_create(0)")
        connection.execute(SQL("ALTER DATABASE {} IS_TEMPLATE true").format(Identifier(victim.database)))
    await removed(managed, victim)


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


def grant(managed: Managed, evil: Tenant, victim: Tenant, statement: str, database: str) -> None:
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
    managed: Managed, victim: Tenant, evil: Tenant
) -> None:
    for statement in [*GRANTS, BY_LOGIN]:
        grant(managed, evil, victim, statement, evil.database)
    grant(managed, evil, victim, GRANTS[7], "defaultdb")

    await removed(managed, victim)
    for (role,) in gone(managed):  # what several passed on may leave a role without a login and members
        row = SQL("SELECT rolcanlogin FROM pg_roles WHERE oid = {}").format(Literal(role))
        assert managed.api(row) == [(False,)]


async def test_superusers_grant_leaves_useless_role(managed: Managed, server: PostgresServer, victim: Tenant) -> None:
    """An ended login stays, and the owner role under another name: the next tenant of the name inherits nothing."""
    login, name = victim.logins[0], victim.names.tenant
    managed.api("CREATE TABLE public.theirs (x int)", "defaultdb")
    both = SQL("GRANT SELECT ON public.theirs TO {}, {}").format(Identifier(victim.owner), Identifier(login))
    managed.api(both, "defaultdb")
    before = gone(managed)
    await removed(managed, victim)
    assert (await server.find(victim.names)).ended == (login,)
    [role] = {role for (role,) in set(gone(managed)) - set(before)}
    members = SQL("SELECT member::regrole::text FROM pg_auth_members WHERE roleid = {}").format(Literal(role))
    assert set(managed.api(members)) <= {("doadmin",)}
    row = SQL("SELECT rolcanlogin FROM pg_roles WHERE oid = {}").format(Literal(role))
    assert managed.api(row) == [(False,)]

    again = await managed.tenant(name, server)
    assert login not in again.logins
    may = "SELECT has_table_privilege({}, 'public.theirs', 'SELECT')"
    assert managed.api(SQL(may).format(Literal(again.owner)), "defaultdb") == [(False,)]
    await removed(managed, again)
    managed.api("DROP TABLE public.theirs", "defaultdb")


async def test_owner_of_database_is_not_forgotten(managed: Managed, victim: Tenant) -> None:
    with session(managed, victim) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    with pytest.raises(GrantError, match="still exists"):
        await victim.steps.forget()
    with session(managed, victim) as connection:
        assert connection.execute("TABLE t").fetchone() == (1,)


async def test_a_reader_is_forgotten_and_its_tenant_stays(managed: Managed, victim: Tenant) -> None:
    reader, writer = [await victim.add(role) for role in (Role.READER, Role.WRITER)]
    with session(managed, victim) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")

    assert await victim.end(reader)
    await victim.steps.forget(Role.READER)

    assert not managed.exists(victim.names.group(Role.READER))
    assert await victim.problems() == frozenset()
    with managed.open(writer, victim.database) as connection:
        assert connection.execute("TABLE t").fetchone() == (1,)


async def test_administrator_is_member_of_nothing(managed: Managed, victim: Tenant) -> None:
    with session(managed, victim) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    await victim.repair()
    with (
        Connection.connect(managed.admin, dbname=victim.database) as administrator,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        administrator.execute("TABLE t")
    member = SQL(
        "SELECT pg_get_userbyid(roleid) FROM pg_auth_members WHERE pg_get_userbyid(member) = 'doadmin'"
        " AND NOT admin_option AND pg_get_userbyid(roleid) LIKE {}"
    )
    assert managed.api(member.format(Literal(f"%{victim.names.tenant}%"))) == []
    with Connection.connect(managed.admin, dbname=victim.database, autocommit=True) as administrator:  # the control
        administrator.execute(SQL("GRANT {} TO doadmin").format(Identifier(victim.owner)))
        administrator.execute("TABLE t")
    assert managed.api(member.format(Literal(f"%{victim.names.tenant}%"))) == [(victim.owner,)]


async def test_rights_granted_by_suspended_tenant_end(
    managed: Managed, server: PostgresServer, victim: Tenant, evil: Tenant
) -> None:
    with session(managed, victim) as connection:
        give = SQL("GRANT CONNECT ON DATABASE {} TO {} WITH GRANT OPTION")
        for grantee in (evil.owner, evil.logins[0]):
            connection.execute(give.format(Identifier(victim.database), Identifier(grantee)))
    assert set(await server.other_grantees(victim.names)) == {evil.owner, evil.logins[0]}
    with closing(managed.open(evil.logins[0], victim.database)) as neighbour:
        for _ in range(2):
            await victim.suspend()
        with pytest.raises(psycopg.OperationalError):
            neighbour.execute("SELECT 1")
    assert not managed.lets_in(evil.logins[0], victim.database)
    assert await server.other_grantees(victim.names) == ()
    assert await server.problems(victim.names, None) == frozenset()
    await victim.add()
    assert await victim.problems() == frozenset()


@pytest.mark.parametrize("step", ["drop_database", "freeze"])
async def test_prepared_transaction_in_database_named(managed: Managed, victim: Tenant, step: str) -> None:
    """Somebody could commit it. A suspension leaves it alone."""
    login = victim.logins[0]
    with managed.open(login, victim.database) as connection:
        connection.execute("SET ROLE NONE; BEGIN; SELECT 1; PREPARE TRANSACTION 'held'")
    if step == "drop_database":
        await victim.suspend()
    act = victim.steps.drop_database if step == "drop_database" else partial(victim.steps.freeze, victim.on_record)

    with pytest.raises(GrantError, match=f"has the prepared transaction 'held' of '{login}'"):
        await act()
    assert managed.lets_in(login, victim.database) is (step == "freeze")  # nobody was shut out for it
    managed.api("ROLLBACK PREPARED 'held'", victim.database)
    await act()
    assert not managed.lets_in(login, victim.database)


@pytest.mark.parametrize("whose", ["its own", "a neighbour's"])
async def test_half_dropped_database_keeps_no_login(managed: Managed, victim: Tenant, evil: Tenant, whose: str) -> None:
    """PostgreSQL lets nobody into it: all that is left to do is to drop it."""
    with session(managed, evil) as connection:
        name, owner, login = Identifier(evil.database), Identifier(victim.owner), Identifier(victim.logins[0])
        connection.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, login))
        connection.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}, {}").format(owner, login))
    with session(managed, victim, evil.database) as connection:
        connection.execute("CREATE TABLE public.t (x int); SET ROLE NONE; CREATE TABLE public.u (x int)")
    with session(managed, victim) as connection:
        connection.execute("CREATE TABLE public.t (x int)")
    invalid = victim.database if whose == "its own" else evil.database
    managed.api(SQL("UPDATE pg_database SET datconnlimit = -2 WHERE datname = {}").format(invalid))

    await victim.steps.end_logins([victim.logins[0]])
    if whose == "its own":
        await removed(managed, victim)
    else:
        assert await victim.steps.drop_logins([victim.logins[0]]) == (victim.logins[0],)
        managed.drop(invalid)
        assert await victim.steps.drop_logins([victim.logins[0]]) == ()
