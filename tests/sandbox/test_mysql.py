"""A MySQL behind a cluster, by DSN."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
import pytest
import trustme
from pymysql.cursors import Cursor

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox import _mysql as mysql_backend

from ..waiting import until
from .conftest import Call, caller, make
from .test_servers import MySQL, connection_of


@pytest.fixture(scope="module")
def mysql(mysql_dsn: str) -> Iterator[MySQL]:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("mysql", server=mysql_dsn))
        yield MySQL(sandbox, cluster, asyncio.run(connection_of(sandbox, cluster)), mysql_dsn)


@pytest.fixture
async def call(mysql: MySQL) -> AsyncIterator[Call]:
    async with caller(mysql.sandbox, mysql.path) as calling:
        yield calling


@pytest.fixture
def root(mysql: MySQL) -> Iterator[pymysql.Connection[Cursor]]:
    """The administrator of the DSN."""
    with mysql.admin() as session:
        yield session


def fetch(connection: pymysql.Connection[Cursor], statement: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return [row[0] for row in cursor.fetchall()]


async def test_the_cluster_returns_the_server_and_doadmin(call: Call, mysql_dsn: str, mysql: MySQL) -> None:
    shown = (await call("GET", "")).json["database"]
    connection, parts = shown["connection"], urlsplit(mysql_dsn)
    assert (connection["host"], connection["port"], connection["user"]) == (parts.hostname, parts.port, "doadmin")
    assert connection["uri"].startswith(f"mysql://doadmin:{connection['password']}@{parts.hostname}:{parts.port}/")
    assert (shown["users"][0]["name"], shown["users"][0]["role"]) == ("doadmin", "primary")
    with mysql.login(shown["users"][0]) as session:
        assert fetch(session, "SELECT CURRENT_USER()") == ["doadmin@%"]


async def test_user_may_do_everything(call: Call, mysql: MySQL) -> None:
    await make(call, "db", "of_somebody_else")
    user = await make(call, "user", "mighty")
    await make(call, "db", "made_later")
    with mysql.login(user, "of_somebody_else") as session:
        fetch(session, "CREATE TABLE notes (text varchar(9) PRIMARY KEY)")
        fetch(session, "INSERT INTO notes VALUES ('works')")
        assert fetch(session, "SELECT text FROM notes") == ["works"]
        fetch(session, "CREATE TABLE made_later.notes (text varchar(9) PRIMARY KEY)")
        assert "mighty" in fetch(session, "SELECT User FROM mysql.user")
        fetch(session, "CREATE DATABASE by_a_user")
        fetch(session, "DROP DATABASE by_a_user")


async def test_the_rights_are_those_of_the_provider(call: Call, mysql: MySQL) -> None:
    """A user of the API has the rights of ``doadmin``, who is no administrator of the server."""
    rights = []
    for user in ((await call("GET", "/users/doadmin")).json["user"], await make(call, "user", "as_doadmin")):
        with mysql.login(user) as session:
            with pytest.raises(pymysql.Error, match="Access denied"):
                fetch(session, "SET GLOBAL max_connections = 99")
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


async def test_doadmin_locks_user_of_api(call: Call, mysql: MySQL) -> None:
    user = await make(call, "user", "mightier")
    session = mysql.login(user)
    with mysql.login((await call("GET", "/users/doadmin")).json["user"]) as admin:
        [number] = fetch(session, "SELECT CONNECTION_ID()")
        with pytest.raises(pymysql.OperationalError, match="not owner"):
            fetch(admin, "KILL %s", number)
        fetch(admin, "ALTER USER mightier ACCOUNT LOCK")
        with pytest.raises(pymysql.OperationalError, match="locked"):
            mysql.login(user)
        fetch(admin, "ALTER USER mightier ACCOUNT UNLOCK")
    with mysql.login(user) as session:  # and the other way round
        fetch(session, "ALTER USER doadmin ACCOUNT LOCK")
        fetch(session, "ALTER USER doadmin ACCOUNT UNLOCK")


async def test_two_sandboxes_share_a_server(call: Call, mysql_dsn: str, mysql: MySQL) -> None:
    async with Sandbox(windows=[]) as other, caller(other) as calling:
        cluster = f"/v2/databases/{await other.add_cluster('mysql', server=mysql_dsn)}"
        theirs = (await calling("GET", cluster)).json["database"]["connection"]
    ours = (await call("GET", "")).json["database"]["connection"]
    assert theirs == ours
    mysql.login({"name": ours["user"], "password": ours["password"]}).close()


async def test_doadmin_of_owner_is_left_alone(
    mysql_dsn: str, root: pymysql.Connection[Cursor], call: Call, mysql: MySQL
) -> None:
    ours = (await call("GET", "")).json["database"]["connection"]["password"]
    fetch(root, "ALTER USER doadmin@'%%' IDENTIFIED BY %s", "Somebody-Elses-1")
    try:
        async with Sandbox() as sandbox:
            with pytest.raises(RuntimeError, match="'doadmin' that the sandbox did not create: pass the DSN"):
                await sandbox.add_cluster("mysql", "refused", server=mysql_dsn)
            parts = urlsplit(mysql_dsn)
            own = f"mysql://doadmin:Somebody-Elses-1@{parts.hostname}:{parts.port}"
            async with caller(sandbox) as calling:
                cluster = f"/v2/databases/{await sandbox.add_cluster('mysql', server=own)}"
                mysql.login((await calling("POST", f"{cluster}/users", {"name": "by_doadmin"})).json["user"]).close()
                assert (await calling("DELETE", f"{cluster}/users/by_doadmin")).status == 204
    finally:
        fetch(root, "ALTER USER doadmin@'%%' IDENTIFIED BY %s", ours)


async def test_plugin_is_that_of_the_server(call: Call, mysql: MySQL) -> None:
    """A plugin that the server lacks is refused."""
    wanted = {"auth_plugin": "caching_sha2_password"}
    user = await make(call, "user", "modern", mysql_settings=wanted)
    reset = (await call("POST", "/users/modern/reset_auth", {"mysql_settings": wanted})).json["user"]
    assert user["mysql_settings"] == reset["mysql_settings"] == wanted
    mysql.login(reset).close()
    answer = await call("POST", "/users", {"name": "old", "mysql_settings": {"auth_plugin": "mysql_native_password"}})
    assert answer.status == 422
    assert (await call("GET", "/users/old")).status == 404


async def test_accounts_of_the_server_are_out_of_reach(call: Call, mysql_dsn: str) -> None:
    """That of the DSN does not exist for the API, and ``doadmin`` cannot be changed."""
    assert (await call("DELETE", "/users/doadmin")).status == 422
    assert (await call("POST", "/users/doadmin/reset_auth", {})).status == 422
    name = unquote(urlsplit(mysql_dsn).username or "")
    assert name not in [user["name"] for user in (await call("GET", "/users")).json["users"]]
    assert (await call("GET", f"/users/{name}")).status == 404
    assert (await call("DELETE", f"/users/{name}")).status == 404
    assert (await call("POST", "/users", {"name": name})).status == 422


async def test_a_name_never_becomes_another_one(call: Call, root: pymysql.Connection[Cursor]) -> None:
    """The server would cut off spaces."""
    before = set(fetch(root, "SELECT CONCAT(User, '@', Host) FROM mysql.user"))
    for name in (" lead", " root", "trail ", "tab\t", "\nline", " doadmin"):
        for kind in ("users", "dbs"):
            assert (await call("POST", f"/{kind}", {"name": name})).status == 422, (kind, name)
    assert set(fetch(root, "SELECT CONCAT(User, '@', Host) FROM mysql.user")) == before


async def test_locked_account_is_a_user(call: Call, root: pymysql.Connection[Cursor], mysql: MySQL) -> None:
    user = await make(call, "user", "locked")
    fetch(root, "ALTER USER locked@'%' ACCOUNT LOCK")
    assert (await call("GET", "/users/locked")).status == 200
    assert "locked" in [user["name"] for user in (await call("GET", "/users")).json["users"]]
    assert (await call("POST", "/users", {"name": "locked"})).status == 422
    with pytest.raises(pymysql.OperationalError, match="locked"):
        mysql.login(user)
    assert (await call("DELETE", "/users/locked")).status == 204


async def test_sessions_of_other_names_go_on(call: Call, mysql: MySQL) -> None:
    """The server compares these names as equal in its process list."""
    names = ["killed_y", "killed_Y", "killed_ý"]
    users = [await make(call, "user", name) for name in names]
    for name in ("killed_d", "killed_D"):
        await make(call, "db", name)
    gone, *others = [mysql.login(user, "killed_D") for user in users]

    assert (await call("DELETE", "/users/killed_y")).status == 204
    assert (await call("DELETE", "/dbs/killed_d")).status == 204

    with pytest.raises(pymysql.Error):
        fetch(gone, "SELECT 1")
    for session in others:
        assert fetch(session, "SELECT 1") == [1]
        session.close()


async def test_a_lock_that_somebody_holds_stops_nobody_else(
    call: Call, mysql: MySQL, root: pymysql.Connection[Cursor]
) -> None:
    user = await make(call, "user", "holder")
    for name in ("held", "elsewhere"):
        await make(call, "db", name)
    session = mysql.login(user, "held")
    fetch(session, "CREATE TABLE t (a int PRIMARY KEY)")
    session.select_db("elsewhere")  # so that deleting the database does not end its session
    session.begin()
    fetch(session, "SELECT a FROM held.t")

    dropped = asyncio.ensure_future(call("DELETE", "/dbs/held"))
    waiting = "SELECT ID FROM information_schema.processlist WHERE STATE LIKE 'Waiting for%metadata lock'"
    await until(lambda: fetch(root, waiting))
    for kind in ("user", "db"):
        await make(call, kind, "meanwhile")
    assert not dropped.done()
    session.rollback()
    assert (await dropped).status == 204
    session.close()


async def test_a_wait_for_a_lock_ends(mysql_dsn: str, mysql: MySQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_backend, "_LOCK_SECONDS", 1)
    async with Sandbox(windows=[]) as sandbox, caller(sandbox) as call:
        cluster = f"/v2/databases/{await sandbox.add_cluster('mysql', server=mysql_dsn)}"
        user = (await call("POST", f"{cluster}/users", {"name": "keeper"})).json["user"]
        assert (await call("POST", f"{cluster}/dbs", {"name": "kept"})).status == 201
        session = mysql.login(user)
        fetch(session, "CREATE TABLE kept.t (a int PRIMARY KEY)")
        session.begin()
        fetch(session, "SELECT a FROM kept.t")
        assert (await call("DELETE", f"{cluster}/dbs/kept")).status == 500
        session.close()
        assert (await call("DELETE", f"{cluster}/dbs/kept")).status == 204


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


async def test_tls_of_the_server_is_returned(sandbox: Sandbox, mysql_dsn: str, tmp_path: Path) -> None:
    async with caller(sandbox) as calling:
        cluster = f"/v2/databases/{await sandbox.add_cluster('mysql', server=mysql_dsn)}"
        shown = (await calling("GET", cluster)).json["database"]["connection"]
        answer = await calling("GET", f"{cluster}/ca")
        ca_file = written(tmp_path / "ca.pem", base64.b64decode(answer.json["ca"]["certificate"]).decode())
    assert shown["ssl"] is True
    assert urlsplit(shown["uri"]).query == "ssl-mode=REQUIRED"
    login = {"host": shown["host"], "port": shown["port"], "user": shown["user"], "password": shown["password"]}
    with pymysql.connect(**login, ssl_ca=str(ca_file), ssl_verify_identity=True) as session:
        session.ping()
    wrong = written(tmp_path / "wrong.pem", trustme.CA().cert_pem.bytes().decode())
    with pytest.raises(pymysql.OperationalError, match="certificate verify failed"):
        pymysql.connect(**login, ssl_ca=str(wrong), ssl_verify_identity=True)
    async with Sandbox() as other:
        with pytest.raises(RuntimeError, match=r"cannot be used: .*certificate verify failed"):
            await other.add_cluster("mysql", server=f"{mysql_dsn.partition('?')[0]}?ssl-ca={wrong}")
        with pytest.raises(RuntimeError, match=r"cannot be used: .*No such file"):
            await other.add_cluster("mysql", server=f"{mysql_dsn.partition('?')[0]}?ssl-ca={tmp_path}/missing.pem")


@pytest.mark.parametrize(
    ("query", "shown"), [("", (True, "ssl-mode=REQUIRED")), ("?ssl-mode=DISABLED", (False, "ssl-mode=DISABLED"))]
)
async def test_a_mysql_whose_ca_nobody_names(
    sandbox: Sandbox, mysql_dsn: str, query: str, shown: tuple[bool, str]
) -> None:
    async with caller(sandbox) as calling:
        cluster = f"/v2/databases/{await sandbox.add_cluster('mysql', server=mysql_dsn.partition('?')[0] + query)}"
        connection = (await calling("GET", cluster)).json["database"]["connection"]
        assert (connection["ssl"], urlsplit(connection["uri"]).query) == shown
        assert (await calling("GET", f"{cluster}/ca")).status == 404
