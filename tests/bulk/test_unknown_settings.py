"""An API that does not return the settings of users: unknown settings are neither equal nor different."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aiodbclient import (
    Action,
    ClusterClient,
    DatabaseClient,
    KafkaACL,
    MySQLSettings,
    NewUser,
    OpenSearchACL,
    RateLimiter,
    RetryPolicy,
    User,
    UserRole,
    UserSettings,
)
from aiodbclient._bulk.settings import NOTHING_SHOWN, Returned, differences, unknown_settings
from aiodbclient.sandbox import Sandbox

from ..conftest import MakeClient
from ..server import CLUSTER, Server, says
from .truth import Truth, requests

REPLICATING = UserSettings(pg_allow_replication=True)
NATIVE = MySQLSettings("mysql_native_password")
ASKED: list[tuple[str, NewUser]] = [
    ("pg", NewUser("alice", settings=REPLICATING)),
    ("pg", NewUser("alice", settings=UserSettings())),
    ("kafka", NewUser("alice", settings=UserSettings(acl=[KafkaACL("orders", "consume")]))),
    ("opensearch", NewUser("alice", settings=UserSettings(opensearch_acl=[OpenSearchACL("logs", "read")]))),
]


@pytest.fixture
async def silent() -> AsyncIterator[Sandbox]:
    async with Sandbox(windows=[], returns_settings=False) as running:
        yield running


@pytest.fixture
async def client(silent: Sandbox) -> AsyncIterator[DatabaseClient]:
    async with DatabaseClient(
        silent.token, base_url=silent.url, retry=RetryPolicy(base_delay=0.001), budget=RateLimiter([]), timeout=5.0
    ) as running:
        yield running


async def one(cluster: ClusterClient, spec: NewUser, if_exists: Any) -> Any:
    [outcome] = [each async for each in cluster.users.provision([spec], if_exists=if_exists)]
    return outcome


@pytest.mark.parametrize(("engine", "spec"), ASKED)
async def test_a_plan_converges_and_counts_what_is_not_known(
    silent: Sandbox, client: DatabaseClient, engine: str, spec: NewUser
) -> None:
    cluster = client.cluster(await silent.add_cluster(engine, backend="memory"))
    await cluster.users.create("alice")
    await cluster.users.create("bob")

    plan = await cluster.users.plan([spec, "bob"])

    assert not plan
    assert (plan.keep, plan.unknown, plan.update) == (["alice", "bob"], ["alice"], [])
    assert str(plan).endswith("2 as asked for, 1 of them with settings that the API does not return")
    assert [outcome async for outcome in plan.apply()] == []
    assert requests(silent, "users.update") == 0


@pytest.mark.parametrize(("engine", "spec"), ASKED)
async def test_keep_keeps_and_update_sends_one_put_a_run(
    silent: Sandbox, client: DatabaseClient, engine: str, spec: NewUser
) -> None:
    cluster = client.cluster(await silent.add_cluster(engine, backend="memory"))
    old = await cluster.users.create("alice")

    assert (await one(cluster, spec, "keep")).action is Action.KEPT
    assert requests(silent, "users.update") == 0
    for sent in (1, 2):
        outcome = await one(cluster, spec, "update")
        assert outcome.action is Action.UPDATED
        assert requests(silent, "users.update") == sent
    assert requests(silent, "users.reset_auth") == 0
    assert (await cluster.users.get("alice")).password == old.password


@pytest.mark.parametrize("if_exists", ["keep", "update"])
async def test_nobody_gets_a_new_password_over_a_plugin_that_is_not_known(
    silent: Sandbox, client: DatabaseClient, if_exists: Any
) -> None:
    cluster = client.cluster(await silent.add_cluster("mysql", backend="memory"))
    await cluster.users.create("alice")
    truth = Truth(silent, cluster.id)

    outcome = await one(cluster, NewUser("alice", mysql_settings=NATIVE), if_exists)
    plan = await cluster.users.plan([NewUser("alice", mysql_settings=NATIVE)])

    assert outcome.action is Action.KEPT
    assert (plan.update, plan.unknown) == ([], ["alice"])
    assert not truth.reset


async def test_reset_gives_the_new_password_that_was_asked_for(silent: Sandbox, client: DatabaseClient) -> None:
    cluster = client.cluster(await silent.add_cluster("mysql", backend="memory"))
    old = await cluster.users.create("alice")

    outcome = await one(cluster, NewUser("alice", mysql_settings=NATIVE), "reset")

    assert outcome.action is Action.RESET
    assert outcome.user.password != old.password


async def test_readonly_alone_takes_no_database_from_a_user_whose_databases_are_not_known(
    silent: Sandbox, client: DatabaseClient
) -> None:
    cluster = client.cluster(await silent.add_cluster("mongodb"))
    await cluster.users.create("alice")

    for if_exists in ("keep", "update"):
        assert (await one(cluster, NewUser("alice", readonly=True), if_exists)).action is Action.KEPT
    assert requests(silent, "users.update") == 0


async def test_the_primary_user_is_kept(silent: Sandbox, client: DatabaseClient) -> None:
    cluster = client.cluster(await silent.add_cluster("pg", backend="memory"))

    outcome = await one(cluster, NewUser("doadmin", settings=REPLICATING), "update")
    plan = await cluster.users.plan([NewUser("doadmin", settings=REPLICATING)])

    assert outcome.action is Action.KEPT
    assert (plan.keep, plan.unknown) == (["doadmin"], [])
    assert requests(silent, "users.update") == 0


async def test_where_another_user_of_the_list_has_settings_absent_means_none(
    server: Server, make_client: MakeClient
) -> None:
    silent = {"name": "silent", "role": "normal", "password": "x"}
    server.otherwise = says(
        200, {"users": [silent, silent | {"name": "b", "settings": {"pg_allow_replication": True}}]}
    )
    users = make_client().cluster(CLUSTER, engine="pg").users

    plan = await users.plan([NewUser("silent", settings=REPLICATING), NewUser("b", settings=REPLICATING)])

    assert (plan.update, plan.keep, plan.unknown) == (["silent"], ["b"], [])


async def test_a_user_that_is_read_alone_shows_only_what_it_has(server: Server, make_client: MakeClient) -> None:
    """The list has the name in another spelling, so the user is read. A read may omit what a list has."""
    other = {"name": "SILENT", "role": "normal", "password": "x", "settings": {"pg_allow_replication": True}}
    server.will(says(200, {"users": [other]}), says(200, {"user": other | {"name": "silent", "settings": None}}))

    plan = await make_client().cluster(CLUSTER, engine="pg").users.plan([NewUser("silent", settings=REPLICATING)])

    assert (plan.update, plan.keep, plan.unknown) == ([], ["silent"], ["silent"])


def test_known_settings_are_compared_and_unknown_ones_are_named() -> None:
    spec = NewUser("a", NATIVE, REPLICATING)
    bare = User("a", UserRole.NORMAL)
    assert len(differences(spec, bare)) == 2
    assert differences(spec, bare, NOTHING_SHOWN) == []
    assert unknown_settings(spec, bare, NOTHING_SHOWN) == ["mysql_settings", "settings"]
    assert unknown_settings(spec, bare, Returned(settings=True, mysql_settings=False)) == ["mysql_settings"]
    assert unknown_settings(NewUser("a"), bare, NOTHING_SHOWN) == []
    known = User("a", mysql_settings=NATIVE, settings=UserSettings())
    assert unknown_settings(spec, known, NOTHING_SHOWN) == []
    assert [each.setting for each in differences(spec, known, NOTHING_SHOWN)] == ["settings.pg_allow_replication"]
    assert Returned.by([bare]) == NOTHING_SHOWN
    assert Returned.by([bare, known]) == Returned(settings=True, mysql_settings=True)
