"""Operations that an engine does not support are refused before a request is sent. The engine is read once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import (
    Capabilities,
    Cluster,
    DatabaseClient,
    Engine,
    KafkaACL,
    KafkaPermission,
    MongoUserSettings,
    MySQLAuthPlugin,
    MySQLSettings,
    OpenSearchACL,
    RateLimiter,
    RetryPolicy,
    UserSettings,
    errors,
)
from aiodbclient._http.operations import GET_USER
from aiodbclient.engines import CAPABILITIES, guard
from aiodbclient.rate_limiter import Window

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Reply, Server, fails, returns_the_user, says, stalls
from .test_operations import CASES
from .waiting import HANG, until

MYSQL = MySQLSettings(MySQLAuthPlugin.MYSQL_NATIVE_PASSWORD)
SETTINGS: dict[str, tuple[dict[str, Any], set[Engine]]] = {
    "mysql_settings": ({"mysql_settings": MYSQL}, {Engine.MYSQL, Engine.ADVANCED_MYSQL}),
    "pg_allow_replication": ({"settings": UserSettings(pg_allow_replication=False)}, {Engine.PG, Engine.ADVANCED_PG}),
    "acl": ({"settings": UserSettings(acl=[KafkaACL("t", KafkaPermission.ADMIN)])}, {Engine.KAFKA}),
    "opensearch_acl": ({"settings": UserSettings(opensearch_acl=[OpenSearchACL("i", "read")])}, {Engine.OPENSEARCH}),
    "mongo_user_settings": (
        {"settings": UserSettings(mongo_user_settings=MongoUserSettings(["app"], "readOnly"))},
        {Engine.MONGODB},
    ),
    "readonly": ({"readonly": True}, {Engine.MONGODB}),
}


def is_engine(slug: str) -> Reply:
    """Answer with a cluster of which the guard can read the engine, and no more."""
    return says(
        200, {"database": {"id": CLUSTER, "engine": slug, "created_at": "garbage", "connection": {"port": "x"}}}
    )


def has(engine: str, operation: str) -> bool:
    capabilities = CAPABILITIES[engine]
    return capabilities.users if operation.startswith("users.") else capabilities.dbs


OPERATIONS = [operation for operation in CASES if " " not in operation]


@pytest.mark.parametrize(("engine", "operation"), [(e, o) for e in CAPABILITIES for o in OPERATIONS if not has(e, o)])
async def test_operations_that_the_engine_lacks_are_refused(
    operation: str, engine: str, server: Server, make_cluster: MakeCluster
) -> None:
    with pytest.raises(errors.UnsupportedOperationError, match=engine) as caught:
        await CASES[operation].call(make_cluster(engine=engine))

    assert (caught.value.engine, caught.value.operation) == (engine, operation)
    assert server.requests == []


@pytest.mark.parametrize("engine", [e for e in Engine if (can := Capabilities.of(e)) and can.users])
@pytest.mark.parametrize("setting", SETTINGS)
async def test_a_setting_of_another_engine_is_refused(
    setting: str, engine: Engine, server: Server, make_cluster: MakeCluster
) -> None:
    arguments, owners = SETTINGS[setting]
    create = make_cluster(engine=engine).users.create("alice", **arguments)
    if engine in owners:
        server.will(says(201, {"user": {"name": "alice"}}))
        await create
    else:
        with pytest.raises(errors.UnsupportedOperationError, match=f"{setting} is a setting of"):
            await create
        assert server.requests == []


def test_the_guard_names_the_engines_of_a_setting() -> None:
    can = Capabilities.of("mongodb")
    assert guard(Engine.MONGODB, "users.create", ["readonly", "settings.mongo_user_settings"]) is can
    assert guard("pg", "dbs.create") is Capabilities.of(Engine.PG)
    assert guard("cockroach", "users.create", ["anything"]) == Capabilities()

    with pytest.raises(errors.UnsupportedOperationError) as caught:
        guard(Engine.KAFKA, "users.create", ["settings.acl", "mysql_settings"])
    assert (caught.value.engine, caught.value.operation) == ("kafka", "users.create")
    assert str(caught.value) == (
        "users.create: mysql_settings is a setting of mysql and advanced_mysql, not of kafka, where it would be "
        "ignored; it was not sent"
    )
    with pytest.raises(errors.UnsupportedOperationError, match=r"settings\.new is a setting of no engine, not of pg"):
        guard("pg", "users.update", ["settings.new"])
    for operation, noun in (("users.list", "user"), ("dbs.list", "database")):
        with pytest.raises(
            errors.UnsupportedOperationError, match=f"redis clusters have no {noun} management"
        ) as caught:
            guard("redis", operation)
        assert (caught.value.engine, caught.value.operation) == ("redis", operation)


def test_capabilities_are_public() -> None:
    redis, mongodb = Capabilities.of("redis"), Capabilities.of(Engine.MONGODB)

    assert redis is not None
    assert mongodb is not None
    assert (redis.users, redis.dbs, mongodb.concurrent_user_writes) == (False, False, 1)
    assert redis == Capabilities.of(Engine.VALKEY)
    assert Capabilities.of("cockroach") is Capabilities.of([]) is None  # type: ignore[arg-type]
    assert (Engine.parse(" MySQL\n"), Engine.parse(" New ")) == (Engine.MYSQL, " New ")


async def test_settings_are_guarded_on_update_and_reset_too(server: Server, make_cluster: MakeCluster) -> None:
    users = make_cluster(engine="mongodb").users

    with pytest.raises(errors.UnsupportedOperationError):
        await users.update("alice", UserSettings(pg_allow_replication=True))
    with pytest.raises(errors.UnsupportedOperationError):
        await users.reset_auth("alice", mysql_settings=MYSQL)

    assert server.requests == []


@pytest.mark.parametrize("slug", ["REDIS", "Valkey", " redis"])
async def test_case_of_engine_does_not_matter(slug: str, server: Server, make_cluster: MakeCluster) -> None:
    """Neither in our argument, nor in the API's answer."""
    server.will(is_engine(slug))
    for engine in (slug, None):
        with pytest.raises(errors.UnsupportedOperationError):
            await make_cluster(engine=engine).users.list()

    assert len(server.requests) == 1


