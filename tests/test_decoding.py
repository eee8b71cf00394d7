"""JSON to models: missing optional and unknown members are accepted, wrong types are refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError

from aiodbclient import (
    ClusterInfo,
    ClusterStatus,
    Connection,
    Database,
    Engine,
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    MySQLAuthPlugin,
    MySQLSettings,
    NewUser,
    OpenSearchACL,
    OpenSearchPermission,
    User,
    UserRole,
    UserSettings,
    _json,
)
from aiodbclient._json import UNREADABLE, Authority, ClusterEngine, UserChange, decode, decode_page, encode


@pytest.fixture(autouse=True)
def new_converter() -> None:
    """Each test creates a new converter, so that ``make mutants`` knows which tests cover its creation."""
    _json._converter.cache_clear()


def read(value: Any, model: type[Any]) -> Any:
    return decode(json.dumps({"it": value}).encode(), "it", model)


def user(**members: Any) -> Any:
    return read({"name": "alice", **members}, User)


def refused(value: Any, model: type[Any]) -> bool:
    try:
        read(value, model)
    except UNREADABLE:
        return True
    return False


def test_user_has_the_returned_members() -> None:
    assert user() == User("alice")
    assert user(role="normal") == User("alice", UserRole.NORMAL)
    assert user(role="superb") == User("alice", "superb")
    assert user(role="primary", password="", access_cert="c", access_key="k") == User(
        "alice", UserRole.PRIMARY, None, "c", "k"
    )
    assert user(role="primary").role is UserRole.PRIMARY  # not an equal string
    nothing = dict.fromkeys(["password", "access_cert", "access_key"], "")
    assert user(role="", mysql_settings={}, settings={}, **nothing) == User("alice")
    assert user(role={}, mysql_settings="", settings="", **nothing) == User("alice")
    assert user(role=None, mysql_settings=None, settings=None, password=None) == User("alice")
    assert user(role="normal", password="x", settings={"pg_allow_replication": True}) == User(
        "alice", UserRole.NORMAL, "x", settings=UserSettings(True)
    )
    assert user(password="😀").password == "😀"  # two escapes
    assert user(role="normal", password="x", more=1) == User("alice", UserRole.NORMAL, "x")
    assert user(role="superb", password="x", settings={"pg_allow_replication": False}) == User(
        "alice", "superb", "x", settings=UserSettings(False)
    )


def test_settings_of_each_engine() -> None:
    def settings(**members: Any) -> Any:
        return user(settings=members).settings

    assert settings(pg_allow_replication=True) == UserSettings(pg_allow_replication=True)
    assert settings(pg_allow_replication=None) == settings(new=1) == UserSettings()
    assert settings(acl=[]) == UserSettings(acl=[])
    assert settings(acl=[{"topic": "a", "permission": "consume", "id": "1"}, {"topic": "b", "permission": "sing"}]) == (
        UserSettings(acl=[KafkaACL("a", KafkaPermission.CONSUME, "1"), KafkaACL("b", "sing")])
    )
    assert settings(opensearch_acl=[{"index": "a", "permission": "read"}, {}], pg_allow_replication=True) == (
        UserSettings(True, opensearch_acl=[OpenSearchACL("a", OpenSearchPermission.READ), OpenSearchACL()])
    )
    assert settings(mongo_user_settings={"databases": ["a"], "role": "dbAdmin"}) == UserSettings(
        mongo_user_settings=MongoUserSettings(["a"], MongoRole.DB_ADMIN)
    )
    assert settings(mongo_user_settings={"role": "root"}).mongo_user_settings == MongoUserSettings(None, "root")
    assert settings(mongo_user_settings={}, acl=None, opensearch_acl=None) == UserSettings()
    assert user(mysql_settings={"auth_plugin": "mysql_native_password"}).mysql_settings == MySQLSettings(
        MySQLAuthPlugin.MYSQL_NATIVE_PASSWORD
    )


WRONG_IN_USER: dict[str, list[Any]] = {
    "name": [None, 5],
    "role": [5, [1]],
    "password": [5],
    "access_cert": [["c"]],
    "mysql_settings": [[1], {"auth_plugin": None}, {"auth_plugin": ""}],
    "settings": [
        *([1], [], 0, "x"),
        *({"pg_allow_replication": wrong} for wrong in (1, "true")),
        *({"acl": wrong} for wrong in ({"topic": "a"}, [{"topic": "a"}])),
        *({"acl": [{"topic": "a", "permission": "admin"} | wrong]} for wrong in ({"topic": 1}, {"permission": 1})),
        *({"opensearch_acl": wrong} for wrong in ("x", [{"index": 1}])),
        *({"mongo_user_settings": wrong} for wrong in ([1], {"databases": "a"}, {"databases": [1]}, {"role": 1})),
    ],
}
WRONG_IN_CLUSTER: dict[str, list[Any]] = {
    "do_settings": ["x", {"service_cnames": "db.example.com"}, {"service_cnames": [1]}],
    "ui_connection": [[1], [], 0],
    "schema_registry_connection": [{"port": "1"}],
    "id": [None, 1],
    "name": [None],
    "engine": [None, "", 1],
    "status": [1],
    "storage_size_mib": ["3", True],
    "created_at": ["yesterday", 5],
    "tags": ["a", [1]],
    "users": [{"name": "a"}, [1]],
    "connection": [
        *({"port": "1"}, {"port": True}, {"ssl": 1}),
        *({"application_ports": wrong} for wrong in ([1], {"registry": "2"}, {"registry": 2, "other": None})),
    ],
}


@pytest.mark.parametrize(
    ("model", "member", "wrong"),
    [(User, member, wrong) for member, values in WRONG_IN_USER.items() for wrong in values]
    + [(ClusterInfo, member, wrong) for member, values in WRONG_IN_CLUSTER.items() for wrong in values],
)
def test_another_shape_is_refused(model: type[Any], member: str, wrong: Any) -> None:
    assert refused({**({"name": "alice"} if model is User else CLUSTER), member: wrong}, model)


CLUSTER = {"id": "1", "name": "main", "engine": "pg"}


def cluster(**members: Any) -> Any:
    return read(CLUSTER | members, ClusterInfo)


def test_a_cluster_has_the_returned_members() -> None:
    assert cluster() == ClusterInfo("1", "main", Engine.PG, connection=Connection(engine=Engine.PG))
    assert cluster(engine="cockroach").engine == "cockroach"
    assert (cluster(status="online").status, cluster(status="tired").status) == (ClusterStatus.ONLINE, "tired")
    assert cluster(status="online").status is ClusterStatus.ONLINE  # not an equal string
    assert cluster(status="").status is None
    assert cluster(surprise={"deep": [1]}, surprise_connection=True) == cluster()
    assert cluster(storage_size_mib=3).storage_size_mib == 3
    assert (cluster(tags=None).tags, cluster(tags=["a"]).tags) == ([], ["a"])
    assert cluster().tags is not cluster().tags
    assert cluster(users=[{"name": "a"}, {"name": "b"}]).users == [User("a"), User("b")]


def test_a_moment_is_aware_and_keeps_its_zone() -> None:
    assert cluster(created_at="2019-01-11T18:37:36").created_at == datetime(2019, 1, 11, 18, 37, 36, tzinfo=UTC)
    decoded = cluster(created_at="2019-01-11T18:37:36+02:00").created_at
    assert (decoded.hour, decoded.utcoffset()) == (18, timedelta(hours=2))
    assert (cluster(created_at="").created_at, cluster(created_at=None).created_at) == (None, None)


def test_each_connection_knows_its_engine_and_its_ports() -> None:
    decoded = cluster(
        engine="kafka",
        connection={"host": "a", "port": 1, "ssl": True, "protocol": "kafka", "application_ports": {"registry": 2}},
        private_connection={"host": "b", "application_ports": None},
        standby_connection={},
    )
    assert decoded.connection == Connection(
        host="a", port=1, ssl=True, protocol="kafka", engine=Engine.KAFKA, application_ports={"registry": 2}
    )
    assert decoded.private_connection == Connection(host="b", engine=Engine.KAFKA)
    assert decoded.standby_connection is None


def test_cluster_has_its_endpoints() -> None:
    decoded = cluster(
        engine="kafka",
        ui_connection={"host": "ui", "port": 25060, "user": "doadmin", "password": "hunter2", "ssl": True},
        schema_registry_connection={"uri": "https://doadmin:hunter2@registry:1", "host": "registry", "port": 1},
        do_settings={"service_cnames": ["db.example.com"]},
    )
    assert decoded.ui_connection == Connection(
        host="ui", port=25060, user="doadmin", password="hunter2", ssl=True, engine=Engine.KAFKA
    )
    assert decoded.schema_registry_connection is not None
    alice = User("alice", password="a b")
    assert decoded.schema_registry_connection.uri_for(alice) == "https://alice:a%20b@registry:1"
    assert decoded.service_cnames == ["db.example.com"]
    assert "hunter2" not in repr(decoded)
    absent: list[Any] = [{}, None, {"service_cnames": None}, {"service_cnames": []}]
    for nothing in absent:
        bare = cluster(do_settings=nothing, ui_connection=None, schema_registry_connection={})
        assert (bare.ui_connection, bare.schema_registry_connection, bare.service_cnames) == (None, None, [])


def test_engine_of_unreadable_cluster() -> None:
    decoded = read({"engine": "MySQL", "id": "1", "status": 5}, ClusterEngine)
    assert (decoded.engine, decoded.id) == (Engine.MYSQL, "1")
    assert read({"engine": "pg"}, ClusterEngine).id is None
    assert refused({"id": "1"}, ClusterEngine)
    assert refused({"engine": "pg", "id": 1}, ClusterEngine)
    assert [read({"certificate": text}, Authority).certificate for text in ("x", "")] == ["x", ""]
    assert refused({"certificate": None}, Authority)


def test_page_and_address_of_next() -> None:
    def page(**members: Any) -> Any:
        return decode_page(json.dumps(members).encode(), "dbs", Database)

    assert page(dbs=[{"name": "a"}, {"name": "b"}]) == ([Database("a"), Database("b")], None)
    assert page(dbs=None, links={"pages": {"next": "https://x"}}) == ([], "https://x")
    nothing: list[Any] = [None, {}, {"pages": None}, {"pages": {}}, {"pages": {"next": None}}, {"pages": {"next": ""}}]
    for links in nothing:
        assert page(dbs=[], links=links) == ([], None)
    misshapen: list[dict[str, Any]] = [{"dbs": {}}, {}, {"dbs": [{}]}, {"dbs": [], "links": {"pages": {"next": 5}}}]
    for wrong in misshapen:
        with pytest.raises(UNREADABLE):
            page(**wrong)


def test_members_that_are_none_are_not_written() -> None:
    """Nor are they named to the guard, which compares the names of settings with what the engine has."""

    def written(body: Any) -> tuple[Any, list[str]]:
        text, settings = encode(body)
        return json.loads(text), sorted(settings)

    assert written(NewUser("a")) == ({"name": "a"}, [])
    assert written(NewUser("a", readonly=False)) == ({"name": "a", "readonly": False}, ["readonly"])
    assert written(UserChange(UserSettings(acl=[KafkaACL("a", KafkaPermission.ADMIN)]))) == (
        {"settings": {"acl": [{"topic": "a", "permission": "admin"}]}},
        ["settings.acl"],
    )
    assert written(UserChange(mysql_settings=MySQLSettings("new_plugin"))) == (
        {"mysql_settings": {"auth_plugin": "new_plugin"}},
        ["mysql_settings"],
    )
    assert written(UserChange()) == ({}, [])
    assert written(UserChange(UserSettings()))[1] == []
    assert written(Database("a"))[0] == {"name": "a"}
    several = NewUser("a", MySQLSettings("x"), UserSettings(pg_allow_replication=False, acl=[]), readonly=False)
    assert written(several)[1] == ["mysql_settings", "readonly", "settings.acl", "settings.pg_allow_replication"]


def test_results_are_frozen_and_hashable() -> None:
    """Two reads of the same answer are one member of a set."""
    body = b'{"user": {"name": "a", "settings": {"acl": [{"topic": "t", "permission": "admin"}]}, "password": "p"}}'
    cluster = b'{"database": {"id": "1", "name": "c", "engine": "kafka", "tags": ["t"], "connection": {"host": "h"}}}'
    for read, field in (
        (lambda: decode(body, "user", User), "password"),
        (lambda: decode(cluster, "database", ClusterInfo), "tags"),
    ):
        assert len({read(), read()}) == 1
        with pytest.raises(FrozenInstanceError):
            setattr(read(), field, None)
