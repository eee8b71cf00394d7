"""A real PostgreSQL behind a cluster: the server matches the API's answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, LiteralString

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._embedded import EmbeddedPostgres

from .conftest import Call, caller

JSON = dict[str, Any]


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


async def test_uri_leads_to_server(connection: JSON) -> None:
    async with await psycopg.AsyncConnection.connect(connection["uri"]) as admin:
        assert await fetch(admin, "SELECT current_user::text") == ["doadmin"]
        assert await fetch(admin, "SELECT current_database()::text") == ["defaultdb"]


async def test_the_version_is_the_servers(call: Call, connection: JSON) -> None:
    shown = (await call("GET", "")).json["database"]
    async with await psycopg.AsyncConnection.connect(connection["uri"]) as admin:
        assert (await fetch(admin, "SHOW server_version"))[0] == shown["semantic_version"]
    assert shown["semantic_version"].split(".")[0] == shown["version"]


async def test_user_works_with_its_db(call: Call, connection: JSON) -> None:
    user, db = await made(call, "user", "tenant-1"), await made(call, "db", "tenant-1")
    await opened(call, connection, db["name"])
    async with await login(connection, user, db["name"]) as session:
        await session.execute("CREATE TABLE notes (text text)")
        await session.execute("INSERT INTO notes VALUES ('works')")
        assert await fetch(session, "SELECT text FROM notes") == ["works"]


async def test_parallel_resets_end_with_one_password(call: Call, connection: JSON) -> None:
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


async def test_tables_of_deleted_user_stay(call: Call, connection: JSON) -> None:
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
