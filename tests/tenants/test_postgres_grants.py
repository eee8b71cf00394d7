"""The statements on each installed PostgreSQL, with only the rights of a managed cluster's primary user."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from aiodbclient import Engine
from aiodbclient.errors import GrantError
from aiodbclient.tenants._grants.postgres import PostgresGrants
from aiodbclient.tenants._naming import Names, names_of

from .managed import Managed

NAMES = ["alpha", 'a"b\\c%_', "x" * 63]


@pytest.fixture
def superuser(managed: Managed) -> str:
    """The DSN of a superuser that acts as the provider's API. ``doadmin`` is the primary user."""
    return managed.superuser


def as_login(superuser: str, login: str, database: str) -> str:
    return make_conninfo(superuser, user=login, password="secret", dbname=database)


@pytest.fixture
def grants(superuser: str) -> PostgresGrants:
    return PostgresGrants(make_conninfo(superuser, user="doadmin", password="doadmin-secret"), None)


def make(superuser: str, name: str) -> Names:
    """Create a database and two logins, as the API does."""
    names = names_of(name, Engine.PG)
    with Connection.connect(superuser, autocommit=True) as api:
        api.execute(SQL("CREATE DATABASE {} OWNER doadmin").format(Identifier(name)))
        for login in names.logins:
            api.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(Identifier(login)))
    return names


@pytest.mark.parametrize("name", NAMES)
async def test_both_logins_own_the_database_and_each_others_objects(
    superuser: str, grants: PostgresGrants, name: str
) -> None:
    names = make(superuser, name)
    for login in names.logins:
        for _ in range(2):  # each may be repeated
            await grants.give(names, login)
            assert await grants.log_in(names, login, "secret") is None

    first, second = (as_login(superuser, login, name) for login in names.logins)
    async with await AsyncConnection.connect(first) as connection:
        await connection.execute("CREATE TABLE t (x int)")
        await connection.execute("CREATE SCHEMA s CREATE TABLE inner_t (x int)")
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pgcrypto" if await trusted(connection) else "SELECT 1")
    async with await AsyncConnection.connect(second) as connection:
        await connection.execute("ALTER TABLE t ADD y int")
        await connection.execute("DROP SCHEMA s CASCADE")
        row = await (await connection.execute("SELECT session_user, current_user")).fetchone()
    assert row == (names.logins[1], names.owner)
    assert await grants.log_in(names, names.logins[0], "wrong") is not None

    with Connection.connect(superuser, autocommit=True) as api:  # the data survives the deletion of a login
        for login in names.logins:
            api.execute(SQL("DROP OWNED BY {}").format(Identifier(login)))
            api.execute(SQL("DROP ROLE {}").format(Identifier(login)))
        api.execute(SQL("DROP DATABASE {}").format(Identifier(name)))
    await grants.forget(names)
    await grants.forget(names)


async def trusted(connection: AsyncConnection[tuple[object, ...]]) -> bool:
    cursor = await connection.execute("SELECT FROM pg_available_extensions WHERE name = 'pgcrypto'")
    return await cursor.fetchone() is not None


async def test_earlier_objects_of_a_login_become_the_owners(superuser: str, grants: PostgresGrants) -> None:
    names = make(superuser, "older")
    with Connection.connect(make_conninfo(superuser, dbname="older"), autocommit=True) as api:
        api.execute("GRANT CREATE ON SCHEMA public TO older")
        api.execute("SET SESSION AUTHORIZATION older")
        api.execute("CREATE TABLE t (x int)")

    for login in names.logins:
        await grants.give(names, login)
        assert await grants.log_in(names, login, "secret") is None

    async with await AsyncConnection.connect(as_login(superuser, names.logins[1], "older")) as connection:
        await connection.execute("ALTER TABLE t ADD y int")


async def test_nobody_else_gets_in_but_into_defaultdb_where_from_15_on_nothing_can_be_made(
    superuser: str, grants: PostgresGrants
) -> None:
    one, other = make(superuser, "one"), make(superuser, "other")
    for names in (one, other):
        await grants.give(names, names.logins[0])
        assert await grants.log_in(names, names.logins[0], "secret") is None

    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        await AsyncConnection.connect(as_login(superuser, "one", "other"))
    async with await AsyncConnection.connect(as_login(superuser, "one", "defaultdb")) as connection:
        if connection.info.server_version >= 15_00_00:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("CREATE TABLE t (x int)")


async def test_a_database_of_somebody_else_is_reported_with_the_statement(
    superuser: str, grants: PostgresGrants
) -> None:
    names = make(superuser, "theirs")
    with Connection.connect(superuser, autocommit=True) as api:
        api.execute("CREATE ROLE stranger")
        api.execute("ALTER DATABASE theirs OWNER TO stranger")

    with pytest.raises(GrantError, match="must be owner of database") as caught:
        await grants.give(names, "theirs")

    assert caught.value.statement.startswith('ALTER DATABASE "theirs" OWNER TO')
