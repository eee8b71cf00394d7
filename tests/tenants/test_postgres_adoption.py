"""An existing login and database become a tenant on PostgreSQL, and lose nothing."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest
from aiodbclient.tenants._grants.postgres import PostgresGrants
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from aiodbclient.errors import GrantError
from aiodbclient.tenants import Problem
from aiodbclient.tenants._naming import Names

from .managed import PASSWORD, Managed, ready

_used = iter(range(10**6))

# What the administrator granted to the login before, and it may still do.
BEFORE: list[LiteralString] = [
    "INSERT INTO theirs VALUES (1)",
    "SELECT x FROM in_part",
    "UPDATE in_part SET x = 1",
    "SELECT nextval('numbers')",
    "SELECT s.private()",
    "CREATE TABLE s.mine (x int)",
    "SELECT * FROM by_membership",
    "SELECT * FROM s.made_later",
    "ALTER TABLE its_own ADD y int",
]


@pytest.fixture
def names(managed: Managed) -> Names:
    """A login that works in the administrator's database, and the second login."""
    names = managed.make(f"older{next(_used)}")
    login, group = Identifier(names.logins[0]), Identifier(f"{names.whole}_group")
    with Connection.connect(managed.admin, dbname=names.whole, autocommit=True) as administrator:
        for statement in (
            "CREATE TABLE theirs (x int); GRANT SELECT, INSERT ON theirs TO {login}",
            "CREATE TABLE in_part (x int, y int); GRANT SELECT (x), UPDATE (x) ON in_part TO {login}",
            "CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE numbers TO {login}",
            "CREATE SCHEMA s; GRANT USAGE, CREATE ON SCHEMA s TO {login}; GRANT CREATE ON SCHEMA public TO {login}",
            "CREATE FUNCTION s.private() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "REVOKE EXECUTE ON FUNCTION s.private FROM PUBLIC; GRANT EXECUTE ON FUNCTION s.private TO {login}",
            "CREATE ROLE {group}; GRANT {group} TO {login}",
            "CREATE TABLE by_membership (x int); GRANT SELECT ON by_membership TO {group}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO {login}",
        ):
            administrator.execute(SQL(statement).format(login=login, group=group))
    with managed.open(names.logins[0], names.database) as session:
        session.execute("CREATE TABLE its_own AS SELECT 1 AS x")
    return names


def can(managed: Managed, names: Names, login: str, maker: str = "doadmin") -> None:
    with Connection.connect(managed.admin, dbname=names.whole, autocommit=True) as administrator:
        administrator.execute(SQL("SET ROLE {}").format(Identifier(maker)))
        administrator.execute("DROP TABLE IF EXISTS s.made_later; CREATE TABLE s.made_later (x int)")
    with managed.open(login, names.database) as session:
        for statement in BEFORE:
            with session.transaction(force_rollback=True):
                session.execute(statement)


