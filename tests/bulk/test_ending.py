"""Errors that end a whole run, and errors for wrong use of a run."""

from __future__ import annotations

import asyncio

import pytest

from aiodbclient import (
    Action,
    ClusterClient,
    DatabaseClient,
    NewUser,
    RateLimiter,
    RetryPolicy,
    Run,
    UserOutcome,
    errors,
)
from aiodbclient.sandbox import Sandbox

from .test_stopping import endless, our_tasks
from .truth import Truth, requests


async def taken(run: Run[UserOutcome]) -> tuple[list[UserOutcome], errors.DatabaseClientError | None]:
    """The outcomes of ``run``, and the exception of its loop."""
    outcomes: list[UserOutcome] = []
    try:
        async for outcome in run:
            outcomes.append(outcome)
    except errors.DatabaseClientError as error:
        return outcomes, error
    return outcomes, None


async def test_a_token_that_is_refused_on_the_way_ends_the_run(sandbox: Sandbox, pg: ClusterClient) -> None:
    truth = Truth(sandbox, pg.id)
    sandbox.faults.add("users.create", nth=21, times=10**6, status=401)

    outcomes, error = await taken(pg.users.provision((f"t{n}" for n in range(1000)), concurrency=4))

    assert isinstance(error, errors.AuthenticationError)
    assert "the run ended here" in str(error)
    assert "nothing was sent for names without an outcome" in str(error)
    assert requests(sandbox, "users.create") <= 20 + 4
    assert len(outcomes) == requests(sandbox, "users.create")  # so that the rest is not started
    assert set(truth.created) == {outcome.name for outcome in outcomes if outcome.ok}
    assert all(isinstance(outcome.error, errors.AuthenticationError) for outcome in outcomes if not outcome.ok)
    assert our_tasks() == set()


@pytest.mark.parametrize("outage", [{"cut": True}, {"status": 503}, {"html": True}, {"status": 502, "html": True}])
@pytest.mark.parametrize("concurrency", [1, 8])
async def test_an_outage_on_the_way_ends_the_run(
    sandbox: Sandbox, pg: ClusterClient, outage: dict[str, object], concurrency: int
) -> None:
    async with DatabaseClient(
        sandbox.token,
        base_url=sandbox.url,
        retry=RetryPolicy(max_tries=2, base_delay=0.001),
        budget=RateLimiter([]),
    ) as client:
        run = client.cluster(pg.id).users.provision(endless(), concurrency=concurrency)
        outcomes = [await anext(run) for _ in range(10)]
        sandbox.faults.add(["users.create", "users.get"], **outage)  # type: ignore[arg-type]
        more, error = await taken(run)

    assert error is not None
    assert "names in a row got no usable answer" in str(error)
    outcomes += more
    failed = [outcome for outcome in outcomes if not outcome.ok]
    assert len(failed) <= 5 + 2 * concurrency
    made = {request.name for request in sandbox.requests if request.operation == "users.create"}
    assert made == {outcome.name for outcome in outcomes}


async def test_names_that_fail_for_reasons_of_their_own_are_no_outage(sandbox: Sandbox, pg: ClusterClient) -> None:
    for n in range(0, 100, 2):
        sandbox.faults.add("users.create", name=f"t{n}", status=403)

    outcomes, error = await taken(pg.users.provision((f"t{n}" for n in range(100)), concurrency=4))

    assert error is None
    assert sum(outcome.ok for outcome in outcomes) == 50


async def test_a_client_that_is_closed_on_the_way_ends_the_run(sandbox: Sandbox, pg: ClusterClient) -> None:
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=RateLimiter([])) as client:
        run = client.cluster(pg.id).users.provision(endless(), concurrency=4)
        assert (await anext(run)).ok
    _, error = await taken(run)
    assert isinstance(error, errors.ConfigurationError)
    assert "closed" in str(error)


async def test_a_run_that_is_awaited_says_what_to_do(pg: ClusterClient) -> None:
    with pytest.raises(errors.ConfigurationError, match="async for"):
        await pg.users.provision(["a"])  # type: ignore[misc]


async def test_iterating_a_run_again_is_a_clear_error(sandbox: Sandbox, pg: ClusterClient) -> None:
    run = pg.users.provision(["a"])
    assert [outcome.action async for outcome in run] == [Action.CREATED]

    with pytest.raises(errors.ConfigurationError, match="a run works once"):
        [outcome async for outcome in run]
    assert requests(sandbox, "users.create") == 1


async def test_a_loop_that_is_left_can_be_taken_up_again(pg: ClusterClient) -> None:
    names = [f"t{n}" for n in range(20)]
    run = pg.users.provision(iter(names))
    reported = list[str]()
    async for outcome in run:
        reported.append(outcome.name)
        if len(reported) == 5:
            break
    reported += [outcome.name async for outcome in run]
    assert sorted(reported) == sorted(names)


async def test_two_consumers_at_once_are_a_clear_error(pg: ClusterClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("users.create", delay=0.1)
    run = pg.users.provision(["a"])
    first = asyncio.ensure_future(anext(run))
    await asyncio.sleep(0)  # it begins
    with pytest.raises(errors.ConfigurationError, match="one consumer"):
        await anext(run)
    assert (await first).ok


async def test_a_user_with_settings_is_not_made_a_database(sandbox: Sandbox, pg: ClusterClient) -> None:
    [outcome] = [each async for each in pg.dbs.provision([NewUser("a", readonly=True)])]  # type: ignore[list-item]

    assert outcome.name == "a"
    assert isinstance(outcome.error, errors.InvalidArgumentError)
    assert "takes names" in str(outcome.error)
    assert requests(sandbox, "dbs.create") == 0
