"""A real PostgreSQL behind a cluster, with the provider's roles, rights and databases: see docs/why/provider.md."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import AsyncConnection, errors

from aiodbclient.sandbox import Sandbox

from ..requirements import postgres_with_tls
from ..thorough import first_of
from ..waiting import HANG
from .conftest import Call, caller, log_in, make, rows

pytestmark = pytest.mark.usefixtures("_aiodbclient_servers")

INSTALLED = [
    pytest.param(None, id="embedded"),
    *(
        pytest.param(programs, id=programs.parent.name, marks=pytest.mark.thorough)
        for programs in sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    ),
]
REFUSED: list[LiteralString] = [
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
MEMBERS: LiteralString = (
    "SELECT roleid::regrole::text, grantor::regrole::text, admin_option"
    " FROM pg_auth_members WHERE member = to_regrole(%s) ORDER BY 1, 2"
)
SHOWN: LiteralString = "SELECT coalesce(datacl::text, '-'), datdba::regrole::text FROM pg_database WHERE datname = %s"


@pytest.fixture(scope="module", params=INSTALLED)
def running(request: pytest.FixtureRequest, _aiodbclient_servers: None) -> Iterator[tuple[Sandbox, str]]:
    with Sandbox(windows=[]) as sandbox:
        yield sandbox, asyncio.run(sandbox.add_cluster("pg", backend="postgres", server=request.param))


@pytest.fixture
async def call(running: tuple[Sandbox, str]) -> AsyncIterator[Call]:
    """The cluster of the module. Each test uses its own names."""
    sandbox, cluster_id = running
    async with caller(sandbox, f"/v2/databases/{cluster_id}") as calling:
        yield calling


@pytest.fixture
async def admin(call: Call) -> AsyncIterator[AsyncConnection[Any]]:
    async with await log_in(call) as session:
        yield session


def is_old(session: AsyncConnection[Any]) -> bool:
    """Whether CREATEROLE alone is enough to alter, grant and drop roles."""
    return session.info.server_version < 160_000


async def test_version_and_tls_are_the_servers(call: Call, request: pytest.FixtureRequest) -> None:
    """The embedded server has no TLS. There is a CA all the same, so that one program runs here and at the provider."""
    installed = request.node.callspec.params["running"]
    shown = (await call("GET", "")).json["database"]
    assert installed is None or shown["version"] == installed.parent.name
    assert shown["semantic_version"].split(".")[0] == shown["version"]
    has_tls, uri = installed is not None, shown["connection"]["uri"]
    assert shown["connection"]["ssl"] is has_tls
    assert urlsplit(uri).query == ("sslmode=require" if has_tls else "sslmode=disable")
    assert (await call("GET", "/ca")).status == 200
    async with await AsyncConnection.connect(uri) as admin:
        query: LiteralString = "SELECT current_user::text, current_database()::text, current_setting('server_version')"
        [(user, database, version)] = await rows(admin, query)
        assert (user, database, version.split()[0]) == ("doadmin", "defaultdb", shown["semantic_version"])
        assert admin.pgconn.ssl_in_use is has_tls


async def test_the_rights_of_doadmin(admin: AsyncConnection[Any]) -> None:
    assert await rows(
        admin,
        "SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls"
        " FROM pg_roles WHERE rolname = current_user",
    ) == [(False, True, True, True, True, True, True)]
    groups = [("_doadmin_managed", "postgres", False), ("doadmin_group", "postgres", True)]
    assert (await rows(admin, MEMBERS, "doadmin"))[:2] == groups
    managed = {(role, admin) for role, _, admin in await rows(admin, MEMBERS, "_doadmin_managed")}
    assert managed - {("pg_create_subscription", True)} == {
        ("pg_read_all_stats", True),
        ("pg_signal_backend", False),
        ("pg_stat_scan_tables", False),
    }
    assert (("pg_create_subscription", True) in managed) is not is_old(admin)
    if not is_old(admin):
        assert await rows(admin, "SHOW createrole_self_grant") == [("set, inherit",)]


async def test_the_roles_of_the_provider(call: Call, admin: AsyncConnection[Any]) -> None:
    hidden = ["_doadmin_auditing", "_doadmin_monitor", "_dodb", "_dodb_repl", "_dodb_rewind", "postgres"]
    found = await rows(admin, "SELECT rolname, rolsuper FROM pg_roles WHERE rolname = ANY(%s) ORDER BY 1", hidden)
    assert found == [(name, name in ("_dodb", "postgres")) for name in hidden]
    listed = {user["name"] for user in (await call("GET", "/users")).json["users"]}
    assert "doadmin" in listed
    assert not listed & {*hidden, "_doadmin_managed", "doadmin_group"}


@pytest.mark.parametrize("name", ["doadmin", "refused"])
async def test_objects_of_provider_are_out_of_reach(call: Call, admin: AsyncConnection[Any], name: str) -> None:
    """Neither the primary user nor one of the API enters the provider's databases, or uses the superuser's rights."""
    user = None if name == "doadmin" else await make(call, "user", name)
    for database, why in (
        ("_dodb", "permission denied"),
        ("template0", "not currently accepting"),
        ("postgres", "does not exist"),
    ):
        with pytest.raises(psycopg.OperationalError, match=why):
            await log_in(call, user, database)
    if is_old(admin):
        pytest.skip("before 16 CREATEROLE grants the roles of the server")
    assert (await call("GET", "/users")).status == 200  # the sandbox keeps a session of the superuser
    async with await log_in(call, user) as session:
        for refused in REFUSED:
            with pytest.raises(psycopg.Error) as error:
                await session.execute(refused)
            assert error.value.sqlstate in ("42501", "55006", "42704"), (refused, error.value)


async def test_template_is_not_deleted(call: Call, admin: AsyncConnection[Any]) -> None:
    await make(call, "db", "mould")
    await admin.execute("ALTER DATABASE mould IS_TEMPLATE true")
    assert (await call("GET", "/dbs/mould")).status == 200
    refused = await call("DELETE", "/dbs/mould")
    assert (refused.status, refused.json["id"]) == (422, "unprocessable_entity")
    assert "IS_TEMPLATE" in refused.json["message"]
    await admin.execute("ALTER DATABASE mould IS_TEMPLATE false")
    assert (await call("DELETE", "/dbs/mould")).status == 204


async def test_who_makes_a_login_grants_it_to_doadmin(call: Call, admin: AsyncConnection[Any]) -> None:
    if is_old(admin):
        pytest.skip("before 16 CREATEROLE is enough")
    await make(call, "user", "by_api")
    await admin.execute("CREATE ROLE by_sql LOGIN")
    granted = await rows(
        admin,
        "SELECT roleid::regrole::text, grantor::regrole::text, admin_option, inherit_option, set_option"
        " FROM pg_auth_members WHERE member = 'doadmin'::regrole AND roleid::regrole::text IN ('by_api', 'by_sql')"
        " ORDER BY 1, 2",
    )
    assert granted == [
        ("by_api", "postgres", True, True, True),
        ("by_sql", "doadmin", False, True, True),
        ("by_sql", "postgres", True, False, False),
    ]


async def test_doadmin_ends_login_of_api(call: Call, admin: AsyncConnection[Any]) -> None:
    user = await make(call, "user", "altered")
    async with await log_in(call, user) as session:
        await admin.execute("ALTER ROLE altered NOLOGIN PASSWORD NULL CONNECTION LIMIT 3")
        await admin.execute("GRANT altered TO CURRENT_USER")
        await admin.execute("GRANT altered TO CURRENT_USER")
        await admin.execute("SET ROLE altered; RESET ROLE")
        assert await rows(
            admin, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'altered'"
        ) == [(True,)]
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
    with pytest.raises(errors.InsufficientPrivilege):
        await admin.execute("ALTER ROLE altered NOSUPERUSER")
    await admin.execute("DROP ROLE altered")
    assert (await call("DELETE", "/users/altered")).status == 404
    assert (await call("POST", "/users/altered/reset_auth", {})).status == 404


async def test_logins_enter_database_of_api(call: Call, admin: AsyncConnection[Any]) -> None:
    """They create nothing there."""
    user = await make(call, "user", "guest")
    await make(call, "db", "of_the_api")
    for database in ("of_the_api", "defaultdb"):
        assert await rows(admin, SHOWN, database) == [("-", "doadmin")]
        async with await log_in(call, user, database) as session:
            assert await rows(session, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'public'") == [
                ("pg_database_owner",)
            ]
            await session.execute("CREATE TEMPORARY TABLE t (a int)")
            for refused in ("CREATE TABLE public.t (a int)", "CREATE SCHEMA s"):
                with pytest.raises(errors.InsufficientPrivilege):
                    await session.execute(refused)
    await admin.execute("CREATE ROLE owner; GRANT owner TO CURRENT_USER")
    await admin.execute("ALTER DATABASE of_the_api OWNER TO owner")
    await admin.execute("REVOKE ALL ON DATABASE of_the_api FROM PUBLIC")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        await log_in(call, user, "of_the_api")
    await admin.execute("DROP DATABASE of_the_api")


async def test_login_ended_by_sql_is_missing(call: Call, admin: AsyncConnection[Any]) -> None:
    await make(call, "user", "ended")
    await admin.execute("ALTER ROLE ended NOLOGIN")
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/reset_auth")):
        assert (await call(method, f"/users/ended{path}", {"settings": {}})).status == 404
    assert (await call("POST", "/users", {"name": "ended"})).status == 422


async def test_parallel_resets_end_with_one_password(call: Call) -> None:
    await make(call, "user", "hammered")
    answers = await asyncio.gather(*(call("POST", "/users/hammered/reset_auth", {}) for _ in range(10)))
    assert {answer.status for answer in answers} == {200}
    await (await log_in(call, (await call("GET", "/users/hammered")).json["user"])).close()


async def test_primary_password_can_be_reset(call: Call) -> None:
    before = (await call("GET", "")).json["database"]["connection"]
    assert (await call("POST", "/users/doadmin/reset_auth", {})).status == 200
    fresh = (await call("GET", "")).json["database"]["connection"]
    assert fresh["password"] != before["password"]
    await (await AsyncConnection.connect(fresh["uri"])).close()


async def test_replication_is_attribute_of_role(call: Call) -> None:
    """An update without the setting takes the right away: "when omitted, the value defaults to false"."""
    allowed = {"pg_allow_replication": True}
    user = await make(call, "user", "replica", settings=allowed)
    assert user["settings"] == allowed
    async with await log_in(call, user) as session:
        query: LiteralString = "SELECT rolreplication FROM pg_roles WHERE rolname = 'replica'"
        assert await rows(session, query) == [(True,)]
        updated = (await call("PUT", "/users/replica", {"settings": {}})).json["user"]
        assert updated["settings"] == {"pg_allow_replication": False}
        assert await rows(session, query) == [(False,)]


async def test_objects_of_deleted_user_stay(call: Call, admin: AsyncConnection[Any]) -> None:
    """They are ``doadmin``'s, in each db. What the user granted is revoked."""
    user, _ = await make(call, "user", "leaver"), await make(call, "db", "left-behind")
    await admin.execute("CREATE ROLE granted; CREATE ROLE member; GRANT granted TO leaver WITH ADMIN OPTION")
    for database in ("left-behind", "defaultdb"):
        async with await log_in(call, database=database) as owner:
            await owner.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        async with await log_in(call, user, database) as session:
            await session.execute("CREATE TABLE kept AS SELECT 42 AS answer; SELECT lo_create(4711)")
            await session.execute("GRANT granted TO member")
    assert (await call("DELETE", "/users/leaver")).status == 204
    for database in ("left-behind", "defaultdb"):
        async with await log_in(call, database=database) as owner:
            query: LiteralString = "SELECT tableowner::text, answer FROM pg_tables, kept WHERE tablename = 'kept'"
            assert await rows(owner, query) == [("doadmin", 42)]
            query = "SELECT lomowner::regrole::text FROM pg_largeobject_metadata WHERE oid = 4711"
            assert await rows(owner, query) == [("doadmin",)]
            await owner.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC; DROP TABLE kept")
    assert is_old(admin) or await rows(admin, MEMBERS, "member") == []


