"""Nobody inherits from a login on PostgreSQL: what it owns is the owner role's before the API deletes it.

Here, as at the provider, what a deleted login owns becomes the administrator's. A function of a tenant would then run
with the administrator's rights.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
import pytest
from aiodbclient.tenants._grants.postgres import PostgresGrants
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from aiodbclient import Action
from aiodbclient.errors import GrantError
from aiodbclient.tenants import Problem, Role
from aiodbclient.tenants._naming import Names

from .conftest import Place, only
from .managed import PASSWORD, Managed, ended, ready

_used = iter(range(10**6))

# Whatever a login can own, by the words of ``pg_identify_object``. ``DEFINER`` is how code gets its owner's rights.
KINDS: dict[str, LiteralString] = {
    "schema": "CREATE SCHEMA own",
    "table": "CREATE TABLE own.t (x serial PRIMARY KEY, y int GENERATED ALWAYS AS IDENTITY, z int DEFAULT 1 + 1)",
    "partitioned table": "CREATE TABLE p (x int) PARTITION BY RANGE (x); CREATE TABLE p1 PARTITION OF p DEFAULT",
    "sequence": "CREATE SEQUENCE s",
    "function": "CREATE FUNCTION up() RETURNS name LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user'",
    "function in a closed schema": "CREATE FUNCTION closed.up() RETURNS int LANGUAGE sql AS 'SELECT 1'",
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
    "odd name": 'CREATE TABLE "a.b""; c" (x int); CREATE FUNCTION "{{}}%s"("a.b""; c") RETURNS int LANGUAGE sql AS'
    " 'SELECT 1'",
}
_HERE = SQL("""
SELECT DISTINCT rolname::text FROM pg_shdepend JOIN pg_roles r ON r.oid = refobjid
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND refclassid = 'pg_authid'::regclass
  AND deptype = 'o' AND rolname <> 'lender'
