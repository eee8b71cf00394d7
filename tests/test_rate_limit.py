"""The rate limiter through a client, against a server that counts requests."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

import aiohttp
import pytest
from aiohttp import web

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy, errors
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Server, fails, returns_the_user, says
from .thorough import first_of
from .waiting import HANG, until

DBS = says(200, {"dbs": []})


async def test_batch_above_window_meets_no_429() -> None:
    windows = [Window(20, 0.5)]
    limiter, once = RateLimiter(windows), RetryPolicy(max_tries=1)
    async with (
        Sandbox(windows=windows) as sandbox,
        DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=limiter) as one,
        DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=limiter) as another,
        DatabaseClient(
            sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([]), retry=once, max_wait=0.01
        ) as unlimited,
    ):
        cluster_id = await sandbox.add_cluster("pg", backend="memory")
        clusters = [client.cluster(cluster_id, engine="pg") for client in (one, another)]
        started = asyncio.get_running_loop().time()

        await asyncio.gather(*(clusters[n % 2].users.create(f"user{n}") for n in range(50)))

        assert asyncio.get_running_loop().time() - started >= 1.0
        assert dict(sandbox.counts) == {("users.create", 201): 50}

        users = unlimited.cluster(cluster_id, engine="pg").users  # the control: the server refuses some
        await asyncio.gather(*(users.get("user1") for _ in range(200)), return_exceptions=True)
        assert sandbox.counts["users.get", 429]


async def test_mongodb_write_overtakes_a_waiting_run(server: Server, make_cluster: MakeCluster) -> None:
    """A single write on MongoDB goes before a run's write that waits for the rate limit."""
    server.otherwise = returns_the_user()
    limiter = RateLimiter([Window(2, 0.4)])
    users = make_cluster(rate_limiter=limiter, engine="mongodb").users

    async def take() -> None:
        assert all(outcome.error is None for outcome in await users.rotate(f"user{n}" for n in range(4)))

    batch = asyncio.create_task(take())
    await until(lambda: limiter.snapshot().waiting)
    async with asyncio.timeout(HANG):
        await users.create("alice")
        await batch
    paths = [request.path for request in server.requests]
    sent = [path.rsplit("/", 2)[1] for path in paths if path.endswith("reset_auth")]
    assert sent == ["user0", "user1", "user2", "user3"]
    assert next(n for n, path in enumerate(paths) if path.endswith("/users")) == 2


async def test_max_wait_bounds_all_tries(server: Server, make_cluster: MakeCluster) -> None:
    server.otherwise = says(429, {"id": "too_many_requests", "message": "slow down"}, retry_after="0.6")

    with pytest.raises(errors.MaxWaitError, match="max_wait"):
        await make_cluster(max_wait=1.1).dbs.list()

    assert len(server.requests) == 2


@pytest.mark.parametrize(("window", "error"), [(91.0, errors.MaxWaitError), (89.0, TimeoutError)])
async def test_call_waits_90_seconds_by_default(
    window: float, error: type[Exception], server: Server, make_cluster: MakeCluster
) -> None:
    """A call that would wait longer fails at once. The other one still waits when the test ends."""
    server.otherwise = DBS
    dbs = make_cluster(rate_limiter=RateLimiter([Window(1, window)])).dbs
    await dbs.list()

    with pytest.raises(error):
        async with asyncio.timeout(0.1):
            await dbs.list()


@pytest.mark.parametrize("own", [True, False])
async def test_close_fails_waiting_calls(server: Server, make_client: MakeClient, own: bool) -> None:
    """``aclose`` fails the calls that wait for a slot at once, each with its own error; other clients' calls stay."""
    server.otherwise = DBS
    limiter = RateLimiter([Window(1, 3600.0)])
    async with aiohttp.ClientSession() as session:
        client = make_client(rate_limiter=limiter, max_wait=None, session=None if own else session)
        other = make_client(rate_limiter=limiter, max_wait=None)
        await client.cluster(CLUSTER, engine="pg").dbs.list()
        waiting = [asyncio.create_task(client.cluster(CLUSTER, engine="pg").dbs.list()) for _ in range(2)]
        stays = asyncio.create_task(other.cluster(CLUSTER, engine="pg").dbs.list())
        await until(lambda: limiter.snapshot().waiting == 3)

        await client.aclose()

        async with asyncio.timeout(HANG):
            failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in failed] == [errors.ConfigurationError] * 2
        assert all("this DatabaseClient is closed; it was not sent" in str(error) for error in failed)
        assert failed[0] is not failed[1]
        assert not stays.done()
        stays.cancel()
        await asyncio.wait([stays])
    assert len(server.requests) == 1
    assert (limiter.snapshot().used, limiter.snapshot().in_flight, limiter.snapshot().waiting) == ((1,), 0, 0)


