"""A real PostgreSQL or MySQL behind a cluster: the server matches the API's answers."""

from __future__ import annotations

import base64
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
import trustme

from aiodbclient.sandbox import Sandbox

from .conftest import Call, caller, connection_of, make
from .servers import MySQL, Postgres

own_servers = pytest.mark.parametrize("server", ["postgres", "mysql"], indirect=True)


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
    """None of them becomes another name."""
    before = await names(call, "user"), await names(call, "db")
    for name in server.refused_names:
        assert (await call("POST", "/users", {"name": name})).status == 422, name
    for name in server.refused_dbs:
        assert (await call("POST", "/dbs", {"name": name})).status == 422, name
    assert (await names(call, "user"), await names(call, "db")) == before


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


@own_servers
async def test_own_server_is_used_and_left(server: Postgres | MySQL, call: Call) -> None:
    """The account of the DSN is out of reach. Two sandboxes share ``doadmin``. What they made stays."""
    parts, shown = urlsplit(server.dsn), (await call("GET", "")).json["database"]
    where = f"{parts.hostname}:{parts.port}"
    assert shown["connection"]["uri"].startswith(f"{parts.scheme}://doadmin:{shown['connection']['password']}@{where}/")
    assert (shown["users"][0]["name"], shown["users"][0]["role"]) == ("doadmin", "primary")
    account = unquote(parts.username or "")
    for method, path, status in (
        ("DELETE", "/users/doadmin", 422),
        ("POST", "/users/doadmin/reset_auth", 422),
        ("GET", f"/users/{account}", 404),
        ("DELETE", f"/users/{account}", 404),
        ("POST", "/users", 422),
    ):
        assert (await call(method, path, {"name": account})).status == status, (method, path)

    async with Sandbox(windows=[]) as other:
        cluster = await other.add_cluster(server.engine, server=server.dsn)
        assert await connection_of(other, cluster) == shown["connection"]
        async with caller(other, f"/v2/databases/{cluster}") as calling:
            session = server.login(await make(calling, "user", "stays"))
            assert (await calling("GET", "/users/doadmin")).json["user"]["password"] == server.doadmin["password"]
        assert unquote(parts.password or "") not in repr(other) + repr(dict(other._clusters))
    assert server.run(session, "SELECT 1") == (1,)
    session.close()
    server.login(server.doadmin).close()


@own_servers
async def test_doadmin_of_owner_is_left_alone(server: Postgres | MySQL, sandbox: Sandbox) -> None:
    with server.admin() as admin:
        server.run(admin, server.change_doadmin)
        with pytest.raises(RuntimeError, match=r"'doadmin' .*the sandbox did not create"):
            await sandbox.add_cluster(server.engine, server=server.dsn)
        server.run(admin, server.restore_doadmin)
    server.login(server.doadmin).close()


def read(file: str) -> str:
    return Path(file).read_text()


@own_servers
async def test_ca_of_own_server(server: Postgres | MySQL, sandbox: Sandbox, call: Call, tmp_path: Path) -> None:
    """It is the file of the DSN, which verifies the server. Without a file none is known."""
    dsn, _, query = server.dsn.partition("?")
    ca_file = dict(option.split("=") for option in query.split("&"))[server.ca_option]
    answer = await call("GET", "/ca")
    assert base64.b64decode(answer.json["ca"]["certificate"]).decode() == read(unquote(ca_file))
    assert server.connection["ssl"] is True
    assert urlsplit(server.connection["uri"]).query == server.with_tls

    wrong = tmp_path / "wrong.pem"
    trustme.CA().cert_pem.write_to_path(str(wrong))
    for file, said in ((wrong, "certificate verify failed"), (tmp_path / "none.pem", "No such file|does not exist")):
        with pytest.raises(RuntimeError, match=rf"cannot be used: [\s\S]*({said})"):
            await sandbox.add_cluster(server.engine, server=f"{dsn}?{query.replace(ca_file, str(file))}")
    for without, ssl in server.without_ca.items():
        cluster = await sandbox.add_cluster(server.engine, server=dsn + without)
        assert (await connection_of(sandbox, cluster))["ssl"] is ssl
        async with caller(sandbox) as calling:
            unknown = await calling("GET", f"/v2/databases/{cluster}/ca")
        assert (unknown.status, "to the DSN of the server" in unknown.json["message"]) == (404, True)


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
async def test_dsn_of_ordinary_role_is_refused(server: Postgres, sandbox: Sandbox) -> None:
    with server.admin() as admin:
        server.run(admin, "CREATE ROLE weak LOGIN PASSWORD 'weak'")
    with pytest.raises(RuntimeError, match="'weak' must be a superuser"):
        await sandbox.add_cluster("pg", server=f"postgresql://weak:weak@{server.dsn.rpartition('@')[2]}")


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
    ("query", "refused"),
    [
        ("ssl-mode=NONSENSE", "ssl-mode"),
        ("ssl_mode=DISABLED", "ssl_mode"),
        ("ssl-mode=VERIFY_IDENTITY", "ssl-mode"),
        ("ssl-mode=REQUIRED&ssl-ca=", "ssl-ca"),
        ("hunter2", "hunter2"),
        *(
            (query, "")
            for query in ("ssl-mode=disabled", "ssl-mode=REQUIRED", "ssl-mode=VERIFY_IDENTITY&ssl-ca=/dev/null")
        ),
    ],
)
async def test_options_of_mysql_dsn(sandbox: Sandbox, query: str, refused: str) -> None:
    """Those of the URIs that a client makes are accepted, but nothing listens there. Another one is named."""
    said = f"option '{refused}'.*ssl-ca=FILE.*ssl-mode=DISABLED" if refused else "cannot be used"
    with pytest.raises(ValueError if refused else RuntimeError, match=said):
        await sandbox.add_cluster("mysql", server=f"mysql://root:x@127.0.0.1:1/?{query}")
