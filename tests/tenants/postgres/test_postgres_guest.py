"""A tenant on PostgreSQL is a guest in its database: the administrator owns it, the tenant what is in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection
from psycopg.errors import Diagnostic
from psycopg.sql import SQL, Identifier

from aiodbclient._masking import Secret
from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants.errors import GrantError

from ..managed import Managed
from ..problems import kinds
from ..tenant import PASSWORD, Tenant

# What a login of the owner runs, in this order. ``{d}`` is the database, ``{login}`` the login.
WORKS: list[LiteralString] = [
    "CREATE SCHEMA app; CREATE TABLE app.t (id serial PRIMARY KEY, x int)",
    "CREATE TABLE public.t (x int); INSERT INTO public.t VALUES (1)",
    "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE public.t (x int)",
    "GRANT USAGE ON SCHEMA public TO PUBLIC; COMMENT ON SCHEMA public IS 'ours'; ALTER SCHEMA app RENAME TO shop",
    "ALTER TABLE shop.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON shop.t USING (x > 0)",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO PUBLIC",
    "CREATE PUBLICATION pub FOR TABLE shop.t; DROP PUBLICATION pub",
    "SELECT lo_unlink(lo_create(0)); CREATE TEMP TABLE temporary (x int)",
    "CREATE FUNCTION shop.f() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN 1; END'",
    "CREATE MATERIALIZED VIEW shop.mv AS SELECT shop.f(); REFRESH MATERIALIZED VIEW shop.mv",
    "VACUUM shop.t",
    "ANALYZE shop.t",
    "REINDEX SCHEMA shop",
    "SET ROLE NONE; ALTER ROLE CURRENT_USER SET work_mem = '5MB'; ALTER ROLE CURRENT_USER RESET work_mem",
    "SELECT pg_database_size(current_database())",
]
REFUSED: list[LiteralString] = [
    "ALTER DATABASE {d} RENAME TO mine",
    "ALTER DATABASE {d} OWNER TO {login}",
    "ALTER DATABASE {d} SET search_path = mine",
    "ALTER DATABASE {d} SET default_transaction_read_only = on",
    "ALTER DATABASE {d} SET role = none",
    "ALTER DATABASE {d} SET statement_timeout = 1",
    "ALTER DATABASE {d} CONNECTION LIMIT 0",
    "ALTER DATABASE {d} ALLOW_CONNECTIONS false",
    "ALTER DATABASE {d} IS_TEMPLATE true",
    "DROP DATABASE {d}",
    "COMMENT ON DATABASE {d} IS 'mine'",
    "REINDEX DATABASE {d}",
    "CREATE DATABASE mine TEMPLATE {d}",
    "GRANT {owner} TO {evil}",
    "GRANT {login} TO {evil}",
    "ALTER ROLE {owner} LOGIN PASSWORD 'mine'",
    "ALTER ROLE {owner} RENAME TO mine",
    "REASSIGN OWNED BY {owner} TO {evil}",
    "ALTER SCHEMA public OWNER TO {evil}",
    "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION shop.on_event()",
    "CREATE EXTENSION file_fdw",
]
# PostgreSQL answers "GRANT" with a warning, and grants nothing.
WITHOUT_EFFECT: list[LiteralString] = [
    "GRANT CONNECT ON DATABASE {d} TO {evil}",
    "GRANT ALL ON DATABASE {d} TO {evil} WITH GRANT OPTION",
    "GRANT CONNECT ON DATABASE {d} TO PUBLIC",
    "REVOKE ALL ON DATABASE {d} FROM {owner}",
    "REVOKE CONNECT ON DATABASE {d} FROM {login}",
]
AS_ITSELF: list[LiteralString] = [
    "CREATE TABLE public.mine (x int)",
    "CREATE SCHEMA mine",
    "SELECT * FROM shop.t",
]


async def test_statements_of_a_guest(managed: Managed, victim: Tenant, evil: Tenant) -> None:
    login = victim.logins[0]
    names = {"d": victim.database, "login": login, "owner": victim.owner, "evil": evil.logins[0]}
    rights = f"SELECT datdba::regrole::text, datacl::text FROM pg_database WHERE datname = '{victim.database}'"
    before = managed.api(rights)
    for works in WORKS:
        with managed.open(login, victim.database) as session:
            session.execute(works.format(**names))
    managed.run(
        victim, "CREATE FUNCTION shop.on_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'", login=login
    )
    for role in ("SELECT 1", "SET ROLE NONE"):
        for database in (victim.database, "defaultdb"):
            for statement in REFUSED:
                if database == "defaultdb" and statement.startswith(("ALTER SCHEMA", "CREATE E", "REINDEX")):
                    continue
                with managed.open(login, database) as session:
                    session.execute(role)
                    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)):
                        session.execute(statement.format(**names))
        for statement in WITHOUT_EFFECT:
            managed.run(victim, role, statement.format(**names))
    for statement in AS_ITSELF:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            managed.run(victim, "SET ROLE NONE", statement)
    assert managed.api(rights) == before
    assert not managed.lets_in(evil.logins[0], victim.database)
    assert await victim.problems() == frozenset()
    managed.as_admin(WITHOUT_EFFECT[0].format(**names))  # the control: as the administrator, it lets in
    assert managed.lets_in(evil.logins[0], victim.database)
    assert await victim.problems() == {Problem(ProblemKind.OPEN_TO_OTHERS, evil.logins[0])}


# A function in the tenant's database, or in a neighbour's, as the intruder left it. It is called after the step.
OPENING = """
CREATE FUNCTION public.open() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    GRANT CONNECT ON DATABASE {d} TO PUBLIC; GRANT ALL ON DATABASE {d} TO {evil};
END $$; GRANT EXECUTE ON FUNCTION public.open() TO PUBLIC
"""


@pytest.mark.parametrize("step", ["end", "suspend", "freeze"])
async def test_function_at_neighbour_opens_nothing(managed: Managed, victim: Tenant, evil: Tenant, step: str) -> None:
    """An administrator let both tenants into each other's database once. The owner role's function is still there."""
    login = evil.logins[0]
    managed.let_in(evil, f"{victim.owner}, {victim.logins[0]}")
    managed.run(victim, OPENING.format(d=victim.database, evil=login), database=evil.database)
    if step == "end":
        await victim.end(victim.logins[0])
    else:
        await getattr(victim, step)()

    managed.run(evil, "SELECT public.open()")

    assert not managed.lets_in(login, victim.database)
    managed.api(f'ALTER FUNCTION public.open() OWNER TO "{managed.owner_of(victim.database)}"', evil.database)
    managed.run(evil, "SELECT public.open()")  # the control: as the database's owner it opens
    assert managed.lets_in(login, victim.database)


# What the owner, or an intruder as the owner, gives to a reader's login or group, and what the reader may then.
BEYOND: dict[LiteralString, LiteralString] = {
    "GRANT INSERT ON kept TO {login}": "INSERT INTO kept VALUES (1)",
    "GRANT UPDATE, DELETE, TRUNCATE ON kept TO {group}": "TRUNCATE kept",
    "GRANT UPDATE (x) ON kept TO {login}": "UPDATE kept SET x = 2",
    "GRANT INSERT ON kept TO PUBLIC": "INSERT INTO kept VALUES (1)",
    "GRANT CREATE ON SCHEMA public TO {group}": "CREATE TABLE public.mine (x int)",
    "GRANT UPDATE ON SEQUENCE numbers TO {login}": "SELECT setval('numbers', 7)",
    "ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO {group}; CREATE TABLE l (x int)": "INSERT INTO l SELECT 1",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT DELETE ON TABLES TO {login}; CREATE TABLE late (x int)":
        "DELETE FROM late",
    "SELECT lo_from_bytea(5, 'x'); GRANT ALL ON LARGE OBJECT 5 TO {login}": "SELECT lo_put(5, 0, 'y')",
    "GRANT CREATE ON SCHEMA public TO SESSION_USER; SET ROLE NONE; CREATE TABLE public.own (x int);"
    "GRANT INSERT ON public.own TO {login}": "INSERT INTO public.own VALUES (1)",
    "GRANT CREATE ON SCHEMA public TO SESSION_USER; SET ROLE NONE;"
    "ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO {login}; CREATE TABLE public.early (x int)":
        "INSERT INTO public.early VALUES (1)",
    "CREATE TABLE \"{{}}%s\" (x int); GRANT INSERT ON \"{{}}%s\" TO {login}": 'INSERT INTO "{}%s" VALUES (1)',
}  # fmt: skip


@pytest.mark.parametrize("given", BEYOND)
async def test_reader_that_may_write_is_repaired(managed: Managed, victim: Tenant, given: LiteralString) -> None:
    reader = await victim.add(Role.READER)
    managed.run(victim, "CREATE TABLE kept (x int); CREATE SEQUENCE numbers")
    assert await victim.problems() == frozenset()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        managed.run(victim, BEYOND["GRANT INSERT ON kept TO {login}"], login=reader)
    managed.run(victim, given.format(login=reader, group=victim.names.group(Role.READER)))
    managed.run(victim, BEYOND[given], login=reader)  # the control

    assert ProblemKind.TOO_MANY_RIGHTS in {each.kind for each in await victim.problems()}
    await victim.repair()

    assert await victim.problems() == frozenset()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        managed.run(victim, BEYOND[given], login=reader)
    managed.run(victim, "CREATE TABLE later (x int); GRANT CREATE ON SCHEMA public TO SESSION_USER")
    managed.run(victim, "SET ROLE NONE", "CREATE TABLE public.of_login (x int)")
    assert managed.run(victim, "TABLE later", login=reader) == []
    for table in ("later", "of_login"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            managed.run(victim, f"INSERT INTO {table} VALUES (1)", login=reader)


async def test_another_administrators_database_stays(managed: Managed, server: PostgresServer, evil: Tenant) -> None:
    """It is the tenant's, and this administrator can neither close nor drop it."""
    managed.make_login("another_admin")
    managed.as_admin("GRANT another_admin TO doadmin; ALTER ROLE another_admin CREATEDB")
    try:
        managed.as_admin(f"ALTER DATABASE {evil.database} OWNER TO another_admin")
        found = await server.inspect(evil.names)
        assert (found.not_ours, found.mismatch) == (False, "")
        assert ProblemKind.RIGHTS_MISSING in {each.kind for each in await evil.problems()}
        for step in (evil.steps.lock_out, evil.steps.drop_database):
            with pytest.raises(GrantError, match=r"belongs to 'another_admin', not to .* 'doadmin': run ALTER"):
                await step()
        assert managed.lets_in(evil.logins[0], evil.database)
        await evil.repair()
        assert await evil.problems() == frozenset()
    finally:
        managed.as_admin(f"ALTER DATABASE {evil.database} OWNER TO doadmin")
        managed.delete("another_admin")


