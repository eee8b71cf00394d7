"""The options of a client and of its calls, the user agent, and the events of its requests."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from math import inf, nan
from time import perf_counter
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aiodbclient import DatabaseClient, RateLimiter, RequestEvent, RetryPolicy, errors
from aiodbclient.rate_limiter import Window

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Reply, Server, fails, hangs_up, returns_the_user, says, stalls
from .waiting import until

DBS = says(200, {"dbs": []})


async def list_dbs(client: DatabaseClient) -> None:
    await client.cluster(CLUSTER, engine="pg").dbs.list()


async def test_options_that_are_not_given_stay_the_same(server: Server, make_client: MakeClient) -> None:
    once = make_client().with_options(retry=RetryPolicy(max_tries=1)).with_options(headers={"X-Trace": "7"})
    hurried = once.with_options(timeout=1.0)

    server.will(stalls(), fails(503), DBS)
    with pytest.raises(errors.RequestTimeoutError, match=r"1 s"):
        await list_dbs(hurried)
    with pytest.raises(errors.ServerError):
        await list_dbs(hurried.with_options(max_wait=1.0))
    await list_dbs(once)

    assert [request.headers["x-trace"] for request in server.requests] == ["7"] * 3


async def test_with_options_changes_no_other_client(server: Server, make_client: MakeClient) -> None:
    server.otherwise = DBS
    client = make_client()
    headers = {"X-Trace": "7", "X-Trace_Id-7": "b"}

    traced = client.with_options(headers=headers)
    headers["Authorization"] = "Bearer another"
    await list_dbs(traced)
    await list_dbs(traced.with_options(headers={"X-Other": "8"}))
    await list_dbs(client)

    first, second, third = (request.headers for request in server.requests)
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer secret-token"}
    assert (first["x-trace"], first["x-trace_id-7"]) == ("7", "b")
    assert ("x-trace" in second, second["x-other"]) == (False, "8")
    assert ("x-trace" in third, "x-other" in third) == (False, False)


async def test_cluster_with_options(server: Server, make_client: MakeClient) -> None:
    server.otherwise = DBS
    cluster = make_client().cluster(CLUSTER, engine="pg")

    await cluster.with_options(headers={"X-Trace": "7"}).dbs.list()
    await cluster.dbs.list()

    assert ["x-trace" in request.headers for request in server.requests] == [True, False]
    with pytest.raises(errors.InvalidArgumentError, match="the value of X-A must be printable"):
        cluster.with_options(headers={"X-A": "a\r\nb"})


async def test_max_wait_stays_until_it_is_taken_back(server: Server, make_client: MakeClient) -> None:
    server.otherwise = DBS
    limiter = RateLimiter([Window(1, 3600.0)])
    hurried = make_client(max_wait=0.01, rate_limiter=limiter)
    await list_dbs(hurried)

    with pytest.raises(errors.MaxWaitError):
        await list_dbs(hurried.with_options(timeout=20.0))
    waiting = asyncio.create_task(list_dbs(hurried.with_options(max_wait=None)))
    await until(lambda: limiter.snapshot().waiting)
    waiting.cancel()


class AsyncHook:
    async def __call__(self, event: RequestEvent) -> None: ...


OPTIONS: list[tuple[str, Any]] = [
    *(("timeout", seconds) for seconds in (0, nan, inf, "30", None)),
    *(("max_wait", seconds) for seconds in (-1, inf, "1", True)),
    *(("retry", policy) for policy in (5, None)),
]
OWN_HEADERS = [
    "Authorization",
    "AUTHORIZATION",
    "Content-Type",
    "content-length",
    "Transfer-Encoding",
    "Host",
    "connection",
]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *OPTIONS,
        ("session", 5),
        ("session", aiohttp.ClientSession),  # the class: an instance is meant
        ("session", DatabaseClient("token")),  # it has a method ``request`` too
        ("rate_limiter", 5),
        ("on_event", "log"),
        ("on_event", asyncio.sleep),  # async: nothing would await it
        ("on_event", AsyncHook()),
    ],
)
def test_options_that_cannot_be_are_refused(option: str, value: Any) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=option):
        DatabaseClient("token", **{option: value})

    if (option, value) in OPTIONS:
        with pytest.raises(errors.InvalidArgumentError, match=option):
            DatabaseClient("token").with_options(**{option: value})


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        *(({name: "another"}, f"{name} is set by the client") for name in OWN_HEADERS),
        ({"X-A": "b\r\nAuthorization: Bearer another"}, "the value of X-A must be printable"),
        *(({name: "b"}, "is not a valid header name") for name in ("X-A\r\nB", "", "-", "_", "X A", "X:A", "Ä")),
        *((headers, "mapping of strings") for headers in ({"X-A": 5}, [("X-A", "b")], None)),
    ],
)
def test_headers_that_cannot_be_are_refused(headers: Any, complaint: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=complaint) as caught:
        DatabaseClient("token").with_options(headers=headers)

    assert "another" not in str(caught.value)


async def test_trust_env_with_session() -> None:
    """A session of the caller has its own proxy."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(errors.InvalidArgumentError, match="give it to yours"):
            DatabaseClient("token", session=session, trust_env=True)