async def test_creates_at_once(call: Call) -> None:
    """Of those of one name, one succeeds."""
    dbs = [call("POST", "/dbs", {"name": f"many{n // 2}"}) for n in range(6)]
    users = [call("POST", "/users", {"name": f"many{n // 2}"}) for n in range(20)]
    answers = await asyncio.gather(*dbs, *users)
    assert [sorted(a.status for a in answers[n : n + 2]) for n in range(0, 26, 2)] == [[201, 422]] * 13


async def test_a_full_server_lets_nobody_in() -> None:
    async with Sandbox(windows=[]) as sandbox:
        cluster_id = await sandbox.add_cluster("pg", backend="postgres", connections=4)
        async with caller(sandbox, f"/v2/databases/{cluster_id}") as call:
            user = await make(call, "user", "greedy")
            sessions = list[AsyncConnection[Any]]()
            async with asyncio.timeout(HANG):
                while len(sessions) < 4:  # the sandbox's own session, which made the user, may need a moment to end
                    with suppress(psycopg.OperationalError):
                        sessions.append(await log_in(call, user))
            for login in (user, None):
                with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
                    await log_in(call, login)
            assert {a.status for a in await asyncio.gather(*(call("GET", "/users") for _ in range(60)))} == {200}
            for session in sessions:
                await session.close()
            await (await log_in(call)).close()


