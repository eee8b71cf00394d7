"""A MySQL behind a cluster, by DSN, with the rights that the provider gives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest
from pymysql.cursors import Cursor

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._backends import mysql as mysql_backend

from ..waiting import until
from .conftest import Call, caller, make
from .servers import MySQL

pytestmark = pytest.mark.parametrize("server", ["mysql"], indirect=True)


@pytest.fixture
async def call(server: MySQL) -> AsyncIterator[Call]:
    async with caller(server.sandbox, server.path) as calling:
        yield calling


def fetch(connection: pymysql.Connection[Cursor], statement: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return [row[0] for row in cursor.fetchall()]


async def test_dsn_of_doadmin_itself(server: MySQL, sandbox: Sandbox) -> None:
    """What it grants has its own restrictions."""
    where, password = urlsplit(server.dsn), server.connection["password"]
    own = f"mysql://doadmin:{password}@{where.hostname}:{where.port}"
    async with caller(sandbox, f"/v2/databases/{await sandbox.add_cluster('mysql', server=own)}") as calling:
        server.login(await make(calling, "user", "by_doadmin")).close()
        assert (await calling("DELETE", "/users/by_doadmin")).status == 204


async def test_the_rights_are_those_of_the_provider(call: Call, server: MySQL) -> None:
    """A user of the API has the rights of ``doadmin``, who is no administrator of the server."""
    rights = []
    await make(call, "db", "of_somebody_else")
    for user in ((await call("GET", "/users/doadmin")).json["user"], await make(call, "user", "as_doadmin")):
        with server.login(user) as session:
            with pytest.raises(pymysql.Error, match="Access denied"):
                fetch(session, "SET GLOBAL max_connections = 99")
            assert user["name"] in fetch(session, "SELECT User FROM mysql.user")
            fetch(session, "CREATE TABLE of_somebody_else.notes (a int PRIMARY KEY)")
            fetch(session, "DROP DATABASE of_somebody_else")
            fetch(session, "CREATE DATABASE of_somebody_else")
            grants = fetch(session, "SHOW GRANTS")
        rights.append([re.sub(r"(TO|FROM) .*?@.%.( IDENTIFIED .*(?= WITH))?", "", line) for line in grants])
    assert rights[0] == rights[1]
    everything = "\n".join(rights[0])
    assert "CREATE USER" in everything
    assert "REPLICATION_APPLIER,ROLE_ADMIN ON *.*" in everything
    for missing in ("SUPER", "SYSTEM_USER", "CONNECTION_ADMIN", "SYSTEM_VARIABLES_ADMIN", "DEFINER", "BINLOG_ADMIN"):
        assert missing not in everything
    revoked = {line.partition(" ON ")[2].rstrip() for line in rights[0] if line.startswith("REVOKE")}
    assert revoked == {'"mysql".*', '"sys".*'}


async def test_doadmin_locks_user_of_api(call: Call, server: MySQL) -> None:
    """A locked account is still a user."""
    user = await make(call, "user", "mightier")
    session = server.login(user)
    with server.login((await call("GET", "/users/doadmin")).json["user"]) as admin:
        [number] = fetch(session, "SELECT CONNECTION_ID()")
        with pytest.raises(pymysql.OperationalError, match="not owner"):
            fetch(admin, "KILL %s", number)
        fetch(admin, "ALTER USER mightier ACCOUNT LOCK")
        with pytest.raises(pymysql.OperationalError, match="locked"):
            server.login(user)
        assert "mightier" in [each["name"] for each in (await call("GET", "/users")).json["users"]]
        assert (await call("GET", "/users/mightier")).status == 200
        assert (await call("POST", "/users", {"name": "mightier"})).status == 422
        fetch(admin, "ALTER USER mightier ACCOUNT UNLOCK")
    with server.login(user) as session:  # and the other way round
        fetch(session, "ALTER USER doadmin ACCOUNT LOCK")
        fetch(session, "ALTER USER doadmin ACCOUNT UNLOCK")


async def test_plugin_is_that_of_the_server(call: Call, server: MySQL) -> None:
    """A plugin that the server lacks is refused."""
    wanted = {"auth_plugin": "caching_sha2_password"}
    user = await make(call, "user", "modern", mysql_settings=wanted)
    reset = (await call("POST", "/users/modern/reset_auth", {"mysql_settings": wanted})).json["user"]
    assert user["mysql_settings"] == reset["mysql_settings"] == wanted
    server.login(reset).close()
    answer = await call("POST", "/users", {"name": "old", "mysql_settings": {"auth_plugin": "mysql_native_password"}})
    assert answer.status == 422
    assert (await call("GET", "/users/old")).status == 404


async def test_sessions_of_other_names_go_on(call: Call, server: MySQL) -> None:
    """The server compares these names as equal in its process list."""
    names = ["killed_y", "killed_Y", "killed_ý"]
    users = [await make(call, "user", name) for name in names]
    for name in ("killed_d", "killed_D"):
        await make(call, "db", name)
    gone, *others = [server.login(user, "killed_D") for user in users]

    assert (await call("DELETE", "/users/killed_y")).status == 204
    assert (await call("DELETE", "/dbs/killed_d")).status == 204

    with pytest.raises(pymysql.Error):
        fetch(gone, "SELECT 1")
    for session in others:
        assert fetch(session, "SELECT 1") == [1]
        session.close()


async def hold(call: Call, server: MySQL, name: str) -> pymysql.Connection[Cursor]:
    """A session that holds a lock on a table in the database ``name``."""
    user = await make(call, "user", f"holder of {name}")
    await make(call, "db", name)
    session: pymysql.Connection[Cursor] = server.login(user)  # in no database, whose deletion would end it
    fetch(session, f"CREATE TABLE {name}.t (a int PRIMARY KEY)")
    session.begin()
    fetch(session, f"SELECT a FROM {name}.t")
    return session


async def test_a_lock_that_somebody_holds_stops_nobody_else(call: Call, server: MySQL) -> None:
    session = await hold(call, server, "held")
    dropped = asyncio.ensure_future(call("DELETE", "/dbs/held"))
    waiting = "SELECT ID FROM information_schema.processlist WHERE STATE LIKE 'Waiting for%metadata lock'"
    with server.admin() as root:
        await until(lambda: fetch(root, waiting))
    for kind in ("user", "db"):
        await make(call, kind, "meanwhile")
    assert not dropped.done()
    session.rollback()
    assert (await dropped).status == 204
    session.close()


async def test_a_wait_for_a_lock_ends(call: Call, server: MySQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_backend, "_LOCK_SECONDS", 1)
    session = await hold(call, server, "kept")
    assert (await call("DELETE", "/dbs/kept")).status == 500
    session.close()
    assert (await call("DELETE", "/dbs/kept")).status == 204
