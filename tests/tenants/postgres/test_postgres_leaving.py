"""A tenant is removed from PostgreSQL, whatever it or another tenant did to prevent it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from aiodbclient.tenants import Role
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants.errors import GrantError

from ..managed import Managed
from ..tenant import Tenant


async def removed(managed: Managed, tenant: Tenant) -> None:
    """Remove a tenant. At most ended logins are left of it."""
    await tenant.remove()
    found = await tenant.server.inspect(tenant.names)
    assert not found
    every = f"SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, '{tenant.names.stem}') ORDER BY 1"
    assert managed.api(every) == [(login,) for login in found.disabled]


# What another tenant may grant in its own database. ``{victim}`` is the owner role of the removed tenant.
GRANTS = [
    "CREATE TABLE t (x int); GRANT SELECT ON t TO {victim}",
    "CREATE TABLE c (x int); GRANT SELECT (x) ON c TO {victim}",
    'CREATE SCHEMA "Odd ""name"; GRANT USAGE ON SCHEMA "Odd ""name" TO {victim}',
    "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT EXECUTE ON FUNCTION f TO {victim}",
    "CREATE TYPE y AS ENUM ('a'); GRANT USAGE ON TYPE y TO {victim}",
    "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO {victim}",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {victim}",
    "CREATE TABLE p (x int); CREATE POLICY p ON p TO {victim}",
    # Granted on by the login itself:
    "CREATE TABLE t2 (x int); GRANT SELECT ON t2 TO {login} WITH GRANT OPTION; SET ROLE NONE;"
    " GRANT SELECT ON t2 TO {victim}; SET ROLE {owner}",
]
BY_LOGIN = "SET ROLE NONE; SELECT lo_create(4712); GRANT SELECT ON LARGE OBJECT 4712 TO {victim}"


def gone(managed: Managed) -> list[Any]:
    """Roles that belong to no tenant any more and could not be dropped."""
    return managed.api("SELECT oid FROM pg_roles WHERE starts_with(rolname, 'aiodbclient_gone_')")


async def test_another_tenant_cannot_keep_one_from_being_removed(
    managed: Managed, victim: Tenant, evil: Tenant
) -> None:
    names = {"evil": evil.database, "owner": evil.owner, "login": evil.logins[0], "victim": victim.owner}
    statements = [statement.format(**names) for statement in [*GRANTS, BY_LOGIN]]
    managed.run(evil, *statements)
    managed.run(evil, statements[5], database="defaultdb")

    await removed(managed, victim)
    for (role,) in gone(managed):  # what several passed on may leave a role without a login and members
        assert managed.api(f"SELECT rolcanlogin FROM pg_roles WHERE oid = {role}") == [(False,)]


async def test_superusers_grant_leaves_useless_role(managed: Managed, server: PostgresServer, victim: Tenant) -> None:
    """An ended login stays, and the owner role under another name: the next tenant of the name inherits nothing."""
    login, name = victim.logins[0], victim.names.tenant
    both = f"GRANT SELECT ON public.theirs TO {victim.owner}, {login}"
    managed.api(f"CREATE TABLE public.theirs (x int); {both}", "defaultdb")
    before = gone(managed)
    await removed(managed, victim)
    assert (await server.inspect(victim.names)).disabled == (login,)
    [role] = {role for (role,) in set(gone(managed)) - set(before)}
    members = f"SELECT member::regrole::text FROM pg_auth_members WHERE roleid = '{role}'"
    assert set(managed.api(members)) <= {("doadmin",)}
    assert managed.api(f"SELECT rolcanlogin FROM pg_roles WHERE oid = {role}") == [(False,)]

    again = await managed.tenant(name, server)
    assert login not in again.logins
    may = f"SELECT has_table_privilege('{again.owner}', 'public.theirs', 'SELECT')"
    assert managed.api(may, "defaultdb") == [(False,)]
    await removed(managed, again)
    managed.api("DROP TABLE public.theirs", "defaultdb")


async def test_owner_of_database_is_not_forgotten(managed: Managed, victim: Tenant) -> None:
    managed.run(victim, "CREATE TABLE t AS SELECT 1 AS x")
    with pytest.raises(GrantError, match="still exists"):
        await victim.steps.drop_roles()
    assert managed.run(victim, "TABLE t") == [(1,)]


async def test_a_reader_is_forgotten_and_its_tenant_stays(managed: Managed, victim: Tenant) -> None:
    reader, writer = [await victim.add(role) for role in (Role.READER, Role.WRITER)]
    managed.run(victim, "CREATE TABLE t AS SELECT 1 AS x")

    assert await victim.end(reader)
    await victim.steps.drop_roles(Role.READER)

    assert not managed.exists(victim.names.group(Role.READER))
    assert await victim.problems() == frozenset()
    assert managed.run(victim, "TABLE t", login=writer) == [(1,)]


async def test_administrator_is_member_of_nothing(managed: Managed, victim: Tenant) -> None:
    managed.run(victim, "CREATE TABLE t AS SELECT 1 AS x")
    await victim.repair()
    with (
        Connection.connect(managed.admin, dbname=victim.database) as administrator,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        administrator.execute("TABLE t")
    member = f"""
        SELECT pg_get_userbyid(roleid) FROM pg_auth_members WHERE pg_get_userbyid(member) = 'doadmin'
        AND NOT admin_option AND pg_get_userbyid(roleid) LIKE '%{victim.names.tenant}%'
    """
    assert managed.api(member) == []
    with Connection.connect(managed.admin, dbname=victim.database, autocommit=True) as administrator:  # the control
        administrator.execute(f"GRANT {victim.owner} TO doadmin")
        administrator.execute("TABLE t")
    assert managed.api(member) == [(victim.owner,)]


async def test_whom_the_administrator_let_in_is_out_of_suspended_database(
    managed: Managed, server: PostgresServer, victim: Tenant, evil: Tenant
) -> None:
    managed.as_admin(f"GRANT CONNECT ON DATABASE {victim.database} TO {evil.owner}, {evil.logins[0]} WITH GRANT OPTION")
    managed.run(
        evil, f"SET ROLE NONE; GRANT CONNECT ON DATABASE {victim.database} TO {evil.logins[1]}", database="defaultdb"
    )
    with closing(managed.open(evil.logins[0], victim.database)) as neighbour:
        for _ in range(2):
            await victim.suspend()
        with pytest.raises(psycopg.OperationalError):
            neighbour.execute("SELECT 1")
    assert not any(managed.lets_in(login, victim.database) for login in evil.logins)
    assert await server.problems(victim.names, None) == frozenset()
    await victim.add()
    assert await victim.problems() == frozenset()


async def test_prepared_transaction_in_database_named(managed: Managed, victim: Tenant) -> None:
    """Somebody could commit it. A suspension leaves it alone."""
    login = victim.logins[0]
    managed.run(victim, "SET ROLE NONE; BEGIN; SELECT 1; PREPARE TRANSACTION 'held'")
    await victim.suspend()
    with pytest.raises(GrantError, match=f"has the prepared transaction 'held' of '{login}'"):
        await victim.steps.drop_database()
    managed.api("ROLLBACK PREPARED 'held'", victim.database)
    await victim.steps.drop_database()
    assert not (await victim.server.inspect(victim.names)).database


async def test_drop_waits_for_session_of_superuser(managed: Managed, victim: Tenant) -> None:
    """Only a superuser could end it, such as the session of the provider's monitoring."""
    monitoring = Connection.connect(managed.superuser, dbname=victim.database)
    managed.api(f"ALTER DATABASE {victim.database} ALLOW_CONNECTIONS false")
    asyncio.get_running_loop().call_later(0.5, monitoring.close)

    await victim.steps.drop_database()

    assert monitoring.closed
    assert not (await victim.server.inspect(victim.names)).database


async def test_half_dropped_database_is_created_anew(managed: Managed, victim: Tenant) -> None:
    """An interrupted DROP DATABASE leaves its entry in ``pg_database``."""
    managed.run(victim, "CREATE TABLE public.t (x int)")
    managed.api(f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{victim.database}'")

    assert await victim.steps.create()
    assert managed.api("SELECT FROM pg_tables WHERE tablename = 't'", victim.database) == []


async def test_half_dropped_database_keeps_no_login(managed: Managed, victim: Tenant) -> None:
    """PostgreSQL lets nobody into it: all that is left to do is to drop it."""
    managed.run(victim, "CREATE TABLE public.t (x int)")
    managed.api(f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{victim.database}'")
    await victim.steps.end_logins([victim.logins[0]])
    await removed(managed, victim)