# An application's, which a dump has to restore.
APPLICATION: list[LiteralString] = [
    "CREATE SCHEMA shop; CREATE TYPE shop.mood AS ENUM ('fine', 'bad')",
    "CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, mood shop.mood)",
    "CREATE TABLE shop.tags (note int REFERENCES notes); CREATE INDEX by_body ON notes (body)",
    "CREATE MATERIALIZED VIEW shop.counted AS SELECT count(*) FROM notes",
    "INSERT INTO notes (body) SELECT generate_series(1, 100); SELECT lo_from_bytea(4711, 'large')",
]


async def test_extensions_dump_and_restore_of_a_guest(managed: Managed, server: PostgresServer, tmp_path: Path) -> None:
    """All as the tenant itself, into its own database and another tenant's. A repair lets its reader into a schema."""
    tenant, other = await managed.tenant("day", server), await managed.tenant("day_copy", server)
    reader = await tenant.add(Role.READER)
    info, programs = psycopg.conninfo.conninfo_to_dict(managed.superuser), managed.server._binaries

    def run(program: str, of: Tenant, *options: str) -> None:
        connection = {"PGHOST": str(info["host"]), "PGPORT": str(info["port"]), "PGDATABASE": of.database}
        environment = os.environ | connection | {"PGUSER": of.logins[0], "PGPASSWORD": PASSWORD}
        subprocess.run([programs / program, *options], check=True, env=environment)

    trusted = "SELECT DISTINCT name::text FROM pg_available_extension_versions WHERE trusted AND name <> 'plpgsql'"
    for (name,) in managed.api(trusted):
        managed.run(tenant, f'CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE; ALTER EXTENSION "{name}" UPDATE')
    managed.run(tenant, *APPLICATION)

    dump = str(tmp_path / "dump")
    run("pg_dump", tenant, "--format=custom", f"--file={dump}")
    run("pg_restore", tenant, "--clean", "--exit-on-error", f"--dbname={tenant.database}", dump)
    run("pg_restore", other, "--no-owner", "--no-acl", "--exit-on-error", f"--dbname={other.database}", dump)
    for each in (tenant, other):
        assert managed.run(each, "SELECT count(*), (SELECT lo_get(4711)) FROM notes") == [(100, b"large")]
    assert managed.run(tenant, "SELECT count(*) FROM notes", login=reader) == [(100,)]

    managed.run(tenant, "DROP SCHEMA public, shop CASCADE; SELECT lo_unlink(4711); CREATE SCHEMA public", *APPLICATION)
    await tenant.repair()
    assert managed.run(tenant, "SELECT count(*) FROM notes", login=reader) == [(100,)]
    assert await tenant.problems() == frozenset()


