"""What ends a whole run, wrong use of a run, and the iterable of names, which a run reads as it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from aiodbclient import Cluster, DatabaseClient, RetryPolicy, errors
from aiodbclient.bulk import Action, Run, UserOutcome
from aiodbclient.sandbox import Sandbox

from ..changes import html
from ..waiting import until
from .test_stopping import endless, our_tasks
from .truth import Truth, requests


async def outcomes_and_error(run: Run[UserOutcome]) -> tuple[list[UserOutcome], errors.DatabaseClientError | None]:
    """The outcomes of ``run``, and the exception of its loop."""
    yielded: list[UserOutcome] = []
    failure = None
    try:
        async for outcome in run:
            yielded.append(outcome)
    except errors.DatabaseClientError as error:
        failure = error
    assert sorted(yielded, key=id) == sorted(run.outcomes, key=id)
    return run.outcomes, failure


async def test_refused_token_ends_run(sandbox: Sandbox, pg: Cluster) -> None:
    """The names in progress have outcomes, and those without one are unchanged."""
    truth = Truth(sandbox, pg.id)
    sandbox.faults.add("users.create", nth=21, times=10**6, status=401)

    outcomes, error = await outcomes_and_error(pg.users.provision((f"t{n}" for n in range(1000)), concurrency=4))

    assert isinstance(error, errors.AuthenticationError)
    assert "the run ended here" in str(error)
    assert "names without an outcome were not changed" in str(error)
    assert str(error).endswith(": run.outcomes has the outcomes so far")
    assert requests(sandbox, "users.create") <= 20 + 4
    assert len(outcomes) == requests(sandbox, "users.create")
    assert set(truth.created) == {outcome.name for outcome in outcomes if outcome.error is None}
    assert all(
        isinstance(outcome.error, errors.AuthenticationError) for outcome in outcomes if outcome.error is not None
    )
    assert our_tasks() == set()


@pytest.mark.parametrize("outage", [{"cut": True}, {"status": 503}, {"change": html}, {"status": 502, "change": html}])
@pytest.mark.parametrize("concurrency", [1, 8])
async def test_outage_ends_run(
    sandbox: Sandbox, client: DatabaseClient, pg: Cluster, outage: dict[str, Any], concurrency: int
) -> None:
    sandbox.faults.add("users.create", nth=11, times=10**6, **outage)
    sandbox.faults.add("users.get", **outage)
    cluster = client.with_options(retry=RetryPolicy(max_tries=2, base_delay=0.001)).cluster(pg.id)

    outcomes, error = await outcomes_and_error(cluster.users.provision(endless(), concurrency=concurrency))

    assert "names in a row got no usable answer" in str(error)
    assert len([outcome for outcome in outcomes if outcome.error is not None]) <= 5 + 2 * concurrency
    sent = {request.name for request in sandbox.requests if request.operation == "users.create"}
    assert sent == {outcome.name for outcome in outcomes}


async def test_failures_of_single_names_are_no_outage(sandbox: Sandbox, pg: Cluster) -> None:
    """A name that fails stops no other."""
    for n in range(0, 100, 2):
        sandbox.faults.add("users.create", name=f"t{n}", status=403)

    outcomes, error = await outcomes_and_error(pg.users.provision((f"t{n}" for n in range(100)), concurrency=4))

    assert error is None
    assert {outcome.name for outcome in outcomes if outcome.error is None} == {f"t{n}" for n in range(1, 100, 2)}
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert len(failed) == 50
    assert all(isinstance(each, errors.PermissionDeniedError) and not each.may_have_applied for each in failed)


async def test_closed_client_ends_run(client: DatabaseClient, pg: Cluster) -> None:
    async def consume() -> None:
        async for outcome in pg.users.provision(endless(), concurrency=4):
            assert outcome.error is None or isinstance(outcome.error, errors.ConfigurationError)
            await client.aclose()

    with pytest.raises(errors.ConfigurationError, match="closed"):
        await consume()
    assert our_tasks() == set()


async def test_await_raises_what_ends_run(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.faults.add("users.list", status=401)
    with pytest.raises(errors.AuthenticationError):
        await pg.users.provision(["a"])
    assert requests(sandbox, "users.create") == 0


@pytest.mark.parametrize("fault", [{"status": 401}, {"delay": 600.0}])
async def test_run_that_raises_keeps_outcomes(sandbox: Sandbox, pg: Cluster, fault: dict[str, Any]) -> None:
    """The new passwords are in ``run.outcomes``: after a refused token, and after a cancellation."""
    names = [f"t{n}" for n in range(9)]
    await pg.users.provision(names)
    truth = Truth(sandbox, pg.id)
    sandbox.faults.add("users.reset_auth", name="t5", **fault)
    run = pg.users.rotate(names, concurrency=3)
    running = asyncio.ensure_future(run)
    await until(lambda: fault == {"status": 401} or len(run.outcomes) == 8)
    if "delay" in fault:
        running.cancel()

    with pytest.raises((errors.AuthenticationError, asyncio.CancelledError)):
        await running

    reset = {outcome.name: outcome.user.password for outcome in run.outcomes if outcome.error is None}
    assert list(reset) == [name for name in names if name in truth.reset]
    assert reset == {name: truth.passwords[name] for name in reset}
    assert len(reset) >= 5


async def test_run_works_once(sandbox: Sandbox, pg: Cluster) -> None:
    """Also while it works, so it has one consumer."""
    run = pg.users.provision(["a"])
    first = asyncio.ensure_future(run)
    await asyncio.sleep(0)  # it begins
    with pytest.raises(errors.ConfigurationError, match="a run works once"):
        await run
    assert [outcome.action for outcome in await first] == [Action.CREATED]
    with pytest.raises(errors.ConfigurationError, match="a run works once"):
        await run
    assert requests(sandbox, "users.create") == 1


CONCURRENCY = 4
Make = Callable[[Iterator[str]], Any]


async def as_async(names: Iterator[str]) -> AsyncIterator[str]:
    for name in names:
        yield name


BOTH = pytest.mark.parametrize("given", [iter, as_async])


@BOTH
async def test_names_are_pulled_as_outcomes_are_taken(sandbox: Sandbox, pg: Cluster, given: Make) -> None:
    """A slow loop slows the pulling and the sending."""
    pulled = taken = 0

    def names() -> Iterator[str]:
        nonlocal pulled
        for n in range(100):
            pulled += 1
            yield f"t{n}"

    async for _ in pg.users.provision(given(names()), concurrency=CONCURRENCY):
        taken += 1
        if taken == 1:
            await until(lambda: requests(sandbox, "users.create") == 2 * CONCURRENCY)
            for _ in range(50):  # in which the sandbox runs too
                await asyncio.sleep(0.001)
            assert requests(sandbox, "users.create") == 2 * CONCURRENCY
        assert pulled - taken < 2 * CONCURRENCY
        assert requests(sandbox, "users.create") - taken < 2 * CONCURRENCY
    assert pulled == taken == 100


@BOTH
async def test_iterable_that_raises(sandbox: Sandbox, pg: Cluster, given: Make) -> None:
    """The loop first yields the outcomes of the names before, then raises the error."""
    sandbox.faults.add("users.create", delay=0.05)
    names = set[str]()

    def broken() -> Iterator[str]:
        yield "a"
        yield "b"
        raise OSError("the disk is gone")

    async def consume() -> None:
        async for outcome in pg.users.provision(given(broken())):
            names.add(outcome.name)

    with pytest.raises(OSError, match="the disk is gone"):
        await consume()
    assert names == {"a", "b"}


async def test_iterator_that_raises_once(sandbox: Sandbox, pg: Cluster) -> None:
    """Nothing is pulled after its exception, although it would go on."""

    class Flaky:
        calls = 0

        def __iter__(self) -> Flaky:
            return self

        def __next__(self) -> str:
            self.calls += 1
            if self.calls == 3:
                raise OSError("once")
            return f"t{self.calls}"

    with pytest.raises(OSError, match="once"):
        await pg.users.provision(Flaky(), concurrency=1)
    assert requests(sandbox, "users.create") == 2


@pytest.mark.parametrize(
    ("raised", "error", "text"),
    [
        (StopAsyncIteration, RuntimeError, "raised StopAsyncIteration"),
        (asyncio.CancelledError, errors.DatabaseClientError, "was cancelled"),  # as after it awaited its producer
    ],
)
async def test_iterable_that_raises_what_ends_loops(
    pg: Cluster, raised: type[BaseException], error: type[Exception], text: str
) -> None:
    """The run does not end as if these were all names."""

    def specs() -> Iterator[str]:
        yield "a"
        raise raised

    with pytest.raises(error, match=text):
        await pg.users.provision(specs())
    assert {user.name for user in await pg.users.list()} == {"doadmin", "a"}


@pytest.mark.parametrize("specs", ["a name", b"bytes", 5, None])
async def test_no_iterable_is_refused_at_once(pg: Cluster, specs: Any) -> None:
    for make in (pg.users.provision, pg.users.rotate, pg.users.deprovision, pg.dbs.provision, pg.dbs.deprovision):
        with pytest.raises(errors.InvalidArgumentError, match="iterable of names"):
            make(specs)


async def test_invalid_options_are_refused_at_once(pg: Cluster) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="if_exists"):
        pg.users.provision(["a"], if_exists="replace")  # type: ignore[arg-type]
    for concurrency in (0, -1, True, 1.5, "4"):
        with pytest.raises(errors.InvalidArgumentError, match="concurrency"):
            pg.users.provision(["a"], concurrency=concurrency)  # type: ignore[arg-type]
