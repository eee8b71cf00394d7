"""The requests and results of the operations on users, dbs and clusters."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme
from attrs import frozen

from aiodbclient import (
    Cluster,
    ClusterStatus,
    Database,
    Engine,
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    MySQLAuthPlugin,
    MySQLSettings,
    OpenSearchACL,
    OpenSearchPermission,
    User,
    UserRole,
    UserSettings,
    errors,
)

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Reply, Server, fails, says, stalls

USER = {"name": "alice", "role": "normal", "password": "hunter2"}
ALICE = User("alice", UserRole.NORMAL, "hunter2")
USERS, DBS = "/users?per_page=200", "/dbs?per_page=200"
ROOT = f"/v2/databases/{CLUSTER}"
SHA2 = MySQLSettings(MySQLAuthPlugin.CACHING_SHA2_PASSWORD)
SHA2_JSON = {"mysql_settings": {"auth_plugin": "caching_sha2_password"}}


ABOUT_ALICE = {"user": USER}


@frozen
class Case:
    """A call, what it sends, what the API answers, and what the call returns."""

    call: Callable[[Cluster], Awaitable[Any]]
    method: str
    path: str
    body: Any = None
    answer: Any = ABOUT_ALICE
    result: Any = ALICE
    engine: str = "pg"

    @property
    def reply(self) -> Reply:
        return says(204 if self.answer is None else 200, self.answer)


def creates(settings: dict[str, Any], arguments: dict[str, Any], engine: str) -> Case:
    """A create of alice with settings of an engine, which the answer leaves out."""
    return Case(
        lambda c: c.users.create("alice", **arguments), "POST", "/users", {"name": "alice"} | settings, engine=engine
    )


RULE = {"topic": "events.*", "permission": "produceconsume"}
KAFKA = UserSettings(acl=[KafkaACL("events.*", KafkaPermission.PRODUCECONSUME)])
OPENSEARCH = UserSettings(opensearch_acl=(OpenSearchACL("logs-*", OpenSearchPermission.READ),))
MONGODB = UserSettings(mongo_user_settings=MongoUserSettings(["app"], MongoRole.READ_WRITE))
REPLICATION_OFF = {"settings": {"pg_allow_replication": False}}

CASES = {
    "users.list": Case(lambda c: c.users.list(), "GET", USERS, None, {"users": [USER]}, [ALICE]),
    "users.list null": Case(lambda c: c.users.list(), "GET", USERS, None, {"users": None}, []),
    "users.get": Case(lambda c: c.users.get("alice"), "GET", "/users/alice"),
    "users.create": Case(lambda c: c.users.create("alice"), "POST", "/users", {"name": "alice"}),
    "users.create with replication": creates(
        {"settings": {"pg_allow_replication": True}},
        {"settings": UserSettings(pg_allow_replication=True)},
        "advanced_pg",
    ),
    "users.create for mysql": Case(
        lambda c: c.users.create("alice", mysql_settings=SHA2),
        "POST",
        "/users",
        {"name": "alice", **SHA2_JSON},
        {"user": USER | SHA2_JSON},
        User("alice", UserRole.NORMAL, "hunter2", mysql_settings=SHA2),
        "mysql",
    ),
    "users.create for kafka": Case(
        lambda c: c.users.create("alice", settings=KAFKA),
        "POST",
        "/users",
        {"name": "alice", "settings": {"acl": [RULE]}},
        {"user": {**USER, "access_cert": "cert", "access_key": "key", "settings": {"acl": [RULE | {"id": "a1"}]}}},
        User(
            "alice",
            UserRole.NORMAL,
            "hunter2",
            "cert",
            "key",
            settings=UserSettings(acl=[KafkaACL("events.*", KafkaPermission.PRODUCECONSUME, "a1")]),
        ),
        "kafka",
    ),
    "users.create for opensearch": creates(
        {"settings": {"opensearch_acl": [{"index": "logs-*", "permission": "read"}]}},
        {"settings": OPENSEARCH},
        "opensearch",
    ),
    "users.create for mongodb": creates(
        {"settings": {"mongo_user_settings": {"databases": ["app"], "role": "readWrite"}}},
        {"settings": MONGODB},
        "mongodb",
    ),
    "users.create read-only": creates({"readonly": True}, {"readonly": True}, "mongodb"),
    "users.update": Case(
        lambda c: c.users.update("alice", UserSettings(pg_allow_replication=False)),
        "PUT",
        "/users/alice",
        REPLICATION_OFF,
        {"user": {"name": "alice", **REPLICATION_OFF}},
        User("alice", settings=UserSettings(pg_allow_replication=False)),
    ),
    "users.delete": Case(lambda c: c.users.delete("alice"), "DELETE", "/users/alice", None, None, None),
    "users.reset_auth": Case(lambda c: c.users.reset_auth("alice"), "POST", "/users/alice/reset_auth", {}),
    "users.reset_auth for mysql": Case(
        lambda c: c.users.reset_auth("alice", mysql_settings=SHA2),
        "POST",
        "/users/alice/reset_auth",
        SHA2_JSON,
        engine="advanced_mysql",
    ),
    "dbs.list": Case(lambda c: c.dbs.list(), "GET", DBS, None, {"dbs": [{"name": "a"}]}, [Database("a")]),
    "dbs.list null": Case(lambda c: c.dbs.list(), "GET", DBS, None, {"dbs": None}, []),
    "dbs.get": Case(lambda c: c.dbs.get("a"), "GET", "/dbs/a", None, {"db": {"name": "a"}}, Database("a")),
    "dbs.create": Case(
        lambda c: c.dbs.create("a"), "POST", "/dbs", {"name": "a"}, {"db": {"name": "a"}}, Database("a")
    ),
    "dbs.delete": Case(lambda c: c.dbs.delete("a"), "DELETE", "/dbs/a", None, None, None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_operation_sends_one_request(case: Case, server: Server, make_cluster: MakeCluster) -> None:
    server.will(case.reply)

    result = await case.call(make_cluster(engine=case.engine))

    assert result == case.result
    [request] = server.requests
    assert (request.method, request.path, request.body) == (case.method, ROOT + case.path, case.body)
    assert request.headers["authorization"] == "Bearer secret-token"
    assert request.headers["user-agent"].startswith("aiodbclient/")


async def test_clusters_are_listed_by_tag(server: Server, make_client: MakeClient) -> None:
    server.will(says(200, {"databases": [{"id": CLUSTER, "name": "main", "engine": "pg"}]}))

    [cluster] = await make_client().clusters.list(tag_name="a&b")

    assert (cluster.id, cluster.engine) == (CLUSTER, Engine.PG)
    assert server.calls == [("GET", "/v2/databases?tag_name=a%26b&per_page=200")]


async def test_cluster_by_id_or_handle(server: Server, make_client: MakeClient) -> None:
    server.otherwise = says(200, {"database": {"id": CLUSTER, "name": "main", "engine": "mysql"}})
    client = make_client()

    assert await client.clusters.get(CLUSTER.upper()) == await client.cluster(CLUSTER).info()

    assert server.calls == [("GET", ROOT)] * 2
    assert client.cluster(CLUSTER).engine is Engine.MYSQL


async def test_list_asks_for_largest_pages(server: Server, cluster: Cluster) -> None:
    """A user that moves to the next page while the list is read comes once."""

    def page(numbers: range, following: str | None) -> Reply:
        links = {} if following is None else {"next": f"{server.url}{ROOT}/users?{following}"}
        return says(200, {"users": [{"name": f"u{n}"} for n in numbers], "links": {"pages": links}})

    server.will(page(range(200), "page=2&per_page=200"), page(range(199, 250), None))

    users = await cluster.users.list()

    assert [user.name for user in users] == [f"u{n}" for n in range(250)]
    assert [path for _, path in server.calls] == [f"{ROOT}/users?per_page=200", f"{ROOT}/users?page=2&per_page=200"]


async def test_dbs_may_come_under_databases(server: Server, cluster: Cluster) -> None:
    server.will(
        says(200, {"databases": [{"name": "a"}]}),
        says(200, {"databases": [{"name": "a"}], "dbs": [{"name": "b"}]}),
        says(200, {"databases": None}),
        says(200, {"bases": []}),
    )
    dbs = cluster.dbs

    assert [db.name for db in await dbs.list()] == ["a"]
    assert [db.name for db in await dbs.list()] == ["b"]
    assert await dbs.list() == []
    with pytest.raises(errors.InvalidResponseError, match="not the documented JSON object with 'dbs'"):
        await dbs.list()


PEM = trustme.CA().cert_pem.bytes().decode()


@pytest.fixture
def quick_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiodbclient._http.maintenance._MIN_INTERVAL", 0.01)


def document(**members: Any) -> dict[str, Any]:
    return {"database": {"id": CLUSTER, "name": "main", "engine": "pg"} | members}


def authority(pem: str = PEM) -> Any:
    return says(200, {"ca": {"certificate": base64.b64encode(pem.encode()).decode()}})


async def test_ca_is_pem_and_read_once(server: Server, make_client: MakeClient) -> None:
    server.otherwise = authority()
    client = make_client()

    several = await asyncio.gather(*(client.cluster(CLUSTER).ca() for _ in range(5)))

    assert set(several) == {PEM}
    assert await client.with_options(max_wait=1.0).cluster(CLUSTER.upper()).ca() == PEM
    assert server.calls == [("GET", f"/v2/databases/{CLUSTER}/ca")]


@pytest.mark.parametrize(
    "certificate",
    [
        "",
        "not base64!",
        "äöü",
        base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b"<html>Sign in</html>").decode(),
        base64.b64encode(PEM[:200].encode()).decode(),
        None,
        5,
    ],
)
async def test_an_invalid_certificate_is_refused(server: Server, make_cluster: MakeCluster, certificate: Any) -> None:
    server.will(says(200, {"ca": {"certificate": certificate}}), authority())
    cluster = make_cluster(engine=None)

    with pytest.raises(errors.InvalidResponseError, match=r"clusters\.ca"):
        await cluster.ca()

    assert await cluster.ca() == PEM  # a failure is not cached


@pytest.mark.usefixtures("quick_reads")
async def test_wait_online_returns_cluster(server: Server, make_cluster: MakeCluster) -> None:
    """A 404 of a new cluster is waited out."""
    not_yet = [fails(404), fails(404), says(200, document(status="creating")), fails(503)]
    server.will(*not_yet, says(200, document(status="online")))

    assert (await make_cluster(engine=None).wait_online()).status is ClusterStatus.ONLINE
    assert len(server.requests) == 5


@pytest.mark.usefixtures("quick_reads")
async def test_wait_online_ends_with_status(server: Server, make_cluster: MakeCluster) -> None:
    server.otherwise = says(200, document(status="resizing"))
    started = time.monotonic()

    with pytest.raises(errors.ClusterNotOnlineError, match=r"not online after 0\.9 s: resizing") as caught:
        await make_cluster(engine=None).wait_online(timeout=0.9)

    assert isinstance(caught.value, TimeoutError)
    assert caught.value.status is ClusterStatus.RESIZING
    assert time.monotonic() - started >= 0.9
    assert len(server.requests) > 1


async def test_wait_online_bounds_a_read_that_hangs(server: Server, make_cluster: MakeCluster) -> None:
    server.otherwise = stalls()

    with pytest.raises(errors.ClusterNotOnlineError, match="returned no status") as caught:
        await make_cluster(engine=None).wait_online(timeout=0.3)

    assert caught.value.status is None


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "5", None, True])
async def test_a_timeout_that_cannot_be_is_refused(server: Server, make_cluster: MakeCluster, seconds: Any) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="timeout"):
        await make_cluster(engine=None).wait_online(timeout=seconds)

    assert server.requests == []


@pytest.mark.usefixtures("quick_reads")
async def test_404_of_known_cluster_is_raised(server: Server, make_client: MakeClient) -> None:
    """It was deleted: it was read or listed before."""
    server.will(says(200, document(status="creating")), fails(404))
    with pytest.raises(errors.NotFoundError):
        await make_client().cluster(CLUSTER).wait_online()

    client = make_client()
    server.will(says(200, {"databases": [document()["database"]]}), fails(404))
    await client.clusters.list()
    with pytest.raises(errors.NotFoundError):
        await client.cluster(CLUSTER).wait_online()


@pytest.mark.usefixtures("quick_reads")
async def test_404_is_raised_after_a_minute(
    server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiodbclient.clusters._NEW_CLUSTER", 0.5)
    server.otherwise = fails(404)
    started = time.monotonic()

    with pytest.raises(errors.NotFoundError):
        await make_cluster(engine=None).wait_online()

    assert time.monotonic() - started > 0.5
    assert len(server.requests) > 1


async def test_replica_needs_its_engine(server: Server, make_client: MakeClient) -> None:
    server.will(says(201, {"user": {"name": "alice", "password": "x"}}), fails(404))
    client = make_client()

    assert (await client.cluster(CLUSTER, engine="pg").users.create("alice")).password == "x"
    with pytest.raises(errors.NotFoundError, match=r"id of a replica, pass its engine: client\.cluster\(id, engine="):
        await client.cluster(CLUSTER).users.create("bob")


async def test_uri_for_reads_cluster_once(server: Server, make_cluster: MakeCluster) -> None:
    connection = {"host": "db.example", "port": 25060, "database": "defaultdb", "ssl": True}
    cluster_json = {
        "id": CLUSTER,
        "name": "main",
        "engine": "pg",
        "connection": connection,
        "private_connection": connection | {"host": "private.example"},
    }
    server.otherwise = says(200, {"database": cluster_json})
    cluster = make_cluster()
    alice = User("alice", password="p@ss")

    assert await cluster.uri_for(alice) == "postgresql://alice:p%40ss@db.example:25060/defaultdb?sslmode=require"
    assert await cluster.uri_for(alice, "app", ca_file="ca.pem") == (
        "postgresql://alice:p%40ss@db.example:25060/app?sslmode=verify-full&sslrootcert=ca.pem"
    )
    assert len(server.requests) == 1
    assert "@private.example" in await cluster.uri_for(alice, private=True)


@pytest.mark.parametrize(
    ("user", "options"),
    [(User("alice"), {}), ("alice", {}), (User("a", password="p"), {"database": ""}), (None, {})],
)
@pytest.mark.parametrize("engine", ["pg", None])
async def test_uri_for_refuses_before_it_sends(
    user: Any, options: dict[str, Any], engine: str | None, server: Server, make_cluster: MakeCluster
) -> None:
    with pytest.raises(errors.InvalidArgumentError):
        await make_cluster(engine=engine).uri_for(user, **options)

    assert server.requests == []


async def test_uri_for_without_connection(server: Server, make_cluster: MakeCluster) -> None:
    """Of a cluster that is being created. The next call reads it again."""
    server.otherwise = says(200, {"database": {"id": CLUSTER, "name": "main", "engine": "pg"}})
    cluster = make_cluster()

    for _ in range(2):
        with pytest.raises(errors.InvalidArgumentError, match="no such connection"):
            await cluster.uri_for(User("alice", password="p"))
    assert len(server.requests) == 2
