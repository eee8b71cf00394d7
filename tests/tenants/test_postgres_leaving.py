"""A tenant is removed from PostgreSQL, whatever it or another tenant did to prevent it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from aiodbclient.tenants._grants.postgres import PostgresGrants
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from aiodbclient.errors import GrantError
from aiodbclient.tenants import Role
from aiodbclient.tenants._naming import Names

from .managed import Managed, ended

_used = iter(range(10**6))


def left(managed: Managed, names: Names) -> list[Any]:
    """The existing roles of the tenant."""
    rows = managed.api(SQL("SELECT rolname FROM pg_roles WHERE starts_with(rolname, {})").format(names.whole))
    return [name for (name,) in rows]


async def removed(managed: Managed, grants: PostgresGrants, names: Names) -> None:
    """Remove a tenant, as ``Tenants.remove`` does."""
    await grants.before_removal(names)
    for login in names.logins:
        managed.delete(login)
    managed.drop(names.whole)
    await grants.forget(names)
    assert left(managed, names) == []


def session(managed: Managed, names: Names, database: str | None = None) -> Connection[Any]:
    return managed.open(names.logins[0], database or names.database)


async def test_a_template_with_something_left_in_defaultdb_is_removed(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    with session(managed, names, "defaultdb") as connection:
        connection.execute("SELECT lo_create(0)")
        connection.execute(SQL("ALTER DATABASE {} IS_TEMPLATE true").format(Identifier(names.whole)))
    await removed(managed, grants, names)


# What another tenant may grant in its own database. ``{victim}`` is the owner role of the removed tenant.
GRANTS = [
    "GRANT CONNECT ON DATABASE {evil} TO {victim}",
    "GRANT TEMPORARY ON DATABASE {evil} TO {victim} WITH GRANT OPTION",
    "CREATE TABLE t (x int); GRANT SELECT ON t TO {victim}",
    "CREATE TABLE c (x int); GRANT SELECT (x) ON c TO {victim}",
    'CREATE SCHEMA "Odd ""name"; GRANT USAGE ON SCHEMA "Odd ""name" TO {victim}',
    "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT EXECUTE ON FUNCTION f TO {victim}",
    "CREATE TYPE y AS ENUM ('a'); GRANT USAGE ON TYPE y TO {victim}",
    "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO {victim}",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {victim}",
    "CREATE TABLE p (x int); CREATE POLICY p ON p TO {victim}",
    # Granted on by the login itself, and the administrator cannot become that login:
    "GRANT CONNECT ON DATABASE {evil} TO {login} WITH GRANT OPTION; SET ROLE NONE;"
    " GRANT CONNECT ON DATABASE {evil} TO {victim}; SET ROLE {owner}",
    "CREATE TABLE t2 (x int); GRANT SELECT ON t2 TO {login} WITH GRANT OPTION; SET ROLE NONE;"
    " GRANT SELECT ON t2 TO {victim}; SET ROLE {owner}",
]
BY_LOGIN = "SET ROLE NONE; SELECT lo_create(4712); GRANT SELECT ON LARGE OBJECT 4712 TO {victim}"


def grant(managed: Managed, evil: Names, victim: Names, statement: str, database: str) -> None:
    with session(managed, evil, database) as connection:
        connection.execute(
            SQL(statement).format(
                evil=Identifier(evil.whole),
                owner=Identifier(evil.owner),
                login=Identifier(evil.logins[0]),
                victim=Identifier(victim.owner),
            )
        )


def gone(managed: Managed) -> list[Any]:
    """Roles that belong to no tenant any more and could not be dropped."""
    return managed.api("SELECT oid FROM pg_roles WHERE starts_with(rolname, 'aiodbclient_gone_')")


async def test_another_tenant_cannot_keep_one_from_being_removed(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names
) -> None:
    # Before PostgreSQL 16 a login inherits the owner's rights, so its grants stay when its own right is revoked.
    for statement in GRANTS if managed.version >= 16 else GRANTS[:-2]:
        grant(managed, evil, names, statement, evil.whole)
    grant(managed, evil, names, GRANTS[7], "defaultdb")

    before = gone(managed)
    await removed(managed, grants, names)
    assert gone(managed) == before


async def test_rights_that_only_another_login_can_revoke_leave_a_useless_role(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names
) -> None:
    grant(managed, evil, names, BY_LOGIN, evil.whole)

    before = gone(managed)
    await removed(managed, grants, names)
    ((role,),) = set(gone(managed)) - set(before)
    members = managed.api(SQL("SELECT member::regrole::text FROM pg_auth_members WHERE roleid = {}").format(role))
    assert set(members) <= {("doadmin",)}

    again = await managed.tenant(names.tenant, grants)
    await removed(managed, grants, again)


async def test_an_owner_that_still_has_its_database_is_not_forgotten(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    with session(managed, names) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")

    with pytest.raises(GrantError, match="still exists"):
        await grants.forget(names)

    with session(managed, names) as connection:
        assert connection.execute("TABLE t").fetchone() == (1,)


async def test_a_released_database_keeps_its_data_and_lets_nobody_in(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names
) -> None:
    reader = await managed.role(names.tenant, Role.READER, grants)
    with session(managed, names) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
        connection.execute("CREATE SCHEMA s CREATE TABLE inner_t (x int)")
        connection.execute(SQL("GRANT CONNECT ON DATABASE {} TO PUBLIC").format(Identifier(names.whole)))
        connection.execute(SQL("ALTER DATABASE {} SET search_path = planted").format(Identifier(names.whole)))
        connection.execute("SET ROLE NONE; SELECT lo_create(0)")

    for of_role in (reader, names):
        for login in of_role.logins:
            password = "secret" if managed.lets_in(login, "defaultdb") else None
            assert await ended(grants, of_role, login, password, managed.deletes(login)) is None
    for _ in range(2):
        await grants.forget(reader)
        await grants.release(names)

    assert left(managed, names) == [names.owner]
    assert not managed.lets_in(evil.logins[0], names.whole)
    assert managed.api(SQL("SELECT datconnlimit FROM pg_database WHERE datname = {}").format(names.whole)) == [(-1,)]
    with Connection.connect(managed.admin, dbname=names.whole) as administrator:
        administrator.execute(SQL("SET ROLE {}").format(Identifier(names.owner)))
        assert administrator.execute("TABLE t").fetchone() == (1,)
        administrator.execute("DROP TABLE s.inner_t")
        owned = administrator.execute(
            "SELECT count(*) FROM pg_largeobject_metadata WHERE lomowner = current_user::regrole"
        )
        assert owned.fetchone() == (1,)


async def test_a_reader_is_forgotten_and_its_tenant_stays(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    reader, writer = [await managed.role(names.tenant, role, grants) for role in (Role.READER, Role.WRITER)]
    with session(managed, names) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")

    managed.delete(reader.logins[0])
    await grants.forget(reader)

    assert reader.group not in left(managed, names)
    assert await grants.problems(names, names.logins) == frozenset()
    with managed.open(writer.logins[0], names.database) as connection:
        assert connection.execute("TABLE t").fetchone() == (1,)


async def test_the_administrator_inherits_nothing(managed: Managed, grants: PostgresGrants, names: Names) -> None:
    if managed.version < 16:
        pytest.skip("it always does there")
    with session(managed, names) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    with (
        Connection.connect(managed.admin, dbname=names.whole) as administrator,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        administrator.execute("TABLE t")


async def test_prepared_transactions_do_not_keep_a_database(managed: Managed, grants: PostgresGrants) -> None:
    names = await managed.tenant(f"prepared{next(_used)}", grants)
    for number, role in enumerate((names.owner, "none")):
        with session(managed, names) as connection:
            connection.execute(SQL("SET ROLE {}").format(SQL("NONE") if role == "none" else Identifier(role)))
            connection.execute("BEGIN")
            connection.execute("SELECT lo_create(0)")
            connection.execute(SQL("PREPARE TRANSACTION {}").format(f"it's {number}"))

    assert await ended(grants, names, names.logins[0], "secret", managed.deletes(names.logins[0])) is None
    await removed(managed, grants, names)


async def test_what_a_suspended_tenant_prepared_and_granted_ends(managed: Managed, grants: PostgresGrants) -> None:
    names = await managed.tenant(f"shut{next(_used)}", grants)
    neighbour = await managed.tenant(f"neighbour{next(_used)}", grants)
    database = Identifier(names.database or "")
    for number, role in enumerate((SQL("NONE"), Identifier(names.owner))):
        with session(managed, names) as connection:
            connection.execute(SQL("SET ROLE {}").format(role))
            connection.execute("BEGIN")
            connection.execute("SELECT lo_create(0)")
            connection.execute(SQL("PREPARE TRANSACTION {}").format(f"{names.tenant} {number}"))
    with session(managed, names) as connection:
        grant = SQL("GRANT CONNECT ON DATABASE {} TO {} WITH GRANT OPTION")
        connection.execute(grant.format(database, Identifier(neighbour.owner)))
        connection.execute(grant.format(database, Identifier(neighbour.logins[0])))
    assert managed.lets_in(neighbour.logins[0], names.database)
    for login in names.logins:
        assert await ended(grants, names, login, "secret", managed.deletes(login)) is None

    await grants.shut(names)

    assert managed.api("SELECT gid FROM pg_prepared_xacts") == []
    assert not managed.lets_in(neighbour.logins[0], names.database)
    owner = SQL("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {}").format(names.database)
    assert managed.api(owner) == [(names.owner,)]
    await grants.shut(names)


@pytest.mark.parametrize("whose", ["its own", "a neighbour's"])
async def test_a_database_whose_deletion_was_interrupted_does_not_keep_a_login(
    managed: Managed, grants: PostgresGrants, names: Names, evil: Names, whose: str
) -> None:
    """PostgreSQL lets nobody into it: all that is left to do is to drop it."""
    with session(managed, evil) as connection:
        name, owner, login = Identifier(evil.whole), Identifier(names.owner), Identifier(names.logins[0])
        connection.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, login))
        connection.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}, {}").format(owner, login))
    with session(managed, names, evil.whole) as connection:
        connection.execute("CREATE TABLE public.t (x int); SET ROLE NONE; CREATE TABLE public.u (x int)")
    with session(managed, names) as connection:
        connection.execute("CREATE TABLE public.t (x int)")
    invalid = names.whole if whose == "its own" else evil.whole
    managed.api(SQL("UPDATE pg_database SET datconnlimit = -2 WHERE datname = {}").format(invalid))

    async def delete() -> None:
        if invalid == evil.whole:
            managed.drop(invalid)
        managed.delete(names.logins[0])

    assert await ended(grants, names, names.logins[0], "secret", delete) is None