@pytest.mark.parametrize("typo", ["mongo", "postgres"])
async def test_given_engine_that_is_none_is_read(typo: str, server: Server, make_client: MakeClient) -> None:
    """Otherwise a typo would turn off the guard."""
    server.will(is_engine("mongodb"))
    client = make_client()
    clusters = [client.cluster(CLUSTER, engine=typo) for _ in range(2)]
    assert [cluster.engine for cluster in clusters] == [None, None]

    for cluster in clusters:
        with pytest.raises(errors.UnsupportedOperationError, match="mysql_settings is a setting of mysql"):
            await cluster.users.create("alice", mysql_settings=MYSQL)
        assert cluster.engine == Engine.MONGODB

    assert server.calls == [("GET", f"/v2/databases/{CLUSTER}")]


async def test_an_unknown_engine_is_let_through(server: Server, make_cluster: MakeCluster) -> None:
    server.will(is_engine("cockroach"), says(201, {"user": {"name": "alice"}}))
    cluster = make_cluster(engine=None)

    await cluster.users.create("alice", mysql_settings=MYSQL, readonly=True)

    assert cluster.engine == "cockroach"


async def test_a_hundred_first_calls_read_the_cluster_once(server: Server, make_client: MakeClient) -> None:
    server.will(is_engine("redis"))
    client = make_client()

    results = await asyncio.gather(
        *(client.cluster(CLUSTER).users.get(f"user{n}") for n in range(100)), return_exceptions=True
    )

    assert {type(result) for result in results} == {errors.UnsupportedOperationError}
    assert server.calls == [("GET", f"/v2/databases/{CLUSTER}")]


@pytest.mark.parametrize("options", [{"max_wait": 0.0}, {"timeout": 0.1}])
async def test_patient_read_holds_up_nobody(options: dict[str, Any], server: Server, make_client: MakeClient) -> None:
    """A call with another ``max_wait`` or ``timeout`` does not wait for the read of a patient one."""
    server.otherwise = stalls()
    limiter = RateLimiter([Window(2 - len({"max_wait"} & options.keys()), 60.0)])
    client = make_client(retry=RetryPolicy(max_tries=1), rate_limiter=limiter)
    patient = asyncio.create_task(client.cluster(CLUSTER).users.list())
    await until(lambda: server.requests)

    with pytest.raises((errors.MaxWaitError, errors.RequestTimeoutError)):
        await asyncio.wait_for(client.with_options(**options).cluster(CLUSTER).users.list(), HANG)
    assert not patient.done()

    patient.cancel()


async def test_a_listed_cluster_needs_no_read(server: Server, make_client: MakeClient) -> None:
    server.will(says(200, {"databases": [{"id": CLUSTER, "name": "main", "engine": "valkey"}]}))
    client = make_client()
    await client.clusters.list()

    with pytest.raises(errors.UnsupportedOperationError):
        await client.with_options(max_wait=1).cluster(CLUSTER).dbs.list()

    assert len(server.requests) == 1


