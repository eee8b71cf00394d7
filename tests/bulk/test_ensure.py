"""``users.ensure`` and ``dbs.ensure``: a create that happens once, whatever becomes of its answer."""

from __future__ import annotations

from typing import Any

import pytest

from aiodbclient import Cluster, DatabaseClient, NewUser, RetryPolicy, UserSettings, errors
from aiodbclient.sandbox import Sandbox

from .truth import FAULTS, Truth, requests


@pytest.fixture
async def quick(sandbox: Sandbox, client: DatabaseClient) -> Cluster:
    cluster = client.cluster(await sandbox.add_cluster("pg", backend="memory"))
    return cluster.with_options(retry=RetryPolicy(base_delay=0.01))


async def test_ensure_creates_once(sandbox: Sandbox, quick: Cluster) -> None:
    first = await quick.users.ensure("alice")
    second = await quick.users.ensure("alice")

    assert first == second
    assert first.password == Truth(sandbox, quick.id).passwords["alice"]
    assert (requests(sandbox, "users.create"), requests(sandbox, "users.list")) == (1, 0)
    assert (await quick.dbs.ensure("app"), await quick.dbs.ensure("app")) == (await quick.dbs.get("app"),) * 2


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("operation", ["users.create", "users.get"])
async def test_ensure_settles_each_fault(
    sandbox: Sandbox, quick: Cluster, operation: str, fault: dict[str, Any]
) -> None:
    """A single create raises here, with ``may_have_applied``."""
    truth = Truth(sandbox, quick.id)
    sandbox.faults.add(operation, nth=1, **fault)

    user = await quick.users.ensure("alice")

    assert user.password == truth.passwords["alice"]
    assert truth.created == {"alice": 1}
    assert not truth.reset


async def test_ensure_resets_lost_password_of_its_own(
    sandbox: Sandbox, client: DatabaseClient, mongodb: Cluster
) -> None:
    """MongoDB returns a password once. A user that was there keeps its own."""
    await mongodb.users.create("theirs")
    truth = Truth(sandbox, mongodb.id)
    sandbox.faults.add("users.create", name="ours", nth=1, cut=True, after=True)
    quick = client.cluster(mongodb.id).with_options(retry=RetryPolicy(base_delay=0.01))

    assert (await quick.users.ensure("ours")).password == truth.passwords["ours"]
    assert (await quick.users.ensure("theirs")).password is None
    assert truth.reset == {"ours": 1}


async def test_ensure_if_exists(sandbox: Sandbox, quick: Cluster) -> None:
    await quick.users.create("old")
    truth = Truth(sandbox, quick.id)

    with pytest.raises(errors.NameTakenError):
        await quick.users.ensure("old", if_exists="error")
    assert (await quick.users.ensure("old", if_exists="reset")).password == truth.passwords["old"]
    settings = UserSettings(pg_allow_replication=True)
    assert (await quick.users.ensure(NewUser("old", settings=settings), if_exists="update")).settings == settings
    assert truth.reset == {"old": 1}
    sent = len(sandbox.requests)
    for name in (5, "", "a\n", ["a"]):
        with pytest.raises(errors.InvalidArgumentError):
            await quick.users.ensure(name)  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidArgumentError):
            await quick.dbs.ensure(name)  # type: ignore[arg-type]
    assert len(sandbox.requests) == sent


async def test_ensure_is_bound_by_max_wait(sandbox: Sandbox, quick: Cluster) -> None:
    """It is a single call: a run would wait."""
    await quick.info()
    sandbox.faults.add(status=429, headers={"retry-after": "30"})

    with pytest.raises(errors.MaxWaitError):
        await quick.with_options(max_wait=0.0).users.ensure("alice")
