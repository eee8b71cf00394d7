"""A cluster refuses changes while it is resized or made: a run waits until it is online, and asks one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest

from aiodbclient import Cluster, DatabaseClient, errors
from aiodbclient._http import maintenance
from aiodbclient.bulk import Action, Outcome
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._clusters import Status

from ..waiting import HANG, until
from .test_stopping import stopped_when


@pytest.fixture(autouse=True)
def quick_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_MIN_INTERVAL", 0.05)


def refused(sandbox: Sandbox) -> int:
    return sum(count for (_, status), count in sandbox.counts.items() if status == 412)


async def outcomes_after(sandbox: Sandbox, cluster: Cluster, status: Status, run: Any, reads: int = 1) -> Any:
    """Await ``run`` while the cluster has ``status``, and set it online when the run has read it so often."""
    sandbox.set_status(cluster.id, status)
    seen, before = sandbox.counts["clusters.get", 200], refused(sandbox)
    running = asyncio.ensure_future(run)
    await until(lambda: refused(sandbox) > before and sandbox.counts["clusters.get", 200] - seen >= reads)
    assert not running.done()
    sandbox.set_status(cluster.id, "online")
    return await running


async def test_run_waits_until_online(sandbox: Sandbox, pg: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    outcomes = await outcomes_after(sandbox, pg, "resizing", pg.users.provision(f"t{n}" for n in range(300)), reads=4)

    assert {outcome.action for outcome in outcomes} == {Action.CREATED}
    assert len({outcome.name for outcome in outcomes}) == 300
    assert refused(sandbox) <= 16
    assert 4 <= sandbox.counts["clusters.get", 200] <= 12  # at growing intervals
    assert f"the cluster {pg.id} refuses changes (412): a run waits for it" in caplog.messages


async def test_online_cluster_that_refuses_is_asked_once(sandbox: Sandbox, pg: Cluster) -> None:
    """As during the first backup of a new cluster. Of the 16 names in progress one asks again, and the others wait."""
    sandbox.faults.add("dbs.create", status=412, times=20)

    outcomes = await pg.dbs.provision(f"t{n}" for n in range(200))

    assert {outcome.action for outcome in outcomes} == {Action.CREATED}
    assert refused(sandbox) == 20
    assert sandbox.counts["clusters.get", 200] <= 1 + 5 + 1  # the engine; one read before each of 5 tries


async def test_every_write_waits(sandbox: Sandbox, pg: Cluster) -> None:
    names = [f"t{n}" for n in range(20)]
    for make, action in (
        (pg.users.provision, Action.CREATED),
        (pg.users.rotate, Action.RESET),
        (pg.users.deprovision, Action.DELETED),
        (pg.dbs.provision, Action.CREATED),
        (pg.dbs.deprovision, Action.DELETED),
    ):
        before = refused(sandbox)
        outcomes = await outcomes_after(sandbox, pg, "migrating", make(names))
        assert {outcome.action for outcome in outcomes} == {action}
        assert 1 <= refused(sandbox) - before <= 16


async def test_mongodb_waits_with_one_write(sandbox: Sandbox, mongodb: Cluster) -> None:
    outcomes = await outcomes_after(sandbox, mongodb, "creating", mongodb.users.provision(["a", "b", "c"]))

    assert [outcome.action for outcome in outcomes] == [Action.CREATED] * 3
    assert refused(sandbox) == 1


async def test_names_fail_after_patience(sandbox: Sandbox, pg: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them gets an error of its own, and nothing more is sent."""
    monkeypatch.setattr(maintenance, "_MAX_WAIT", 0.2)
    sandbox.set_status(pg.id, "forking")

    outcomes = await pg.users.provision(f"t{n}" for n in range(300))

    assert len(outcomes) == 300
    for outcome in outcomes:
        assert isinstance(outcome.error, errors.ClusterNotOnlineError)
        assert outcome.error.status == "forking"
        assert not outcome.error.may_have_applied
        assert "run it again when the cluster is online" in str(outcome.error)
    assert len({id(outcome.error) for outcome in outcomes}) == 300
    assert refused(sandbox) <= 16
    sandbox.set_status(pg.id, "online")
    assert [outcome.action for outcome in await pg.users.provision(["t1"])] == [Action.CREATED]


async def test_stop_does_not_wait_for_cluster(sandbox: Sandbox, pg: Cluster) -> None:
    """Names that wait are cancelled. They fail if a later name has an outcome: its refusal arrived after the stop."""
    sandbox.set_status(pg.id, "resizing")
    run = pg.users.provision(f"t{n}" for n in range(300))

    for outcome in await stopped_when(run, lambda: refused(sandbox) == 16):
        assert isinstance(outcome.error, errors.DatabaseClientError)
        assert isinstance(outcome.error, errors.PreconditionFailedError) or "was stopped" in str(outcome.error)
        assert not outcome.error.may_have_applied