async def test_calls_without_read_scope_warn_once(
    server: Server, make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that may not read the cluster now may do so later, so the client reads it again after a while."""
    server.will(fails(403, "forbidden"))
    server.otherwise = says(200, {"users": []})
    cluster = make_cluster(engine=None)

    with caplog.at_level(logging.WARNING, "aiodbclient"):
        await asyncio.gather(*(cluster.users.list() for _ in range(5)))
        await cluster.users.list()

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert CLUSTER in caplog.text
    assert cluster.engine is None
    assert len(server.requests) == 1 + 6

    monkeypatch.setattr("aiodbclient._http.context._FORBIDDEN_TTL", 0.0)
    server.will(is_engine("redis"))
    with pytest.raises(errors.UnsupportedOperationError):
        await cluster.users.list()
    assert len(server.requests) == 1 + 6 + 1


async def test_engine_that_was_read_wins(server: Server, make_cluster: MakeCluster) -> None:
    """A program that gives the wrong engine is guarded by the right one, once the cluster was read."""
    cluster = make_cluster(engine="pg")
    server.will(says(200, {"database": {"id": CLUSTER, "name": "cache", "engine": "redis"}}))
    await cluster.info()

    assert cluster.engine == "redis"
    with pytest.raises(errors.UnsupportedOperationError):
        await cluster.users.list()


@pytest.mark.parametrize(
    ("reply", "error"),
    [(fails(503), errors.ServerError), (says(403, text="<html>Forbidden</html>"), errors.PermissionDeniedError)],
    ids=["503", "a proxy's 403"],
)
async def test_a_failed_read_is_not_remembered(
    reply: Reply, error: type[Exception], server: Server, make_cluster: MakeCluster
) -> None:
    server.will(reply, is_engine("redis"))
    cluster = make_cluster(retry=RetryPolicy(max_tries=1), engine=None)

    for expected in (error, errors.UnsupportedOperationError):
        with pytest.raises(expected):
            await cluster.users.list()


async def test_when_the_reader_is_cancelled_another_reads(server: Server, make_cluster: MakeCluster) -> None:
    server.will(stalls(), is_engine("pg"), says(200, {"users": []}))
    cluster = make_cluster(engine=None)

    first = asyncio.create_task(cluster.users.list())
    second = asyncio.create_task(cluster.users.list())
    await until(lambda: server.requests)
    first.cancel()
    async with asyncio.timeout(HANG):
        assert await second == []
    assert first.cancelled() or isinstance(first.exception(), asyncio.CancelledError)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"mysql_settings": {"auth_plugin": "x"}}, "mysql_settings"),
        ({"settings": {"acl": []}}, "settings"),
        ({"settings": UserSettings(acl=[{"topic": "t"}])}, "settings"),  # type: ignore[list-item]
        ({"settings": UserSettings(mongo_user_settings=MongoUserSettings("app"))}, "settings"),
        ({"readonly": "yes"}, "readonly"),
        (
            {"settings": UserSettings(acl=[KafkaACL(b"topic", "admin")])},  # type: ignore[arg-type]
            r"JSON cannot represent the arguments.*bytes",
        ),
    ],
)
async def test_arguments_of_another_type_are_refused(
    arguments: dict[str, Any], complaint: str, server: Server, make_cluster: MakeCluster
) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=complaint):
        await make_cluster(engine="kafka").users.create("alice", **arguments)

    assert server.requests == []


NAMES = ["a/b", "x?y", "a#b", "a%2Fb", "ü", "a b", "...", "a/../b", "%2e%2e", "a;b", "a+b", "日本", "'\"", "a\\b"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_reaches_the_server_in_one_segment(name: str, server: Server, cluster: Cluster) -> None:
    server.otherwise = returns_the_user()
    users = cluster.users

    assert (await users.get(name)).name == name
    await users.reset_auth(name)
    await users.delete(name)
    await users.create(name)

    paths = [request.path.split("/") for request in server.requests[:3]]
    assert [unquote(path[5]) for path in paths] == [name] * 3
    assert [len(path) for path in paths] == [6, 7, 6]
    assert server.requests[3].body == {"name": name}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "\0", "a\0b", "w3\r", "a\tb", "a\x7f", "a\x85", "\ud800", None, 5, b"a", ["a"]]
)
async def test_names_that_no_path_can_hold_are_refused(name: Any, server: Server, cluster: Cluster) -> None:
    for api in (cluster.users, cluster.dbs):
        for method in (api.get, api.create, api.delete):
            with pytest.raises(errors.InvalidArgumentError, match="nothing was sent"):
                await method(name)

    assert server.requests == []


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_segment_holds_no_part_of_a_path(name: str) -> None:
    if name in (".", ".."):
        return
    encoded = GET_USER.path(CLUSTER, name).removeprefix(f"/v2/databases/{CLUSTER}/users/")

    assert unquote(encoded) == name
    assert not set(encoded) & set("/?#\\;")
    assert encoded.isascii()


NO_UUIDS = ["", "main", "..", CLUSTER.replace("-", ""), f"{{{CLUSTER}}}", f"{CLUSTER}\n"]


@pytest.mark.parametrize("cluster_id", [*NO_UUIDS, CLUSTER.encode(), [CLUSTER], None, 5])
def test_a_cluster_id_is_a_uuid(cluster_id: Any) -> None:
    client = DatabaseClient("token")
    assert client.cluster(UUID(CLUSTER)).id == client.cluster(CLUSTER.upper()).id == CLUSTER

    with pytest.raises(errors.InvalidArgumentError, match="UUID"):
        client.cluster(cluster_id)
