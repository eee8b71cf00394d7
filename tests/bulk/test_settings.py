"""Existing users with other settings than requested: they are reported, and changed on request."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define

from aiodbclient import (
    Action,
    ClusterClient,
    DatabaseClient,
    KafkaACL,
    MongoUserSettings,
    MySQLSettings,
    NewUser,
    OpenSearchACL,
    User,
    UserSettings,
    errors,
)
from aiodbclient._bulk.settings import differences, is_provider_own
from aiodbclient.sandbox import Sandbox

from .truth import Truth, requests


def kafka(*rules: tuple[str, str]) -> UserSettings:
    return UserSettings(acl=[KafkaACL(topic, permission) for topic, permission in rules])


def opensearch(*rules: tuple[str | None, str | None]) -> UserSettings:
    return UserSettings(opensearch_acl=[OpenSearchACL(index, permission) for index, permission in rules])


def mongodb(databases: list[str] | None, role: str | None) -> UserSettings:
    return UserSettings(mongo_user_settings=MongoUserSettings(databases, role))


# engine, settings at creation, equal settings, different settings, and the setting that differs
CASES: list[tuple[str, UserSettings | None, list[UserSettings], UserSettings, str]] = [
    (
        "pg",
        None,
        [UserSettings(), UserSettings(pg_allow_replication=False)],
        UserSettings(pg_allow_replication=True),
        "settings.pg_allow_replication",
    ),
    (
        "pg",
        UserSettings(pg_allow_replication=True),
        [UserSettings(pg_allow_replication=True)],
        UserSettings(),
        "settings.pg_allow_replication",
    ),
    (
        "kafka",
        kafka(("*", "admin")),
        [kafka(("*", "admin")), kafka(("*", "admin"), ("*", "admin"))],
        kafka(("orders", "consume")),
        "settings.acl",
    ),
    (
        "kafka",
        kafka(("a", "produceconsume"), ("b", "consume")),
        [kafka(("b", "consume"), ("a", "produce_consume"))],
        kafka(("a", "produceconsume"), ("B", "consume")),
        "settings.acl",
    ),
    ("kafka", None, [UserSettings(), kafka()], kafka(("orders", "consume")), "settings.acl"),
    (
        "opensearch",
        opensearch(("logs-*", "read")),
        [opensearch(("logs-*", "read"))],
        opensearch(("logs-*", "readwrite")),
        "settings.opensearch_acl",
    ),
    (
        "mongodb",
        mongodb(["b", "a"], "readWrite"),
        [mongodb(["a", "b"], "readWrite")],
        mongodb(["a"], "readWrite"),
        "settings.mongo_user_settings.databases",
    ),
    (
        "mongodb",
        mongodb(["a"], "readWrite"),
        [mongodb(["a"], "readWrite")],
        mongodb(["a"], "dbAdmin"),
        "settings.mongo_user_settings.role",
    ),
]


async def made(sandbox: Sandbox, client: DatabaseClient, engine: str, settings: UserSettings | None) -> ClusterClient:
    cluster = client.cluster(await sandbox.add_cluster(engine, backend="memory"))
    await cluster.users.create("alice", settings=settings)
    if engine == "kafka" and settings is None:
        # If one user has an ACL, a user without one is known to have none.
        await cluster.users.create("with-acl", settings=kafka(("orders", "consume")))
    return cluster


async def one(cluster: ClusterClient, spec: NewUser | str, if_exists: Any) -> Any:
    [outcome] = [each async for each in cluster.users.provision([spec], if_exists=if_exists)]
    return outcome


@pytest.mark.parametrize(("engine", "settings", "same", "other", "setting"), CASES)
async def test_keep_and_reset_fail_a_user_with_other_settings(
    sandbox: Sandbox,
    client: DatabaseClient,
    engine: str,
    settings: UserSettings | None,
    same: list[UserSettings],
    other: UserSettings,
    setting: str,
) -> None:
    cluster = await made(sandbox, client, engine, settings)
    truth = Truth(sandbox, cluster.id)

    for if_exists in ("keep", "reset"):
        outcome = await one(cluster, NewUser("alice", settings=other), if_exists)

        assert isinstance(outcome.error, errors.SettingsDifferError)
        assert outcome.error.settings == (setting,)
        assert setting in str(outcome.error)
        assert 'if_exists="update"' in str(outcome.error)
        assert not outcome.error.may_have_applied
    assert not truth.reset

    for equal in [*same, None]:
        assert (await one(cluster, NewUser("alice", settings=equal), "keep")).action is Action.KEPT
        assert (await one(cluster, NewUser("alice", settings=equal), "update")).action is Action.KEPT
    assert requests(sandbox, "users.update") == 0


@define
class NewerSettings(UserSettings):
    """The settings of a later version, with a new setting that no comparison knows."""

    shards: int | None = None


async def test_a_setting_that_cannot_be_compared_is_not_taken_for_the_same(
    sandbox: Sandbox, client: DatabaseClient
) -> None:
    cluster = await made(sandbox, client, "pg", None)

    with pytest.raises(NotImplementedError, match="'shards'"):
        await cluster.users.plan([NewUser("alice", settings=NewerSettings())])


@pytest.mark.parametrize(("engine", "settings", "same", "other", "setting"), CASES)
async def test_update_changes_what_differs_once(
    sandbox: Sandbox,
    client: DatabaseClient,
    engine: str,
    settings: UserSettings | None,
    same: list[UserSettings],
    other: UserSettings,
    setting: str,
) -> None:
    cluster = await made(sandbox, client, engine, settings)
    password = (await cluster.users.get("alice")).password
    spec = NewUser("alice", settings=other)

    first = await one(cluster, spec, "update")
    second = await one(cluster, spec, "update")
    kept = await one(cluster, spec, "keep")

    assert [first.action, second.action, kept.action] == [Action.UPDATED, Action.KEPT, Action.KEPT]
    assert first.tries == 1
    assert second.tries == 0
    assert requests(sandbox, "users.update") == 1
    assert first.user.password == password == (await cluster.users.get("alice")).password
    assert first.user.settings == (await cluster.users.get("alice")).settings


async def test_an_update_whose_answer_was_lost_is_sent_again(sandbox: Sandbox, pg: ClusterClient) -> None:
    await pg.users.create("alice")
    sandbox.faults.add("users.update", cut=True, after=True, nth=1)
    sandbox.faults.add("users.update", html=True, nth=2)

    outcome = await one(pg, NewUser("alice", settings=UserSettings(pg_allow_replication=True)), "update")

    assert outcome.action is Action.UPDATED
    assert outcome.tries == 3
    assert (await pg.users.get("alice")).settings == UserSettings(pg_allow_replication=True)


async def test_updating_creates_what_is_not_there(pg: ClusterClient) -> None:
    replicating = UserSettings(pg_allow_replication=True)

    outcome = await one(pg, NewUser("alice", settings=replicating), "update")

    assert outcome.action is Action.CREATED
    assert outcome.user.settings == replicating


async def test_a_mysql_plugin_comes_with_a_new_password(sandbox: Sandbox, client: DatabaseClient) -> None:
    cluster = client.cluster(await sandbox.add_cluster("mysql", backend="memory"))
    old = await cluster.users.create("alice")
    native = NewUser("alice", mysql_settings=MySQLSettings("mysql_native_password"))
    usual = NewUser("alice", mysql_settings=MySQLSettings("caching_sha2_password"))

    assert (await one(cluster, usual, "keep")).action is Action.KEPT
    refused = await one(cluster, native, "keep")
    assert isinstance(refused.error, errors.SettingsDifferError)
    assert refused.error.settings == ("mysql_settings.auth_plugin",)

    updated = await one(cluster, native, "update")
    assert updated.action is Action.RESET
    assert updated.user == await cluster.users.get("alice")
    assert updated.user.password != old.password
    assert (await one(cluster, native, "update")).action is Action.KEPT

    reset = await one(cluster, usual, "reset")
    assert reset.action is Action.RESET
    assert reset.user.mysql_settings == usual.mysql_settings


async def test_the_older_readonly_of_mongodb(mongodb: ClusterClient) -> None:
    await mongodb.users.create("alice", readonly=True)

    assert (await one(mongodb, NewUser("alice", readonly=True), "keep")).action is Action.KEPT
    refused = await one(mongodb, NewUser("alice", readonly=False), "keep")
    assert isinstance(refused.error, errors.SettingsDifferError)

    assert (await one(mongodb, NewUser("alice", readonly=False), "update")).action is Action.UPDATED
    assert (await one(mongodb, NewUser("alice", readonly=False), "update")).action is Action.KEPT
    assert (await one(mongodb, NewUser("alice", readonly=True), "update")).action is Action.UPDATED
    assert (await one(mongodb, NewUser("alice", readonly=True), "update")).action is Action.KEPT


async def test_a_user_that_came_with_the_cluster_is_not_updated(sandbox: Sandbox, pg: ClusterClient) -> None:
    outcome = await one(pg, NewUser("doadmin", settings=UserSettings(pg_allow_replication=False)), "update")

    assert isinstance(outcome.error, errors.SettingsDifferError)
    assert requests(sandbox, "users.update") == 0


async def test_a_rival_with_other_settings_is_not_kept(pg: ClusterClient) -> None:
    async def specs() -> Any:
        await pg.users.create("rival", settings=UserSettings(pg_allow_replication=True))  # the list was read before
        yield NewUser("rival", settings=UserSettings())

    [outcome] = [each async for each in pg.users.provision(specs())]
    assert isinstance(outcome.error, errors.SettingsDifferError)


@pytest.mark.parametrize(
    ("spec", "there", "expected"),
    [
        (NewUser("a"), UserSettings(pg_allow_replication=True), []),
        (
            NewUser("a", settings=UserSettings(pg_allow_replication=True)),
            None,
            ["settings.pg_allow_replication: false -> true"],
        ),
        (
            NewUser("a", settings=kafka(("Orders", "PRODUCE_CONSUME"), ("b", "consume"))),
            kafka(("Orders", "admin")),
            ["settings.acl: ['Orders=admin'] -> ['Orders=produceconsume', 'b=consume']"],
        ),
        (
            NewUser("a", settings=opensearch((None, None), ("logs", "read"))),
            opensearch(("logs", "deny")),
            ["settings.opensearch_acl: ['logs=deny'] -> ['=', 'logs=read']"],
        ),
        (
            NewUser("a", settings=mongodb(["b", "a"], "READ_ONLY")),
            None,
            [
                "settings.mongo_user_settings.databases: [] -> ['a', 'b']",
                "settings.mongo_user_settings.role: the default -> readOnly",
            ],
        ),
        (
            NewUser("a", settings=mongodb(None, None)),
            mongodb(["a"], "new_role"),
            [
                "settings.mongo_user_settings.databases: ['a'] -> []",
                "settings.mongo_user_settings.role: new_role -> the default",
            ],
        ),
        (
            NewUser("a", readonly=True),
            mongodb(["x"], "readWrite"),
            ["settings.mongo_user_settings.role: readWrite -> readOnly"],
        ),
        (NewUser("a", readonly=False), mongodb(["x"], "dbAdmin"), []),
        (
            NewUser("a", readonly=True),
            None,
            [
                "settings.mongo_user_settings.databases: [] -> ['admin']",
                "settings.mongo_user_settings.role: the default -> readOnly",
            ],
        ),
        (
            NewUser("a", readonly=False),
            mongodb(["x"], "readOnly"),
            ["settings.mongo_user_settings.role: readOnly -> readWrite"],
        ),
        (
            NewUser("a", readonly=True, settings=mongodb(["x"], "dbAdmin")),
            mongodb(["x"], "readOnly"),
            ["settings.mongo_user_settings.role: readOnly -> dbAdmin"],
        ),
    ],
)
def test_differences_are_reported_in_words(spec: NewUser, there: UserSettings | None, expected: list[str]) -> None:
    assert [str(each) for each in differences(spec, User("a", settings=there))] == expected


def test_a_user_without_a_returned_plugin_has_the_default_plugin() -> None:
    native, sha2 = MySQLSettings("mysql_native_password"), MySQLSettings("caching_sha2_password")

    def differing(wanted: MySQLSettings, there: MySQLSettings | None) -> list[str]:
        found = differences(NewUser("a", mysql_settings=wanted), User("a", mysql_settings=there))
        return [str(each) for each in found]

    assert differing(sha2, None) == differing(native, native) == []
    assert differing(native, None) == ["mysql_settings.auth_plugin: caching_sha2_password -> mysql_native_password"]
    assert differing(sha2, native) == ["mysql_settings.auth_plugin: mysql_native_password -> caching_sha2_password"]


@pytest.mark.parametrize(
    ("user", "own"),
    [
        (User("doadmin"), True),
        (User("do-readonly", "normal"), True),
        (User("a", "primary"), True),
        (User("a", "a role of tomorrow"), True),
        (User("a", "normal"), False),
        (User("a"), False),
    ],
)
def test_users_that_came_with_the_cluster_are_known_by_name_or_role(user: User, own: bool) -> None:
    assert is_provider_own(user) is own
