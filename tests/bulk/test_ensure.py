"""Users that exist, or appear: ``ensure``, ``if_exists="update"``, and reads that are late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aiodbclient import (
    Cluster,
    DatabaseClient,
    MySQLSettings,
    NewUser,
    RetryPolicy,
    UserSettings,
    errors,
)
from aiodbclient._http.context import note_deletion
from aiodbclient.bulk import Action
from aiodbclient.sandbox import Sandbox

from ..changes import delay_passwords, html, list_deleted_users
from ..conftest import quick_options
from .test_outcomes import by_name
from .truth import FAULTS, WITHOUT_CREDENTIALS, Truth, requests


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


async def test_ensure_refuses_invalid_names(sandbox: Sandbox, quick: Cluster) -> None:
    await quick.info()
    for name in (5, "", "a\n", ["a"]):
        for ensure in (quick.users.ensure, quick.dbs.ensure):
            with pytest.raises(errors.InvalidArgumentError):
                await ensure(name)  # type: ignore[arg-type]
    assert [request.operation for request in sandbox.requests] == ["clusters.get"]


async def test_ensure_is_bound_by_max_wait(sandbox: Sandbox, quick: Cluster) -> None:
    """It is a single call: a run would wait."""
    await quick.info()
    sandbox.faults.add(status=429, headers={"retry-after": "30"})

    with pytest.raises(errors.MaxWaitError):
        await quick.with_options(max_wait=0.0).users.ensure("alice")


REPLICATING, NOT_REPLICATING = UserSettings(pg_allow_replication=True), UserSettings(pg_allow_replication=False)


async def provision_one(cluster: Cluster, spec: NewUser | str, if_exists: Any = "update") -> Any:
    [outcome] = [each async for each in cluster.users.provision([spec], if_exists=if_exists)]
    return outcome


async def test_update_lost_response(sandbox: Sandbox, pg: Cluster) -> None:
    """A PUT is sent again until its answer can be read."""
    await pg.users.create("alice")
    sandbox.faults.add("users.update", cut=True, after=True, nth=1)
    sandbox.faults.add("users.update", change=html, nth=2)

    outcome = await provision_one(pg, NewUser("alice", settings=REPLICATING))

    assert (outcome.action, outcome.requests) == (Action.UPDATED, 3)
    assert (await pg.users.get("alice")).settings == REPLICATING


async def test_update_mysql_plugin_resets_password(sandbox: Sandbox, client: DatabaseClient) -> None:
    """The API changes the plugin only together with the password."""
    cluster = client.cluster(await sandbox.add_cluster("mysql", backend="memory"))
    old = await cluster.users.create("alice")

    outcome = await provision_one(cluster, NewUser("alice", mysql_settings=MySQLSettings("mysql_native_password")))

    assert outcome.action is Action.RESET
    assert outcome.user == await cluster.users.get("alice")
    assert outcome.user.password != old.password


EXISTING: dict[str, tuple[str, NewUser | str, Any, Action]] = {
    "kept": ("pg", NewUser("old", settings=REPLICATING), "keep", Action.KEPT),
    "reset": ("pg", NewUser("old", settings=REPLICATING), "reset", Action.RESET),
    "refused": ("pg", "old", "error", Action.FAILED),
    "updated": ("pg", NewUser("old", settings=REPLICATING), "update", Action.UPDATED),
    "updated to the same": ("pg", NewUser("old", settings=NOT_REPLICATING), "update", Action.UPDATED),
    "updated without settings": ("pg", "old", "update", Action.KEPT),
    # A PUT without databases would remove them.
    "updated to read-only": ("mongodb", NewUser("old", readonly=True), "update", Action.KEPT),
}


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize(("engine", "spec", "if_exists", "action"), EXISTING.values(), ids=EXISTING.keys())
async def test_if_exists(
    sandbox: Sandbox,
    client: DatabaseClient,
    engine: str,
    spec: NewUser | str,
    if_exists: Any,
    action: Action,
    is_listed: bool,
) -> None:
    """The user existed before the run, or somebody created it after the run read its list. ``ensure`` does the same."""
    cluster = client.cluster(await sandbox.add_cluster(engine, backend="memory"))
    truth = Truth(sandbox, cluster.id)

    async def specs() -> AsyncIterator[NewUser | str]:
        if not is_listed:
            await cluster.users.create("old")
        yield spec
        yield "new"

    if is_listed:
        await cluster.users.create("old")
    after = NOT_REPLICATING if engine == "pg" else None
    if action is Action.UPDATED and isinstance(spec, NewUser):
        after = spec.settings
    outcomes = by_name(await cluster.users.provision(specs(), if_exists=if_exists))

    assert {name: outcome.action for name, outcome in outcomes.items()} == {"old": action, "new": Action.CREATED}
    assert (await cluster.users.get("old")).settings == after
    assert requests(sandbox, "users.update") == (action is Action.UPDATED)
    assert truth.reset == ({"old": 1} if action is Action.RESET else {})
    if action is Action.FAILED:
        assert isinstance(outcomes["old"].error, errors.NameTakenError)
        with pytest.raises(errors.NameTakenError):
            await cluster.users.ensure(spec, if_exists=if_exists)
        return
    ensured = await cluster.users.ensure(spec, if_exists=if_exists)
    for user in (outcomes["old"].user, ensured):
        assert user.settings == after
    if engine == "pg" and action is not Action.RESET:
        assert outcomes["old"].user.password == truth.passwords["old"]
    assert ensured.password == (truth.passwords["old"] if engine == "pg" else None)
    assert truth.reset == ({"old": 2} if action is Action.RESET else {})


@pytest.mark.parametrize("if_exists", ["keep", "update"])
async def test_settings_of_other_engine_refused(sandbox: Sandbox, pg: Cluster, if_exists: str) -> None:
    """The guard refuses them before the first request, also for a user that exists."""
    await pg.users.create("alice")
    truth = Truth(sandbox, pg.id)

    for settings in (REPLICATING, None):
        spec = NewUser("alice", MySQLSettings("mysql_native_password"), settings)
        outcome = await provision_one(pg, spec, if_exists)
        assert isinstance(outcome.error, errors.UnsupportedOperationError)
        assert outcome.requests == 0
    assert not truth.reset
    assert (await pg.users.get("alice")).settings == NOT_REPLICATING


async def test_deleted_user_still_listed_is_created(sandbox: Sandbox, pg: Cluster) -> None:
    list_deleted_users(sandbox, 30.0)
    await pg.users.provision(["a", "b"])
    await pg.users.deprovision(["a", "b"])
    truth = Truth(sandbox, pg.id)
    assert {"a", "b"} <= {user.name for user in await pg.users.list()}

    again = by_name(await pg.users.provision(["a", "b"]))

    assert {name: outcome.action for name, outcome in again.items()} == dict.fromkeys("ab", Action.CREATED)
    assert {name: outcome.user.password for name, outcome in again.items()} == {
        name: truth.passwords[name] for name in "ab"
    }


async def test_user_that_is_there_after_deletion_is_kept(sandbox: Sandbox, pg: Cluster) -> None:
    """Whether this client created it again or another one did, or its deletion was refused."""
    names = ["ours", "theirs", "refused"]
    await pg.users.provision(names)
    sandbox.faults.add("users.delete", name="refused", status=403)
    assert sum(outcome.error is None for outcome in await pg.users.deprovision(names)) == 2
    await pg.users.create("ours")
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as other:
        theirs = await other.cluster(pg.id).users.create("theirs")

    again = by_name(await pg.users.provision(names))

    assert {each.action for each in again.values()} == {Action.KEPT}
    sent = {name: outcome.requests for name, outcome in again.items()}
    assert sent == {"ours": 0, "theirs": 1, "refused": 1}  # the list may be wrong for a minute after a deletion
    assert again["theirs"].user == theirs


@pytest.mark.usefixtures("quick_polls")
async def test_late_password_is_read_again(sandbox: Sandbox, pg: Cluster) -> None:
    await pg.users.create("old")
    truth = Truth(sandbox, pg.id)
    delay_passwords(sandbox, ["users.create", "users.reset_auth"], 0.1)

    made = by_name(await pg.users.provision(["new"]))
    rotated = by_name(await pg.users.rotate(["old"]))

    assert made["new"].action is Action.CREATED
    assert made["new"].user.password == truth.passwords["new"]
    assert rotated["old"].action is Action.RESET
    assert rotated["old"].user.password == truth.passwords["old"]
    assert truth.reset == {"old": 1}


@pytest.mark.usefixtures("quick_polls")
async def test_missing_password_is_reset_or_reported(sandbox: Sandbox, pg: Cluster) -> None:
    truth = Truth(sandbox, pg.id)
    delay_passwords(sandbox, ["users.create"], 60.0)

    made = by_name(await pg.users.provision(["new"]))

    assert made["new"].action is Action.CREATED
    assert made["new"].user.password == truth.passwords["new"]
    assert truth.reset == {"new": 1}

    delay_passwords(sandbox, ["users.reset_auth"], 60.0)
    rotated = by_name(await pg.users.rotate(["new"]))
    assert isinstance(rotated["new"].error, errors.InvalidResponseError)
    assert rotated["new"].error.may_have_applied


@pytest.mark.parametrize("engine", ["mongodb", "pg without the credentials scope"])
async def test_rival_after_list_is_not_reset(sandbox: Sandbox, client: DatabaseClient, engine: str) -> None:
    cluster_id = await sandbox.add_cluster(engine.split()[0], backend="memory")
    token = sandbox.add_token(WITHOUT_CREDENTIALS) if engine.endswith("scope") else sandbox.token
    truth = Truth(sandbox, cluster_id)

    async def specs() -> AsyncIterator[str]:
        yield "first"
        await client.cluster(cluster_id).users.create("rival")
        sandbox.faults.add("users.create", name="rival", status=503, nth=1)
        yield "rival"

    async with DatabaseClient(token, base_url=sandbox.url, **quick_options()) as narrow:
        outcomes = by_name(await narrow.cluster(cluster_id).users.provision(specs()))

    assert outcomes["first"].action is Action.CREATED
    assert outcomes["rival"].action is Action.KEPT
    assert not truth.reset


@pytest.mark.usefixtures("quick_polls")
@pytest.mark.parametrize("lost", [False, True])
async def test_user_created_again_is_not_reset(sandbox: Sandbox, mongodb: Cluster, lost: bool) -> None:
    """Not even if the API cannot read it yet. Found by test_random_faults."""
    await mongodb.users.create("a")
    await mongodb.users.delete("a")
    if lost:
        sandbox.faults.add("users.create", cut=True, after=True, nth=1)
    await mongodb.users.ensure("a")
    sandbox.faults.clear()
    truth = Truth(sandbox, mongodb.id)
    sandbox.faults.add("users.get", status=404, nth=1)
    sandbox.faults.add("users.create", cut=True, nth=1)

    kept = by_name(await mongodb.users.provision(["a"]))

    assert kept["a"].action is Action.KEPT
    assert not truth.reset


async def test_rival_after_deletion_is_not_reset(sandbox: Sandbox, mongodb: Cluster) -> None:
    """Found by test_random_faults."""
    await mongodb.users.deprovision(["a"])
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as other:
        await other.cluster(mongodb.id).users.create("a")
    truth = Truth(sandbox, mongodb.id)
    sandbox.faults.add("users.create", cut=True, nth=1)

    [kept] = await mongodb.users.provision(["a"])

    assert kept.action is Action.KEPT
    assert not truth.reset


@pytest.mark.usefixtures("quick_polls")
async def test_no_reset_without_list(sandbox: Sandbox, mongodb: Cluster) -> None:
    """Found by test_random_faults."""
    await mongodb.users.create("a")
    truth = Truth(sandbox, mongodb.id)
    sandbox.faults.add("users.list", status=403, nth=1)
    sandbox.faults.add("users.create", cut=True, nth=1)

    [failed] = await mongodb.users.provision(["a"])

    assert isinstance(failed.error, errors.InvalidResponseError)
    assert failed.error.may_have_applied
    assert not truth.reset


def test_deletions_of_last_minute() -> None:
    """Older ones are forgotten, so that they do not fill the memory."""
    deleted: dict[tuple[str, str], float] = {}
    for n in range(10_000):
        note_deletion(deleted, ("cluster", f"t{n}"), float(n))
        note_deletion(deleted, ("cluster", f"again{n % 2}"), float(n))

    assert {("cluster", f"t{n}") for n in range(9940, 10_000)} <= deleted.keys()
    assert len(deleted) <= 64
    assert sorted(deleted.values()) == list(deleted.values())  # the oldest is the first to be forgotten
