"""A new operation, setting or engine is in every place that needs it."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import fields

from aiodbclient import DatabaseClient, Engine, UserSettings, errors
from aiodbclient._http import operations
from aiodbclient._http.operations import Operation
from aiodbclient.engines import CAPABILITIES
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox import _protocol as routes

from . import test_guard, test_operations

OPERATIONS = {each.name: each for each in vars(operations).values() if isinstance(each, Operation)}
OF_USERS_AND_DBS = {name for name, operation in OPERATIONS.items() if operation.on != "clusters"}
SETTINGS = [attribute.name for attribute in fields(UserSettings)]


def test_the_sandbox_has_a_route_for_each_operation() -> None:
    assert set(OPERATIONS) == routes.OPERATIONS
    cluster = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
    for name, operation in OPERATIONS.items():
        assert routes.match(operation.method, operation.path(cluster, "a/b")).operation == name


def test_each_operation_is_tested() -> None:
    assert {name.partition(" ")[0] for name in test_operations.CASES} == OF_USERS_AND_DBS
    assert set(test_guard.OPERATIONS) == OF_USERS_AND_DBS


@pytest.mark.parametrize("setting", SETTINGS)
async def test_each_setting_is_checked_and_sent(setting: str, sandbox: Sandbox, client: DatabaseClient) -> None:
    arguments, owners = test_guard.SETTINGS[setting]
    for engine in owners:
        cluster = client.cluster(await sandbox.add_cluster(engine, backend="memory"), engine=engine)

        user = await cluster.users.create("alice", **arguments)

        assert without_ids(user.settings, setting) == without_ids(arguments["settings"], setting)
        wrong: Any = object()
        with pytest.raises(errors.InvalidArgumentError, match=rf"settings\.{setting}"):
            await cluster.users.update("alice", UserSettings(**{setting: wrong}))


def without_ids(settings: UserSettings | None, setting: str) -> object:
    """A setting without the ids that the server assigns."""
    value = getattr(settings, setting)
    return [(rule.topic, rule.permission) for rule in value] if setting == "acl" else value


def test_each_setting_belongs_to_an_engine() -> None:
    named = {setting for capabilities in CAPABILITIES.values() for setting in capabilities.user_settings}

    assert named == {*(f"settings.{setting}" for setting in SETTINGS), "mysql_settings", "readonly"}


@pytest.mark.parametrize("engine", Engine)
async def test_the_sandbox_knows_each_engine(engine: Engine, sandbox: Sandbox, client: DatabaseClient) -> None:
    cluster = await client.clusters.get(await sandbox.add_cluster(engine, backend="memory"))

    assert engine in CAPABILITIES
    assert cluster.engine is engine
    assert cluster.version not in (None, "1")
    if CAPABILITIES[engine].users:
        user = await client.cluster(cluster.id).users.create("alice")
        assert cluster.connection.uri_for(user, database="alpha")