OWNER, WRITER, READER = Role.OWNER, Role.WRITER, Role.READER

# The roles that may run it, in a transaction that is rolled back. ``early`` is older than the roles. ``late`` and its
# schema are newer.
MATRIX: dict[str, set[Role]] = {
    "SELECT * FROM early": {OWNER, WRITER, READER},
    "SELECT * FROM late.late": {OWNER, WRITER, READER},
    "SELECT * FROM late.seen": {OWNER, WRITER, READER},
    "SELECT last_value FROM late.late_x_seq": {OWNER, WRITER, READER},
    "INSERT INTO early DEFAULT VALUES": {OWNER, WRITER},
    "INSERT INTO late.late DEFAULT VALUES": {OWNER, WRITER},
    "UPDATE early SET x = 5": {OWNER, WRITER},
    "UPDATE late.late SET x = 5": {OWNER, WRITER},
    "DELETE FROM early": {OWNER, WRITER},
    "DELETE FROM late.late": {OWNER, WRITER},
    "SELECT * FROM early FOR UPDATE": {OWNER, WRITER},
    "SELECT nextval('early_x_seq')": {OWNER, WRITER},
    "SELECT nextval('late.late_x_seq')": {OWNER, WRITER},
    "SELECT private()": {OWNER, WRITER},
    "SELECT late.private()": {OWNER, WRITER},
    "SELECT as_owner()": {OWNER, WRITER, READER},  # with the owner's rights
    "SELECT prosrc FROM pg_proc WHERE proname = 'private'": {OWNER, WRITER, READER},
    "SELECT lo_create(0)": {OWNER, WRITER, READER},
    "SELECT setval('early_x_seq', 5)": {OWNER},
    "TRUNCATE early": {OWNER},
    "LOCK TABLE early IN ACCESS EXCLUSIVE MODE": {OWNER, WRITER},
    "ALTER TABLE early ADD y int": {OWNER},
    "DROP TABLE early CASCADE": {OWNER},
    "CREATE INDEX ON early (x)": {OWNER},
    "CREATE TABLE mine (x int)": {OWNER},
    "CREATE TABLE late.mine (x int)": {OWNER},
    "CREATE TEMP TABLE mine (x int)": {OWNER},
    "CREATE VIEW mine AS SELECT 1": {OWNER},
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'": {OWNER},
    "CREATE SCHEMA mine": {OWNER},
    "CREATE TRIGGER mine BEFORE INSERT ON early EXECUTE FUNCTION suppress_redundant_updates_trigger()": {OWNER},
    "GRANT SELECT ON early TO PUBLIC": {OWNER},
    # On objects that each creates; two create nothing.
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC": {OWNER, WRITER, READER},
    "ALTER DATABASE {database} SET work_mem = '1MB'": set(),
    "GRANT CONNECT ON DATABASE {database} TO PUBLIC": set(),
    "SET ROLE {owner}": {OWNER},
    "CREATE ROLE mine": set(),
    "CREATE FUNCTION mine() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
    "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION mine()": set(),
    "SELECT * FROM pg_authid": set(),
    "SELECT pg_read_file('postgresql.conf')": set(),
    "COPY early TO PROGRAM 'cat > /dev/null'": set(),
    "ALTER ROLE doadmin PASSWORD 'mine'": set(),
    "SET ROLE doadmin": set(),
    "GRANT {owner} TO doadmin": set(),
}


