"""However a run ends early, nothing new is sent, and no task is left behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from aiodbclient import ClusterClient, DatabaseClient, RateLimiter, Window
from aiodbclient.sandbox import Sandbox

from .truth import Truth, requests


def our_tasks() -> set[str]:
    """The running tasks, except this one and the sandbox's."""
    return {
        repr(task)
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task()
        and not {"RequestHandler", "_accept_connection2"} & set(re.split(r"\W", repr(task.get_coro())))
    }


async def turns(number: int) -> None:
    """Let the event loop, in which the sandbox runs too, do what it has to do, however slow the machine is."""
    for _ in range(number):
        await asyncio.sleep(0.001)


async def assert_quiet(sandbox: Sandbox) -> None:
    """Check that no request is running, and no more requests arrive."""
    await turns(30)  # a cancelled request may have been sent
    assert our_tasks() == set()
    arrived = len(sandbox.requests)
    await turns(100)
    assert len(sandbox.requests) == arrived


@pytest.fixture(autouse=True)
def slow_creates(sandbox: Sandbox) -> None:
    sandbox.faults.add("users.create", delay=0.02)


def endless() -> Iterator[str]:
    n = 0
    while True:
        n += 1
        yield f"t{n}"


async def test_break(sandbox: Sandbox, pg: ClusterClient) -> None:
    async for _ in pg.users.provision(endless(), concurrency=4):
        break

    await assert_quiet(sandbox)
    assert requests(sandbox, "users.create") <= 2 * 4


async def test_break_while_the_run_is_still_held(sandbox: Sandbox, pg: ClusterClient) -> None:
    run = pg.users.provision(endless(), concurrency=4)
    async for _ in run:
        break
    async with asyncio.timeout(60):
        while our_tasks():  # noqa: ASYNC110 - no event signals the end of started work
            await asyncio.sleep(0.01)

    await assert_quiet(sandbox)
    assert requests(sandbox, "users.create") <= 2 * 4

    await run.aclose()
    assert [outcome async for outcome in run] == []


async def test_aclosing(sandbox: Sandbox, pg: ClusterClient) -> None:
    async with aclosing(pg.users.provision(endless(), concurrency=4)) as run:
        async for _ in run:
            break
    assert our_tasks() == set()  # at once

    await assert_quiet(sandbox)


async def test_aclose_before_the_start_sends_nothing(sandbox: Sandbox, pg: ClusterClient) -> None:
    run = pg.users.provision(endless())
    await run.aclose()

    assert [outcome async for outcome in run] == []
    assert sandbox.requests == []


async def test_an_exception_in_the_body_of_the_loop(sandbox: Sandbox, pg: ClusterClient) -> None:
    async def consume() -> None:
        async for outcome in pg.users.provision(endless(), concurrency=4):
            raise LookupError(outcome.name)

    with pytest.raises(LookupError):
        await consume()
    await assert_quiet(sandbox)


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.05])
async def test_cancelling_the_task(sandbox: Sandbox, pg: ClusterClient, after: float) -> None:
    async def consume() -> None:
        async for _ in pg.users.provision(endless(), concurrency=4):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert our_tasks() == set()
    await assert_quiet(sandbox)


async def test_cancelling_while_specs_are_awaited(sandbox: Sandbox, pg: ClusterClient) -> None:
    awaited, ended = asyncio.Event(), asyncio.Event()

    async def stuck() -> AsyncIterator[str]:
        try:
            yield "a"
            awaited.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def consume() -> None:
        async for _ in pg.users.provision(stuck()):
            pass

    task = asyncio.create_task(consume())
    await awaited.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ended.is_set()
    assert our_tasks() == set()


async def test_cancelling_behind_the_lock_of_a_mongodb_cluster(sandbox: Sandbox, mongodb: ClusterClient) -> None:
    async def consume() -> None:
        async for _ in mongodb.users.provision(endless(), concurrency=4):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])

    await assert_quiet(sandbox)
    await mongodb.users.create("next")  # the lock is free


