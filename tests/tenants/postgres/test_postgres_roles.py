"""Owner, writer and reader of a tenant on PostgreSQL: the statements that each role may run."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.errors import Diagnostic
from psycopg.sql import SQL, Identifier

from aiodbclient._masking import Secret
from aiodbclient.tenants import ProblemKind, Role
from aiodbclient.tenants._servers.postgres import rights
from aiodbclient.tenants.errors import GrantError

from ..managed import Managed
from ..problems import kinds
from ..tenant import PASSWORD, Tenant

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
        await upgraded.steps.create_role(READER)


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


async def test_many_tables_are_given_at_once(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "_AT_ONCE", 3)
    many = await managed.tenant("many", managed.postgres())
    managed.run(many, *(f"CREATE TABLE t{number} (x int)" for number in range(8)))
    reader = await many.add(READER)
    for number in range(8):
        assert managed.run(many, f"TABLE t{number}", login=reader) == []
