"""A real PostgreSQL behind a cluster: the server matches the API's answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._embedded import EmbeddedPostgres

from .conftest import Call, caller, log_in, make, rows

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


async def test_uri_leads_to_server(call: Call) -> None:
    """The cluster's version is the server's."""
    shown = (await call("GET", "")).json["database"]
    async with await AsyncConnection.connect(shown["connection"]["uri"]) as admin:
        query: LiteralString = "SELECT current_user::text, current_database()::text, current_setting('server_version')"
        assert await rows(admin, query) == [("doadmin", "defaultdb", shown["semantic_version"])]
    assert shown["semantic_version"].split(".")[0] == shown["version"]


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


async def test_tables_of_deleted_user_stay(call: Call) -> None:
    """They are ``doadmin``'s, and the sessions in each db have ended."""
    user, _ = await make(call, "user", "leaver"), await make(call, "db", "left-behind")
    sessions = []
    for database in ("left-behind", "defaultdb"):
        async with await log_in(call, database=database) as owner:
            await owner.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        sessions.append(await log_in(call, user, database))
        await sessions[-1].execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert (await call("DELETE", "/users/leaver")).status == 204
    for session in sessions:
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
        await session.close()
    async with await log_in(call, database="left-behind") as owner:
        query: LiteralString = (
            "SELECT tableowner::text, (SELECT answer FROM kept) FROM pg_tables WHERE tablename = 'kept'"
        )
        assert await rows(owner, query) == [("doadmin", 42)]


async def test_many_at_once(call: Call) -> None:
    dbs = [call("POST", "/dbs", {"name": f"many{n}"}) for n in range(6)]
    users = [call("POST", "/users", {"name": f"many{n}"}) for n in range(20)]
    twice = [call("POST", "/users", {"name": "twice"}) for _ in range(4)]
    answers = await asyncio.gather(*dbs, *users, *twice)
    assert [answer.status for answer in answers[:26]] == [201] * 26
    assert sorted(answer.status for answer in answers[26:]) == [201, 422, 422, 422]
    sessions = await asyncio.gather(*(log_in(call, answer.json["user"]) for answer in answers[6:26]))
    await asyncio.gather(*(session.close() for session in sessions))
    gone = await asyncio.gather(*(call("DELETE", f"/users/many{n}") for n in range(20)))
    assert {answer.status for answer in gone} == {204}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres()
    asyncio.run(embedded.start())
    yield embedded
    embedded.end()


@pytest.fixture
def dsn(server: EmbeddedPostgres) -> str:
    return f"postgresql://postgres:{server.password}@127.0.0.1:{server.port}/postgres"


class TestByDSN:
    """The user's own server. Here it is an embedded server that the tests start themselves."""

    async def test_it_is_used_and_left(self, server: EmbeddedPostgres, dsn: str) -> None:
        async with Sandbox(windows=[]) as sandbox:
            cluster = await sandbox.add_cluster("pg", server=dsn)
            async with caller(sandbox, f"/v2/databases/{cluster}") as call:
                users = (await call("GET", "")).json["database"]["users"]
                assert [(user["name"], user["role"]) for user in users] == [("doadmin", "primary")]
                user, _ = await make(call, "user", "app"), await make(call, "db", "app")
                session = await log_in(call, user, "app")
                await session.execute("CREATE TEMPORARY TABLE t (a int)")
                for method, path in [("DELETE", "/users/doadmin"), ("POST", "/users/doadmin/reset_auth")]:
                    assert (await call(method, path, {})).status == 422
                assert (await call("DELETE", "/dbs/postgres")).status == 404
            assert server.password not in repr(sandbox) + repr(dict(sandbox._clusters))
        assert await rows(session, "SELECT count(*) FROM t") == [(0,)]  # it exists after the sandbox has stopped
        await session.close()

    async def test_it_is_shared(self, dsn: str) -> None:
        """Two sandboxes have the same ``doadmin``, who is no superuser. A role that is not theirs is refused."""
        async with Sandbox(windows=[]) as first, Sandbox(windows=[]) as second, caller(second) as calling:
            await first.add_cluster("pg", server=dsn)
            cluster = "/v2/databases/" + await second.add_cluster("pg", server=dsn)
            uri = (await calling("GET", cluster)).json["database"]["connection"]["uri"]
        async with await AsyncConnection.connect(uri, autocommit=True) as admin:
            assert await rows(admin, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
        async with await AsyncConnection.connect(dsn, autocommit=True) as owner, Sandbox() as sandbox:
            await owner.execute("ALTER ROLE doadmin NOLOGIN")
            with pytest.raises(RuntimeError, match="if the sandbox did not create this role, drop it"):
                await sandbox.add_cluster("pg", server=dsn)
            await owner.execute("ALTER ROLE doadmin LOGIN; CREATE ROLE weak LOGIN PASSWORD 'weak'")
            with pytest.raises(RuntimeError, match="'weak' must be a superuser"):
                await sandbox.add_cluster("pg", server=f"postgresql://weak:weak@{dsn.rpartition('@')[2]}")