""")


def lent(managed: Managed, names: Names, login: str) -> None:
    """As the owner role, let a login make objects of its own: it does so after ``SET ROLE NONE``."""
    managed.api("CREATE FOREIGN DATA WRAPPER lent; GRANT USAGE ON FOREIGN DATA WRAPPER lent TO PUBLIC", names.whole)
    with managed.open(names.owner_logins[0], names.whole) as session:
        session.execute("SET search_path = public; CREATE SCHEMA closed")
        session.execute(SQL("GRANT CREATE ON DATABASE {} TO {}").format(Identifier(names.whole), Identifier(login)))
        session.execute(SQL("GRANT ALL ON SCHEMA public, closed TO {}").format(Identifier(login)))
        session.execute("REVOKE ALL ON SCHEMA closed FROM CURRENT_USER")


def make_all(managed: Managed, names: Names, login: str) -> None:
    with managed.open(login, names.whole) as session:
        session.execute("SET ROLE NONE; SET search_path = public")
        for statement in KINDS.values():
            session.execute(statement.replace("{{}}", "{}").encode())
        available = session.execute("SELECT FROM pg_available_extensions WHERE name = 'pgcrypto'").fetchone()
        if available is not None:
            session.execute("CREATE EXTENSION pgcrypto")


def owners(managed: Managed, database: str) -> set[str]:
    return {name for (name,) in managed.api(_HERE.format(), database)}


@pytest.mark.parametrize("role", Role)
async def test_what_a_login_owned_is_the_owner_roles(
    managed: Managed, grants: PostgresGrants, names: Names, role: Role
) -> None:
    if role is not Role.OWNER and managed.version == 14:
        pytest.skip("there are no such roles there")
    of_role = names if role is Role.OWNER else await managed.role(names.tenant, role, grants)
    login = of_role.logins[0]
    lent(managed, names, login)
    make_all(managed, names, login)
    assert login in owners(managed, names.whole)

    assert await ended(grants, of_role, login, PASSWORD, managed.deletes(login)) is None

    assert owners(managed, names.whole) == {names.owner}
    assert await grants.problems(names, [names.logins[1]]) == frozenset()
    with managed.open(names.logins[1], names.whole) as session:
        session.execute("SET search_path = public")
        assert session.execute("SELECT up(), (SELECT who FROM mv)").fetchone() == (names.owner, login)
        session.execute(
            "SELECT count(*) FROM v; DROP SCHEMA own CASCADE; DROP FUNCTION up CASCADE; SELECT lo_unlink(4711)"
        )


async def test_without_the_password_a_login_that_owns_something_is_deleted_only_before_16(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    login = names.logins[0]
    lent(managed, names, login)
    make_all(managed, names, login)

    if managed.version < 16:  # the administrator may become the login
        assert await ended(grants, names, login, None, managed.deletes(login)) is None
        assert owners(managed, names.whole) == {names.owner}
        return
    with pytest.raises(GrantError, match=f"'{login}' was not ended: its sessions"):
        await ended(grants, names, login, None, managed.deletes(login))
    assert owners(managed, names.whole) == {names.owner, login}
    managed.reset(login, "reset")
    assert await ended(grants, names, login, "reset", managed.deletes(login)) is None
    assert owners(managed, names.whole) == {names.owner}


# What a login may own outside of its tenant's database. ``{evil}`` is another tenant's database, and lets it.
ELSEWHERE: dict[str, tuple[LiteralString, LiteralString]] = {
    "defaultdb": ("SELECT lo_create(0)", "SELECT count(*) FROM pg_largeobject_metadata"),
    "a neighbour's schema": (
        "CREATE FUNCTION public.up() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        "SELECT count(*) FROM pg_proc WHERE proname = 'up'",
    ),
    "a neighbour's large object": ("SELECT lo_create(0)", "SELECT count(*) FROM pg_largeobject_metadata"),
}


@pytest.mark.parametrize("where", ELSEWHERE)
async def test_what_a_login_owns_in_another_database_is_nobodys_either(
    managed: Managed, grants: PostgresGrants, names: Names, where: str
) -> None:
    login, evil = names.logins[0], await managed.tenant(f"evil{next(_used)}", grants)
    database = "defaultdb" if where == "defaultdb" else evil.whole
    make, _ = ELSEWHERE[where]
    if database == evil.whole:
        with managed.open(evil.logins[0], evil.whole) as session:
            session.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(Identifier(evil.whole), Identifier(login)))
            session.execute(SQL("GRANT CREATE ON SCHEMA public TO {}").format(Identifier(login)))
    before = owners(managed, database)
    with managed.open(login, database) as session:
        session.execute("SET ROLE NONE; " + make)
    if database == evil.whole:  # and closed behind it
        with managed.open(evil.logins[0], "defaultdb") as session:
            session.execute(
                SQL("REVOKE CONNECT ON DATABASE {} FROM {}").format(Identifier(evil.whole), Identifier(login))
            )
            session.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(Identifier(evil.whole)))

    assert await ended(grants, names, login, PASSWORD, managed.deletes(login)) is None

    assert owners(managed, database) <= before | {names.owner}
    assert "doadmin" not in owners(managed, database) - before


async def test_a_function_that_an_intruder_left_with_a_neighbour_is_dropped(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    """It would run with the owner role's rights, which may open or drop the tenant's database from there."""
    evil = await managed.tenant(f"evil{next(_used)}", grants)
    with managed.open(evil.logins[0], evil.whole) as session:
        name, owner, login = Identifier(evil.whole), Identifier(names.owner), Identifier(names.logins[0])
        session.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, login))
        session.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(owner))
    with managed.open(names.logins[0], evil.whole) as session:
        session.execute("CREATE FUNCTION public.back() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
    assert await grants.problems(names, names.logins) == {Problem.OWNED_BY_OTHERS}
    assert names.owner in owners(managed, evil.whole)

    assert await ended(grants, names, names.logins[0], PASSWORD, managed.deletes(names.logins[0])) is None

    assert names.owner not in owners(managed, evil.whole)
    assert await grants.problems(names, names.logins[1:]) == frozenset()


async def test_what_a_login_cannot_give_away_keeps_it_from_being_deleted(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    """A schema of a stranger lets it create, and the owner role may create nothing there."""
    login = names.logins[0]
    managed.api("CREATE SCHEMA theirs", names.whole)
    managed.api(SQL("GRANT USAGE, CREATE ON SCHEMA theirs TO {}").format(Identifier(login)), names.whole)
    with managed.open(login, names.whole) as session:
        session.execute("SET ROLE NONE; CREATE FUNCTION theirs.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")

    with pytest.raises(GrantError, match=r"was not deleted.*permission denied for schema theirs.*run this again"):
        await ended(grants, names, login, PASSWORD, managed.deletes(login))

    assert owners(managed, names.whole) == {login}
    assert not managed.lets_in(login, names.whole)  # its password is unknown
    assert await grants.problems(names, names.logins[1:]) == frozenset()

    managed.reset(login, "reset")
    managed.api("DROP FUNCTION theirs.f()", names.whole)
    assert await ended(grants, names, login, "reset", managed.deletes(login)) is None


async def test_what_is_not_the_tenants_is_reported_and_taken_back(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    with managed.open(names.logins[0], names.whole) as session:
        session.execute(SQL("GRANT CREATE ON DATABASE {} TO doadmin").format(Identifier(names.whole)))
        session.execute(
            "GRANT CREATE ON SCHEMA public TO doadmin; CREATE SCHEMA closed; GRANT ALL ON SCHEMA closed TO doadmin;"
            " REVOKE ALL ON SCHEMA closed FROM CURRENT_USER"
        )
    with Connection.connect(managed.admin, dbname=names.whole, autocommit=True) as administrator:
        administrator.execute("SET search_path = public")
        managed.api("CREATE FOREIGN DATA WRAPPER lent; GRANT USAGE ON FOREIGN DATA WRAPPER lent TO PUBLIC", names.whole)
        for statement in KINDS.values():
            administrator.execute(statement.replace("{{}}", "{}").encode())

    assert await grants.problems(names, names.logins) == {Problem.OWNED_BY_OTHERS}
    await grants.reclaim(names)

    assert await grants.problems(names, names.logins) == frozenset()
    with managed.open(names.logins[1], names.whole) as session:
        assert session.execute("SELECT public.up()").fetchone() == (names.owner,)


async def test_what_a_stranger_owns_is_reported_and_the_error_of_a_repair_names_it(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    managed.make_login("stranger")
    try:
        managed.api("CREATE TABLE public.t (x int); ALTER TABLE public.t OWNER TO stranger", names.whole)
        assert await grants.problems(names, names.logins) == {Problem.OWNED_BY_OTHERS}
        with pytest.raises(GrantError, match=r"objects of 'stranger'.*REASSIGN OWNED"):
            await grants.reclaim(names)
        await grants.give(names, names.logins[0])  # and no rotation fails
    finally:
        managed.api("DROP OWNED BY stranger; DROP ROLE stranger", names.whole)
    assert await grants.problems(names, names.logins) == frozenset()


async def test_a_repair_holds_one_connection_at_a_time(managed: Managed, grants: PostgresGrants, names: Names) -> None:
    """Many at once would otherwise wait for each other."""
    grants._turns = asyncio.Semaphore(1)
    managed.api("CREATE TABLE public.t (x int); ALTER TABLE public.t OWNER TO doadmin", names.whole)
    await grants.reclaim(names)
    assert await grants.problems(names, names.logins) == frozenset()


async def test_who_can_become_a_login_and_what_a_login_can_beyond_its_role_is_reported_and_revoked(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    managed.make_login("stranger")
    login = Identifier(names.logins[0])
    try:
        managed.api(SQL("GRANT {} TO stranger").format(login))
        managed.api(SQL("GRANT pg_read_all_data TO {}").format(login))
        assert await grants.problems(names, names.logins) == {Problem.OPEN_TO_OTHERS, Problem.TOO_MANY_RIGHTS}
        if managed.version >= 16:  # only a superuser may revoke what one granted
            with pytest.raises(GrantError, match=r"'stranger' is a member of .* has the rights of 'pg_read_all_data'"):
                await grants.reclaim(names)
        else:
            await grants.reclaim(names)
            assert await grants.problems(names, names.logins) == frozenset()
    finally:
        managed.api(
            SQL("REVOKE {} FROM stranger; DROP ROLE stranger; REVOKE pg_read_all_data FROM {}").format(login, login)
        )
    assert await grants.problems(names, names.logins) == frozenset()


async def test_an_adopted_tenant_has_no_other_logins(managed: Managed, grants: PostgresGrants) -> None:
    """Somebody may know the password of a login that has the name of the tenant's second one."""
    before = await managed.tenant(f"older{next(_used)}", grants)
    reader = await managed.role(before.tenant, Role.READER, grants) if managed.version > 14 else None
    others = [before.logins[1], *(reader.logins[:1] if reader else ())]
    assert all(managed.lets_in(login, before.whole) for login in others)

    await grants.take_over(before, before.logins[0])
    await ready(grants, before, before.logins[0])

    assert not any(managed.lets_in(login, before.whole) for login in others)
    assert managed.lets_in(before.logins[0], before.whole)


