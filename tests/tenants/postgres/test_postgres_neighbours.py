"""Tenants beside each other on PostgreSQL: what one did does not keep another from being revoked or removed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg.sql import Composable

from aiodbclient import Engine
from aiodbclient.tenants import ProblemKind, Role
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants.errors import GrantError

from ...waiting import until
from ..managed import Managed
from ..problems import kinds
from ..tenant import Tenant


async def test_large_objects_in_defaultdb_are_deleted(managed: Managed, evil: Tenant) -> None:
    create = ["SELECT count(lo_create(0)) FROM generate_series(1, 4000)"] * 4  # more than a server has locks
    managed.run(evil, *create, "SET ROLE NONE", *create, database="defaultdb")
    await evil.remove()
    assert managed.api("SELECT FROM pg_largeobject_metadata", "defaultdb") == []
    assert managed.api("SELECT FROM pg_roles WHERE starts_with(rolname, 'aiodbclient_gone_')") == []


async def test_neighbours_session_is_reported_and_ended(managed: Managed, victim: Tenant, evil: Tenant) -> None:
    """An administrator let it in. Its open session ends with its right."""
    old = victim.logins[0]
    managed.let_in(victim, evil.logins[0])
    with closing(managed.open(evil.logins[0], victim.database)) as intruder:
        assert await victim.end(old)
        assert await victim.problems() == kinds(ProblemKind.OPEN_TO_OTHERS)
        await victim.repair()
        with pytest.raises(psycopg.OperationalError):
            intruder.execute("SELECT 1")
    assert not managed.lets_in(evil.logins[0], victim.database)
    assert await victim.problems() == frozenset()


@pytest.mark.parametrize("step", ["repair", "suspend", "freeze"])
async def test_replicating_session_is_ended(managed: Managed, victim: Tenant, step: str) -> None:
    """An administrator let in a login that may replicate. Such a session runs SQL, and is no client backend."""
    managed.make_login("stranger")
    try:
        managed.api("ALTER ROLE stranger REPLICATION")
        managed.let_in(victim, "stranger")
        with closing(managed.open("stranger", victim.database, replication="database")) as intruder:
            intruder.execute("CREATE TABLE public.written ()")
            await getattr(victim, step)()
            with pytest.raises(psycopg.OperationalError):
                intruder.execute("SELECT 1")
    finally:
        managed.delete("stranger")


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
        await victim.steps.create_role(Role.READER)
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


async def test_thousand_grantees_take_few_statements(
    managed: Managed, victim: Tenant, statements: list[Composable]
) -> None:
    managed.api("DO $$ BEGIN FOR i IN 1..1500 LOOP EXECUTE format('CREATE ROLE many%s', i); END LOOP; END $$")
    try:
        everybody = ", ".join(f"many{number}" for number in range(1, 1501))
        grant = f"GRANT CONNECT, TEMPORARY ON DATABASE {victim.database} TO {everybody} WITH GRANT OPTION"
        managed.as_admin(grant)
        statements.clear()
        await victim.repair()
        looks = ("pg_blocking_pids", "pg_prepared_xacts")  # while it waits, at intervals
        assert len([each for each in statements if not any(look in each.as_string(None) for look in looks)]) < 60
        assert await victim.problems() == frozenset()
    finally:
        managed.api("DO $$ BEGIN FOR i IN 1..1500 LOOP EXECUTE format('DROP ROLE many%s', i); END LOOP; END $$")


async def test_usage_and_tenants_are_those_that_create_made(
    managed: Managed, server: PostgresServer, victim: Tenant
) -> None:
    managed.api("CREATE DATABASE nobodys OWNER doadmin")
    for login in victim.logins:
        await managed.closed(login)
    with managed.open(victim.logins[0], victim.database) as session:
        session.execute("CREATE TABLE public.t AS SELECT repeat('x', 1000) FROM generate_series(1, 10000)")
        usage = await server.usage()
    managed.drop("nobodys")
    size, connections = usage[victim.database]
    assert size > 10_000_000
    assert connections == 1
    assert set(usage) == set(await server.tenants())
    assert not {"nobodys", "defaultdb", "template1"} & set(usage)
    owner = f"SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = '{victim.database}'"
    assert managed.api(owner) == [("doadmin",)]
