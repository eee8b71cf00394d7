"""The rate budget through a client, against a server that counts requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

import aiohttp
import pytest
from aiohttp import web

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy, Window, errors
from aiodbclient.sandbox import Sandbox

from .conftest import MakeClient
from .server import CLUSTER, Server, fails, returns_the_user, says
from .thorough import first_of

DBS = says(200, {"dbs": []})


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(windows=[Window(20, 0.5)]) as running:
        yield running


async def test_a_batch_that_is_larger_than_the_window_meets_no_429(sandbox: Sandbox) -> None:
    cluster_id = await sandbox.add_cluster("pg", backend="memory")
    budget = RateLimiter([Window(20, 0.5)])
    async with (
        DatabaseClient(sandbox.token, base_url=sandbox.url, budget=budget) as one,
        DatabaseClient(sandbox.token, base_url=sandbox.url, budget=budget) as another,
    ):
        clusters = [client.cluster(cluster_id, engine="pg") for client in (one, another)]
        started = asyncio.get_running_loop().time()

        await asyncio.gather(*(clusters[n % 2].users.create(f"user{n}") for n in range(50)))

        assert asyncio.get_running_loop().time() - started >= 1.0
    assert dict(sandbox.counts) == {("users.create", 201): 50}


async def test_a_call_with_little_patience_is_refused_at_once(server: Server, make_client: MakeClient) -> None:
    server.otherwise = DBS
    client = make_client(budget=RateLimiter([Window(1, 60.0)]))
    await client.cluster(CLUSTER, engine="pg").dbs.list()

    with pytest.raises(errors.MaxWaitError, match="it was not sent") as caught:
        await asyncio.wait_for(client.with_options(max_wait=2.0).cluster(CLUSTER, engine="pg").dbs.list(), 30.0)

    assert caught.value.retry_after == pytest.approx(55, abs=5)
    assert not caught.value.may_have_applied
    assert len(server.requests) == 1


async def test_a_call_without_patience_is_not_kept_by_a_429(server: Server, make_client: MakeClient) -> None:
    server.will(says(429, {"id": "too_many_requests", "message": "slow down"}, retry_after="45"))

    with pytest.raises(errors.MaxWaitError) as caught:
        await asyncio.wait_for(make_client(max_wait=1).cluster(CLUSTER, engine="pg").dbs.list(), 30.0)

    assert caught.value.retry_after == pytest.approx(40, abs=5)
    assert len(server.requests) == 1


async def test_a_single_write_on_mongodb_does_not_wait_for_a_batch_that_waits_for_slots(
    server: Server, make_client: MakeClient
) -> None:
    server.otherwise = returns_the_user()
    budget = RateLimiter([Window(4, 60.0)], reserve=2)
    users = make_client(budget=budget).cluster(CLUSTER, engine="mongodb").users
    batch = users.rotate(f"user{n}" for n in range(4))
    async with aclosing(batch):
        outcomes = aiter(batch)
        assert [(await anext(outcomes)).ok for _ in range(2)] == [True, True]
        third = asyncio.ensure_future(anext(outcomes))
        async with asyncio.timeout(50):  # before a slot is free
            while budget.snapshot().waiting < 1:  # noqa: ASYNC110 - it is no event
                await asyncio.sleep(0.01)
            await users.create("alice")

        third.cancel()
        await asyncio.wait([third])
    assert (budget.snapshot().waiting, budget.snapshot().in_flight) == (0, 0)


async def test_the_waits_of_all_tries_are_within_the_patience(server: Server, make_client: MakeClient) -> None:
    server.otherwise = says(429, {"id": "too_many_requests", "message": "slow down"}, retry_after="0.2")

    with pytest.raises(errors.MaxWaitError, match="max_wait"):
        await make_client(max_wait=0.3).cluster(CLUSTER, engine="pg").dbs.list()

    assert len(server.requests) == 2


async def test_a_call_that_waits_while_its_client_is_closed_is_not_sent(
    server: Server, make_client: MakeClient
) -> None:
    server.otherwise = DBS
    budget = RateLimiter([Window(1, 3600.0)])
    async with aiohttp.ClientSession() as session:
        client = make_client(budget=budget, session=session)
        await client.cluster(CLUSTER, engine="pg").dbs.list()
        waiting = asyncio.create_task(client.cluster(CLUSTER, engine="pg").dbs.list())
        await asyncio.wait([waiting], timeout=0.05)

        await client.aclose()

        with pytest.raises(errors.ConfigurationError, match="is closed; it was not sent"):
            await asyncio.wait_for(waiting, 10)
    assert len(server.requests) == 1
    assert (budget.snapshot().used, budget.snapshot().in_flight, budget.snapshot().waiting) == ((1,), 0, 0)


async def test_a_429_stops_every_caller_of_the_budget(server: Server, make_client: MakeClient) -> None:
    server.will(says(429, {"id": "too_many_requests", "message": "slow down"}, retry_after="0.3"))
    server.otherwise = DBS
    budget = RateLimiter([])
    answered = asyncio.Event()
    clients = [make_client(budget=budget, on_event=lambda _: answered.set()) for _ in range(2)]
    loop = asyncio.get_running_loop()
    started = loop.time()
    first = asyncio.create_task(clients[0].cluster(CLUSTER, engine="pg").dbs.list())
    await answered.wait()

    await clients[1].cluster(CLUSTER, engine="pg").dbs.list()

    assert loop.time() - started >= 0.3
    await first


@pytest.mark.parametrize(("status", "limit"), [(401, "1"), (502, "10"), (200, "10")])
async def test_a_limit_is_not_believed_from_one_answer_nor_from_what_may_be_a_proxys(
    server: Server, make_client: MakeClient, status: int, limit: str
) -> None:
    odd = {"ratelimit_limit": limit, "ratelimit_remaining": "1"}
    server.will(*(says(status, {"dbs": []}, **odd) for _ in range(1 if status == 200 else 3)))
    server.otherwise = DBS
    budget = RateLimiter([Window(20, 60.0), Window(20, 3600.0)])
    dbs = make_client(budget=budget, retry=RetryPolicy(max_tries=1), max_wait=0.0).cluster(CLUSTER, engine="pg").dbs
    results = await asyncio.gather(*(dbs.list() for _ in range(3)), return_exceptions=True)
    assert {type(result) for result in results} <= {list, errors.AuthenticationError, errors.ServerError}
    for _ in range(17):
        await dbs.list()
    with pytest.raises(errors.MaxWaitError):
        await dbs.list()


async def test_an_interactive_call_goes_out_in_the_middle_of_a_batch(sandbox: Sandbox) -> None:
    cluster_id = await sandbox.add_cluster("pg", backend="memory")
    budget = RateLimiter([Window(20, 0.5)], reserve=2)
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=budget) as client:
        cluster = client.cluster(cluster_id, engine="pg")
        done = 0

        async def batch() -> None:
            nonlocal done
            async with aclosing(cluster.users.provision((f"user{n}" for n in range(10_000)), concurrency=50)) as run:
                async for outcome in run:
                    assert outcome.ok
                    done += 1

        background = asyncio.create_task(batch())
        async with asyncio.timeout(60):  # in the middle of the batch, which waits for slots by then
            while done < 18 or budget.snapshot().waiting < 40:  # noqa: ASYNC110 - it is no event
                await asyncio.sleep(0.01)
        before = done

        await cluster.dbs.list()

        assert done - before < 40  # it did not wait for those that came before it
        background.cancel()
        with pytest.raises(asyncio.CancelledError):
            await background
        assert (budget.snapshot().waiting, budget.snapshot().in_flight) == (0, 0)


async def refusing(server: Server, make_client: MakeClient, refusals: int, at_once: int) -> tuple[list[str], list[str]]:
    """Make 40 calls with ``max_wait=15`` to a server that answers the first ones 429. Returns these, and the order."""
    refused, done = list[str](), list[str]()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.rsplit("/", 1)[1]
        if len(refused) < refusals:
            refused.append(name)
            return await fails(429, "too_many_requests", retry_after="1")(request)
        done.append(name)
        first = refusals > 1 and len(done) <= 16 - refusals
        await asyncio.sleep(1.0 if first else 0.1)  # so the 429s are read first
        return await says(200, {"user": {"name": name, "role": "normal"}})(request)

    server.otherwise = answer
    users = make_client(max_wait=15, budget=RateLimiter()).cluster(CLUSTER, engine="pg").users
    names, turns = [f"user{n:02}" for n in range(40)], asyncio.Semaphore(at_once)

    async def get(name: str) -> None:
        async with turns:
            await users.get(name)

    await asyncio.gather(*(get(name) for name in names))
    return refused, done


@pytest.mark.parametrize("refusals", first_of([3, 1, 11]))
async def test_calls_that_got_a_429_wait_in_their_place_and_none_fails(
    server: Server, make_client: MakeClient, refusals: int
) -> None:
    started = asyncio.get_running_loop().time()

    refused, done = await refusing(server, make_client, refusals, at_once=1 if refusals == 1 else 40)

    assert asyncio.get_running_loop().time() - started < 60.0
    assert len(done) == 40
    if refusals > 1:
        # 16 are sent at once. The refused ones go before all others, and soon some travel side by side.
        assert done[16 - refusals] == min(refused)
        assert all(done.index(name) < 16 + 8 for name in refused)


async def test_a_429_is_no_try_of_a_call_with_max_wait(server: Server, make_client: MakeClient) -> None:
    server.will(*(fails(429, "too_many_requests", retry_after="0.05") for _ in range(11)))
    server.otherwise = DBS

    assert await make_client(retry=RetryPolicy(max_tries=2), max_wait=15).cluster(CLUSTER, engine="pg").dbs.list() == []

    assert len(server.requests) == 12


async def test_the_variable_none_holds_for_programs_on_a_sandbox_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIODBCLIENT_BUDGET", "none")
    server.otherwise = DBS
    async with DatabaseClient("dop_v1_x", base_url=server.url, max_wait=0.0) as client:
        for _ in range(260):
            await client.cluster(CLUSTER, engine="pg").dbs.list()
    with pytest.raises(errors.ConfigurationError, match="AIODBCLIENT_BUDGET=none is for a sandbox on this machine"):
        DatabaseClient("dop_v1_x")


async def test_a_run_says_how_long_the_budget_keeps_it(server: Server, make_client: MakeClient) -> None:
    server.otherwise = returns_the_user()
    users = make_client(budget=RateLimiter([Window(4, 60.0)])).cluster(CLUSTER, engine="pg").users
    run = users.rotate([f"user{n}" for n in range(10)])
    assert run.expected == pytest.approx(timedelta(minutes=2), abs=timedelta(seconds=30))
    async with aclosing(run):
        outcomes = aiter(run)
        for _ in range(4):
            assert (await anext(outcomes)).ok
        waiting = asyncio.ensure_future(anext(outcomes))
        await asyncio.wait([waiting], timeout=0.05)
        assert run.expected == pytest.approx(timedelta(minutes=2), abs=timedelta(seconds=30))
        waiting.cancel()
        await asyncio.wait([waiting])
    assert users.rotate(f"user{n}" for n in range(10)).expected is None
