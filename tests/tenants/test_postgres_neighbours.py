"""Tenants beside each other on PostgreSQL: what one did does not keep another from being revoked or removed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from aiodbclient import Engine
from aiodbclient.tenants import ProblemKind, Role
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants._servers.postgres.sessions import Session
from aiodbclient.tenants.errors import GrantError

from .managed import Managed, until
from .problems import kinds
from .tenant import Tenant


async def test_large_objects_in_defaultdb_are_deleted(managed: Managed, evil: Tenant) -> None:
    with managed.open(evil.logins[0], "defaultdb") as session:
        for role in ("NONE", evil.owner):
            session.execute(SQL("SET ROLE {}").format(SQL("NONE") if role == "NONE" else Identifier(role)))
            for _ in range(4):  # more than a server has locks
                session.execute("SELECT count(lo_create(0)) FROM generate_series(1, 4000)")
    await evil.remove()
    assert managed.api("SELECT FROM pg_largeobject_metadata", "defaultdb") == []
    assert managed.api("SELECT FROM pg_roles WHERE starts_with(rolname, 'aiodbclient_gone_')") == []


async def test_neighbours_session_is_reported_and_ended(managed: Managed, victim: Tenant, evil: Tenant) -> None:
    """An intruder with a leaked credential lets a login of its own in, whose open session outlives the credential."""
    old = victim.logins[0]
    with managed.open(old, victim.database) as session:
        grant = SQL("GRANT CONNECT ON DATABASE {} TO {}")
        session.execute(grant.format(Identifier(victim.database), Identifier(evil.logins[0])))
    with closing(managed.open(evil.logins[0], victim.database)) as intruder:
        assert await victim.end(old)
        assert await victim.problems() == kinds(ProblemKind.OPEN_TO_OTHERS)
        await victim.repair()
        with pytest.raises(psycopg.OperationalError):
            intruder.execute("SELECT 1")
    assert not managed.lets_in(evil.logins[0], victim.database)
    assert await victim.problems() == frozenset()


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
        managed.api(SQL("CREATE DATABASE {}").format(Identifier(wanted.database)))
        await until(lambda: entered)  # the control: one that is open to all
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    managed.drop(wanted.database)
    for each in neighbours:
        await each.remove()


async def test_names_in_errors_are_printable(managed: Managed, victim: Tenant) -> None:
    name = Identifier("\x1b]0;mine\x07\nall revoked")
    managed.api(SQL("CREATE SCHEMA {}").format(name), victim.database)
    managed.api(SQL("GRANT CREATE ON SCHEMA {} TO PUBLIC").format(name), victim.database)
    with pytest.raises(GrantError) as refused:
        await victim.steps.create_role(Role.READER)
    assert str(refused.value).isprintable()
    assert "mine" in str(refused.value)
    with managed.open(victim.logins[0], victim.database) as session:
        session.execute(SQL("CREATE TABLE {} (x int)").format(name))
    managed.api(SQL("ALTER TABLE public.{} OWNER TO doadmin").format(name), victim.database)
    managed.api("CREATE SCHEMA theirs; CREATE ROLE theirs", victim.database)
    managed.api(SQL("CREATE TABLE theirs.{} (x int)").format(name), victim.database)
    managed.api(SQL("ALTER TABLE theirs.{} OWNER TO doadmin").format(name), victim.database)
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
    managed: Managed, victim: Tenant, evil: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with managed.open(evil.logins[0], evil.database) as session:
        session.execute("SET search_path = public")
        for number in range(600):  # more than one statement names
            session.execute(f"CREATE TABLE t{number} ()".encode())
        session.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(victim.logins[0])))
    await victim.steps.end_logins([victim.logins[0]])
    statements = counted(monkeypatch)
    assert await victim.steps.drop_logins([victim.logins[0]]) == ()
    assert len(statements) < 60


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The statements that the administrator runs from now on."""
    statements, run = list[Any](), Session.run

    async def running(self: Session, statement: Any, *values: Any, **named: Any) -> list[Any]:
        statements.append(statement)
        return await run(self, statement, *values, **named)

    monkeypatch.setattr(Session, "run", running)
    return statements


async def test_thousand_grantees_take_few_statements(
    managed: Managed, victim: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed.api("DO $$ BEGIN FOR i IN 1..1500 LOOP EXECUTE format('CREATE ROLE many%s', i); END LOOP; END $$")
    try:
        with managed.open(victim.logins[0], victim.database) as session:
            everybody = SQL(", ").join(Identifier(f"many{i}") for i in range(1, 1501))
            grant = SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {} WITH GRANT OPTION")
            session.execute(grant.format(Identifier(victim.database), everybody))
        statements = counted(monkeypatch)
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
    owner = SQL("SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = {}")
    assert managed.api(owner.format(Literal(victim.database))) == [(victim.owner,)]
