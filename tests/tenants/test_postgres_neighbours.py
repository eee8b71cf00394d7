"""A tenant on PostgreSQL does not keep its neighbours from being retired and removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from aiodbclient.tenants._grants import postgres_leaving
from aiodbclient.tenants._grants.postgres import PostgresGrants
from aiodbclient.tenants._grants.postgres_sessions import Session
from psycopg.sql import SQL, Identifier, Literal

from aiodbclient import Engine
from aiodbclient.errors import GrantError
from aiodbclient.tenants import Problem, Role
from aiodbclient.tenants._naming import Names, names_of

from .managed import PASSWORD, Managed, ended, ready


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_leaving, "_LOOKS", 2)


@pytest.mark.usefixtures("impatient")
async def test_the_error_names_whose_open_transaction_keeps_a_login_and_its_retirement_is_the_way_out(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names
) -> None:
    login = names.logins[0]
    with closing(managed.open(evil.logins[0], evil.whole)) as session:
        session.execute("CREATE TABLE public.t (x int)")
        session.execute("BEGIN")
        session.execute(SQL("GRANT SELECT ON public.t TO {}").format(Identifier(login)))
        began = time.monotonic()
        with pytest.raises(
            GrantError,
            match=f"'{login}' cannot be deleted, because an open transaction of the login '{evil.logins[0]}' in the"
            f" database '{evil.whole}' holds a lock on it: rotate and retire",
        ):
            await ended(grants, names, login, PASSWORD, managed.deletes(login))
        assert time.monotonic() - began < 5
        assert not managed.lets_in(login, names.whole)  # its sessions and its password are ended all the same

        assert await ended(grants, evil, evil.logins[0], PASSWORD, managed.deletes(evil.logins[0])) is None
    managed.reset(login, "reset")
    assert await ended(grants, names, login, "reset", managed.deletes(login)) is None


@pytest.mark.usefixtures("impatient")
async def test_the_error_names_whose_transaction_keeps_a_database(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names
) -> None:
    with managed.open(evil.logins[0], "defaultdb") as session:
        session.execute("SET ROLE NONE; BEGIN")
        setting = SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET work_mem = '1MB'")
        session.execute(setting.format(Identifier(names.whole)))
        with pytest.raises(GrantError, match=f"'{names.whole}' cannot be dropped, .* login '{evil.logins[0]}'"):
            await grants.before_removal(names)
        session.execute("PREPARE TRANSACTION 'held'")
    with pytest.raises(GrantError, match="prepared transaction 'held' in the database 'defaultdb'"):
        await grants.before_removal(names)
    with managed.open(evil.logins[0], "defaultdb") as session:
        session.execute("SET ROLE NONE")
        session.execute("ROLLBACK PREPARED 'held'")
    await grants.before_removal(names)


async def test_a_transaction_that_a_login_prepared_where_it_then_closed_the_door_is_ended_with_it(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    login = names.logins[0]
    for database in (names.whole, "defaultdb"):
        with managed.open(login, database) as session:
            session.execute("SET ROLE NONE")
            session.execute("BEGIN; SELECT 1")
            session.execute(f"PREPARE TRANSACTION 'of {database}'".encode())
    with managed.open(login, "defaultdb") as session:
        session.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(Identifier(names.whole)))
    assert await ended(grants, names, login, PASSWORD, managed.deletes(login)) is None
    assert managed.api("SELECT gid FROM pg_prepared_xacts") == []
    await grants.before_removal(names)


async def test_what_a_removed_tenant_prepared_in_defaultdb_as_its_owner_role_keeps_no_neighbour(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names
) -> None:
    login = names.logins[0]
    with managed.open(evil.logins[0], "defaultdb") as session:
        session.execute("BEGIN; SELECT lo_create(4712)")
        session.execute(SQL("GRANT SELECT ON LARGE OBJECT 4712 TO {}").format(Identifier(login)))
        session.execute("PREPARE TRANSACTION 'held'")
    for each in evil.logins:
        assert await ended(grants, evil, each, PASSWORD, managed.deletes(each)) is None
    await grants.before_removal(evil)
    managed.drop(evil.whole)
    await grants.forget(evil)

    assert managed.api("SELECT FROM pg_prepared_xacts") == []
    assert managed.api(SQL("SELECT FROM pg_roles WHERE rolname = {}").format(Literal(evil.owner))) == []
    assert await ended(grants, names, login, PASSWORD, managed.deletes(login)) is None


async def test_large_objects_that_a_removed_tenant_left_in_defaultdb_are_deleted_however_many(
    managed: Managed, grants: PostgresGrants, evil: Names
) -> None:
    with managed.open(evil.logins[0], "defaultdb") as session:
        session.execute("SET ROLE NONE")
        for _ in range(8):  # more than a server has locks
            session.execute("SELECT count(lo_create(0)) FROM generate_series(1, 4000)")
    for each in evil.logins:
        assert await ended(grants, evil, each, PASSWORD, managed.deletes(each)) is None
    managed.drop(evil.whole)
    await grants.forget(evil)
    assert managed.api("SELECT FROM pg_largeobject_metadata", "defaultdb") == []
    assert managed.api("SELECT FROM pg_roles WHERE starts_with(rolname, 'aiodbclient_gone_')") == []


async def test_a_session_that_a_neighbour_was_let_into_is_reported_after_the_retirement(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names
) -> None:
    """An intruder with a leaked credential lets a login of its own in, whose open session outlives the credential."""
    old, new = names.logins
    with managed.open(old, names.whole) as session:
        grant = SQL("GRANT CONNECT ON DATABASE {} TO {}")
        session.execute(grant.format(Identifier(names.whole), Identifier(evil.logins[0])))
    with closing(managed.open(evil.logins[0], names.whole)):
        assert await ended(grants, names, old, PASSWORD, managed.deletes(old)) is None
        assert await grants.problems(names, [new]) == {Problem.OPEN_TO_OTHERS}
        with pytest.raises(GrantError, match=f"'{evil.logins[0]}' has an open session there: rotate and retire"):
            await grants.reclaim(names)
        assert await ended(grants, evil, evil.logins[0], PASSWORD, managed.deletes(evil.logins[0])) is None
    assert await grants.problems(names, [new]) == frozenset()


async def test_a_tenant_that_takes_all_locks_stops_everybody_until_its_session_ends(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names
) -> None:
    with managed.open(evil.logins[0], evil.whole) as session:
        with pytest.raises(psycopg.errors.OutOfMemory):
            session.execute("SELECT pg_advisory_lock(g) FROM generate_series(1, 1000000) AS g")
        with pytest.raises(GrantError, match="out of shared memory"):
            await grants.give(names, names.logins[0])
    until = time.monotonic() + 10
    while not managed.lets_in(names.logins[0], names.whole):  # its process is ending
        assert time.monotonic() < until
    await grants.give(names, names.logins[0])


async def test_a_name_in_an_error_is_nothing_that_a_terminal_obeys(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    if managed.version == 14:
        pytest.skip("there are no readers there")
    reader = names_of(names.tenant, Engine.PG, role=Role.READER)
    managed.make_login(reader.logins[0])
    name = Identifier("\x1b]0;mine\x07\nall retired")
    with managed.open(names.logins[0], names.whole) as session:
        session.execute(SQL("CREATE SCHEMA {}").format(name))
        session.execute(SQL("GRANT CREATE ON SCHEMA {} TO PUBLIC").format(name))
        session.execute(SQL("BEGIN; ALTER SCHEMA {} RENAME TO locked").format(name))
        with pytest.raises(GrantError) as refused:
            await grants.give(reader, reader.logins[0])
    assert str(refused.value).isprintable()
    assert "mine" in str(refused.value)


async def test_a_prepared_transaction_of_a_deleted_login_is_an_error_that_says_so(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    login = names.logins[0]
    with managed.open(login, names.whole) as session:
        session.execute("SET ROLE NONE; BEGIN; SELECT 1; PREPARE TRANSACTION 'orphan'")
    managed.delete(login)
    with pytest.raises(GrantError, match="the prepared transaction 'orphan' of a deleted login"):
        await grants.before_removal(names)
    managed.api("ROLLBACK PREPARED 'orphan'", names.whole)
    await grants.before_removal(names)


@pytest.fixture
def closed(managed: Managed) -> Iterator[None]:
    yield
    managed.api("GRANT CONNECT, TEMPORARY ON DATABASE defaultdb TO PUBLIC")


@pytest.mark.usefixtures("closed")
async def test_a_closed_defaultdb_keeps_tenants_out_and_every_verb_works(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    login, other = names.logins
    assert {"defaultdb", "template1"} <= set(await grants.open_databases())
    await grants.close_database("defaultdb")

    assert "defaultdb" not in await grants.open_databases()
    assert not managed.lets_in(login, "defaultdb")
    with pytest.raises(GrantError, match="'template1' was not closed to other logins: only its owner may"):
        await grants.close_database("template1")
    await ready(grants, names, other)
    # An intruder closes its own database too, or takes all of its connections.
    with managed.open(login, names.whole) as session:
        session.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT 1").format(Identifier(names.whole)))
        assert await grants.log_in(names, other, PASSWORD) is None
        assert await grants.problems(names, names.logins) == frozenset()
        session.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(Identifier(names.whole)))
        assert await grants.accepts(names, login, PASSWORD) is None
        assert await ended(grants, names, login, PASSWORD, managed.deletes(login)) is None
    await ready(grants, names, other)


async def test_many_grants_of_a_neighbour_are_revoked_by_few_statements(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    with managed.open(evil.logins[0], evil.whole) as session:
        session.execute("SET search_path = public")
        for number in range(2_000):
            session.execute(f"CREATE TABLE t{number} ()".encode())
        session.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(names.owner)))
    for login in names.logins:
        managed.delete(login)
    managed.drop(names.whole)
    statements = list[Any]()
    run = Session.run

    async def counted(self: Session, statement: Any, *values: Any) -> list[Any]:
        statements.append(statement)
        return await run(self, statement, *values)

    monkeypatch.setattr(Session, "run", counted)
    await grants.forget(names)
    assert len(statements) < 40
    assert managed.api(SQL("SELECT FROM pg_roles WHERE rolname = {}").format(names.owner)) == []


async def test_rights_that_a_thousand_roles_may_pass_on_delay_nobody(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    managed.api("DO $$ BEGIN FOR i IN 1..1500 LOOP EXECUTE format('CREATE ROLE many%s', i); END LOOP; END $$")
    try:
        with managed.open(names.logins[0], names.whole) as session:
            everybody = SQL(", ").join(Identifier(f"many{i}") for i in range(1, 1501))
            grant = SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {} WITH GRANT OPTION")
            session.execute(grant.format(Identifier(names.whole), everybody))
        began = time.monotonic()
        await grants.give(names, names.logins[0])
        assert time.monotonic() - began < 3
        assert await grants.problems(names, names.logins) == frozenset()
    finally:
        managed.api("DO $$ BEGIN FOR i IN 1..1500 LOOP EXECUTE format('DROP ROLE many%s', i); END LOOP; END $$")
