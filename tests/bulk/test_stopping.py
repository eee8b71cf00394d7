"""A run that is left, closed or stopped: no task and no connection stays, and what is said of its names is true."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from aiodbclient import Cluster, DatabaseClient, RateLimiter, RequestEvent, RetryPolicy
from aiodbclient.bulk import Action, Run
from aiodbclient.errors import RateLimitError
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox

from ..waiting import HANG, until
from .truth import Truth, requests

CONCURRENCY = 4
# Tasks of the sandbox, and that in which Python 3.11 closes a generator whose loop was left.
_OF_OTHERS = {"RequestHandler", "_accept_connection2", "async_generator_athrow"}


def our_tasks() -> set[str]:
    """The running tasks, except this one and those of others."""
    return {
        repr(task)
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task() and not _OF_OTHERS & set(re.split(r"\W", repr(task.get_coro())))
    }


async def assert_quiet(sandbox: Sandbox, client: DatabaseClient) -> None:
    """Check that no task is left, that no connection is in use, and that no more requests arrive."""
    await until(lambda: not our_tasks())
    connector = client._transport._connections.session.connector  # type: ignore[union-attr]
    assert not connector._acquired  # type: ignore[union-attr]
    arrived = len(sandbox.requests)
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert len(sandbox.requests) <= arrived + CONCURRENCY  # those on their way when they were cancelled


def endless() -> Iterator[str]:
    n = 0
    while True:
        n += 1
        yield f"t{n}"


@pytest.fixture
def slow_creates(sandbox: Sandbox) -> None:
    sandbox.faults.add("users.create", delay=0.02)


async def leave_by_break(run: Run[Any]) -> None:
    async for _ in run:
        break


async def leave_by_break_and_keep(run: Run[Any]) -> None:
    await leave_by_break(run)
    await until(lambda: not our_tasks())  # although the run is still referenced


async def leave_by_exception(run: Run[Any]) -> None:
    async def consume() -> None:
        async for outcome in run:
            raise LookupError(outcome.name)

    with pytest.raises(LookupError):
        await consume()


async def leave_by_aclosing(run: Run[Any]) -> None:
    async with aclosing(run):
        await leave_by_break(run)
    assert our_tasks() == set()  # at once


async def leave_by_aclose_elsewhere(run: Run[Any]) -> None:
    begun = asyncio.Event()

    async def consume() -> None:
        async for _ in run:
            begun.set()

    consumer = asyncio.create_task(consume())
    await begun.wait()
    await run.aclose()
    await consumer  # its loop ends


@pytest.mark.usefixtures("slow_creates")
@pytest.mark.parametrize(
    "leave",
    [leave_by_break, leave_by_break_and_keep, leave_by_exception, leave_by_aclosing, leave_by_aclose_elsewhere],
)
async def test_leaving_cancels_names(
    sandbox: Sandbox, client: DatabaseClient, pg: Cluster, leave: Callable[[Run[Any]], Awaitable[None]]
) -> None:
    """At most ``concurrency`` names without an outcome were sent."""
    assert not our_tasks()
    run = pg.users.provision(endless(), concurrency=CONCURRENCY)
    await leave(run)

    await assert_quiet(sandbox, client)
    assert len(run.outcomes) >= 1
    assert requests(sandbox, "users.create") - len(run.outcomes) <= CONCURRENCY


async def cancelled_when(run: Run[Any], is_so: Callable[[], object], *, is_awaited: bool = True) -> None:
    """Cancel the task that takes the outcomes of ``run``, in a state. No task is left."""

    async def consume() -> None:
        if is_awaited:
            await run
        async for _ in run:
            pass

    task = asyncio.create_task(consume())
    await until(is_so)
    assert our_tasks()  # the control
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert our_tasks() == set()


@pytest.mark.parametrize("operation", ["users.list", "users.create"])
@pytest.mark.parametrize("is_awaited", [False, True])
async def test_cancelled_task_cancels_run(
    sandbox: Sandbox, client: DatabaseClient, pg: Cluster, operation: str, is_awaited: bool
) -> None:
    sandbox.faults.add(operation, delay=600.0)
    run = pg.users.provision(endless(), concurrency=CONCURRENCY)

    await cancelled_when(run, lambda: requests(sandbox, operation), is_awaited=is_awaited)
    await assert_quiet(sandbox, client)


class Stuck:
    """Names that end after the first one: the next never comes."""

    def __init__(self) -> None:
        self.awaited, self.ended = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            yield "a"
            self.awaited.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def test_cancelled_task_cancels_iterable(pg: Cluster) -> None:
    names = Stuck()

    await cancelled_when(pg.users.provision(names), names.awaited.is_set)
    assert names.ended.is_set()


@pytest.mark.usefixtures("slow_creates")
async def test_cancelled_run_frees_mongodb_lock(sandbox: Sandbox, client: DatabaseClient, mongodb: Cluster) -> None:
    run = mongodb.users.provision(endless(), concurrency=CONCURRENCY)

    await cancelled_when(run, lambda: requests(sandbox, "users.create"))
    await assert_quiet(sandbox, client)
    await mongodb.users.create("next")


async def aclose(run: Run[Any]) -> None:
    await run.aclose()


async def stop(run: Run[Any]) -> None:
    run.stop()


@pytest.mark.parametrize("end", [aclose, stop])
async def test_run_that_ends_before_start_sends_nothing(
    sandbox: Sandbox, pg: Cluster, end: Callable[[Run[Any]], Awaitable[None]]
) -> None:
    run = pg.users.provision(endless())
    await end(run)

    assert await run == []
    assert sandbox.requests == []


@pytest.mark.usefixtures("slow_creates")
async def test_stop_names_without_outcome_unchanged(sandbox: Sandbox, pg: Cluster) -> None:
    """Each name of which a create was sent has an outcome, with its password."""
    truth = Truth(sandbox, pg.id)
    run = pg.users.provision(endless(), concurrency=CONCURRENCY)
    reported: dict[str, str | None] = {}

    async for outcome in run:
        assert outcome.user is not None
        reported[outcome.name] = outcome.user.password
        if len(reported) == 6:
            run.stop()

    assert 6 < len(reported) <= 6 + 2 * CONCURRENCY
    assert requests(sandbox, "users.create") == len(reported)
    assert reported == {name: password for name, password in truth.passwords.items() if name != "doadmin"}
    assert our_tasks() == set()


async def stopped_when(run: Run[Any], is_so: Callable[[], object]) -> list[Any]:
    """Stop ``run`` in a state, and return its outcomes. No task is left."""
    running = asyncio.ensure_future(run)
    await until(is_so)
    run.stop()
    async with asyncio.timeout(HANG):
        outcomes = await running
    assert our_tasks() == set()
    return outcomes


async def test_stop_waits_for_lost_create(sandbox: Sandbox, pg: Cluster) -> None:
    """A create whose answer was lost may have been applied: the run settles it."""
    sandbox.faults.add("users.create", name="a", cut=True, after=True, nth=1)
    sandbox.faults.add("users.get", name="a", delay=0.2)

    [outcome] = await stopped_when(pg.users.provision(["a"]), lambda: requests(sandbox, "users.get"))

    assert outcome.action is Action.CREATED


async def test_stop_cancels_first_reads(sandbox: Sandbox, pg: Cluster) -> None:
    sandbox.faults.add("users.list", delay=600.0)

    assert await stopped_when(pg.users.provision(endless()), lambda: requests(sandbox, "users.list")) == []
    assert requests(sandbox, "users.create") == 0


async def test_stop_cancels_waiting_iterable(pg: Cluster) -> None:
    names = Stuck()

    [outcome] = await stopped_when(pg.users.provision(names), names.awaited.is_set)

    assert outcome.name == "a"


async def test_stop_cancels_wait_for_rate_limit(sandbox: Sandbox, pg: Cluster) -> None:
    limiter = RateLimiter([Window(limit=7, seconds=3600.0)])  # the cluster, the list and five creates
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=limiter) as client:
        run = client.cluster(pg.id).users.provision(endless(), concurrency=CONCURRENCY)
        outcomes = await stopped_when(run, lambda: requests(sandbox, "users.create") == 5)

    assert len(outcomes) == 5
    assert limiter.snapshot().waiting == 0


async def test_stop_cancels_refused_names(sandbox: Sandbox, pg: Cluster) -> None:
    """A write that the API refused with a 429 changed nothing, so its name does not wait for the next try."""
    sandbox.faults.add("users.create", status=429, headers={"retry-after": "600"})
    events = list[RequestEvent]()
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, on_event=events.append) as client:
        run = client.cluster(pg.id).users.provision(["a"])
        assert await stopped_when(run, lambda: 429 in {event.status for event in events}) == []


async def test_stop_fails_names_refused_later(sandbox: Sandbox, pg: Cluster) -> None:
    """A 429 to a request that was in flight at the stop: its name fails, and does not wait."""
    sandbox.faults.add("users.create", delay=0.3, status=429, headers={"retry-after": "600"})

    [outcome] = await stopped_when(pg.users.provision(["a"]), lambda: requests(sandbox, "users.create"))

    assert isinstance(outcome.error, RateLimitError)
    assert not outcome.error.may_have_applied


async def test_stop_cancels_refused_connections(sandbox: Sandbox, pg: Cluster) -> None:
    """A connection that was refused sent nothing."""
    retry, events = RetryPolicy(max_tries=5, base_delay=600.0, max_delay=600.0), list[RequestEvent]()
    nowhere = "http://127.0.0.1:9"
    async with DatabaseClient(sandbox.token, base_url=nowhere, retry=retry, on_event=events.append) as client:
        names = [f"t{n}" for n in range(CONCURRENCY)]
        run = client.cluster(pg.id, engine="pg").users.rotate(names, concurrency=CONCURRENCY)

        assert await stopped_when(run, lambda: len(events) == CONCURRENCY) == []
    assert {event.error for event in events} == {"ConnectError"}
