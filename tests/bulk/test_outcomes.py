"""What the outcomes of runs say: each name has one, and it is true, also on MongoDB and after unreadable resets."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError

from aiodbclient import (
    Cluster,
    DatabaseClient,
    MySQLAuthPlugin,
    MySQLSettings,
    NewUser,
    RetryPolicy,
    UserSettings,
    bulk,
    errors,
)
from aiodbclient.bulk import Action
from aiodbclient.rate_limiter import RateLimiter, Window
from aiodbclient.sandbox import Sandbox

from ..conftest import MakeCluster, quick_options
from ..server import CLUSTER, Server, fails, returns_the_user
from ..waiting import until
from .truth import Truth, requests


def by_name(outcomes: Iterable[Any]) -> dict[str, Any]:
    found = {outcome.name: outcome for outcome in outcomes}
    assert all((outcome.error is None) == (outcome.action is not Action.FAILED) for outcome in found.values())
    return found


def actions(outcomes: Iterable[Any]) -> dict[str, Action]:
    return {name: outcome.action for name, outcome in by_name(outcomes).items()}


async def test_outcomes_stream_in_order_of_completion(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.faults.add("users.create", name="slow", delay=0.5)

    names = [outcome.name async for outcome in pg.users.provision(["slow", "b", "c"])]

    assert set(names[:2]) == {"b", "c"}
    assert names[2] == "slow"


async def test_awaited_outcomes_in_order_of_names(sandbox: Sandbox, pg: Cluster) -> None:
    """Also for duplicates, and names that fail. Somebody zips them."""
    sandbox.faults.add("users.create", name="slow", delay=0.3)
    names = ["slow", "b", "b", "", "c"]

    outcomes = await pg.users.provision(names)

    for name, outcome in zip(names, outcomes, strict=True):
        assert outcome.name == name
    assert [outcome.error is None for outcome in outcomes] == [True, True, False, False, True]
    assert outcomes.failed == [outcomes[2], outcomes[3]]
    assert "duplicate" in str(outcomes[2].error)
    assert requests(sandbox, "users.create") == 3
    frozen: list[Any] = [*outcomes[1:3], *await pg.dbs.provision(["d"]), *await pg.users.deprovision(["c"])]
    for each in frozen:
        with pytest.raises(FrozenInstanceError):
            each.error = None


async def test_stopped_outcomes_are_of_first_names(
    sandbox: Sandbox, pg: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A name that ``stop`` cancelled fails if a later name has an outcome. It was not changed."""
    sandbox.faults.add("users.create", status=429, headers={"retry-after": "3600"})
    caplog.set_level(logging.DEBUG, "aiodbclient")

    async def names() -> AsyncIterator[str]:
        yield "waits"
        yield "doadmin"
        await until(lambda: [record for record in caplog.records if getattr(record, "status", None) == 429])
        asyncio.get_running_loop().call_later(0.1, run.stop)
        yield "waits too"

    run = pg.users.provision(names(), concurrency=2)
    outcomes = await run

    assert [(outcome.name, outcome.action) for outcome in outcomes] == [
        ("waits", Action.FAILED),
        ("doadmin", Action.KEPT),
    ]
    assert isinstance(outcomes[0].error, errors.DatabaseClientError)
    assert not outcomes[0].error.may_have_applied


