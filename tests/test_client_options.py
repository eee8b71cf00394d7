"""The options of calls, and the user agent."""

from __future__ import annotations

import asyncio
from math import inf, nan
from typing import Any

import aiohttp
import pytest

from aiodbclient import DatabaseClient, RateLimiter, RequestEvent, RetryPolicy, errors
from aiodbclient.rate_limiter import Window

from .conftest import MakeClient
from .server import CLUSTER, Server, fails, says, stalls
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
    with pytest.raises(errors.InvalidArgumentError, match="Authorization is set by the client"):
        cluster.with_options(headers={"Authorization": "Bearer another"})
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
