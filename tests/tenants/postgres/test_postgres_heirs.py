"""Nobody inherits from a login on PostgreSQL: what it owns is the owner role's, or dropped, before it is dropped."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import LiteralString

import psycopg
import pytest

from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants.errors import GrantError

from ...waiting import until
from ..managed import Managed
from ..problems import kinds
from ..tenant import Tenant

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
    server.limits = asyncio.Semaphore(1)
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