async def test_aclose_does_not_wait_for_cluster(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.set_status(pg.id, "resizing")
    run = pg.users.provision(["a", "b"])
    running = asyncio.ensure_future(run)
    await until(lambda: refused(sandbox))
    await run.aclose()

    assert await running == []
    assert [user.name for user in await pg.users.list()] == ["doadmin"]


async def test_failed_read_hides_no_lost_reset(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.faults.add("users.reset_auth", status=500, times=1)  # it may have revoked the password
    sandbox.faults.add("users.reset_auth", status=412, nth=2, times=1)
    sandbox.faults.add("clusters.get", cut=True, nth=2, times=5)
    sandbox.faults.add("users.reset_auth", status=403, nth=3, times=1)

    [outcome] = await pg.users.rotate(["doadmin"])

    assert isinstance(outcome.error, errors.PermissionDeniedError)
    assert outcome.error.may_have_applied


async def test_each_wait_has_whole_patience(sandbox: Sandbox, pg: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that ended in a lost connection does not count for the next one."""
    ahead = 0.0
    monkeypatch.setattr(maintenance, "monotonic", lambda: monotonic() + ahead)
    sandbox.faults.add("users.reset_auth", status=412, name="a", times=2)
    sandbox.faults.add("users.reset_auth", cut=True, name="a", nth=3, times=10)
    sandbox.faults.add("users.reset_auth", status=412, name="b", times=2)
    for name in "ab":
        await pg.users.create(name)

    async def names() -> AsyncIterator[str]:
        nonlocal ahead
        yield "a"
        ahead = 3600.0
        yield "b"

    outcomes: dict[str, Outcome] = {each.name: each for each in await pg.users.rotate(names(), concurrency=1)}

    assert isinstance(outcomes["a"].error, errors.ConnectionLostError)
    assert outcomes["b"].error is None, outcomes["b"].error


async def test_other_refusal_ends_wait(sandbox: Sandbox, pg: Cluster) -> None:
    await pg.info()
    sandbox.faults.add("users.create", status=412, times=2)
    sandbox.faults.add("users.create", status=422, name="a")

    outcomes = {outcome.name: outcome for outcome in await pg.users.provision(["a", "b"])}

    assert isinstance(outcomes["a"].error, errors.UnprocessableEntityError)
    assert outcomes["b"].error is None


async def test_refused_write_keeps_its_tries(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.faults.add("users.reset_auth", status=412, times=6)
    sandbox.faults.add("users.reset_auth", status=500, nth=7, times=20)

    [outcome] = await pg.users.rotate(["doadmin"])

    assert isinstance(outcome.error, errors.ServerError)
    assert (sandbox.counts["users.reset_auth", 412], sandbox.counts["users.reset_auth", 500]) == (6, 5)


async def test_token_without_read_scope_waits(sandbox: Sandbox) -> None:
    """A token that may not read the cluster shows by its writes when it is online."""
    cluster_id = await sandbox.add_cluster("pg", backend="memory")
    sandbox.set_status(cluster_id, "resizing", online_after=0.2)
    token = sandbox.add_token(["database:create"])

    async with DatabaseClient(token, base_url=sandbox.url) as client:
        outcomes = await client.cluster(cluster_id, engine="pg").dbs.provision(["a", "b"])
    assert {outcome.action for outcome in outcomes} == {Action.CREATED}


@pytest.mark.parametrize("on", ["users", "dbs"])
async def test_create_waits_for_new_cluster(sandbox: Sandbox, pg: Cluster, on: str) -> None:
    """A cluster that has just come online answers 404 to creates for some seconds."""
    sandbox.faults.add(f"{on}.create", status=404, times=5)

    outcomes = await (pg.users.provision(["a", "b"]) if on == "users" else pg.dbs.provision(["a", "b"]))

    assert {outcome.action for outcome in outcomes} == {Action.CREATED}
    assert sandbox.counts[f"{on}.create", 404] == 5


@pytest.mark.parametrize("is_gone", [False, True])
async def test_create_404_that_lasts_is_raised(
    sandbox: Sandbox, pg: Cluster, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    """It lasts a minute although the cluster is online, or the cluster is gone. Later names do not wait again."""
    monkeypatch.setattr(maintenance, "_NEW_CLUSTER", HANG if is_gone else 0.3)
    await pg.info()
    sandbox.faults.add("users.create", status=404)
    if is_gone:
        sandbox.faults.add("clusters.get", status=404)

    outcomes = await pg.users.provision([f"t{n}" for n in range(40)])

    assert {type(outcome.error) for outcome in outcomes} == {errors.NotFoundError}
    assert sandbox.counts["clusters.get", 200] < 10


async def test_single_call_does_not_wait(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.set_status(pg.id, "resizing")
    with pytest.raises(errors.PreconditionFailedError) as caught:
        await pg.users.create("a")
    assert not caught.value.may_have_applied
    assert refused(sandbox) == 1

    sandbox.faults.add("dbs.create", status=404)
    with pytest.raises(errors.NotFoundError, match="a cluster that has just come online may not be ready yet"):
        await pg.dbs.create("a")
