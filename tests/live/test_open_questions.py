"""What nobody has written down about the provider. Each answer is printed (pytest -rP), and none is wrong."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from attrs import evolve
from psycopg.conninfo import make_conninfo

from aiodbclient import Cluster, ClusterInfo, DatabaseClient, User
from aiodbclient._http.raw import JSON
from aiodbclient.engines import MYSQL, POSTGRESQL
from aiodbclient.errors import APIError
from aiodbclient.tenants import SQLiteStore, Tenants

SQL = Callable[..., Awaitable[list[Any]]]


@pytest.fixture
async def doadmin(cluster: Cluster, info: ClusterInfo, tmp_path: Path) -> SQL:
    """Run statements, ``inside`` a database, as another ``user`` through another ``place``; return the last rows."""
    if info.engine not in POSTGRESQL | MYSQL:
        pytest.skip("needs PostgreSQL or MySQL")
    assert info.connection is not None
    default, ca = info.connection, await cluster.ca()
    (tmp_path / "ca.pem").write_text(ca)

    def run(*statements: str, inside: str | None = None, user: User | None = None, place: Any = None) -> list[Any]:
        where, rows = place or default, list[Any]()
        login = user or User(default.user or "", password=default.password)
        connection: Any
        if info.engine in POSTGRESQL:
            uri = where.uri_for(login, database=inside or "defaultdb", ca_file=tmp_path / "ca.pem")
            connection = psycopg.connect(make_conninfo(uri, connect_timeout=10), autocommit=True)
        else:
            options: dict[str, Any] = {
                "host": where.host,
                "port": where.port,
                "user": login.name,
                "password": login.password or "",
            }
            connection = pymysql.connect(**options, ssl=ssl.create_default_context(cadata=ca), autocommit=True)
        try:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    rows = list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()
        return rows

    return lambda *statements, **options: asyncio.to_thread(run, *statements, **options)


async def status(call: Awaitable[object]) -> str:
    try:
        await call
    except APIError as error:
        return f"a {error.status}"
    return "accepted"


async def test_settings_of_server(doadmin: SQL, info: ClusterInfo) -> None:
    names: tuple[str, ...] = (
        "createrole_self_grant",
        "max_connections",
        "max_prepared_transactions",
        "password_encryption",
    )
    if info.engine in POSTGRESQL:
        settings = await doadmin(f"SELECT name, setting FROM pg_settings WHERE name IN {names}")
    else:
        names = "event_scheduler", "local_infile", "partial_revokes", "sql_mode", "sql_require_primary_key"
        settings = await doadmin(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN {names}")
    assert settings
    print(dict(settings))


async def test_what_api_lists_of_tenant(cluster: Cluster, doadmin: SQL, prefix: str, tmp_path: Path) -> None:
    """Its login and its database are made by SQL."""
    assert await doadmin("SELECT 1") == [(1,)]
    async with SQLiteStore(tmp_path / "tenants.db") as store:
        tenants = Tenants(cluster, store)
        try:
            made = await tenants.ensure(prefix)
            users = {each.name for each in await cluster.users.list()}
            dbs = {each.name for each in await cluster.dbs.list()}
            print("lists the login:", made.username in users, "the database:", made.database in dbs)
        finally:
            [removed] = [each async for each in tenants.remove([prefix])]
    assert removed.error is None


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "dropped"])
async def test_api_login_that_sql_ended(
    cluster: Cluster, info: ClusterInfo, user: User, doadmin: SQL, is_locked: bool
) -> None:
    statement = f'ALTER ROLE "{user.name}" NOLOGIN' if is_locked else f'DROP ROLE "{user.name}"'
    if info.engine in MYSQL:
        statement = f"ALTER USER '{user.name}'@'%' ACCOUNT LOCK" if is_locked else f"DROP USER '{user.name}'@'%'"
    await doadmin(statement)
    print("a read is", await status(cluster.users.get(user.name)))
    if is_locked:
        print("a reset is", await status(cluster.users.reset_auth(user.name)))
        try:
            await doadmin("SELECT 1", user=await cluster.users.get(user.name))
            print("afterwards it enters")
        except (psycopg.Error, pymysql.MySQLError, APIError) as error:
            print("afterwards it does not enter:", type(error).__name__)
    else:
        print("a deletion is", await status(cluster.users.delete(user.name)))


async def test_rights_of_api_login(info: ClusterInfo, user: User, doadmin: SQL) -> None:
    if info.engine in MYSQL:
        print(await doadmin(f"SHOW GRANTS FOR '{user.name}'@'%'"))
    else:
        print(await doadmin("SELECT 1", inside="template1", user=user), "in template1")


async def test_owner_of_what_a_deleted_login_made(
    cluster: Cluster, info: ClusterInfo, prefix: str, user: User, doadmin: SQL
) -> None:
    if info.engine in MYSQL:
        pytest.skip("needs PostgreSQL")
    database = f"{prefix}-owned"
    await doadmin(f'CREATE DATABASE "{database}" TEMPLATE template0', f'GRANT "{user.name}" TO CURRENT_USER')
    try:
        own = f'CREATE SCHEMA own AUTHORIZATION "{user.name}"; SET ROLE "{user.name}"; CREATE TABLE own.owned ()'
        await doadmin(own, inside=database)
        print("a deletion is", await status(cluster.users.delete(user.name)))
        print(await doadmin("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'owned'", inside=database))
    finally:
        await doadmin(f'DROP DATABASE "{database}" WITH (FORCE)')


async def test_pool_takes_login_of_sql(client: DatabaseClient, info: ClusterInfo, prefix: str, doadmin: SQL) -> None:
    if info.engine in MYSQL:
        pytest.skip("needs PostgreSQL")
    name, password = f"{prefix}-pool", "Live-1-live-1"
    path = f"/v2/databases/{info.id}/pools"
    await doadmin(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'")
    try:
        wanted: JSON = {"name": name, "mode": "transaction", "size": 1, "db": "defaultdb", "user": name}
        answer = await client.request("POST", path, json=wanted)
        found = answer["pool"]["connection"]
        place = evolve(info.connection, host=found["host"], port=found["port"])
        print(await doadmin("SELECT 1", inside=name, user=User(name, password=password), place=place))
        await client.request("DELETE", f"{path}/{name}")
    except APIError as error:
        pytest.skip(f"no pool was made: {error.status}")
    finally:
        await doadmin(f'DROP ROLE "{name}"')
