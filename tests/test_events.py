"""The events of a client's requests, for metrics and structured logs."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

import pytest
from aiohttp import web

from aiodbclient import RequestEvent, errors

from .conftest import MakeClient
from .server import CLUSTER, Server, fails, hangs_up, returns_the_user, says


async def test_each_request_is_one_event(server: Server, make_client: MakeClient) -> None:
    seen: list[RequestEvent] = []
    server.will(fails(503), hangs_up, fails(429, retry_after="0.2"), says(200, {"dbs": []}))

    await make_client(on_event=seen.append).cluster(CLUSTER, engine="pg").dbs.list()

    assert [(event.operation, event.method) for event in seen] == [("dbs.list", "GET")] * 4
    assert [(event.status, event.error) for event in seen] == [
        (503, None),
        (None, "ConnectionLostError"),
        (429, None),
        (200, None),
    ]
    assert [event.attempt for event in seen] == [1, 2, 3, 4]
    assert seen[3].waited > 0.1 > seen[0].waited >= 0
    assert all(event.duration > 0 for event in seen)


HOUR = 3600.0


class Clock:
    """The clock of the transport. A test advances it by hours, so that its own duration does not matter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monkeypatch.setattr("aiodbclient._http.transport.perf_counter", lambda: perf_counter() + self.ahead)


async def test_blocked_is_no_wait_for_limit(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for another user write is ``blocked``, and not ``waited``."""
    seen, clock = list[RequestEvent](), Clock(monkeypatch)

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        clock.ahead += HOUR
        return await returns_the_user()(request)

    server.otherwise = slow
    users = make_client(on_event=seen.append).cluster(CLUSTER, engine="mongodb").users

    await asyncio.gather(users.create("a"), users.create("b"))

    assert [(event.blocked // HOUR, event.waited // HOUR) for event in seen] == [(0, 0), (1, 0)]


async def test_token_time_is_no_wait(server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the token provider takes is neither ``waited`` nor ``blocked``, and ``max_wait`` does not bound it."""
    seen, clock = list[RequestEvent](), Clock(monkeypatch)

    async def slow() -> str:
        clock.ahead += HOUR
        return "secret-token"

    server.will(fails(401), returns_the_user())
    users = make_client(slow, on_event=seen.append, max_wait=5.0).cluster(CLUSTER, engine="mongodb").users

    await users.create("a")

    assert [(event.blocked // HOUR, event.waited // HOUR) for event in seen] == [(0, 0)] * 2


async def test_a_hook_that_raises_spoils_no_call(
    server: Server, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: RequestEvent) -> None:
        raise RuntimeError("no metrics today")

    server.will(says(200, {"dbs": []}), fails(404))
    dbs = make_client(on_event=broken).cluster(CLUSTER, engine="pg").dbs

    assert await dbs.list() == []
    with pytest.raises(errors.NotFoundError):
        await dbs.get("alpha")

    messages = [record.getMessage() for record in caplog.records if record.name == "aiodbclient"]
    assert messages == ["on_event raised"] * 2


async def test_each_request_is_one_debug_line(
    server: Server, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has the fields of the event."""
    server.will(fails(503), says(200, {"dbs": []}))

    with caplog.at_level(logging.DEBUG, "aiodbclient"):
        await make_client().cluster(CLUSTER, engine="pg").dbs.list()

    first, second = caplog.records
    assert first.getMessage().startswith(f"GET /v2/databases/{CLUSTER}/dbs?per_page=200: 503 in ")
    assert second.getMessage().startswith(f"GET /v2/databases/{CLUSTER}/dbs?per_page=200: 200 in ")
    assert second.getMessage().endswith("try 2")
    fields = vars(second)
    assert (fields["operation"], fields["status"], fields["attempt"]) == ("dbs.list", 200, 2)
    assert fields["duration"] > 0