async def test_a_server_that_stores_md5() -> None:
    async with Sandbox(windows=[]) as sandbox:
        cluster_id = await sandbox.add_cluster("pg", backend="postgres", password_encryption="md5")
        async with caller(sandbox, f"/v2/databases/{cluster_id}") as call:
            user = await make(call, "user", "old_fashioned")
            async with await log_in(call, user) as session:
                assert await rows(session, "SHOW password_encryption") == [("md5",)]
            backend: Any = sandbox._clusters[cluster_id].backend
            assert backend._passwords["old_fashioned"][0].startswith("md5")


async def test_server_with_tls_refuses_others(tmp_path: Path) -> None:
    """The cluster's CA verifies the server by each name of this machine, and no session is without TLS."""
    async with Sandbox(windows=[], bind="0.0.0.0") as sandbox:
        cluster = await sandbox.add_cluster("pg", server=postgres_with_tls())
        async with caller(sandbox, f"/v2/databases/{cluster}") as call:
            shown = (await call("GET", "")).json["database"]["connection"]
            answer = await call("GET", "/ca")
        assert (shown["ssl"], urlsplit(shown["uri"]).query) == (True, "sslmode=require")
        pem = base64.b64decode(answer.json["ca"]["certificate"], validate=True).decode()
        ca_file = str(tmp_path / "ca.pem")
        (tmp_path / "ca.pem").write_text(pem)
        for host in ("127.0.0.1", "localhost", socket.gethostname()):
            async with await psycopg.AsyncConnection.connect(
                shown["uri"], sslmode="verify-full", sslrootcert=ca_file, host=host, hostaddr="127.0.0.1"
            ) as session:
                assert session.pgconn.ssl_in_use
        refused = r'no pg_hba\.conf entry .* user "doadmin", database "defaultdb", no encryption'
        with pytest.raises(psycopg.OperationalError, match=refused):
            await psycopg.AsyncConnection.connect(shown["uri"], sslmode="disable")


