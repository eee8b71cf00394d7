"""Tenants beside each other on PostgreSQL: what one did does not keep another from being revoked or removed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.sql import Composable

from aiodbclient import Engine
from aiodbclient.tenants import Role
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants.errors import GrantError

from ...waiting import until
from ..managed import Managed
from ..tenant import Tenant


async def test_large_objects_in_defaultdb_are_deleted(managed: Managed, evil: Tenant) -> None:
    create = ["SELECT count(lo_create(0)) FROM generate_series(1, 4000)"] * 4  # more than a server has locks
    managed.run(evil, *create, "SET ROLE NONE", *create, database="defaultdb")
    await evil.remove()
    assert managed.api("SELECT FROM pg_largeobject_metadata", "defaultdb") == []
    assert managed.api("SELECT FROM pg_roles WHERE starts_with(rolname, 'aiodbclient_gone_')") == []


async def test_nobody_enters_new_database_before_it_closes(managed: Managed, server: PostgresServer) -> None:
    """Eight tenants try all the time; the provider's API leaves its databases open to them."""
    neighbours = [await managed.tenant(f"prying{number}", server, logins=1) for number in range(2)]
    wanted, entered, stop = Tenant(server, names_of("pried", Engine.PG)), list[str](), threading.Event()

    def pry(login: str) -> None:
        while not stop.is_set():
            if managed.lets_in(login, wanted.database):
                entered.append(login)

    threads = [threading.Thread(target=pry, args=[each.logins[0]]) for each in neighbours for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            await wanted.steps.create()
            await wanted.add()
            await wanted.remove()
        assert entered == []
        managed.api(f"CREATE DATABASE {wanted.database}")
        await until(lambda: entered)  # the control: one that is open to all
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    managed.drop(wanted.database)
    for each in neighbours:
        await each.remove()


async def test_names_in_errors_are_printable(managed: Managed, victim: Tenant) -> None:
    name = '"\x1b]0;mine\x07\nall revoked"'
    managed.api(f"CREATE SCHEMA {name}; GRANT CREATE ON SCHEMA {name} TO PUBLIC", victim.database)
    with pytest.raises(GrantError) as refused:
        await victim.add(Role.READER)
    assert str(refused.value).isprintable()
    assert "mine" in str(refused.value)
    managed.api(
        f"CREATE TABLE public.{name} (x int); ALTER TABLE public.{name} OWNER TO doadmin;"
        f"CREATE SCHEMA theirs; CREATE ROLE theirs; CREATE TABLE theirs.{name} (x int);"
        f"ALTER TABLE theirs.{name} OWNER TO doadmin",
        victim.database,
    )
    with pytest.raises(GrantError) as refused:
        await victim.repair()
    managed.api("DROP ROLE theirs")
    assert str(refused.value).isprintable()
    assert "mine" in str(refused.value)


@pytest.fixture
def closed(managed: Managed) -> Iterator[None]:
    managed.api("REVOKE ALL ON DATABASE defaultdb FROM PUBLIC")
    yield
    managed.api("GRANT CONNECT, TEMPORARY ON DATABASE defaultdb TO PUBLIC")


@pytest.mark.usefixtures("closed")
async def test_steps_work_with_closed_defaultdb(managed: Managed, server: PostgresServer, victim: Tenant) -> None:
    assert "defaultdb" not in await server.open_databases()
    assert "template1" in await server.open_databases()
    assert not managed.lets_in(victim.logins[0], "defaultdb")
    await victim.add()
    await victim.remove()


async def test_many_grants_take_few_statements(
    managed: Managed, victim: Tenant, evil: Tenant, statements: list[Composable]
) -> None:
    tables = [f"CREATE TABLE public.t{number} ()" for number in range(600)]  # more than one statement names
    managed.run(evil, *tables, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {victim.logins[0]}")
    await victim.steps.end_logins([victim.logins[0]])
    statements.clear()
    assert await victim.steps.drop_logins([victim.logins[0]]) == ()
    assert len(statements) < 60


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


async def test_half_dropped_database_is_created_anew_and_removed(managed: Managed, victim: Tenant) -> None:
    """An interrupted DROP DATABASE leaves its entry in ``pg_database``. Nobody enters it, so logins end without it."""
    half_drop = f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{victim.database}'"
    managed.run(victim, "CREATE TABLE public.t (x int)")
    managed.api(half_drop)
    await victim.steps.end_logins([victim.logins[0]])

    assert await victim.steps.create()
    assert managed.api("SELECT FROM pg_tables WHERE tablename = 't'", victim.database) == []
    managed.api(half_drop)
    await removed(managed, victim)
