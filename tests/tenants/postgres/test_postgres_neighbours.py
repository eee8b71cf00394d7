"""Tenants beside each other on PostgreSQL: each can be revoked or removed, and nobody inherits from a dropped login."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection
from psycopg.sql import Composable

from aiodbclient import Engine
from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants.errors import GrantError

from ...waiting import until
from ..managed import Managed
from ..problems import kinds
from ..tenant import Tenant
from ..threads import repeating


async def test_large_objects_in_defaultdb_are_deleted(managed: Managed, evil: Tenant) -> None:
    create = ["SELECT count(lo_create(0)) FROM generate_series(1, 4000)"] * 4  # more than a server has locks
    managed.run(evil, *create, "SET ROLE NONE", *create, database="defaultdb")
    await evil.remove()
    assert managed.api("SELECT FROM pg_largeobject_metadata", "defaultdb") == []
    assert managed.api("SELECT FROM pg_roles WHERE starts_with(rolname, 'aiodbclient_gone_')") == []


async def test_nobody_enters_new_database_before_it_closes(managed: Managed, server: PostgresServer) -> None:
    """Two tenants try all the time; the provider's API leaves its databases open to them."""
    neighbours = [await managed.tenant(f"prying{number}", server, logins=1) for number in range(2)]
    wanted, entered = Tenant(server, names_of("pried", Engine.PG)), list[str]()

    def pry(login: str) -> None:
        if managed.lets_in(login, wanted.database):
            entered.append(login)

    with repeating(*(partial(pry, each.logins[0]) for each in neighbours * 2)):
        for _ in range(3):
            await wanted.steps.create()
            await wanted.add()
            await wanted.remove()
        assert entered == []
        managed.api(f"CREATE DATABASE {wanted.database}")
        await until(lambda: entered)  # the control: one that is open to all
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
    opened = (await server.administrator()).open_databases
    assert "defaultdb" not in opened
    assert "template1" in opened
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
    "SET ROLE NONE; SELECT lo_create(4712); GRANT SELECT ON LARGE OBJECT 4712 TO {victim}",
]


def gone(managed: Managed) -> list[Any]:
    """Roles that belong to no tenant any more and could not be dropped."""
    return managed.api("SELECT oid FROM pg_roles WHERE starts_with(rolname, 'aiodbclient_gone_')")


async def test_another_tenant_cannot_keep_one_from_being_removed(
    managed: Managed, victim: Tenant, evil: Tenant
) -> None:
    names = {"evil": evil.database, "owner": evil.owner, "login": evil.logins[0], "victim": victim.owner}
    statements = [statement.format(**names) for statement in GRANTS]
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


# Whatever a login can own, by the words of ``pg_identify_object``. ``DEFINER`` is how code gets its owner's rights.
KINDS: dict[str, LiteralString] = {
    "schema": "CREATE SCHEMA own",
    "table": "CREATE TABLE own.t (x serial PRIMARY KEY, y int GENERATED ALWAYS AS IDENTITY, z int DEFAULT 1 + 1)",
    "partitioned table": "CREATE TABLE p (x int) PARTITION BY RANGE (x); CREATE TABLE p1 PARTITION OF p DEFAULT",
    "sequence": "CREATE SEQUENCE s",
    "function": "CREATE FUNCTION up() RETURNS name LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user'",
    "procedure": "CREATE PROCEDURE pr() LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    "aggregate": "CREATE AGGREGATE ag(*) (sfunc = int8inc, stype = int8, initcond = '0')",
    "view": "CREATE VIEW v AS SELECT up()",
    "materialized view": "CREATE MATERIALIZED VIEW mv AS SELECT up() AS who",
    "rule": "CREATE RULE r AS ON INSERT TO own.t DO ALSO SELECT up()",
    "trigger": "CREATE FUNCTION tr() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN new; END';"
    " CREATE TRIGGER tr BEFORE INSERT ON own.t EXECUTE FUNCTION tr()",
    "policy": "CREATE POLICY po ON own.t USING (up() IS NOT NULL); ALTER TABLE own.t ENABLE ROW LEVEL SECURITY",
    "index on an expression": "CREATE FUNCTION im(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';"
    " CREATE INDEX ix ON own.t (im(z))",
    "generated column": "ALTER TABLE own.t ADD g int GENERATED ALWAYS AS (im(z)) STORED",
    "type": "CREATE TYPE ct AS (a int); CREATE TYPE en AS ENUM ('a'); CREATE TYPE ra AS RANGE (subtype = int4)",
    "domain": "CREATE DOMAIN dm AS int CHECK (im(VALUE) = 1)",
    "cast": "CREATE FUNCTION as_int(ct) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    " CREATE CAST (ct AS int) WITH FUNCTION as_int",
    "operator": "CREATE OPERATOR @@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
    "prefix operator": "CREATE OPERATOR @@@@ (RIGHTARG = int, FUNCTION = int4um)",
    "collation": 'CREATE COLLATION co FROM "C"',
    "conversion": "CREATE CONVERSION cv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "text search configuration": "CREATE TEXT SEARCH CONFIGURATION tc (COPY = simple)",
    "text search dictionary": "CREATE TEXT SEARCH DICTIONARY td (TEMPLATE = simple)",
    "statistics object": "CREATE STATISTICS st ON z, (z + 1) FROM own.t",
    "publication": "CREATE PUBLICATION pu FOR TABLE own.t",
    "large object": "SELECT lo_create(4711)",
    "server": "CREATE SERVER se FOREIGN DATA WRAPPER lent",
    "user mapping": "CREATE USER MAPPING FOR CURRENT_USER SERVER se",
    "foreign table": "CREATE FOREIGN TABLE ft (x int) SERVER se",
    "default privileges": "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
    "odd name": 'CREATE TABLE "a.b""; c" (x int); CREATE FUNCTION "{}%s"("a.b""; c") RETURNS int LANGUAGE sql AS'
    " 'SELECT 1'",
}
_HERE = """
SELECT DISTINCT rolname::text FROM pg_shdepend JOIN pg_roles r ON r.oid = refobjid
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND refclassid = 'pg_authid'::regclass
  AND deptype = 'o'
"""


