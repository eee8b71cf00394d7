"""A cluster that is not ready for changes, because it is being resized or made: a run waits, and asks once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from aiodbclient import Action, ClusterClient, DatabaseClient, Outcome, Run, errors
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._clusters import Status


@pytest.fixture(autouse=True)
def reads_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiodbclient._http.pause._SHORTEST", 0.1)


def refused(sandbox: Sandbox) -> int:
    return sum(count for (_, status), count in sandbox.counts.items() if status == 412)


OutcomeT = TypeVar("OutcomeT", bound=Outcome)


async def online_once_it_waits(
    sandbox: Sandbox, cluster: ClusterClient, status: Status, run: Run[OutcomeT], reads: int = 1
) -> list[OutcomeT]:
    """Iterate over ``run`` while the cluster has ``status``, and set it online when the run has read it so often."""
    sandbox.set_status(cluster.id, status)
    seen = sandbox.counts["clusters.get", 200]

    async def taken() -> list[OutcomeT]:
        return [outcome async for outcome in run]

    async with asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(taken())
        while run.waiting is None or sandbox.counts["clusters.get", 200] - seen < reads:
            assert not taking.done()
            await asyncio.sleep(0.01)
        assert run.waiting == f"the cluster is {status}"
        sandbox.set_status(cluster.id, "online")
    return taking.result()


async def test_a_run_pauses_and_continues_when_the_cluster_is_online(sandbox: Sandbox, pg: ClusterClient) -> None:
    run = pg.users.provision(f"t{n}" for n in range(300))
    assert run.waiting is None

    outcomes = await online_once_it_waits(sandbox, pg, "resizing", run, reads=4)

    assert {outcome.action for outcome in outcomes} == {Action.CREATED}
    assert len({outcome.name for outcome in outcomes}) == 300
    assert refused(sandbox) <= 16
    assert run.waiting is None
    reads = sandbox.counts["clusters.get", 200]
    assert 4 <= reads <= 12  # the engine; then at once, and each 0.1 s or at half of the time that has passed


async def test_a_cluster_that_is_online_and_still_refuses_is_asked_once_at_a_time(
    sandbox: Sandbox, pg: ClusterClient
) -> None:
    sandbox.faults.add("dbs.create", status=412, times=20)  # as during the first backup of a new cluster

    outcomes = [outcome async for outcome in pg.dbs.provision(f"t{n}" for n in range(200))]

    assert {outcome.action for outcome in outcomes} == {Action.CREATED}
    # One refusal of each of the 16 names in flight, then one at a time: a read before each of 5 creates
    assert refused(sandbox) == 20
    assert sandbox.counts["clusters.get", 200] == 6


async def test_every_write_of_a_run_waits(sandbox: Sandbox, pg: ClusterClient) -> None:
    names = [f"t{n}" for n in range(20)]
    for make, action in (
        (pg.users.provision, Action.CREATED),
        (pg.users.rotate, Action.RESET),
        (pg.users.deprovision, Action.DELETED),
        (pg.dbs.provision, Action.CREATED),
        (pg.dbs.deprovision, Action.DELETED),
    ):
        before = refused(sandbox)
        outcomes = await online_once_it_waits(sandbox, pg, "migrating", make(names))
        assert {outcome.action for outcome in outcomes} == {action}
        assert 1 <= refused(sandbox) - before <= 16


async def test_mongodb_waits_with_its_one_write(sandbox: Sandbox, mongodb: ClusterClient) -> None:
    outcomes = await online_once_it_waits(sandbox, mongodb, "creating", mongodb.users.provision(["a", "b", "c"]))

    assert [outcome.action for outcome in outcomes] == [Action.CREATED] * 3
    assert refused(sandbox) == 1


async def test_names_fail_after_max_wait_and_nothing_more_is_sent(
    sandbox: Sandbox, client: DatabaseClient, pg: ClusterClient
) -> None:
    sandbox.set_status(pg.id, "forking")
    cluster = client.with_options(max_wait=0.2).cluster(pg.id)

    async with asyncio.timeout(60):  # each alone would wait as long as the cluster is not online
        outcomes = [outcome async for outcome in cluster.users.provision(f"t{n}" for n in range(300))]

    assert len(outcomes) == 300
    for outcome in outcomes:
        assert isinstance(outcome.error, errors.ClusterNotOnlineError)
        assert outcome.error.status == "forking"
        assert not outcome.error.may_have_applied
        assert "run it again when the cluster is online" in str(outcome.error)
    assert refused(sandbox) <= 16
    sandbox.set_status(pg.id, "online")
    assert {outcome.action async for outcome in cluster.users.provision(["t1"])} == {Action.CREATED}


async def test_stop_does_not_wait_for_a_cluster_that_refused_every_change(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.set_status(pg.id, "resizing")
    run = pg.users.provision(f"t{n}" for n in range(300))

    async def stop_when_it_waits() -> None:
        while run.waiting is None:  # noqa: ASYNC110 - it is no event
            await asyncio.sleep(0.01)
        run.stop()

    stopping = asyncio.create_task(stop_when_it_waits())
    async with asyncio.timeout(60):  # the cluster is never online
        assert [outcome async for outcome in run] == []
    await stopping


async def test_a_read_of_the_cluster_that_fails_hides_no_lost_reset(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.reset_auth", status=500, times=1)  # it may have revoked the password
    sandbox.faults.add("users.reset_auth", status=412, nth=2, times=1)
    sandbox.faults.add("clusters.get", cut=True, nth=2, times=5)
    sandbox.faults.add("users.reset_auth", status=403, nth=3, times=1)

    outcomes = [outcome async for outcome in pg.users.rotate(["doadmin"])]

    assert isinstance(outcomes[0].error, errors.PermissionDeniedError)
    assert outcomes[0].error.may_have_applied


async def test_a_pause_that_ended_in_a_lost_connection_does_not_count_for_the_next_one(
    sandbox: Sandbox, client: DatabaseClient, pg: ClusterClient
) -> None:
    sandbox.faults.add("users.reset_auth", status=412, name="a", times=2)
    sandbox.faults.add("users.reset_auth", cut=True, name="a", nth=3, times=10)
    sandbox.faults.add("users.reset_auth", status=412, name="b", times=2)
    for name in "ab":
        await pg.users.create(name)
    cluster = client.with_options(max_wait=1.0).cluster(pg.id)

    async def names() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(2.0)
        yield "b"

    run = cluster.users.rotate(names(), concurrency=1)
    outcomes: dict[str, Outcome] = {}
    async for outcome in run:
        outcomes[outcome.name] = outcome
        assert run.waiting is None

    assert isinstance(outcomes["a"].error, errors.ConnectionLostError)
    assert outcomes["b"].ok, outcomes["b"].error


async def test_a_run_that_pauses_can_be_closed(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.set_status(pg.id, "resizing")
    run = pg.users.provision(["a", "b"])
    waiting = asyncio.create_task(run.__anext__())
    while run.waiting is None:  # noqa: ASYNC110 - it is no event
        await asyncio.sleep(0.01)
    await run.aclose()
    assert (await asyncio.gather(waiting, return_exceptions=True))[0].__class__ is StopAsyncIteration
    assert [user.name for user in await pg.users.list()] == ["doadmin"]


async def test_another_refusal_than_412_ends_the_pause(sandbox: Sandbox, pg: ClusterClient) -> None:
    await pg.info()
    sandbox.faults.add("users.create", status=412, times=2)
    sandbox.faults.add("users.create", status=422, name="a")

    outcomes = {outcome.name: outcome async for outcome in pg.users.provision(["a", "b"])}

    assert isinstance(outcomes["a"].error, errors.UnprocessableEntityError)
    assert outcomes["b"].ok


async def test_a_write_that_was_refused_often_has_all_its_tries_then(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.reset_auth", status=412, times=6)
    sandbox.faults.add("users.reset_auth", status=500, nth=7, times=20)

    async with asyncio.timeout(60):
        outcomes = [outcome async for outcome in pg.users.rotate(["doadmin"])]

    assert isinstance(outcomes[0].error, errors.ServerError)
    assert (sandbox.counts["users.reset_auth", 412], sandbox.counts["users.reset_auth", 500]) == (6, 5)


async def test_a_token_that_may_not_read_the_cluster_waits_too(sandbox: Sandbox) -> None:
    cluster_id = await sandbox.add_cluster("pg", backend="memory")
    sandbox.set_status(cluster_id, "resizing", online_after=0.2)
    token = sandbox.add_token(["database:create"])

    async with DatabaseClient(token, base_url=sandbox.url) as client:
        run = client.cluster(cluster_id, engine="pg").dbs.provision(["a", "b"])
        assert {outcome.action async for outcome in run} == {Action.CREATED}


async def test_a_plan_waits_too(sandbox: Sandbox, pg: ClusterClient) -> None:
    plan = await pg.users.plan(["a", "b"])

    outcomes = await online_once_it_waits(sandbox, pg, "resizing", plan.apply())

    assert all(outcome.ok for outcome in outcomes)


@pytest.mark.parametrize("on", ["users", "dbs"])
async def test_a_create_waits_for_a_new_cluster_that_answers_404(sandbox: Sandbox, pg: ClusterClient, on: str) -> None:
    sandbox.faults.add(f"{on}.create", status=404, times=5)

    run = pg.users.provision(["a", "b"]) if on == "users" else pg.dbs.provision(["a", "b"])

    assert {outcome.action async for outcome in run} == {Action.CREATED}
    assert sandbox.counts[f"{on}.create", 404] == 5


async def test_a_create_on_a_cluster_that_is_gone_fails_at_once(sandbox: Sandbox, pg: ClusterClient) -> None:
    await pg.info()
    sandbox.faults.add("users.create", status=404, times=2)
    sandbox.faults.add("clusters.get", status=404, times=2)

    outcomes = [outcome async for outcome in pg.users.provision(["a", "b"])]

    assert {type(outcome.error) for outcome in outcomes} == {errors.NotFoundError}


async def test_a_single_call_raises(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.set_status(pg.id, "resizing")

    with pytest.raises(errors.PreconditionFailedError) as caught:
        await pg.users.create("a")

    assert not caught.value.may_have_applied
    assert refused(sandbox) == 1


async def test_a_single_create_says_that_the_cluster_may_not_be_ready(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("dbs.create", status=404)

    with pytest.raises(errors.NotFoundError, match="a cluster that has just come online may not be ready yet"):
        await pg.dbs.create("a")
