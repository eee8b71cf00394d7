"""A real PostgreSQL behind a cluster: the server matches the API's answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._embedded import EmbeddedPostgres

from .conftest import Call, caller

JSON = dict[str, Any]
NASTY = ['a"b', "a'; DROP ROLE doadmin; --", "ü-ß-日本", "a b/c%2F", "{}%s$1", "x" * 63]


pytestmark = pytest.mark.usefixtures("_aiodbclient_servers")


@pytest.fixture(scope="module")
def postgres(_aiodbclient_servers: None) -> Iterator[tuple[Sandbox, str]]:
    """One server for the module, in its own thread. Each test uses its own names."""
    with Sandbox(windows=[]) as sandbox:
        yield sandbox, asyncio.run(sandbox.add_cluster("pg"))


@pytest.fixture
async def call(postgres: tuple[Sandbox, str]) -> AsyncIterator[Call]:
    sandbox, cluster = postgres
    async with caller(sandbox, f"/v2/databases/{cluster}") as calling:
        yield calling


@pytest.fixture
async def connection(call: Call) -> JSON:
    connection: JSON = (await call("GET", "")).json["database"]["connection"]
    return connection


async def login(connection: JSON, user: JSON, database: str = "defaultdb") -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(
        host=connection["host"],
        port=connection["port"],
        user=user["name"],
        password=user["password"],
        dbname=database,
        autocommit=True,
    )


async def fetch(connection: psycopg.AsyncConnection[Any], query: LiteralString) -> list[Any]:
    return [row[0] for row in await (await connection.execute(query)).fetchall()]


async def opened(call: Call, connection: JSON, database: str) -> None:
    """Grant all users CREATE in ``database``, as its owner may."""
    async with await login(connection, (await call("GET", "/users/doadmin")).json["user"], database) as owner:
        await owner.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")


async def made(call: Call, kind: str, name: str, **more: Any) -> JSON:
    answer = await call("POST", f"/{kind}s", {"name": name, **more})
    assert answer.status == 201, answer
    result: JSON = answer.json[kind]
    return result


async def test_the_uri_of_the_cluster_leads_to_the_server(connection: JSON) -> None:
    async with await psycopg.AsyncConnection.connect(connection["uri"]) as admin:
        assert await fetch(admin, "SELECT current_user::text") == ["doadmin"]
        assert await fetch(admin, "SELECT current_database()::text") == ["defaultdb"]


async def test_the_version_is_the_servers(call: Call, connection: JSON) -> None:
    shown = (await call("GET", "")).json["database"]
    async with await psycopg.AsyncConnection.connect(connection["uri"]) as admin:
        assert (await fetch(admin, "SHOW server_version"))[0] == shown["semantic_version"]
    assert shown["semantic_version"].split(".")[0] == shown["version"]


async def test_a_user_works_with_the_db_that_was_made_for_it(call: Call, connection: JSON) -> None:
    user, db = await made(call, "user", "tenant-1"), await made(call, "db", "tenant-1")
    await opened(call, connection, db["name"])
    async with await login(connection, user, db["name"]) as session:
        await session.execute("CREATE TABLE notes (text text)")
        await session.execute("INSERT INTO notes VALUES ('works')")
        assert await fetch(session, "SELECT text FROM notes") == ["works"]


async def test_a_new_user_may_create_nothing_as_on_a_managed_cluster(call: Call, connection: JSON) -> None:
    user, db = await made(call, "user", "unprivileged"), await made(call, "db", "unprivileged")
    async with await login(connection, user, db["name"]) as session:
        for refused in ("CREATE TABLE public.notes (text text)", "CREATE SCHEMA mine", "CREATE DATABASE mine"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
                await session.execute(refused)


async def test_the_primary_user_owns_the_dbs_and_is_no_superuser(call: Call, connection: JSON) -> None:
    await made(call, "db", "owned")
    async with await psycopg.AsyncConnection.connect(connection["uri"], autocommit=True) as admin:
        owner: LiteralString = (
            "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname IN ('owned', 'defaultdb')"
        )
        assert await fetch(admin, owner) == ["doadmin", "doadmin"]
        rights = await admin.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'doadmin'"
        )
        assert await rights.fetchone() == (False, True, True)


async def test_the_primary_user_makes_a_login_the_owner_of_a_db_and_nobody_elses_guest(
    call: Call, connection: JSON
) -> None:
    logins = [await made(call, "user", "alpha"), await made(call, "user", "alpha_2")]
    stranger = await made(call, "user", "stranger")
    await made(call, "db", "alpha")
    async with await psycopg.AsyncConnection.connect(connection["uri"], autocommit=True) as admin:
        await admin.execute("CREATE ROLE alpha_owner NOLOGIN")
        await admin.execute("GRANT alpha_owner TO alpha, alpha_2")
        await admin.execute("ALTER DATABASE alpha OWNER TO alpha_owner")
        await admin.execute("REVOKE ALL ON DATABASE alpha FROM PUBLIC")
    for user in logins:
        async with await login(connection, user, "alpha") as session:
            await session.execute("ALTER ROLE CURRENT_USER SET role = 'alpha_owner'")
    async with await login(connection, logins[0], "alpha") as session:
        await session.execute("CREATE TABLE notes (text text)")
        await session.execute("CREATE SCHEMA more CREATE TABLE lists (text text)")
        await session.execute("CREATE EXTENSION pg_trgm")
    async with await login(connection, logins[1], "alpha") as session:
        await session.execute("ALTER TABLE notes ADD COLUMN at timestamptz")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        await login(connection, stranger, "alpha")
    assert (await call("DELETE", "/users/alpha")).status == 204
    async with await login(connection, logins[1], "alpha") as session:
        assert await fetch(session, "SELECT tableowner::text FROM pg_tables WHERE tablename = 'notes'") == [
            "alpha_owner"
        ]
    assert (await call("DELETE", "/users/alpha_2")).status == 204
    assert (await call("DELETE", "/dbs/alpha")).status == 204


@pytest.mark.parametrize("password", ["", "wrong"])
async def test_passwords_are_checked(call: Call, connection: JSON, password: str) -> None:
    name = f"checked-{len(password)}"
    user = await made(call, "user", name)
    with pytest.raises(psycopg.OperationalError, match="password"):
        await login(connection, user | {"password": password})


async def test_after_a_reset_the_old_password_is_refused(call: Call, connection: JSON) -> None:
    old = await made(call, "user", "rotated")
    new = (await call("POST", "/users/rotated/reset_auth", {})).json["user"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await login(connection, old)
    await (await login(connection, new)).close()
    assert (await call("GET", "/users/rotated")).json["user"]["password"] == new["password"]


async def test_resets_at_the_same_time_end_with_one_password_that_works(call: Call, connection: JSON) -> None:
    await made(call, "user", "hammered")
    answers = await asyncio.gather(*(call("POST", "/users/hammered/reset_auth", {}) for _ in range(10)))
    assert {answer.status for answer in answers} == {200}
    await (await login(connection, (await call("GET", "/users/hammered")).json["user"])).close()


async def test_the_primary_users_password_can_be_reset(call: Call, connection: JSON) -> None:
    assert (await call("POST", "/users/doadmin/reset_auth", {})).status == 200
    fresh = (await call("GET", "")).json["database"]["connection"]
    assert fresh["password"] != connection["password"]
    await (await psycopg.AsyncConnection.connect(fresh["uri"])).close()


async def test_replication_is_an_attribute_of_the_role(call: Call, connection: JSON) -> None:
    allowed = {"pg_allow_replication": True}
    user = await made(call, "user", "replica", settings=allowed)
    assert user["settings"] == allowed
    async with await login(connection, user) as session:
        query: LiteralString = "SELECT rolreplication FROM pg_roles WHERE rolname = 'replica'"
        assert await fetch(session, query) == [True]
        assert (await call("PUT", "/users/replica", {"settings": {}})).json["user"]["settings"] == {
            "pg_allow_replication": False
        }
        assert await fetch(session, query) == [False]


async def test_a_deleted_user_is_thrown_out_and_its_tables_stay(call: Call, connection: JSON) -> None:
    user, db = await made(call, "user", "leaver"), await made(call, "db", "left-behind")
    await opened(call, connection, db["name"])
    await opened(call, connection, "defaultdb")
    session, elsewhere = await login(connection, user, db["name"]), await login(connection, user)
    await session.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await elsewhere.execute("CREATE TABLE also_kept (a int)")
    assert (await call("DELETE", "/users/leaver")).status == 204
    for thrown_out in (session, elsewhere):
        with pytest.raises(psycopg.OperationalError):
            await thrown_out.execute("SELECT 1")
        await thrown_out.close()
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        await login(connection, user)
    admin = (await call("GET", "/users/doadmin")).json["user"]
    async with await login(connection, admin, db["name"]) as owner:
        assert await fetch(owner, "SELECT tableowner::text FROM pg_tables WHERE tablename = 'kept'") == ["doadmin"]
        assert await fetch(owner, "SELECT answer FROM kept") == [42]


async def test_a_db_in_use_is_deleted_all_the_same(call: Call, connection: JSON) -> None:
    user, db = await made(call, "user", "busy"), await made(call, "db", "busy")
    session = await login(connection, user, db["name"])
    assert (await call("DELETE", "/dbs/busy")).status == 204
    with pytest.raises(psycopg.OperationalError):
        await session.execute("SELECT 1")
    await session.close()
    assert "busy" not in [db["name"] for db in (await call("GET", "/dbs")).json["dbs"]]
    assert (await call("DELETE", "/users/busy")).status == 204


async def test_objects_that_were_created_by_hand_are_listed(call: Call, connection: JSON) -> None:
    admin = (await call("GET", "/users/doadmin")).json["user"]
    async with await login(connection, admin) as session:
        await session.execute("CREATE ROLE by_hand LOGIN PASSWORD 'known only to us'")
        await session.execute("CREATE DATABASE by_hand")
    by_hand = (await call("GET", "/users/by_hand")).json["user"]
    assert by_hand["role"] == "normal"
    assert "password" not in by_hand
    assert by_hand in (await call("GET", "/users")).json["users"]
    assert (await call("GET", "/dbs/by_hand")).status == 200
    assert (await call("POST", "/users", {"name": "by_hand"})).status == 422
    reset = (await call("POST", "/users/by_hand/reset_auth", {})).json["user"]
    await (await login(connection, reset)).close()
    assert (await call("DELETE", "/users/by_hand")).status == 204
    assert (await call("DELETE", "/dbs/by_hand")).status == 204


async def test_a_password_that_was_changed_by_hand_is_not_returned(call: Call, connection: JSON) -> None:
    user = await made(call, "user", "changed")
    async with await login(connection, user) as session:
        await session.execute("ALTER ROLE changed PASSWORD 'my own'")
    assert "password" not in (await call("GET", "/users/changed")).json["user"]


@pytest.mark.parametrize("name", ["_dodb", "postgres", "pg_monitor", "pg_read_all_data", "nobody"])
async def test_system_roles_are_out_of_sight_and_out_of_reach(call: Call, name: str) -> None:
    assert name not in [user["name"] for user in (await call("GET", "/users")).json["users"]]
    assert (await call("GET", f"/users/{name}")).status == 404
    assert (await call("POST", f"/users/{name}/reset_auth", {})).status == 404
    assert (await call("PUT", f"/users/{name}", {"settings": {}})).status == 404
    assert (await call("DELETE", f"/users/{name}")).status == 404


@pytest.mark.parametrize("name", ["postgres", "template0", "template1"])
async def test_system_databases_are_out_of_sight_and_out_of_reach(call: Call, name: str) -> None:
    assert (await call("GET", "/dbs")).json["dbs"][0] == {"name": "defaultdb"}
    assert (await call("GET", f"/dbs/{name}")).status == 404
    assert (await call("DELETE", f"/dbs/{name}")).status == 404
    assert (await call("POST", "/dbs", {"name": name})).status == 422


@pytest.mark.parametrize("name", ["_dodb", "pg_mine", "public", "none", "x" * 64, "é" * 32])
async def test_names_that_postgresql_does_not_take_are_refused(call: Call, name: str) -> None:
    assert (await call("POST", "/users", {"name": name})).status == 422


@pytest.mark.parametrize("name", NASTY)
async def test_a_name_is_only_ever_a_name(call: Call, connection: JSON, name: str) -> None:
    from urllib.parse import quote

    segment = quote(name, safe="")
    user, db = await made(call, "user", name), await made(call, "db", name)
    async with await login(connection, user, db["name"]) as session:
        assert await fetch(session, "SELECT current_user::text") == [name]
        assert await fetch(session, "SELECT current_database()::text") == [name]
        await session.execute(SQL("CREATE TEMPORARY TABLE {} (a int)").format(Identifier(name)))
    assert (await call("POST", f"/users/{segment}/reset_auth", {})).status == 200
    assert (await call("PUT", f"/users/{segment}", {"settings": {}})).status == 201
    assert (await call("DELETE", f"/users/{segment}")).status == 204
    assert (await call("DELETE", f"/dbs/{segment}")).status == 204
    assert "doadmin" in [user["name"] for user in (await call("GET", "/users")).json["users"]]


async def test_many_at_once(call: Call, connection: JSON) -> None:
    dbs = [call("POST", "/dbs", {"name": f"many{n}"}) for n in range(6)]
    users = [call("POST", "/users", {"name": f"many{n}"}) for n in range(40)]
    twice = [call("POST", "/users", {"name": "twice"}) for _ in range(4)]
    answers = await asyncio.gather(*dbs, *users, *twice)
    assert [answer.status for answer in answers[:46]] == [201] * 46
    assert sorted(answer.status for answer in answers[46:]) == [201, 422, 422, 422]
    sessions = await asyncio.gather(*(login(connection, answer.json["user"]) for answer in answers[6:46]))
    await asyncio.gather(*(session.close() for session in sessions))
    gone = await asyncio.gather(*(call("DELETE", f"/users/many{n}") for n in range(40)))
    assert {answer.status for answer in gone} == {204}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres()
    asyncio.run(embedded.start())
    yield embedded
    embedded.end()


class TestByDSN:
    """The user's own server. Here it is an embedded server that the tests start themselves."""

    async def test_it_is_used_and_left_as_it_is(self, server: EmbeddedPostgres) -> None:
        dsn = f"postgresql://postgres:{server.password}@127.0.0.1:{server.port}/postgres"
        async with Sandbox(windows=[]) as sandbox, caller(sandbox) as calling:
            cluster = "/v2/databases/" + await sandbox.add_cluster("pg", server=dsn)
            shown = (await calling("GET", cluster)).json["database"]
            assert [(user["name"], user["role"]) for user in shown["users"]] == [("doadmin", "primary")]
            user = (await calling("POST", f"{cluster}/users", {"name": "app"})).json["user"]
            await calling("POST", f"{cluster}/dbs", {"name": "app"})
            session = await login(shown["connection"], user, "app")
            await session.execute("CREATE TEMPORARY TABLE t (a int)")
            for method, path in [("DELETE", "/users/doadmin"), ("POST", "/users/doadmin/reset_auth")]:
                assert (await calling(method, cluster + path, {})).status == 422
            assert (await calling("DELETE", f"{cluster}/dbs/postgres")).status == 404
            assert server.password not in repr(sandbox) + repr(dict(sandbox._clusters))
        assert await fetch(session, "SELECT count(*) FROM t") == [0]  # it exists after the sandbox has stopped
        await session.close()

    async def test_it_is_shared(self, server: EmbeddedPostgres) -> None:
        dsn = f"postgresql://postgres:{server.password}@127.0.0.1:{server.port}/postgres"
        async with Sandbox(windows=[]) as first, Sandbox(windows=[]) as second, caller(second) as calling:
            await first.add_cluster("pg", server=dsn)
            cluster = "/v2/databases/" + await second.add_cluster("pg", server=dsn)
            uri = (await calling("GET", cluster)).json["database"]["connection"]["uri"]
        async with await psycopg.AsyncConnection.connect(uri, autocommit=True) as admin:
            assert await fetch(admin, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [False]
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner, Sandbox() as sandbox:
            await owner.execute("ALTER ROLE doadmin NOLOGIN")
            with pytest.raises(RuntimeError, match="if the sandbox did not create this role, drop it"):
                await sandbox.add_cluster("pg", server=dsn)
            await owner.execute("ALTER ROLE doadmin LOGIN")

    async def test_its_role_must_be_a_superuser(self, server: EmbeddedPostgres) -> None:
        dsn = f"postgresql://postgres:{server.password}@127.0.0.1:{server.port}/postgres"
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as admin:
            await admin.execute("CREATE ROLE weak LOGIN PASSWORD 'weak'")
        async with Sandbox() as sandbox:
            with pytest.raises(RuntimeError, match="'weak' must be a superuser"):
                await sandbox.add_cluster("pg", server=f"postgresql://weak:weak@127.0.0.1:{server.port}/postgres")

    @pytest.mark.parametrize(
        "dsn", ["postgresql://u:hunter2@127.0.0.1:1/x", "hunter2://", "postgres://u:hunter2@[bad/x"]
    )
    async def test_a_server_that_cannot_be_reached_is_a_clear_error(self, dsn: str) -> None:
        async with Sandbox() as sandbox:
            with pytest.raises(RuntimeError, match=r"DSN|not a URL") as caught:
                await sandbox.add_cluster("pg", server=dsn)
            assert "hunter2" not in str(caught.value)
            assert sandbox.clusters == {}


@pytest.mark.parametrize(
    "dsn", ["postgresql://root:pa@secret@127.0.0.1/db", "postgresql://root:pa/secret@127.0.0.1", "other://"]
)
async def test_a_dsn_that_cannot_be_right_is_not_quoted(sandbox: Sandbox, dsn: str) -> None:
    with pytest.raises(RuntimeError, match=r"not a URL of PostgreSQL.*%40") as refused:
        await sandbox.add_cluster("pg", server=dsn)

    assert "secret" not in str(refused.value)
