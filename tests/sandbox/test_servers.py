"""A real PostgreSQL or MySQL behind a cluster: the server matches the API's answers."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg
import pymysql
import pytest
from attrs import define

from aiodbclient.sandbox import Sandbox

from .conftest import JSON, Call, caller, make

NASTY = ["a'; DROP USER root; --", "ü-ß-日本", "a b/c%2F", "{}%s$1"]


@define
class Server:
    """The server behind a cluster. Its drivers may block, since the sandbox serves in another thread."""

    sandbox: Sandbox
    cluster: str
    connection: JSON
    dsn: str = ""  # of the administrator, where the server is not the sandbox's own

    @property
    def path(self) -> str:
        return f"/v2/databases/{self.cluster}"


class Postgres(Server):
    error = psycopg.Error
    names = (*NASTY, 'a"b', "x" * 63)
    refused_names = ("_dodb", "pg_mine", "public", "none", "x" * 64, "é" * 32)
    refused_dbs = ("defaultdb", "x" * 64)
    hidden_users = ("_dodb", "postgres", "pg_monitor", "pg_read_all_data", "nobody")
    hidden_dbs = ("postgres", "template0", "template1")
    use = ("BEGIN", "SELECT 1")
    by_hand = ("CREATE ROLE by_hand LOGIN PASSWORD 'one'", "CREATE ROLE no_user", "CREATE DATABASE by_hand")
    change_by_hand = "ALTER ROLE by_hand PASSWORD 'changed'"
    whoami = "SELECT current_user::text, current_database()::text"

    def login(self, user: JSON, database: str = "defaultdb") -> Any:
        where = {key: self.connection[key] for key in ("host", "port")}
        login = {"user": user["name"], "password": user["password"]}
        return psycopg.connect(**where, **login, dbname=database, autocommit=True)

    def admin(self) -> Any:
        return self.login({"name": "doadmin", "password": self.connection["password"]})

    def run(self, session: Any, statement: str) -> Any:
        cursor = session.execute(statement.encode())
        return cursor.fetchone() if cursor.description else None


class MySQL(Server):
    error = pymysql.Error
    names = (*NASTY, "a`b", "100%_sure", "back\\slash", "x" * 32)
    refused_names = ("x" * 33, "x ", "mysql.sys")
    refused_dbs = ("x" * 65, "😀")
    hidden_users = ("mysql.sys", "mysql")
    hidden_dbs = ("mysql", "information_schema", "performance_schema", "sys")
    use = ("CREATE TABLE t (a int PRIMARY KEY)", "BEGIN", "SELECT * FROM t")  # locks the table
    by_hand = (
        "CREATE USER by_hand@'%' IDENTIFIED BY 'one'",
        "CREATE ROLE no_user",
        "CREATE DATABASE by_hand",
    )
    change_by_hand = "ALTER USER by_hand@'%' IDENTIFIED BY 'changed'"
    whoami = "SELECT SUBSTRING_INDEX(USER(), '@', 1), DATABASE()"

    def login(self, user: JSON, database: str | None = None) -> Any:
        where: dict[str, Any] = {key: self.connection[key] for key in ("host", "port")}
        return pymysql.connect(
            **where, user=user["name"], password=user["password"], database=database, autocommit=True
        )

    def admin(self) -> Any:
        parts = urlsplit(self.dsn)
        return self.login({"name": unquote(parts.username or ""), "password": unquote(parts.password or "")})

    def run(self, session: Any, statement: str) -> Any:
        with session.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()


@pytest.fixture(scope="module", params=["postgres", "mysql"])
def server(request: pytest.FixtureRequest, _aiodbclient_servers: None) -> Iterator[Postgres | MySQL]:
    """One server for the module. Each test uses its own names."""
    is_mysql = request.param == "mysql"
    dsn = request.getfixturevalue("mysql_dsn") if is_mysql else ""
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("mysql" if is_mysql else "pg", server=dsn or None))
        connection = asyncio.run(connection_of(sandbox, cluster))
        yield MySQL(sandbox, cluster, connection, dsn) if is_mysql else Postgres(sandbox, cluster, connection)


async def connection_of(sandbox: Sandbox, cluster: str) -> JSON:
    async with caller(sandbox) as call:
        connection: JSON = (await call("GET", f"/v2/databases/{cluster}")).json["database"]["connection"]
        return connection


@pytest.fixture
async def call(server: Postgres | MySQL) -> AsyncIterator[Call]:
    async with caller(server.sandbox, server.path) as calling:
        yield calling


async def names(call: Call, kind: str) -> list[str]:
    return [each["name"] for each in (await call("GET", f"/{kind}s")).json[f"{kind}s"]]


@pytest.mark.parametrize("password", ["", "wrong"])
async def test_wrong_password_is_refused(server: Postgres | MySQL, call: Call, password: str) -> None:
    user = await make(call, "user", f"checked-{len(password)}")
    server.login(user).close()
    with pytest.raises(server.error, match=r"password|denied"):
        server.login(user | {"password": password})


async def test_reset_ends_old_password(server: Postgres | MySQL, call: Call) -> None:
    old = await make(call, "user", "rotated")
    new = (await call("POST", "/users/rotated/reset_auth", {})).json["user"]
    with pytest.raises(server.error, match=r"password authentication failed|denied"):
        server.login(old)
    server.login(new).close()
    assert (await call("GET", "/users/rotated")).json["user"] == new


async def test_deleted_user_is_thrown_out(server: Postgres | MySQL, call: Call) -> None:
    user = await make(call, "user", "leaver")
    session = server.login(user)
    assert (await call("DELETE", "/users/leaver")).status == 204
    with pytest.raises(server.error):
        server.run(session, "SELECT 1")
    with pytest.raises(server.error):
        server.login(user)
    assert (await call("GET", "/users/leaver")).status == 404


async def test_db_in_use_is_deleted(server: Postgres | MySQL, call: Call) -> None:
    user = await make(call, "user", "busy")
    await make(call, "db", "busy")
    session = server.login(user, "busy")
    for statement in server.use:
        server.run(session, statement)
    assert (await call("DELETE", "/dbs/busy")).status == 204
    assert (await call("GET", "/dbs/busy")).status == 404
    with pytest.raises(server.error):
        server.run(session, "SELECT 1")


async def test_objects_made_by_hand_are_listed(server: Postgres | MySQL, call: Call) -> None:
    """The API returns the password of such a user once it was reset, and not after it was changed by hand."""
    with server.admin() as admin:
        for statement in server.by_hand:
            server.run(admin, statement)
        listed = await names(call, "user")
        assert (listed.count("by_hand"), listed.count("no_user")) == (1, 0)
        assert "password" not in (await call("GET", "/users/by_hand")).json["user"]
        assert (await call("GET", "/dbs/by_hand")).status == 200
        assert (await call("POST", "/users", {"name": "by_hand"})).status == 422
        reset = (await call("POST", "/users/by_hand/reset_auth", {})).json["user"]
        server.login(reset).close()
        server.run(admin, server.change_by_hand)
        assert "password" not in (await call("GET", "/users/by_hand")).json["user"]
    assert (await call("DELETE", "/users/by_hand")).status == 204
    with pytest.raises(server.error):
        server.login(reset)
    assert (await call("DELETE", "/dbs/by_hand")).status == 204


async def test_system_objects_are_out_of_reach(server: Postgres | MySQL, call: Call) -> None:
    for name in server.hidden_users:
        assert name not in await names(call, "user")
        for method, path in (("GET", ""), ("DELETE", ""), ("PUT", ""), ("POST", "/reset_auth")):
            assert (await call(method, f"/users/{name}{path}", {"settings": {}})).status == 404, (method, name)
    for name in server.hidden_dbs:
        assert name not in await names(call, "db")
        assert (await call("GET", f"/dbs/{name}")).status == 404
        assert (await call("DELETE", f"/dbs/{name}")).status == 404
        assert (await call("POST", "/dbs", {"name": name})).status == 422


async def test_names_of_the_server_are_refused(server: Postgres | MySQL, call: Call) -> None:
    for name in server.refused_names:
        assert (await call("POST", "/users", {"name": name})).status == 422, name
    for name in server.refused_dbs:
        assert (await call("POST", "/dbs", {"name": name})).status == 422, name


async def test_name_is_only_ever_a_name(server: Postgres | MySQL, call: Call) -> None:
    for name in server.names:
        segment = quote(name, safe="")
        user, db = await make(call, "user", name), await make(call, "db", name)
        with server.login(user, db["name"]) as session:
            assert server.run(session, server.whoami) == (name, name)
        assert (await call("GET", f"/dbs/{segment}")).json == {"db": {"name": name}}
        assert (await call("POST", f"/users/{segment}/reset_auth", {})).status == 200
        assert (await call("DELETE", f"/users/{segment}")).status == 204
        assert (await call("DELETE", f"/dbs/{segment}")).status == 204
    assert "doadmin" in await names(call, "user")


@pytest.mark.parametrize(
    ("engine", "dsn"),
    [
        ("pg", "postgresql://u:hunter2@127.0.0.1:1/x"),
        ("pg", "postgres://u:hunter2@[bad/x"),
        ("pg", "postgresql://root:pa@hunter2@127.0.0.1/db"),
        ("pg", "postgresql://root:pa/hunter2@127.0.0.1"),
        ("mysql", "mysql://u:hunter2@127.0.0.1:1/x"),
        ("mysql", "mysql://u:hunter2@127.0.0.1:1/x?ssl_mode=DISABLED"),
        ("mysql", "mysql://:hunter2@h"),
        ("mysql", "mysql://u:hun@127.0.0.1:hunter2/x"),
        ("mysql", "mysql://u:p@localhost/hunter2@127.0.0.1"),
        *((engine, "hunter2://") for engine in ("pg", "mysql")),
    ],
)
async def test_unusable_dsn_is_not_quoted(sandbox: Sandbox, engine: str, dsn: str) -> None:
    """The error says that the DSN is wrong, or that no server answers there."""
    with pytest.raises((RuntimeError, ValueError), match=r"DSN|not a URL of PostgreSQL.*%40") as refused:
        await sandbox.add_cluster(engine, server=dsn)
    frames = traceback.TracebackException.from_exception(refused.value, capture_locals=True).stack
    assert "hunter2" not in str(refused.value) + str([each.locals for each in frames if each.filename != __file__])
    assert sandbox.clusters == {}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("ssl-mode=NONSENSE", "ssl-mode"),
        ("ssl_mode=DISABLED", "ssl_mode"),
        ("ssl-mode=VERIFY_IDENTITY", "ssl-mode"),
        ("ssl-mode=REQUIRED&ssl-ca=", "ssl-ca"),
        ("hunter2", "hunter2"),
    ],
)
async def test_unknown_option_of_mysql_dsn_refused(sandbox: Sandbox, query: str, named: str) -> None:
    """An option that the sandbox cannot follow is named, with those that it can."""
    with pytest.raises(ValueError, match=f"option '{named}'.*ssl-ca=FILE.*ssl-mode=DISABLED"):
        await sandbox.add_cluster("mysql", server=f"mysql://root:x@127.0.0.1:1/?{query}")


@pytest.mark.parametrize(
    "query", ["ssl-mode=disabled", "ssl-mode=REQUIRED", "ssl-mode=VERIFY_IDENTITY&ssl-ca=/dev/null"]
)
async def test_option_of_mysql_dsn_accepted(sandbox: Sandbox, query: str) -> None:
    """Also those of the URIs that a client makes."""
    with pytest.raises(RuntimeError, match="cannot be used"):  # nothing listens there
        await sandbox.add_cluster("mysql", server=f"mysql://root:x@127.0.0.1:1/?{query}")
