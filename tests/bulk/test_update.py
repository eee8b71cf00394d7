"""``if_exists="update"``: a run sends the settings that it was given to users that exist."""

from __future__ import annotations

from typing import Any

import pytest

from aiodbclient import (
    Cluster,
    DatabaseClient,
    KafkaACL,
    MongoUserSettings,
    MySQLSettings,
    NewUser,
    OpenSearchACL,
    UserSettings,
    errors,
)
from aiodbclient.bulk import Action
from aiodbclient.sandbox import Sandbox

from ..changes import html
from .truth import Truth, requests

REPLICATING = UserSettings(pg_allow_replication=True)


async def provision_one(cluster: Cluster, spec: NewUser | str, if_exists: Any = "update") -> Any:
    [outcome] = [each async for each in cluster.users.provision([spec], if_exists=if_exists)]
    return outcome


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("pg", REPLICATING),
        ("kafka", UserSettings(acl=[KafkaACL("orders", "consume")])),
        ("opensearch", UserSettings(opensearch_acl=[OpenSearchACL("logs-*", "read")])),
        ("mongodb", UserSettings(mongo_user_settings=MongoUserSettings(["a"], "readOnly"))),
    ],
)
async def test_update_sends_settings(
    sandbox: Sandbox, client: DatabaseClient, engine: str, settings: UserSettings
) -> None:
    """Each run sends one PUT, whether the settings differ or not. The password stays."""
    cluster = client.cluster(await sandbox.add_cluster(engine, backend="memory"))
    await cluster.users.create("alice")
    password = (await cluster.users.get("alice")).password

    for sent in (1, 2):
        outcome = await provision_one(cluster, NewUser("alice", settings=settings))
        assert (outcome.action, outcome.tries) == (Action.UPDATED, 1)
        assert requests(sandbox, "users.update") == sent
    assert outcome.user == await cluster.users.get("alice")
    assert outcome.user.password == password


async def test_update_lost_response(sandbox: Sandbox, pg: Cluster) -> None:
    """A PUT is sent again until its answer can be read."""
    await pg.users.create("alice")
    sandbox.faults.add("users.update", cut=True, after=True, nth=1)
    sandbox.faults.add("users.update", change=html, nth=2)

    outcome = await provision_one(pg, NewUser("alice", settings=REPLICATING))

    assert (outcome.action, outcome.tries) == (Action.UPDATED, 3)
    assert (await pg.users.get("alice")).settings == REPLICATING


async def test_update_creates_missing_user(pg: Cluster) -> None:
    outcome = await provision_one(pg, NewUser("alice", settings=REPLICATING))

    assert outcome.action is Action.CREATED
    assert outcome.user.settings == REPLICATING


async def test_update_mysql_plugin_resets_password(sandbox: Sandbox, client: DatabaseClient) -> None:
    """The API changes the plugin only together with the password."""
    cluster = client.cluster(await sandbox.add_cluster("mysql", backend="memory"))
    old = await cluster.users.create("alice")

    outcome = await provision_one(cluster, NewUser("alice", mysql_settings=MySQLSettings("mysql_native_password")))

    assert outcome.action is Action.RESET
    assert outcome.user == await cluster.users.get("alice")
    assert outcome.user.password != old.password


async def test_update_without_settings_keeps(sandbox: Sandbox, pg: Cluster, mongodb: Cluster) -> None:
    """A name alone changes nothing, nor does MongoDB's ``readonly``: a PUT without databases would remove them."""
    await pg.users.create("alice")
    await mongodb.users.create("alice")

    assert (await provision_one(pg, "alice")).action is Action.KEPT
    assert (await provision_one(mongodb, NewUser("alice", readonly=True))).action is Action.KEPT
    assert requests(sandbox, "users.update", "users.reset_auth") == 0


async def test_keep_and_reset_send_no_settings(sandbox: Sandbox, pg: Cluster) -> None:
    await pg.users.create("alice")
    spec = NewUser("alice", settings=REPLICATING)

    assert (await provision_one(pg, spec, "keep")).action is Action.KEPT
    assert (await provision_one(pg, spec, "reset")).action is Action.RESET
    assert requests(sandbox, "users.update") == 0
    assert (await pg.users.get("alice")).settings == UserSettings(pg_allow_replication=False)


@pytest.mark.parametrize("if_exists", ["keep", "update"])
async def test_settings_of_other_engine_refused(sandbox: Sandbox, pg: Cluster, if_exists: str) -> None:
    """The guard refuses them before the first request, also for a user that exists."""
    await pg.users.create("alice")
    truth = Truth(sandbox, pg.id)

    for settings in (REPLICATING, None):
        spec = NewUser("alice", MySQLSettings("mysql_native_password"), settings)
        outcome = await provision_one(pg, spec, if_exists)
        assert isinstance(outcome.error, errors.UnsupportedOperationError)
        assert outcome.tries == 0
    assert not truth.reset
    assert (await pg.users.get("alice")).settings == UserSettings(pg_allow_replication=False)
