"""Calls that wait: for a slot, for another write, for the next try, for the engine; and what ends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy, User, UserSettings, errors
from aiodbclient.rate_limiter import Window

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Server, fails, hangs_up, returns_the_user, says, stalls
from .waiting import HANG, settle, until

OTHER = "1cc10173-e9ea-4176-9dbc-a4cee4c4ff31"
DATABASE = {"database": {"id": CLUSTER, "name": "n", "engine": "pg", "status": "creating"}}


class Gate:
    """Answers creates of users once it is open."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.arrived.set()
        await self.open.wait()
        return await returns_the_user()(request)


async def begin_create(
    server: Server, client: DatabaseClient, cluster: str = CLUSTER, engine: str = "mongodb"
) -> tuple[Gate, asyncio.Task[User]]:
    """Begin a create that the API answers once the gate is open."""
    gate = Gate()
    server.will(gate)
    creating = asyncio.create_task(client.cluster(cluster, engine=engine).users.create("a"))
    await gate.arrived.wait()
    return gate, creating


async def test_mongodb_creates_hold_no_slots(server: Server, make_client: MakeClient) -> None:
    """MongoDB takes one user write at a time. Those that wait for it hold no slot, so other clusters' calls go on."""
    server.otherwise = returns_the_user()
    limiter = RateLimiter([Window(20, 3600.0)])
    client = make_client(rate_limiter=limiter)
    mongodb, postgres = client.cluster(OTHER, engine="mongodb"), client.cluster(CLUSTER, engine="pg")
    gate, first = await begin_create(server, client, OTHER)
    creates = [first, *(asyncio.create_task(mongodb.users.create(f"u{n}")) for n in range(40))]
    await settle()

    async with asyncio.timeout(HANG):
        for n in range(4):
            await postgres.users.get(f"alice{n}")

    assert not any(create.done() for create in creates)
    assert limiter.snapshot().in_flight == 1
    for create in creates:
        create.cancel()
    gate.open.set()
    await asyncio.gather(*creates, return_exceptions=True)
    assert len(server.requests) == 5


def wait_for_token(client: DatabaseClient) -> Awaitable[Any]:
    return client.cluster(CLUSTER, engine="pg").dbs.list()


def wait_for_turn(client: DatabaseClient) -> Awaitable[Any]:
    return client.cluster(CLUSTER, engine="mongodb").users.create("b")


def wait_for_next_try(client: DatabaseClient) -> Awaitable[Any]:
    retry = RetryPolicy(base_delay=1000.0, max_delay=1000.0)
    return client.with_options(retry=retry).cluster(CLUSTER, engine="pg").users.delete("gone")


def wait_until_online(client: DatabaseClient) -> Awaitable[Any]:
    return client.cluster(CLUSTER).wait_online()


