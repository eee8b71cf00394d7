"""The requests and results of each of the twelve operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import frozen

from aiodbclient import (
    Cluster,
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
from .server import CLUSTER, Reply, Server, says

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