UP: LiteralString = """
CREATE FUNCTION public.up() RETURNS name LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user'
"""


def _plant(uri: str, login: str) -> Connection[Any]:
    """A hostile program, which stays connected."""
    session = psycopg.connect(uri, autocommit=True)
    session.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(Identifier(login)))
    session.execute("SET ROLE NONE; " + UP)
    return session


async def test_a_tenant_does_not_become_the_administrator_by_a_rotation_and_a_retirement(place: Place) -> None:
    tenants = place.tenants()
    first = await tenants.ensure("alpha")
    _plant(first.uri, first.username).close()
    assert (await only(tenants.rotate(["alpha"]))).error is None
    assert (await only(tenants.retire(["alpha"]))).error is None

    current = await tenants.get("alpha")
    assert current is not None
    with psycopg.connect(current.uri) as session:
        assert session.execute("SELECT public.up() = current_user").fetchone() == (True,)
    assert (await only(tenants.check(["alpha"]))).problems == ()


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


async def test_a_function_that_runs_as_a_login_while_it_is_retired_makes_nothing_of_the_administrators(
    place: Place,
) -> None:
    """It runs in a session of the tenant's other login, which is in use."""
    tenants = place.tenants()
    first = await tenants.ensure("delta")
    with psycopg.connect(first.uri, autocommit=True) as session:
        session.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(Identifier(first.username)))
        session.execute("SET ROLE NONE")
        session.execute(GO)
    second = (await only(tenants.rotate(["delta"]))).credential
    assert second is not None

    def go(wait: float) -> None:
        with suppress(psycopg.Error), psycopg.connect(second.uri, autocommit=True) as session:
            session.execute("SELECT public.go(%s)", [wait])

    threads = [threading.Thread(target=go, args=[0.05 * number]) for number in range(1, 13)]
    for thread in threads:
        thread.start()
    await asyncio.sleep(0.2)
    place.sandbox.faults.add("users.delete", delay=0.3)
    assert (await only(tenants.retire(["delta"]))).error is None
    for thread in threads:
        thread.join()

    assert Problem.OWNED_BY_OTHERS not in (await only(tenants.check(["delta"]))).problems
    with psycopg.connect(second.uri, autocommit=True) as session:
        made = session.execute("SELECT DISTINCT pg_get_userbyid(proowner) FROM pg_proc WHERE proname ~ '^up[0-9]'")
        assert "doadmin" not in {owner for (owner,) in made}
    assert (await only(tenants.remove(["delta"]))).action is Action.DELETED


