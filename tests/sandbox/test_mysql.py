"""A MySQL or MariaDB behind a cluster, by DSN. Here it is MariaDB, started by these tests from what is on PATH."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import quote

import pymysql
import pytest
from pymysql.cursors import Cursor

from aiodbclient.sandbox import Sandbox

from ..requirements import no_server
from .conftest import Answer, Call, caller

JSON = dict[str, Any]
Login = Callable[..., Any]
PASSWORD = "p@ss:word/%"
NASTY = ["a`b", "a'; DROP USER root; --", "ü-ß-日本", "a b/c%2F", "100%_sure", "back\\slash", "x" * 32]


@pytest.fixture(scope="module")
def dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not (shutil.which("mariadbd") and shutil.which("mariadb-install-db")):
        no_server("mariadbd and mariadb-install-db are not on PATH (apt-get install mariadb-server)")
    folder = tmp_path_factory.mktemp("mariadb")
    user = ["--user=root"] if os.geteuid() == 0 else []
    data = f"--datadir={folder / 'data'}"
    install = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
    subprocess.run(["mariadb-install-db", "--no-defaults", data, *install, *user], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    files = [f"--socket={folder / 's'}", f"--pid-file={folder / 'pid'}", "--innodb-flush-log-at-trx-commit=0"]
    server = subprocess.Popen(
        ["mariadbd", "--no-defaults", data, f"--port={port}", "--bind-address=127.0.0.1", *files, *user],
        stderr=subprocess.DEVNULL,
    )
    try:
        set_root_password(port)
        yield f"mysql://root:{quote(PASSWORD, safe='')}@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def set_root_password(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True) as root:
                root.cursor().execute("SET PASSWORD = PASSWORD(%s)", [PASSWORD])
            return
        except pymysql.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="module")
def mysql(dsn: str) -> Iterator[tuple[Sandbox, str]]:
    with Sandbox(windows=[]) as sandbox:
        yield sandbox, asyncio.run(sandbox.add_cluster("mysql", dsn=dsn))


@pytest.fixture
async def call(mysql: tuple[Sandbox, str]) -> AsyncIterator[Call]:
    sandbox, cluster = mysql
    async with caller(sandbox) as calling:

        async def on_cluster(method: str, path: str, body: Any = None) -> Answer:
            return await calling(method, f"/v2/databases/{cluster}{path}", body)

        yield on_cluster


@pytest.fixture
def login(dsn: str) -> Login:
    """Log in to the server as a user that the API returned."""

    def connect(user: JSON, database: str | None = None) -> pymysql.Connection[Cursor]:
        return pymysql.connect(
            host="127.0.0.1",
            port=int(dsn.rpartition(":")[2]),
            user=user["name"],
            password=user["password"],
            database=database,
            autocommit=True,
        )

    return connect


def fetch(connection: pymysql.Connection[Cursor], statement: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return [row[0] for row in cursor.fetchall()]


async def made(call: Call, kind: str, name: str, **more: Any) -> JSON:
    answer = await call("POST", f"/{kind}s", {"name": name, **more})
    assert answer.status == 201, answer
    return answer.json[kind]


async def test_the_cluster_tells_the_server(call: Call, dsn: str) -> None:
    told = (await call("GET", "")).json["database"]
    assert told["connection"]["uri"] == dsn + "/"
    assert (told["users"][0]["name"], told["users"][0]["role"]) == ("root", "primary")


@pytest.mark.parametrize("db_first", [True, False])
async def test_a_user_works_with_every_db_and_nothing_else(call: Call, login: Login, db_first: bool) -> None:
    name = f"tenant_{db_first}"
    for kind in ("db", "user") if db_first else ("user", "db"):
        await made(call, kind, name)
    user = (await call("GET", f"/users/{name}")).json["user"]
    with login(user, name) as session:
        fetch(session, "CREATE TABLE notes (text text)")
        fetch(session, "INSERT INTO notes VALUES ('works')")
        assert fetch(session, "SELECT text FROM notes") == ["works"]
        with pytest.raises(pymysql.OperationalError, match="denied"):
            fetch(session, "SELECT User FROM mysql.user")
        with pytest.raises(pymysql.OperationalError, match="denied"):
            fetch(session, "CREATE DATABASE mine")


async def test_after_a_reset_the_old_password_is_refused(call: Call, login: Login) -> None:
    old = await made(call, "user", "rotated")
    new = (await call("POST", "/users/rotated/reset_auth", {})).json["user"]
    with pytest.raises(pymysql.OperationalError, match="denied"):
        login(old)
    login(new).close()
    assert (await call("GET", "/users/rotated")).json["user"] == new


async def test_mariadb_has_no_caching_sha2_password_and_the_api_says_what_there_is(call: Call, login: Login) -> None:
    wanted = {"auth_plugin": "caching_sha2_password"}
    user = await made(call, "user", "modern", mysql_settings=wanted)
    assert user["mysql_settings"] == {"auth_plugin": "mysql_native_password"}
    login(user).close()
    reset = (await call("POST", "/users/modern/reset_auth", {"mysql_settings": wanted})).json["user"]
    assert reset["mysql_settings"] == {"auth_plugin": "mysql_native_password"}
    login(reset).close()


async def test_a_deleted_user_is_thrown_out(call: Call, login: Login) -> None:
    session = login(await made(call, "user", "leaver"))
    assert (await call("DELETE", "/users/leaver")).status == 204
    with pytest.raises(pymysql.Error):
        fetch(session, "SELECT 1")
    assert (await call("GET", "/users/leaver")).status == 404


async def test_a_db_in_use_is_deleted_all_the_same(call: Call, login: Login) -> None:
    user = await made(call, "user", "busy")
    await made(call, "db", "busy")
    session = login(user, "busy")
    fetch(session, "CREATE TABLE t (a int)")
    fetch(session, "BEGIN")
    fetch(session, "SELECT * FROM t")  # holds the table until the end of the transaction
    assert (await call("DELETE", "/dbs/busy")).status == 204
    assert (await call("GET", "/dbs/busy")).status == 404
    with pytest.raises(pymysql.Error):
        fetch(session, "SELECT 1")


async def test_what_was_made_by_hand_shows_up(call: Call, login: Login) -> None:
    with login({"name": "root", "password": PASSWORD}) as root:
        fetch(root, "CREATE USER by_hand@'%' IDENTIFIED BY 'one', by_hand@'127.0.0.1' IDENTIFIED BY 'two'")
        fetch(root, "CREATE ROLE no_user")
        fetch(root, "CREATE DATABASE by_hand")
    names = [user["name"] for user in (await call("GET", "/users")).json["users"]]
    assert names.count("by_hand") == 1
    assert "no_user" not in names
    assert "password" not in (await call("GET", "/users/by_hand")).json["user"]
    assert (await call("GET", "/dbs/by_hand")).status == 200
    assert (await call("POST", "/users", {"name": "by_hand"})).status == 422
    reset = (await call("POST", "/users/by_hand/reset_auth", {})).json["user"]
    login(reset).close()
    with login({"name": "root", "password": PASSWORD}) as root:
        fetch(root, "SET PASSWORD FOR by_hand@'%' = PASSWORD('changed')")
    assert "password" not in (await call("GET", "/users/by_hand")).json["user"]
    assert (await call("DELETE", "/users/by_hand")).status == 204
    with pytest.raises(pymysql.OperationalError, match="denied"):
        login(reset)
    assert (await call("DELETE", "/dbs/by_hand")).status == 204


@pytest.mark.parametrize("name", ["mariadb.sys", "mysql.sys", "mysql"])
async def test_system_users_are_out_of_sight_and_out_of_reach(call: Call, name: str) -> None:
    assert (await call("GET", f"/users/{name}")).status == 404
    assert (await call("DELETE", f"/users/{name}")).status == 404
    assert (await call("POST", f"/users/{name}/reset_auth", {})).status == 404
    assert (await call("POST", "/users", {"name": name})).status == 422


async def test_the_primary_user_is_not_the_sandboxs_to_change(call: Call) -> None:
    assert (await call("DELETE", "/users/root")).status == 422
    assert (await call("POST", "/users/root/reset_auth", {})).status == 422


@pytest.mark.parametrize("name", ["mysql", "information_schema", "performance_schema", "sys"])
async def test_system_databases_are_out_of_sight_and_out_of_reach(call: Call, name: str) -> None:
    assert {"name": name} not in (await call("GET", "/dbs")).json["dbs"]
    assert (await call("DELETE", f"/dbs/{name}")).status == 404
    assert (await call("POST", "/dbs", {"name": name})).status == 422


@pytest.mark.parametrize(("kind", "name"), [("users", "x" * 33), ("dbs", "x" * 65), ("users", "x "), ("dbs", "😀")])
async def test_names_that_the_server_would_change_are_refused(call: Call, kind: str, name: str) -> None:
    assert (await call("POST", f"/{kind}", {"name": name})).status == 422


@pytest.mark.parametrize("name", NASTY)
async def test_a_name_is_only_ever_a_name(call: Call, login: Login, name: str) -> None:
    segment = quote(name, safe="")
    user, db = await made(call, "user", name), await made(call, "db", name)
    with login(user, db["name"]) as session:
        assert fetch(session, "SELECT SUBSTRING_INDEX(USER(), '@', 1)") == [name]
        assert fetch(session, "SELECT DATABASE()") == [name]
        fetch(session, "CREATE TABLE t (a int)")
    assert (await call("GET", f"/dbs/{segment}")).json == {"db": {"name": name}}
    assert (await call("POST", f"/users/{segment}/reset_auth", {})).status == 200
    assert (await call("DELETE", f"/users/{segment}")).status == 204
    assert (await call("DELETE", f"/dbs/{segment}")).status == 204
    assert "root" in [user["name"] for user in (await call("GET", "/users")).json["users"]]


async def test_a_wildcard_in_a_name_opens_no_other_db(call: Call, login: Login, dsn: str) -> None:
    await made(call, "db", "a_b")
    user = await made(call, "user", "wild")
    with login({"name": "root", "password": PASSWORD}) as root:
        fetch(root, "CREATE DATABASE axb")
    with pytest.raises(pymysql.OperationalError, match="denied"):
        login(user, "axb")


async def test_a_connection_that_the_server_closed_is_opened_again(call: Call, login: Login) -> None:
    with login({"name": "root", "password": PASSWORD}) as root:
        for process in fetch(root, "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()"):
            fetch(root, "KILL %s", process)
    assert (await call("GET", "/users")).status == 200


@pytest.mark.parametrize("dsn", ["mysql://u:hunter2@127.0.0.1:1/x", "hunter2", "mysql://:hunter2@h"])
async def test_a_server_that_cannot_be_reached_is_a_clear_error(dsn: str) -> None:
    async with Sandbox() as sandbox:
        with pytest.raises((RuntimeError, ValueError), match="DSN") as caught:
            await sandbox.add_cluster("mysql", dsn=dsn)
        assert "hunter2" not in str(caught.value)
        assert sandbox.clusters == {}