async def test_nothing_queues_in_the_connector(server: Server, make_cluster: MakeCluster) -> None:
    """The client's own session opens as many connections as calls: nothing but the windows bounds them."""
    all_came = asyncio.Event()

    async def hold(request: web.BaseRequest) -> web.StreamResponse:
        if len(server.requests) == 150:
            all_came.set()
        await all_came.wait()
        return await DBS(request)

    server.otherwise = hold
    dbs = make_cluster(rate_limiter=RateLimiter()).dbs
    async with asyncio.timeout(HANG):
        await asyncio.gather(*(dbs.list() for _ in range(150)))


@pytest.mark.parametrize("refusals", first_of([11, 1, 3, 40]))
async def test_no_refused_call_fails(server: Server, make_cluster: MakeCluster, refusals: int) -> None:
    """Of 40 calls with ``max_wait=15`` none fails, whether the API refuses one, some or all at first."""
    refused, done = list[str](), list[str]()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.rsplit("/", 1)[1]
        if len(refused) < refusals:
            refused.append(name)
            return await fails(429, "too_many_requests", retry_after="0.2")(request)
        done.append(name)
        return await says(200, {"user": {"name": name, "role": "normal"}})(request)

    server.otherwise = answer
    users = make_cluster(max_wait=15, rate_limiter=RateLimiter()).users
    names = [f"user{n:02}" for n in range(40)]
    await asyncio.gather(*(users.get(name) for name in names))
    assert sorted(done) == names
    assert len(refused) == refusals


async def test_success_ends_row_of_429s(server: Server, make_cluster: MakeCluster) -> None:
    """After it a 429 is a lone one, which delays its own call and no other."""
    server.will(fails(429, retry_after="0.01"), DBS, fails(429, retry_after="30"), DBS)
    dbs = make_cluster(max_wait=1).dbs
    await dbs.list()
    with pytest.raises(errors.MaxWaitError):
        await dbs.list()

    assert await dbs.list() == []


@pytest.mark.parametrize("max_wait", [15, None])
async def test_429_is_no_try(server: Server, make_cluster: MakeCluster, max_wait: float | None) -> None:
    """Also where ``max_wait=None`` says that a call waits as long as it takes."""
    server.will(*(fails(429, "too_many_requests", retry_after="0.05") for _ in range(11)))
    server.otherwise = DBS

    assert await make_cluster(retry=RetryPolicy(max_tries=2), max_wait=max_wait).dbs.list() == []

    assert len(server.requests) == 12


async def test_budget_none_is_for_sandboxes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIODBCLIENT_BUDGET", "none")
    server.otherwise = DBS
    async with DatabaseClient("dop_v1_x", base_url=server.url, max_wait=0.0) as client:
        for _ in range(260):
            await client.cluster(CLUSTER, engine="pg").dbs.list()
    with pytest.raises(errors.ConfigurationError, match="AIODBCLIENT_BUDGET=none is for a sandbox on this machine"):
        DatabaseClient("dop_v1_x")
    monkeypatch.setenv("AIODBCLIENT_BUDGET", "banana")
    with pytest.raises(errors.ConfigurationError, match=r"AIODBCLIENT_BUDGET is invalid: .* none, .*unset it"):
        DatabaseClient("dop_v1_x", base_url=server.url)
    monkeypatch.setenv("AIODBCLIENT_BUDGET", "")
    DatabaseClient("dop_v1_x")


async def test_run_expects_its_duration(server: Server, make_cluster: MakeCluster) -> None:
    server.otherwise = returns_the_user()
    limiter = RateLimiter([Window(4, 60.0)])
    users = make_cluster(rate_limiter=limiter).users
    run = users.rotate([f"user{n}" for n in range(10)])
    assert run.expected == pytest.approx(timedelta(minutes=2), abs=timedelta(seconds=30))
    async with aclosing(run):
        outcomes = aiter(run)
        for _ in range(4):
            assert (await anext(outcomes)).error is None
        waiting = asyncio.ensure_future(anext(outcomes))
        await until(lambda: limiter.snapshot().waiting)
        assert run.expected == pytest.approx(timedelta(minutes=2), abs=timedelta(seconds=30))
        waiting.cancel()
        await asyncio.wait([waiting])
    async with aclosing(users.rotate(f"user{n}" for n in range(10))) as unknown:
        assert unknown.expected is None