async def test_each_request_is_one_event(
    server: Server, make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """It is also one debug line, with the fields of the event."""
    seen: list[RequestEvent] = []
    server.will(fails(503), hangs_up, fails(429, retry_after="0.2"), says(200, {"dbs": []}))

    with caplog.at_level(logging.DEBUG, "aiodbclient"):
        await make_cluster(on_event=seen.append).dbs.list()

    assert [(event.operation, event.method) for event in seen] == [("dbs.list", "GET")] * 4
    outcomes = [(503, None), (None, "ConnectionLostError"), (429, None), (200, None)]
    assert [(event.status, event.error) for event in seen] == outcomes
    assert [event.attempt for event in seen] == [1, 2, 3, 4]
    assert seen[3].waited > 0.1 > seen[0].waited >= 0
    assert all(event.duration > 0 for event in seen)
    lines = [record for record in caplog.records if hasattr(record, "operation")]  # the others say why it tries again
    for event, line in zip(seen, lines, strict=True):
        path = f"GET /v2/databases/{CLUSTER}/dbs?per_page=200"
        assert line.getMessage().startswith(f"{path}: {event.status or event.error} in ")
        assert vars(line).items() >= {"operation": "dbs.list", "status": event.status, "attempt": event.attempt}.items()
        assert vars(line)["duration"] == event.duration
    assert lines[1].getMessage().endswith("try 2")


HOUR = 3600.0


class Clock:
    """The clock of the transport. A test advances it by hours, so that its own duration does not matter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monkeypatch.setattr("aiodbclient._http.transport.perf_counter", lambda: perf_counter() + self.ahead)


async def test_blocked_is_no_wait_for_limit(
    server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for another user write is ``blocked``, and not ``waited``."""
    seen, clock = list[RequestEvent](), Clock(monkeypatch)

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        clock.ahead += HOUR
        return await returns_the_user()(request)

    server.otherwise = slow
    users = make_cluster(on_event=seen.append, engine="mongodb").users

    await asyncio.gather(users.create("a"), users.create("b"))

    assert [(event.blocked // HOUR, event.waited // HOUR) for event in seen] == [(0, 0), (1, 0)]


async def test_token_time_is_no_wait(
    server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the token provider takes is neither ``waited`` nor ``blocked``, and ``max_wait`` does not bound it."""
    seen, clock = list[RequestEvent](), Clock(monkeypatch)

    async def slow() -> str:
        clock.ahead += HOUR
        return "secret-token"

    server.will(fails(401), returns_the_user())
    users = make_cluster(slow, on_event=seen.append, max_wait=5.0, engine="mongodb").users

    await users.create("a")

    assert [(event.blocked // HOUR, event.waited // HOUR) for event in seen] == [(0, 0)] * 2


async def test_a_hook_that_raises_spoils_no_call(
    server: Server, make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: RequestEvent) -> None:
        raise RuntimeError("no metrics today")

    server.will(says(200, {"dbs": []}), fails(404))
    dbs = make_cluster(on_event=broken).dbs

    assert await dbs.list() == []
    with pytest.raises(errors.NotFoundError):
        await dbs.get("alpha")

    messages = [record.getMessage() for record in caplog.records if record.name == "aiodbclient"]
    assert messages == ["on_event raised"] * 2


DECISIONS = {
    "retry in": ([fails(503), returns_the_user()], 5, ["503 some_error: no luck; the next try is in 0.00"]),
    "429": (
        [fails(429, retry_after="0.05"), returns_the_user()],
        5,
        ["429 some_error: no luck; the next try waits for its slot"],
    ),
    "lost create": ([hangs_up], 5, ["ServerDisconnectedError: Server disconnected; not retried: it may have been"]),
    "refused": ([fails(422)], 5, ["422 some_error: no luck; not retried: another try would not help"]),
    "tries used up": (
        [fails(500), fails(500)],
        2,
        ["no luck; the next try is in 0.00", "no luck; not retried: max_tries is 2"],
    ),
    "new token": (
        [fails(401, message="no secret-token"), returns_the_user()],
        5,
        ["401 some_error: no ***; the next try has another token"],
    ),
    "masked": (
        [fails(403, message="Bearer secret-token, password=hunter2")],
        5,
        ["403 some_error: Bearer ***, password=***; not retried: another try would not help"],
    ),
}


@pytest.mark.parametrize(("replies", "max_tries", "logged"), DECISIONS.values(), ids=DECISIONS)
async def test_retry_decisions_are_logged(
    replies: list[Reply],
    max_tries: int,
    logged: list[str],
    server: Server,
    make_cluster: MakeCluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each failed try is one debug line: operation, try, why it failed, what follows. Secrets are masked."""

    async def token() -> str:
        return "secret-token"

    server.will(*replies)
    users = make_cluster(token, retry=RetryPolicy(max_tries, base_delay=0.001)).users
    call = users.create if hangs_up in replies or len(replies) == 1 else users.get

    with caplog.at_level(logging.DEBUG, "aiodbclient"), suppress(errors.DatabaseClientError):
        await call("alice")

    decisions = [record.getMessage() for record in caplog.records if not hasattr(record, "operation")]
    assert len(decisions) == len(logged)
    for number, (decision, text) in enumerate(zip(decisions, logged, strict=True), 1):
        assert decision.startswith(f"users.{call.__name__}, try {number} failed: ")
        assert text in decision
    assert "secret-token" not in caplog.text