async def test_raise_for_errors(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.faults.add("users.create", status=422, name="b")

    outcomes = await pg.users.provision(["a", "b"])

    with pytest.raises(bulk.BulkError, match="1 of 2 names failed: 'b'") as failed:
        outcomes.raise_for_errors()
    assert failed.value.outcomes is outcomes
    assert [type(error) for error in failed.value.exceptions] == [errors.UnprocessableEntityError]
    assert outcomes[0].user is not None
    assert str(outcomes[0].user.password) not in repr(failed.value)
    bulk.Outcomes(outcomes[:1]).raise_for_errors()


async def test_run_never_awaited_warns(pg: Cluster) -> None:
    """As a coroutine does. Not one that was closed, stopped or used, or that could not be made."""
    with pytest.warns(RuntimeWarning, match="never awaited"):
        pg.users.deprovision(["a"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pg.users.deprovision(["a"]).stop()
        await pg.users.deprovision(["a"]).aclose()
        await pg.users.deprovision(["a"])
        with pytest.raises(errors.InvalidArgumentError):
            pg.users.deprovision("a")
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_eager_tasks_finish_writes_after_stop(sandbox: Sandbox, pg: Cluster) -> None:
    """``stop`` lets a write in flight finish, also if tasks start eagerly (Python 3.12)."""
    if sys.version_info < (3, 12):
        pytest.skip("Python 3.12 brought eager tasks")
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    sandbox.faults.add("users.create", delay=0.3, after=True)
    run = pg.users.provision([f"t{n}" for n in range(16)])

    async def stop() -> None:
        await until(lambda: len([each for each in sandbox.requests if each.operation == "users.create"]) == 16)
        run.stop()

    outcomes, _ = await asyncio.gather(run, stop())

    assert len(outcomes) == 16


async def test_invalid_specs_fail_their_names(sandbox: Sandbox, pg: Cluster) -> None:
    """Nothing is sent for them, whether the user exists or not."""
    await pg.users.create("there")
    sent = requests(sandbox, "users.create")
    wrong: Any = {"pg_allow_replication": True}
    specs: list[Any] = [
        *("", "..", "a\0b", "\ud800", 5, None, NewUser(5)),  # type: ignore[arg-type]
        NewUser("other engine", settings=UserSettings(acl=[])),
        NewUser("there", settings=wrong),
        NewUser("new", settings=wrong),
    ]

    outcomes = await pg.users.provision([*specs, "fine"])

    assert [outcome.name for outcome in outcomes if outcome.error is None] == ["fine"]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert len(failed) == len(specs)
    for outcome in failed:
        assert isinstance(outcome.error, errors.InvalidArgumentError | errors.UnsupportedOperationError)
        assert outcome.requests == 0
    assert requests(sandbox, "users.create") == sent + 1

    [database] = await pg.dbs.provision([NewUser("a")])  # type: ignore[list-item]
    assert isinstance(database.error, errors.InvalidArgumentError)
    assert "a name is a string" in str(database.error)
    assert requests(sandbox, "dbs.create") == 0


async def test_second_run_only_lists(sandbox: Sandbox, pg: Cluster) -> None:
    """The first one reads no name before its create."""
    names = [f"t{n}" for n in range(40)]
    first = by_name(await pg.users.provision(names))
    assert requests(sandbox, "users.get") == 0
    sent = len(sandbox.requests)

    second = by_name(await pg.users.provision(names))

    assert all(outcome.action is Action.KEPT and outcome.requests == 0 for outcome in second.values())
    assert {name: each.user for name, each in second.items()} == {name: each.user for name, each in first.items()}
    assert [request.operation for request in sandbox.requests[sent:]] == ["users.list"]


@pytest.mark.usefixtures("quick_polls")
async def test_taken_name_that_is_not_visible(sandbox: Sandbox, pg: Cluster) -> None:
    """It is read for a while, then reported as taken."""
    sandbox.faults.add("users.get", status=404)

    async def specs() -> AsyncIterator[str]:
        await pg.users.create("rival")  # the run has read its list by now
        yield "rival"

    [outcome] = await pg.users.provision(specs())

    assert isinstance(outcome.error, errors.NameTakenError)
    assert not outcome.error.may_have_applied
    assert requests(sandbox, "users.get") >= 2


async def test_settings_of_new_users_are_sent(sandbox: Sandbox, pg: Cluster, mongodb: Cluster) -> None:
    replicating = NewUser("r", settings=UserSettings(pg_allow_replication=True))
    outcomes = by_name(await pg.users.provision([replicating, "plain"]))

    assert outcomes["r"].user.settings == UserSettings(pg_allow_replication=True)
    assert {request.name: request.json for request in sandbox.requests if request.operation == "users.create"} == {
        "r": {"name": "r", "settings": {"pg_allow_replication": True}},
        "plain": {"name": "plain"},
    }
    await mongodb.users.provision([NewUser("m", readonly=True)])
    assert sandbox.requests[-1].json == {"name": "m", "readonly": True}


async def test_outcome_counts_requests(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.faults.add("users.create", name="twice", nth=1, status=429)
    sandbox.faults.add("users.create", name="lost", nth=1, cut=True, after=True)

    outcomes = await pg.users.provision(["once", "twice", "lost"])

    assert {outcome.name: outcome.requests for outcome in outcomes} == {"once": 1, "twice": 2, "lost": 2}


async def test_rotate_and_deprovision_users(sandbox: Sandbox, pg: Cluster) -> None:
    await pg.users.provision(["a", "b"])
    truth = Truth(sandbox, pg.id)

    rotated = by_name(await pg.users.rotate(["a", "nobody"]))

    assert rotated["a"].action is Action.RESET
    assert rotated["a"].user.password == truth.passwords["a"]
    assert isinstance(rotated["nobody"].error, errors.NotFoundError)
    assert truth.reset == {"a": 1}

    removed = await pg.users.deprovision(["a", "nobody"])

    assert actions(removed) == {"a": Action.DELETED, "nobody": Action.ABSENT}
    assert requests(sandbox, "users.list") == 1  # of provision: a cluster that was read exists
    assert {user.name for user in await pg.users.list()} == {"doadmin", "b"}


async def test_runs_take_listed_users_and_dbs(sandbox: Sandbox, pg: Cluster, mysql: Cluster) -> None:
    """A Database counts as its name. A User does too, but its settings would be lost in ``provision``."""
    made = await mysql.users.create("a", mysql_settings=MySQLSettings(MySQLAuthPlugin.MYSQL_NATIVE_PASSWORD))
    dbs = await pg.dbs.list()

    [refused] = await pg.users.provision([made])  # type: ignore[list-item]
    [rotated] = await mysql.users.rotate([made])

    assert isinstance(refused.error, errors.InvalidArgumentError)
    assert rotated.action is Action.RESET
    assert sandbox.requests[-1].json == {}  # its plugin stays
    assert actions(await mysql.users.deprovision([made])) == {"a": Action.DELETED}
    assert actions(await pg.dbs.provision(dbs)) == {"defaultdb": Action.KEPT}
    [wrong] = await pg.users.deprovision(dbs)  # type: ignore[arg-type]
    assert isinstance(wrong.error, errors.InvalidArgumentError)
    assert actions(await pg.dbs.deprovision(dbs)) == {"defaultdb": Action.DELETED}


async def test_provision_and_deprovision_dbs(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.faults.add("dbs.create", name="lost", nth=1, status=500, after=True)
    sandbox.faults.add("dbs.create", name="not-done", nth=1, cut=True)

    made = by_name(await pg.dbs.provision(["lost", "not-done", "defaultdb"]))

    assert actions(made.values()) == {"lost": Action.CREATED, "not-done": Action.CREATED, "defaultdb": Action.KEPT}
    assert all(outcome.db.name == name for name, outcome in made.items())
    assert {db.name for db in await pg.dbs.list()} == set(made)

    sandbox.faults.add("dbs.delete", name="lost", nth=1, cut=True, after=True)
    gone = await pg.dbs.deprovision(["lost", "nowhere"])

    assert actions(gone) == {"lost": Action.DELETED, "nowhere": Action.ABSENT}


@pytest.mark.parametrize("of", ["users", "dbs"])
async def test_deletions_on_missing_cluster_end(of: str, sandbox: Sandbox, client: DatabaseClient) -> None:
    """No name is ABSENT because its cluster is: the run ends before the first name."""
    cluster = client.cluster(CLUSTER, engine="pg")

    with pytest.raises(errors.NotFoundError, match="no cluster has this id"):
        await getattr(cluster, of).deprovision(["a", "b"])

    assert [request.operation for request in sandbox.requests] == [f"{of}.list"]


@pytest.mark.parametrize("engine", ["pg", None])
async def test_without_right_to_read_no_name_is_absent(sandbox: Sandbox, engine: str | None) -> None:
    """A token that may only delete deletes, but cannot tell a missing name from a missing cluster."""
    id = await sandbox.add_cluster("pg", backend="memory")
    token = sandbox.add_token(["database:delete"])
    async with DatabaseClient(token, base_url=sandbox.url, **quick_options()) as client:
        removed = by_name(await client.cluster(id, engine).dbs.deprovision(["defaultdb", "nowhere"]))
        [nothing] = await client.cluster(CLUSTER, engine).users.deprovision(["alice"])

    assert removed["defaultdb"].action is Action.DELETED
    for outcome in (removed["nowhere"], nothing):
        assert isinstance(outcome.error, errors.NotFoundError)
        assert str(outcome.error).endswith("; it is unknown whether the cluster exists: the token may not read it")


@pytest.mark.parametrize("engine", ["redis", "valkey"])
async def test_engine_without_users_gets_nothing(sandbox: Sandbox, client: DatabaseClient, engine: str) -> None:
    cluster = client.cluster(await sandbox.add_cluster(engine))

    for run in (
        cluster.users.provision(["a", "b"]),
        cluster.users.rotate(["a", "b"]),
        cluster.users.deprovision(["a", "b"]),
        cluster.dbs.provision(["a", "b"]),
        cluster.dbs.deprovision(["a", "b"]),
    ):
        outcomes: list[Any] = [outcome async for outcome in run]
        assert len(outcomes) == 2
        assert all(isinstance(outcome.error, errors.UnsupportedOperationError) for outcome in outcomes)
    assert [request.operation for request in sandbox.requests] == ["clusters.get"]


async def test_cancelled_token_provider_fails_its_name(sandbox: Sandbox, pg: Cluster) -> None:
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise asyncio.CancelledError
        return sandbox.token

    async with DatabaseClient(token, base_url=sandbox.url) as client:
        sandbox.faults.add("users.create", name="a", status=401)
        outcomes = by_name(await client.cluster(pg.id).users.provision(["a", "b"]))

    assert outcomes["b"].error is None
    assert isinstance(outcomes["a"].error, errors.DatabaseClientError)
    assert outcomes["a"].error.may_have_applied


async def test_run_beside_single_calls(sandbox: Sandbox, client: DatabaseClient, mongodb: Cluster) -> None:
    """Writes on MongoDB take turns, also those of two objects for one cluster."""
    truth, same = Truth(sandbox, mongodb.id), client.cluster(mongodb.id, engine="mongodb")
    reported: dict[str, str | None] = {}

    async def provision() -> None:
        async for outcome in mongodb.users.provision((f"t{n}" for n in range(100)), concurrency=8):
            assert outcome.action is Action.CREATED, outcome.error
            assert outcome.user is not None
            reported[outcome.name] = outcome.user.password

    async def single() -> None:
        for n in range(10):
            user = await same.users.create(f"single-{n}")
            reported[user.name] = (await same.users.reset_auth(user.name)).password

    await asyncio.gather(provision(), single())

    assert len(reported) == 110
    assert reported == {name: password for name, password in truth.passwords.items() if name != "doadmin"}
    assert not any(status == 500 for _, status in sandbox.counts)


async def test_429s_do_not_fail_a_name(server: Server, make_cluster: MakeCluster) -> None:
    """Nor do ``max_tries`` and ``max_wait``: the hour can be used up for longer than the limiter's shortest window."""
    limiter, retry = RateLimiter([Window(100, 0.05)]), RetryPolicy(max_tries=2)
    server.will(*(fails(429, retry_after="0.05") for _ in range(8)))
    server.otherwise = returns_the_user()

    [outcome] = await make_cluster(rate_limiter=limiter, retry=retry, max_wait=0.0).users.rotate(["a"])

    assert outcome.action is Action.RESET
    assert len(server.requests) == 9