@pytest.mark.parametrize("has_tls", first_of([False, True]))
@pytest.mark.parametrize("graceful", [False, True])
async def test_stop_and_start(sandbox: Sandbox, graceful: bool, has_tls: bool) -> None:
    """What was committed stays, what was open is rolled back, and the API of its users fails meanwhile."""
    cluster = await sandbox.add_cluster("pg", backend="postgres", server=postgres_with_tls() if has_tls else None)
    async with caller(sandbox, f"/v2/databases/{cluster}") as call:
        await stop_and_start(sandbox, cluster, call, graceful=graceful)


async def stop_and_start(sandbox: Sandbox, cluster: str, call: Call, *, graceful: bool) -> None:
    uri = (await call("GET", "")).json["database"]["connection"]["uri"]
    made = await call("POST", "/users", {"name": "app"})
    session = await log_in(call)
    await session.execute("CREATE TABLE notes (text text)")
    await session.execute("INSERT INTO notes VALUES ('kept')")
    await session.execute("BEGIN; INSERT INTO notes VALUES ('rolled back')")

    await sandbox.stop_database(cluster, graceful=graceful)
    await sandbox.stop_database(cluster)  # safe to repeat

    error = errors.AdminShutdown if graceful else psycopg.OperationalError
    with pytest.raises(error):
        await session.execute("SELECT 1")
    await session.close()
    with pytest.raises(psycopg.OperationalError, match="Connection refused"):
        await log_in(call)
    assert (await call("GET", "/users")).status == 500
    assert (await call("GET", "")).json["database"]["users"] is None  # the cluster itself can be read
    async with caller(sandbox) as other:
        assert (await other("GET", f"/v2/databases/{await sandbox.add_cluster('redis')}")).status == 200
    assert sandbox.failed == []

    await sandbox.start_database(cluster)
    await sandbox.start_database(cluster)
    assert (await call("GET", "")).json["database"]["connection"]["uri"] == uri
    assert (await call("GET", "/users/app")).json["user"] == made.json["user"]
    async with await log_in(call) as again:
        assert await rows(again, "SELECT text FROM notes") == [("kept",)]


async def test_stop_without_own_server(sandbox: Sandbox) -> None:
    for engine in ("pg", "mysql"):
        cluster = await sandbox.add_cluster(engine, backend="memory")
        with pytest.raises(ValueError, match="did not start the server of this cluster"):
            await sandbox.stop_database(cluster)
    with pytest.raises(ValueError, match="no cluster"):
        await sandbox.start_database("nowhere")