async def test_an_adopted_login_can_do_what_it_could_and_so_can_the_next_one(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    can(managed, names, names.logins[0])

    for _ in range(2):
        await grants.take_over(names, names.logins[0])
    await grants.give(names, names.logins[0])
    assert await grants.log_in(names, names.logins[0], PASSWORD) is None
    can(managed, names, names.logins[0])

    # What the administrator made is reported until it is the owner's too.
    assert await grants.problems(names, names.logins[:1]) == {Problem.OWNED_BY_OTHERS}
    await grants.reclaim(names)
    await ready(grants, names, names.logins[0])
    can(managed, names, names.logins[0], names.owner)
    await ready(grants, names, names.logins[1])
    can(managed, names, names.logins[1], names.owner)


async def test_logins_that_will_be_shut_out_are_listed_and_no_others(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    await managed.tenant(f"other{next(_used)}", grants)
    managed.make_login("reporting")
    try:
        assert "reporting" in await grants.shut_out(names, names.logins)
        assert not {name for name in await grants.shut_out(names, names.logins) if name.startswith("other")}
        assert managed.lets_in("reporting", names.database)

        await grants.take_over(names, names.logins[0])
        await grants.give(names, names.logins[0])

        assert not managed.lets_in("reporting", names.database)
        assert await grants.shut_out(names, names.logins) == ()
    finally:
        managed.delete("reporting")


# What no administrator can reassign to another role. ``{login}`` is the login. A superuser runs it.
CANNOT: dict[str, tuple[LiteralString, str]] = {
    "CREATEDB": ("ALTER ROLE {login} CREATEDB", "it has CREATEDB"),
    "REPLICATION": ("ALTER ROLE {login} REPLICATION", "it has REPLICATION"),
    "elsewhere": ("GRANT CONNECT ON DATABASE defaultdb TO {login}", "in the database 'defaultdb'"),
    "a superuser's": (
        "CREATE TABLE public.su (x int); GRANT SELECT ON public.su TO {login}",
        "which the administrator cannot grant",
    ),
    "a policy": ("CREATE POLICY p ON public.theirs TO {login}", "row security policy 'p'"),
    "owned": ("ALTER DATABASE {database} OWNER TO {login}", "cannot become"),
}


@pytest.mark.parametrize("what", CANNOT)
async def test_rights_that_cannot_be_transferred_are_an_error_before_anything_is_changed(
    managed: Managed, grants: PostgresGrants, names: Names, what: str
) -> None:
    if what == "owned" and managed.version < 16:
        pytest.skip("the administrator can become every role there")
    statement, reason = CANNOT[what]
    managed.api(SQL(statement).format(login=Identifier(names.logins[0]), database=Identifier(names.whole)), names.whole)

    with pytest.raises(GrantError, match=reason) as caught:
        await grants.take_over(names, names.logins[0])

    assert "nothing was changed" in str(caught.value)
    assert managed.api(SQL("SELECT FROM pg_roles WHERE rolname = {}").format(names.owner)) == []
    with managed.open(names.logins[0], names.database) as session:
        session.execute("INSERT INTO theirs VALUES (1)")


async def test_policies_of_one_name_on_many_tables_are_named_once(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    login = Identifier(names.logins[0])
    for number in range(3):
        managed.api(SQL("CREATE TABLE public.t{} (x int)").format(number), names.whole)
        managed.api(SQL("CREATE POLICY of_tenant ON public.t{} TO {}").format(number, login), names.whole)

    with pytest.raises(GrantError) as caught:
        await grants.take_over(names, names.logins[0])

    assert str(caught.value).count("the row security policy 'of_tenant' names it") == 1


async def test_a_login_that_owns_the_database_gives_it_back_where_postgresql_allows_it(
    managed: Managed, grants: PostgresGrants
) -> None:
    """As a tenant of an older version could do with its owner role's database, when logins still inherited."""
    names = await managed.tenant(f"stolen{next(_used)}", grants)
    login = names.logins[0]
    managed.api(SQL("ALTER DATABASE {} OWNER TO {}").format(Identifier(names.whole), Identifier(login)))

    assert await grants.problems(names, [login]) == {Problem.RIGHTS_MISSING}
    await grants.give(names, login)
    try:
        refused = await grants.log_in(names, login, "secret")
    except GrantError as error:  # from 17.12 on, REASSIGN OWNED of a database needs CREATEDB
        refused = str(error)
    if refused is None:
        assert await grants.problems(names, [login]) == frozenset()
    else:
        assert "permission denied to change owner of database" in refused
        assert await grants.problems(names, [login]) == {Problem.RIGHTS_MISSING}


async def test_a_database_of_somebody_else_stays_theirs(managed: Managed, grants: PostgresGrants) -> None:
    names = managed.make(f"theirs{next(_used)}")
    managed.make_login("stranger")
    try:
        managed.api(SQL("ALTER DATABASE {} OWNER TO stranger").format(Identifier(names.whole)))
        with pytest.raises(GrantError, match="must be owner of database"):
            await grants.give(names, names.logins[0])
        assert managed.lets_in("stranger", names.database)
        with pytest.raises(psycopg.OperationalError):
            managed.open(names.logins[0], names.database, "wrong")
    finally:
        managed.drop(names.whole)
        managed.delete("stranger")