def may(connection: Connection[Any], victim: Tenant, statement: str) -> bool:
    query = SQL(statement).format(database=Identifier(victim.database), owner=Identifier(victim.owner))
    severities: list[str | None] = []

    def note(notice: Diagnostic) -> None:
        severities.append(notice.severity_nonlocalized)  # the notice is empty after the handler

    connection.add_notice_handler(note)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(query)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.WrongObjectType):
        return False
    finally:
        connection.remove_notice_handler(note)
    # A GRANT without the grant option is a warning, not an error.
    return "WARNING" not in severities


EARLY = """
CREATE TABLE early (x serial); INSERT INTO early DEFAULT VALUES;
CREATE FUNCTION private() RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE EXECUTE ON FUNCTION private FROM PUBLIC;
CREATE FUNCTION as_owner() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'
"""
LATE = """
CREATE SCHEMA late; CREATE TABLE late.late (x serial); CREATE VIEW late.seen AS TABLE early;
CREATE FUNCTION late.private() RETURNS int LANGUAGE sql AS 'SELECT 1';
REVOKE EXECUTE ON FUNCTION late.private FROM PUBLIC
"""


async def everybody(managed: Managed, name: str) -> Tenant:
    """A tenant with a login of each role, and objects from before and after."""
    tenant = await managed.tenant(name, managed.postgres(), logins=1)
    managed.run(tenant, EARLY)
    for role in (WRITER, READER):
        await tenant.add(role)
    managed.run(tenant, LATE)
    return tenant