async def test_nothing_that_is_committed_while_a_login_waits_to_be_deleted_becomes_the_administrators(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    """A login prepares a transaction as the owner role, so the tenant's other login may commit it."""
    login, other = names.logins
    with managed.open(login, names.whole) as session:
        session.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(Identifier(login)))
        session.execute("BEGIN; SET ROLE NONE; " + UP)
        session.execute(SQL("SET ROLE {}; PREPARE TRANSACTION 'late'").format(Identifier(names.owner)))

    async def committed() -> None:
        with managed.open(other, names.whole) as its:
            for (gid,) in its.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
                its.execute(f"COMMIT PREPARED '{gid}'".encode())

    assert await grants.end_login(names, login, PASSWORD) is None
    await committed()
    if managed.version < 16:
        await grants.before_deletion(names, login)
        managed.delete(login)
        assert "doadmin" not in owners(managed, names.whole)
        return
    with pytest.raises(GrantError, match="was not deleted, because what it owns"):
        await grants.before_deletion(names, login)
    managed.reset(login, "reset")
    assert await ended(grants, names, login, "reset", managed.deletes(login)) is None

    assert owners(managed, names.whole) == {names.owner}
    with managed.open(other, names.whole) as session:
        assert session.execute("SELECT public.up()").fetchone() == (names.owner,)


