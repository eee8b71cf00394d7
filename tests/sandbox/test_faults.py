"""Injected failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from aiodbclient.sandbox import Answer, RecordedRequest, Sandbox
from aiodbclient.sandbox import _faults as faults

from ..waiting import HANG, until
from .conftest import Call, Clock, Delays, caller


@pytest.fixture
async def pg(sandbox: Sandbox) -> str:
    return "/v2/databases/" + await sandbox.add_cluster("pg", backend="memory")


async def exists(call: Call, pg: str, name: str) -> bool:
    return (await call("GET", f"{pg}/users/{name}")).status == 200


@pytest.mark.parametrize("after", [False, True])
async def test_status_or_cut_before_or_after_work(sandbox: Sandbox, call: Call, pg: str, after: bool) -> None:
    sandbox.faults.add("users.create", status=503, headers={"retry-after": "7"}, after=after, nth=1)
    answer = await call("POST", f"{pg}/users", {"name": "app"})
    assert (answer.status, answer.json["id"], answer.headers["retry-after"]) == (503, "service_unavailable", "7")
    assert await exists(call, pg, "app") is after
    sandbox.faults.clear()
    fault = sandbox.faults.add("users.create", cut=True, after=after)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await call("POST", f"{pg}/users", {"name": "other"})
    assert fault.fired == 1
    assert sandbox.requests[-1].status is None
    assert sandbox.counts["users.create", None] == 1
    assert await exists(call, pg, "other") is after


@pytest.mark.parametrize("after", [False, True])
async def test_delay_before_or_after_work(sandbox: Sandbox, call: Call, pg: str, delays: Delays, after: bool) -> None:
    sandbox.faults.add("users.create", delay=0.2, after=after)
    creating = asyncio.ensure_future(call("POST", f"{pg}/users", {"name": "app"}))
    await delays.begun.wait()
    assert await exists(call, pg, "app") is after
    assert not creating.done()
    delays.end.set()
    assert (await creating).status == 201
    assert delays.seconds == [0.2]


async def gone(request: Awaitable[Any], begun: Callable[[], Any]) -> None:
    """Disconnect the client of ``request`` once it has ``begun``."""
    asking = asyncio.ensure_future(request)
    await until(begun)
    asking.cancel()
    await asyncio.wait([asking])


async def test_delayed_request_outlives_client(sandbox: Sandbox, call: Call, pg: str, delays: Delays) -> None:
    sandbox.faults.add("users.create", delay=1.0)
    await gone(call("POST", f"{pg}/users", {"name": "app"}), delays.begun.is_set)
    assert not await exists(call, pg, "app")
    delays.end.set()
    await until(lambda: sandbox.counts["users.create", 201])
    assert await exists(call, pg, "app")


async def test_delay_ends_with_sandbox(caplog: pytest.LogCaptureFixture) -> None:
    before = asyncio.all_tasks()
    async with asyncio.timeout(HANG), Sandbox(windows=[]) as sandbox, caller(sandbox) as call:
        sandbox.faults.add(delay=600)
        for number in range(3):
            await gone(call("GET", "/v2/databases"), lambda: len(sandbox.requests) > number)  # noqa: B023
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert [record.status for record in sandbox.requests] == [None] * 3
    assert caplog.text == ""


async def test_only_what_matches_fails(sandbox: Sandbox, call: Call) -> None:
    """A cluster is matched by its id or its name."""
    one, other = [await sandbox.add_cluster("pg", name, backend="memory") for name in ("one", "other")]
    sandbox.faults.add({"users.create", "users.delete"}, cluster=one, name="app", status=500)
    sandbox.faults.add("dbs.create", cluster="other", status=503)
    for method, path, body, statuses in (
        ("POST", "users", {"name": "app"}, [500, 201]),
        ("POST", "users", {"name": "another"}, [201, 201]),
        ("POST", "dbs", {"name": "app"}, [201, 503]),
        ("DELETE", "users/app", None, [500, 204]),
    ):
        answers = [await call(method, f"/v2/databases/{cluster}/{path}", body) for cluster in (one, other)]
        assert [answer.status for answer in answers] == statuses


@pytest.mark.parametrize(
    ("options", "fails"),
    [({}, [1, 2, 3, 4, 5]), ({"nth": 2}, [2]), ({"times": 2}, [1, 2]), ({"nth": 2, "times": 3}, [2, 3, 4])],
)
async def test_the_nth_time_and_so_many_times(
    sandbox: Sandbox, call: Call, pg: str, options: dict[str, Any], fails: list[int]
) -> None:
    sandbox.faults.add("users.list", status=500, **options)
    statuses = [(await call("GET", f"{pg}/users")).status for _ in range(5)]
    assert [n for n, status in enumerate(statuses, 1) if status == 500] == fails


async def test_fault_lasts_from_its_first_failure(
    sandbox: Sandbox, call: Call, pg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(faults, "time", clock)
    sandbox.faults.add("users.list", status=500, nth=2, lasts=10.0)

    async def status_after(seconds: float) -> int:
        clock.ahead += seconds
        return (await call("GET", f"{pg}/users")).status

    assert [await status_after(seconds) for seconds in (0, 60, 8, 4, 0)] == [200, 500, 500, 200, 200]


async def test_a_probability_with_a_seed_repeats_itself(sandbox: Sandbox, call: Call, pg: str) -> None:
    async def run() -> list[int]:
        sandbox.faults.clear()
        sandbox.faults.add("users.list", status=500, probability=0.3, seed=7)
        return [(await call("GET", f"{pg}/users")).status for _ in range(100)]

    first = await run()
    assert await run() == first
    assert 15 <= first.count(500) <= 45


async def test_change_answer(sandbox: Sandbox, call: Call, pg: str) -> None:
    """A function sees the request, and changes status, headers and body of its answer, but nothing that is stored."""

    def hide(request: RecordedRequest, answer: Answer) -> None:
        assert request.name == "app"
        answer.body["user"]["password"] = ""
        answer.status, answer.headers["x-changed"] = 202, "yes"

    sandbox.faults.add("users.create", change=hide)
    made = await call("POST", f"{pg}/users", {"name": "app"})
    assert (made.status, made.headers["x-changed"], made.json["user"]["password"]) == (202, "yes", "")
    assert (await call("GET", f"{pg}/users/app")).json["user"]["password"].startswith("AVNS_")
    assert (sandbox.requests[0].status, sandbox.counts["users.create", 202]) == (202, 1)


async def test_faults_by_http(sandbox: Sandbox, call: Call, pg: str) -> None:
    """Another program adds the same faults as JSON, lists and ends them, with the sandbox's own token."""
    fault = {"operation": ["users.list", "users.get"], "status": 423, "times": 2, "headers": {"x-why": "no reason"}}
    added = await call("POST", "/sandbox/faults", fault)
    assert (added.status, added.json["faults"]) == (200, [fault | {"probability": 1.0, "seen": 0, "fired": 0}])
    refused = await call("GET", f"{pg}/users")
    assert (refused.status, refused.headers["x-why"]) == (423, "no reason")
    assert [each["fired"] for each in (await call("GET", "/sandbox/faults")).json["faults"]] == [1]
    assert (await call("DELETE", "/sandbox/faults")).json == {"faults": []}
    assert (await call("GET", f"{pg}/users")).status == 200
    assert (await call("POST", "/sandbox/faults", fault, token=sandbox.add_token())).status == 401
    assert (await call("PATCH", "/sandbox/faults")).status == 405
    assert [request.operation for request in sandbox.requests] == ["users.list", "users.list"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"operation": "users.destroy", "cut": True}, "unknown operation users.destroy"),
        ({"operation": ["*", "users.get"], "cut": True}, "unknown operation"),
        ({"operation": [], "cut": True}, "operation must be a name"),
        ({"operation": {}, "cut": True}, "operation must be a name"),
        ({"operation": [5], "cut": True}, "operation must be a name"),
        ({}, "has no effect"),
        ({"headers": {}}, "has no effect"),
        ({"headers": {"retry-after": 7}}, "headers must map names to strings"),
        ({"headers": 5, "cut": True}, "headers must map"),
        ({"cut": True, "nth": 0}, "nth must be a whole number from 1"),
        ({"cut": True, "nth": "first"}, "nth must be a whole number from 1 to inf, not 'first'"),
        ({"status": 99}, "status must be a whole number from 200 to 599"),
        ({"status": "many"}, "status must be a whole number"),
        ({"cut": True, "probability": 2}, "probability must be a number from 0 to 1"),
        ({"cut": "yes"}, "cut must be true or false"),
        ({"cut": True, "cluster": 5}, "cluster must be a string"),
        ({"delay": float("nan")}, "delay must be a number"),
        ({"delay": True}, "delay must be a number"),
    ],
)
async def test_invalid_fault(sandbox: Sandbox, call: Call, fault: dict[str, Any], message: str) -> None:
    """It is refused in Python and by HTTP with the same message."""
    with pytest.raises(ValueError, match=message):
        sandbox.faults.add(**fault)
    refused = await call("POST", "/sandbox/faults", fault)
    assert (refused.status, message in refused.json["message"]) == (400, True), refused
    assert list(sandbox.faults) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff", "invalid start byte"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "a fault is a JSON object"),
        (b'{"statis": 503}', "unknown option statis; the options are operation, cluster, name, nth"),
        (b'{"change": "x"}', "unknown option change"),
    ],
)
async def test_nonsense_by_http(sandbox: Sandbox, call: Call, body: bytes, message: str) -> None:
    refused = await call("POST", "/sandbox/faults", data=body)
    assert (refused.status, message in refused.json["message"]) == (400, True), refused
    assert list(sandbox.faults) == []