def check_matrix(managed: Managed, tenant: Tenant) -> None:
    """What the newest login of each role may."""
    seen: dict[str, set[Role]] = {statement: set() for statement in MATRIX}
    for role, login in {role: login for login, role in tenant.on_record.items()}.items():
        with managed.open(login, tenant.database) as connection:
            for statement in MATRIX:
                if may(connection, tenant, statement):
                    seen[statement].add(role)
    assert seen == MATRIX
    with Connection.connect(managed.superuser, dbname=tenant.database) as superuser:  # what nobody may do works
        assert [each for each in MATRIX if not MATRIX[each] and not may(superuser, tenant, each)] == []


@pytest.mark.parametrize("name", ["acme", "a.B-c_"])
async def test_each_role_runs_only_its_statements(managed: Managed, name: str) -> None:
    tenant = await everybody(managed, name)
    check_matrix(managed, tenant)
    _, _, reader = tenant.on_record

    # After a rotation, too.
    for role in (WRITER, READER):
        await tenant.add(role)
    check_matrix(managed, tenant)
    assert await tenant.problems() == frozenset()

    # The owner may revoke rights from its roles. They are granted again.
    managed.run(
        tenant,
        f'REVOKE SELECT ON ALL TABLES IN SCHEMA late FROM "{tenant.names.group(READER)}"',
        f'ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM "{tenant.names.group(READER)}"',
    )
    managed.as_admin(f'REVOKE CONNECT ON DATABASE "{tenant.database}" FROM "{tenant.names.group(READER)}"')
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)
    assert not managed.lets_in(reader, tenant.database)
    assert await tenant.server.log_in(tenant.names, reader, Secret(PASSWORD)) is None  # its password is right
    await tenant.repair()
    assert await tenant.problems() == frozenset()
    check_matrix(managed, tenant)


async def test_open_schema_refuses_readers(managed: Managed) -> None:
    """On a cluster that was upgraded from 14, every login may create in the schema ``public`` of earlier databases."""
    server = managed.postgres()
    upgraded = await managed.tenant("upgraded", server)
    managed.api("ALTER SCHEMA public OWNER TO CURRENT_USER; GRANT CREATE ON SCHEMA public TO PUBLIC", upgraded.database)
    with pytest.raises(GrantError, match=r"every login may create objects in the schema 'public' .* only a superuser"):
        await upgraded.add(READER)


async def test_a_role_reaches_nothing_outside_of_its_database(managed: Managed) -> None:
    inside, outside = await everybody(managed, "inside"), await everybody(managed, "outside")
    others = [outside.owner, *outside.names.groups, *outside.on_record]
    for login in inside.on_record:
        assert not managed.lets_in(login, outside.database)
        with managed.open(login, inside.database) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"DROP DATABASE {outside.database}")
            for statement in ("SET ROLE {}", "ALTER ROLE {} PASSWORD 'mine'", "DROP ROLE {}", "DROP OWNED BY {}"):
                for role in others:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(SQL(statement).format(Identifier(role)))
        with managed.open(login, "defaultdb") as connection:
            for statement in ("CREATE TABLE t (x int)", "CREATE SCHEMA s", "CREATE DATABASE mine"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