def lent(managed: Managed, victim: Tenant, login: str) -> None:
    """As the owner role, let a login make objects of its own: it does so after ``SET ROLE NONE``."""
    managed.api("CREATE FOREIGN DATA WRAPPER lent; GRANT USAGE ON FOREIGN DATA WRAPPER lent TO PUBLIC", victim.database)
    managed.as_admin(f"GRANT CREATE ON DATABASE {victim.database} TO {login}")
    managed.run(
        victim,
        f"GRANT ALL ON SCHEMA public TO {login}",
        login=next(each for each in reversed(victim.logins) if each != login),
    )


def owners(managed: Managed, database: str) -> set[str]:
    return {name for (name,) in managed.api(_HERE, database)}


@pytest.mark.parametrize("role", Role)
async def test_what_a_login_owned_is_the_owner_roles(managed: Managed, victim: Tenant, role: Role) -> None:
    login = victim.logins[0] if role is Role.OWNER else await victim.add(role)
    lent(managed, victim, login)
    managed.run(victim, "SET ROLE NONE; SET search_path = public", *KINDS.values(), login=login)
    if managed.api("SELECT FROM pg_available_extensions WHERE name = 'pgcrypto'"):
        managed.run(victim, "SET ROLE NONE; SET search_path = public; CREATE EXTENSION pgcrypto", login=login)
    assert login in owners(managed, victim.database)

    assert await victim.end(login)

    assert not managed.exists(login)
    assert owners(managed, victim.database) == {victim.owner}
    assert await victim.problems() == frozenset()
    assert managed.run(victim, "SELECT up(), (SELECT who FROM mv)") == [(victim.owner, login)]
    managed.run(
        victim, "SELECT count(*) FROM v; DROP SCHEMA own CASCADE; DROP FUNCTION up CASCADE; SELECT lo_unlink(4711)"
    )


@pytest.mark.parametrize("database", ["defaultdb", "template1"])
async def test_large_objects_elsewhere_are_dropped_with_login(managed: Managed, victim: Tenant, database: str) -> None:
    login, before = victim.logins[0], owners(managed, database)
    managed.run(victim, "SET ROLE NONE; SELECT lo_create(0)", database=database)
    assert owners(managed, database) == {*before, login}
    assert await victim.end(login)
    assert owners(managed, database) == before


async def test_copies_of_administrator_are_left(managed: Managed, victim: Tenant) -> None:
    """What the tenant has in a copy of its database is neither a problem nor dropped, also when it is removed."""
    copy, rows = f"{victim.database}_backup", "SELECT count(*) FROM public.kept"
    managed.run(victim, "CREATE TABLE public.kept AS SELECT generate_series(1, 100); SELECT lo_create(0)")
    for login in victim.logins:
        await managed.closed(login)
    managed.as_admin(f"CREATE DATABASE {copy} TEMPLATE {victim.database}")
    try:
        assert await victim.problems() == frozenset()
        await victim.repair()
        assert managed.api(rows, copy) == [(100,)]
        await victim.steps.end_logins(victim.on_record)
        await victim.steps.drop_database()
        await victim.steps.drop_logins(victim.on_record)
        assert await victim.steps.drop_roles() == (copy,)
        assert managed.api(rows, copy) == [(100,)]
        assert not managed.exists(victim.owner)
    finally:
        managed.drop(copy)