@pytest.mark.parametrize("wait", [wait_for_token, wait_for_turn, wait_for_next_try, wait_until_online])
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_close_or_cancel_ends_wait(
    wait: Callable[[DatabaseClient], Awaitable[Any]],
    is_cancelled: bool,
    server: Server,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that waits fails at once when its client is closed, and ends at once when it is cancelled."""
    for name in ("_MIN_INTERVAL", "_MAX_INTERVAL"):
        monkeypatch.setattr(f"aiodbclient._http.maintenance.{name}", 1000.0)
    begun, first = asyncio.Event(), list[asyncio.Task[User]]()

    async def ask_for_ever() -> str:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    token = ask_for_ever if wait is wait_for_token else "secret-token"
    client = make_client(token, on_event=lambda _: begun.set())
    if wait is wait_for_turn:
        first.append((await begin_create(server, client))[1])
        begun.set()
    server.will(hangs_up if wait is wait_for_next_try else says(200, DATABASE))
    waiting = asyncio.ensure_future(wait(client))
    await begun.wait()
    await settle()
    sent = len(server.requests)
    assert not waiting.done()

    if is_cancelled:
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await client.aclose()
    if not is_cancelled:
        with pytest.raises(errors.ConfigurationError, match="this DatabaseClient is closed") as caught:
            await asyncio.wait_for(waiting, HANG)
        assert caught.value.may_have_applied is (wait is wait_for_next_try)
    assert len(server.requests) == sent
    await asyncio.gather(*first, return_exceptions=True)


async def test_aclose_while_wait_ends(server: Server, make_client: MakeClient) -> None:
    """``aclose`` closes the client also at the moment when the ``max_wait`` of a call has just passed."""
    client = make_client()
    gate, first = await begin_create(server, client)
    second = asyncio.create_task(client.with_options(max_wait=0.2).cluster(CLUSTER, engine="mongodb").users.create("b"))
    await settle()
    time.sleep(0.3)  # noqa: ASYNC251 - the timeout is due when the event loop goes on
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not second.done()

    await client.aclose()

    for call in (first, second):
        with pytest.raises(errors.DatabaseClientError):
            await call
    gate.open.set()


async def test_mongodb_slot_gets_rest_of_max_wait(server: Server, make_client: MakeClient) -> None:
    """``max_wait`` bounds the waits for the turn and for the slot together, and the error names the one that ended."""
    client = make_client(rate_limiter=RateLimiter([Window(1, 999.9)]))
    gate, first = await begin_create(server, client)
    second = asyncio.create_task(
        client.with_options(max_wait=1000.0).cluster(CLUSTER, engine="mongodb").users.create("b")
    )
    await asyncio.sleep(0.5)
    gate.open.set()
    await first

    with pytest.raises(errors.MaxWaitError, match="the rate limit has no slot"):
        await asyncio.wait_for(second, HANG)  # it fails at once


@pytest.mark.parametrize(
    ("holder", "window", "max_wait", "cause"),
    [
        ((CLUSTER, "mongodb"), Window(10, 60.0), 0.05, "another user write"),  # which takes no slot
        ((OTHER, "pg"), Window(1, 0.05), 0.3, "the rate limit has no slot"),  # all of them are in flight
    ],
    ids=["turn", "slot"],
)
async def test_max_wait_error_names_its_cause(
    holder: tuple[str, str], window: Window, max_wait: float, cause: str, server: Server, make_client: MakeClient
) -> None:
    limiter = RateLimiter([window])
    client = make_client(rate_limiter=limiter)
    gate, first = await begin_create(server, client, *holder)

    with pytest.raises(errors.MaxWaitError, match=rf"{cause}.*it was not sent"):
        await client.with_options(max_wait=max_wait).cluster(CLUSTER, engine="mongodb").users.create("b")

    assert limiter.snapshot().in_flight == 1
    gate.open.set()
    await first
    assert len(server.requests) == 1


async def test_engine_error_own_object(server: Server, make_cluster: MakeCluster) -> None:
    """Each call that waits for the engine raises an exception of its own, so a run may add to it."""
    server.will(fails(404, "not_found"))
    cluster = make_cluster(engine=None)

    results = await asyncio.gather(*(cluster.users.list() for _ in range(10)), return_exceptions=True)

    assert {type(result) for result in results} == {errors.NotFoundError}
    assert (len({id(result) for result in results}), len({str(result) for result in results})) == (10, 1)
    assert len(server.requests) == 1


async def test_max_wait_error_is_of_whole_call(server: Server, make_client: MakeClient) -> None:
    """No server answered 429. ``may_have_applied`` and ``tries`` are about the earlier tries."""
    server.will(fails(503))
    client = make_client(rate_limiter=RateLimiter([Window(1, 60.0)]), max_wait=1.0)
    settings = UserSettings(pg_allow_replication=True)

    with pytest.raises(errors.MaxWaitError, match=r"request id req-1.*may have been applied") as caught:
        await client.cluster(CLUSTER, engine="pg").users.update("alice", settings)

    assert not isinstance(caught.value, errors.APIError)
    assert (caught.value.may_have_applied, caught.value.tries) == (True, 1)
    assert 50 < (caught.value.retry_after or 0) <= 60
    assert "not sent" not in str(caught.value)


@pytest.mark.parametrize("engine", ["redis", "pg"])
async def test_refused_after_engine_read(engine: str, server: Server, make_cluster: MakeCluster) -> None:
    """No error says that nothing was sent if the engine was read for the call."""
    server.will(says(200, {"database": {"engine": engine}}))

    with pytest.raises(errors.UnsupportedOperationError, match="it was not sent") as caught:
        await make_cluster(engine=None).users.create("alice", settings=UserSettings(acl=[]))

    assert "nothing was sent" not in str(caught.value)
    assert server.calls == [("GET", f"/v2/databases/{CLUSTER}")]


@pytest.mark.parametrize("name", ["a" * 1_000_000, "/" * 1_000_000, "\0" * 1_000_000])
async def test_error_of_long_name(name: str, server: Server, make_client: MakeClient) -> None:
    """An error holds the beginning of a long path."""
    server.otherwise = stalls()
    client = make_client(timeout=2.0, retry=RetryPolicy(max_tries=1))

    with pytest.raises(errors.DatabaseClientError) as caught:
        await client.cluster(CLUSTER, engine="pg").users.get(name)

    assert len(str(caught.value)) < 600


async def test_turn_is_returned_after_failures(server: Server, make_cluster: MakeCluster) -> None:
    """After a cancelled, a lost and a refused write the next one has its turn."""
    server.will(stalls(), hangs_up, fails(422), returns_the_user())
    users = make_cluster(engine="mongodb").users
    cancelled = asyncio.create_task(users.create("a"))
    await until(lambda: server.requests)
    cancelled.cancel()

    for name in "bc":
        with pytest.raises(errors.DatabaseClientError):
            await users.create(name)

    assert isinstance(await asyncio.wait_for(users.create("d"), HANG), User)