@pytest.mark.parametrize("password", [PASSWORD, None])
async def test_a_session_that_became_the_login_before_it_is_deleted_leaves_the_administrator_nothing(
    managed: Managed, grants: PostgresGrants, names: Names, password: str | None
) -> None:
    """Before PostgreSQL 15 a login may make another one its member, whose session then creates objects as the login."""
    if managed.version >= 15:
        pytest.skip("a login may not grant itself")
    login, other = names.logins
    with managed.open(login, names.whole) as session:
        session.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(Identifier(login)))
        session.execute(SQL("SET ROLE NONE; GRANT {} TO {}").format(Identifier(login), Identifier(other)))
    intruder = managed.open(other, names.whole)
    intruder.execute(SQL("SET ROLE {}").format(Identifier(login)))
    made = threading.Event()
    stop = threading.Event()

    def make() -> None:
        while not stop.is_set():
            with suppress(psycopg.Error):
                intruder.execute(UP.replace("up()", f"up{next(_used)}()").encode())
                made.set()

    async def late() -> None:
        made.clear()
        await asyncio.to_thread(made.wait, 1)
        managed.delete(login)

    thread = threading.Thread(target=make)
    thread.start()
    try:
        assert await ended(grants, names, login, password, late) is None
    finally:
        stop.set()
        thread.join()
        intruder.close()

    assert "doadmin" not in owners(managed, names.whole)
    await grants.reclaim(names)
    assert owners(managed, names.whole) <= {names.owner}
    assert not managed.lets_in(login, names.whole)


async def test_a_reader_does_not_become_the_administrator_when_it_is_removed(place: Place) -> None:
    tenants = place.tenants()
    owner = await tenants.ensure("beta")
    reader = await tenants.role("reader").ensure("beta")
    with psycopg.connect(owner.uri, autocommit=True) as session:
        session.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(Identifier(reader.username)))
        with psycopg.connect(reader.uri, autocommit=True) as its:
            its.execute(UP)
        assert (await only(tenants.role("reader").remove(["beta"]))).action is Action.DELETED
        assert session.execute("SELECT public.up() = current_user").fetchone() == (True,)
    assert (await only(tenants.check(["beta"]))).problems == ()


async def test_nothing_of_a_kept_database_runs_as_the_administrator(place: Place) -> None:
    tenants = place.tenants()
    owner = await tenants.ensure("gamma")
    with psycopg.connect(owner.uri, autocommit=True) as session:
        session.execute(UP)
        session.execute("CREATE TABLE public.t (x int)")
    assert (await only(tenants.remove(["gamma"], keep_database=True))).action is Action.DELETED

    admin = await place.cluster.info()
    assert admin.connection is not None
    with psycopg.connect(
        host=admin.connection.host,
        port=admin.connection.port,
        user=admin.connection.user,
        password=admin.connection.password,
        dbname=owner.database,
    ) as administrator:
        ((owners_of, up),) = administrator.execute(
            "SELECT array_agg(DISTINCT pg_get_userbyid(relowner)::text), (SELECT pg_get_userbyid(proowner)::text"
            " FROM pg_proc WHERE proname = 'up') FROM pg_class WHERE relname = 't'"
        ).fetchall()
        assert owners_of == [up]
        assert up.endswith("_owner")
        login, members = administrator.execute(
            "SELECT rolcanlogin, ARRAY(SELECT DISTINCT pg_get_userbyid(member)::text FROM pg_auth_members"
            " WHERE roleid = r.oid) FROM pg_roles r WHERE rolname = %s",
            [up],
        ).fetchall()[0]
        assert (login, members) == (False, [admin.connection.user])

    # It can be taken over again, with all that is in it.
    again = await only(tenants.provision(["gamma"], if_exists="adopt"))
    assert again.error is None, again.error
    assert again.credential is not None
    with psycopg.connect(again.credential.uri) as session:
        session.execute("ALTER TABLE public.t ADD y int")
