"""The embedded PostgreSQL denies access to the provider's objects, as a managed cluster does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox

from .conftest import Call, caller

pytestmark = pytest.mark.usefixtures("_aiodbclient_servers")

JSON = dict[str, Any]

REFUSED = [
    "ALTER SYSTEM SET work_mem = '1GB'",
    "ALTER ROLE postgres PASSWORD 'mine'",
    "ALTER DATABASE _dodb SET work_mem = '1GB'",
    "ALTER DATABASE template1 OWNER TO CURRENT_USER",
    "DROP DATABASE _dodb",
    "DROP DATABASE template1",
    "CREATE DATABASE copied TEMPLATE _dodb",
    "SET ROLE postgres",
    "GRANT _dodb TO CURRENT_USER",
    "GRANT pg_read_all_data TO CURRENT_USER",
    "GRANT pg_signal_backend TO CURRENT_USER",
    "CREATE ROLE super SUPERUSER",
    "GRANT pg_monitor TO CURRENT_USER",
    "GRANT _doadmin_managed TO CURRENT_USER",
    "ALTER ROLE CURRENT_USER NOSUPERUSER",
    "CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "SET session_replication_role = replica",
    "CREATE EXTENSION file_fdw",
    "CREATE FUNCTION f() RETURNS void LANGUAGE c AS 'libc', 'f'",
    "CREATE TABLE pg_catalog.mine (a int)",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_reload_conf()",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "COPY (SELECT 1) TO '/tmp/copied'",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
]


@pytest.fixture
async def call(sandbox: Sandbox) -> AsyncIterator[Call]:
    path = "/v2/databases/" + await sandbox.add_cluster("pg", backend="postgres")
    async with caller(sandbox, path) as calling:
        yield calling


@pytest.fixture(params=["doadmin", "tenant"])
async def login(call: Call, request: pytest.FixtureRequest) -> JSON:
    """The login of the primary user, or of a user created through the API."""
    connection = (await call("GET", "")).json["database"]["connection"]
    user = {"name": "doadmin", "password": connection["password"]}
    if request.param != "doadmin":
        user = (await call("POST", "/users", {"name": request.param})).json["user"]
    return {key: connection[key] for key in ("host", "port")} | {"user": user["name"], "password": user["password"]}


async def connected(login: JSON, database: str = "defaultdb") -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(**login, dbname=database, autocommit=True)


@pytest.mark.parametrize(
    ("database", "why"),
    [("_dodb", "permission denied"), ("template0", "not currently accepting"), ("postgres", "does not exist")],
)
async def test_nobody_enters_the_providers_databases(login: JSON, database: str, why: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=why):
        await connected(login, database)


async def test_objects_of_the_superuser_are_out_of_reach(call: Call, login: JSON) -> None:
    assert (await call("GET", "/users")).status == 200  # the sandbox keeps a session of the superuser
    async with await connected(login) as session:
        for refused in REFUSED:
            with pytest.raises(psycopg.Error) as error:
                await session.execute(refused)
            assert error.value.sqlstate in ("42501", "55006", "42704"), (refused, error.value)


async def test_template_is_not_deleted(call: Call, login: JSON) -> None:
    await call("POST", "/dbs", {"name": "mould"})
    admin = login | {"user": "doadmin", "password": (await call("GET", "")).json["database"]["connection"]["password"]}
    async with await connected(admin) as session:
        await session.execute("ALTER DATABASE mould IS_TEMPLATE true")
        assert (await call("GET", "/dbs/mould")).status == 200
        refused = await call("DELETE", "/dbs/mould")
        assert (refused.status, refused.json["id"]) == (422, "unprocessable_entity")
        assert "IS_TEMPLATE" in refused.json["message"]
        await session.execute("ALTER DATABASE mould IS_TEMPLATE false")
    assert (await call("DELETE", "/dbs/mould")).status == 204