async def test_strangers_objects_are_taken_or_named(managed: Managed, victim: Tenant) -> None:
    strangers = ("doadmin", "stranger", "unreachable")
    managed.make_login("stranger")
    managed.api("CREATE ROLE unreachable")
    try:
        for owner in strangers:
            create = f"CREATE TABLE public.{owner} (x int); ALTER TABLE public.{owner} OWNER TO {owner}"
            managed.api(create, victim.database)
        assert await victim.problems() == {Problem(ProblemKind.OWNED_BY_OTHERS, each) for each in strangers}
        if managed.version >= 16:
            with pytest.raises(GrantError, match=r"owned_by_others: unreachable.*the owner of these objects"):
                await victim.repair()
            await victim.add()  # and no rotation fails
            assert owners(managed, victim.database) == {"unreachable", victim.owner}
            managed.api("DROP TABLE public.unreachable", victim.database)
        await victim.repair()
        assert owners(managed, victim.database) == {victim.owner}
    finally:
        managed.delete("stranger")
        managed.delete("unreachable")
    assert await victim.problems() == frozenset()


async def test_a_step_holds_one_connection_at_a_time(managed: Managed, server: PostgresServer, victim: Tenant) -> None:
    """Many at once would otherwise wait for each other."""
    server.session_limit = asyncio.Semaphore(1)
    managed.api("CREATE TABLE public.t (x int); ALTER TABLE public.t OWNER TO doadmin", victim.database)
    await victim.repair()
    await victim.add()
    assert await victim.problems() == frozenset()
    assert await victim.end(victim.logins[0])
    await victim.steps.drop_database()


async def test_excess_memberships_are_reported_and_revoked(managed: Managed, victim: Tenant) -> None:
    managed.make_login("stranger")
    login = victim.logins[0]
    try:
        managed.api(f"GRANT {login} TO stranger; GRANT pg_read_all_data TO {login}")
        assert await victim.problems() == kinds(ProblemKind.OPEN_TO_OTHERS, ProblemKind.TOO_MANY_RIGHTS)
        if managed.version >= 16:  # only a superuser may revoke what one granted
            with pytest.raises(GrantError, match=r"open_to_others: stranger; .* has the rights of pg_read_all_data"):
                await victim.repair()
        else:
            await victim.repair()
            assert await victim.problems() == frozenset()
    finally:
        managed.api(f"REVOKE {login} FROM stranger; DROP ROLE stranger; REVOKE pg_read_all_data FROM {login}")
    assert await victim.problems() == frozenset()


GO: LiteralString = """
CREATE FUNCTION public.go(wait float) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    WHILE (SELECT pg_get_userbyid(proowner) FROM pg_catalog.pg_proc WHERE proname = 'go') = current_user LOOP
        PERFORM pg_catalog.pg_sleep(0.001);
    END LOOP;
    PERFORM pg_catalog.pg_sleep(wait);
    EXECUTE pg_catalog.format(
        'CREATE FUNCTION public.up%s() RETURNS name LANGUAGE sql SECURITY DEFINER AS ''SELECT current_user''',
        (wait * 1000)::int);
END $$
"""


async def test_function_running_during_drop_makes_nothing(managed: Managed, victim: Tenant) -> None:
    """It runs in a session of the tenant's other login, which is in use."""
    login, other = victim.logins
    managed.run(victim, f"GRANT CREATE, USAGE ON SCHEMA public TO {login}", "SET ROLE NONE; " + GO, login=login)

    def go(wait: float) -> None:
        with suppress(psycopg.Error), managed.open(other, victim.database) as session:
            session.execute("SET statement_timeout = 30000")
            session.execute("SELECT public.go(%s)", [wait])

    threads = [threading.Thread(target=go, args=[0.05 * number]) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    await until(lambda: managed.running("public.go(") == len(threads))
    await victim.end(login)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert owners(managed, victim.database) <= {victim.owner, login}
    assert await victim.steps.drop_logins([login]) == ()
    assert owners(managed, victim.database) == {victim.owner}