async def test_stop_delivers_what_is_in_flight(sandbox: Sandbox, pg: ClusterClient) -> None:
    truth = Truth(sandbox, pg.id)
    run = pg.users.provision(endless(), concurrency=4)
    reported: dict[str, str | None] = {}

    async for outcome in run:
        assert outcome.user is not None
        reported[outcome.name] = outcome.user.password
        if len(reported) == 6:
            run.stop()

    assert 6 < len(reported) <= 2 * 6
    assert requests(sandbox, "users.create") == len(reported)
    assert reported == {name: password for name, password in truth.passwords.items() if name != "doadmin"}
    assert our_tasks() == set()


async def test_stop_from_a_timer_ends_a_run_whose_specs_are_awaited(pg: ClusterClient) -> None:
    async def stuck() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    run = pg.users.provision(stuck())
    names = list[str]()
    async with asyncio.timeout(60):
        async for outcome in run:
            names.append(outcome.name)
            asyncio.get_running_loop().call_later(0.1, run.stop)
    assert names == ["a"]
    assert our_tasks() == set()


async def test_stop_before_the_start_sends_no_create(sandbox: Sandbox, pg: ClusterClient) -> None:
    run = pg.users.provision(endless())
    run.stop()

    assert [outcome async for outcome in run] == []
    assert requests(sandbox, "users.create") == 0


async def test_stop_does_not_wait_for_the_budget(sandbox: Sandbox, pg: ClusterClient) -> None:
    budget = RateLimiter([Window(limit=7, seconds=3600.0)])  # the cluster, the list and five creates
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=budget) as client:
        run = client.cluster(pg.id).users.provision(endless(), concurrency=4)

        async def stop_when_spent() -> None:
            while requests(sandbox, "users.create") < 5:  # noqa: ASYNC110 - it is the server that counts
                await asyncio.sleep(0.005)
            run.stop()

        stopping = asyncio.create_task(stop_when_spent())
        async with asyncio.timeout(60):
            names = [outcome.name async for outcome in run]
            await stopping

    assert len(names) == 5
    assert our_tasks() == set()
    assert budget.snapshot().waiting == 0


async def test_stop_while_the_run_sets_up_ends_it_at_once(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.list", delay=600.0)
    run = pg.users.provision(endless())
    asyncio.get_running_loop().call_later(0.1, run.stop)

    async with asyncio.timeout(60):
        assert [outcome async for outcome in run] == []

    assert our_tasks() == set()
    assert requests(sandbox, "users.create") == 0


async def test_aclose_from_another_task_ends_the_loop_of_the_consumer(sandbox: Sandbox, pg: ClusterClient) -> None:
    run = pg.users.provision(endless(), concurrency=4)
    reported = asyncio.Event()

    async def consume() -> None:
        async for _ in run:
            reported.set()

    consumer = asyncio.create_task(consume())
    await reported.wait()
    await run.aclose()

    assert not [task for task in our_tasks() if "consume" not in task]  # at once
    await consumer
    await assert_quiet(sandbox)


async def test_aclose_from_another_task_while_the_run_sets_up(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.list", delay=600.0)
    run = pg.users.provision(endless())

    async def consume() -> list[str]:
        return [outcome.name async for outcome in run]

    consumer = asyncio.create_task(consume())
    await asyncio.sleep(0.1)
    async with asyncio.timeout(60):
        await run.aclose()
        assert await consumer == []


async def test_async_with_ends_the_run_at_once(sandbox: Sandbox, pg: ClusterClient) -> None:
    async with pg.users.provision(endless(), concurrency=4) as run:
        async for _ in run:
            break
    assert our_tasks() == set()

    await assert_quiet(sandbox)


async def test_dropping_a_run_that_sets_up_cancels_what_it_reads(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.list", delay=600.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(pg.users.provision(endless())), 0.1)

    await assert_quiet(sandbox)


async def test_stop_does_not_wait_for_what_the_rate_limit_refused(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.create", status=429)
    run = pg.users.provision(endless(), concurrency=4)

    async def stop_when_refused() -> None:
        while sandbox.counts.get(("users.create", 429), 0) < 1:  # noqa: ASYNC110 - it is the server that counts
            await asyncio.sleep(0.005)
        run.stop()

    stopping = asyncio.create_task(stop_when_refused())
    async with asyncio.timeout(60):  # the gate is closed for longer
        assert [outcome async for outcome in run] == []
    await stopping
    assert our_tasks() == set()
