"""Failures on demand."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from aiodbclient import Window
from aiodbclient.sandbox import Sandbox

from .conftest import Call, caller


@pytest.fixture
async def pg(sandbox: Sandbox) -> str:
    return "/v2/databases/" + await sandbox.add_cluster("pg", backend="memory")


async def exists(call: Call, pg: str, name: str) -> bool:
    return (await call("GET", f"{pg}/users/{name}")).status == 200


@pytest.mark.parametrize(("after", "made"), [(False, False), (True, True)])
async def test_a_cut_connection_before_or_after_the_work(
    sandbox: Sandbox, call: Call, pg: str, after: bool, made: bool
) -> None:
    fault = sandbox.faults.add("users.create", cut=True, after=after)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await call("POST", f"{pg}/users", {"name": "app"})
    assert fault.fired == 1
    assert sandbox.requests[-1].status is None
    assert sandbox.counts["users.create", None] == 1
    assert await exists(call, pg, "app") is made


async def test_a_connection_cut_in_the_middle_of_the_answer(sandbox: Sandbox, call: Call, pg: str) -> None:
    sandbox.faults.add("users.create", cut=True, truncate=True)
    with pytest.raises(aiohttp.ClientPayloadError):
        await call("POST", f"{pg}/users", {"name": "app"})
    assert await exists(call, pg, "app")


@pytest.mark.parametrize(("after", "made"), [(False, False), (True, True)])
async def test_any_status_before_or_after_the_work(
    sandbox: Sandbox, call: Call, pg: str, after: bool, made: bool
) -> None:
    sandbox.faults.add("users.create", status=503, headers={"retry-after": "7"}, after=after)
    answer = await call("POST", f"{pg}/users", {"name": "app"})
    assert (answer.status, answer.json["id"], answer.headers["retry-after"]) == (503, "service_unavailable", "7")
    assert await exists(call, pg, "app") is made


@pytest.mark.parametrize("after", [False, True])
async def test_a_delay_before_or_after_the_work(sandbox: Sandbox, call: Call, pg: str, after: bool) -> None:
    sandbox.faults.add("users.create", delay=0.2, after=after)
    started = time.monotonic()
    creating = asyncio.ensure_future(call("POST", f"{pg}/users", {"name": "app"}))
    await asyncio.sleep(0.1)
    assert await exists(call, pg, "app") is after
    assert (await creating).status == 201
    assert time.monotonic() - started >= 0.2


async def test_a_body_that_breaks_off_and_a_proxys_page(sandbox: Sandbox, call: Call, pg: str) -> None:
    fault = sandbox.faults.add("users.list", truncate=True)
    with pytest.raises(json.JSONDecodeError):
        await call("GET", f"{pg}/users")
    sandbox.faults.remove(fault)
    sandbox.faults.add("users.list", status=502, html=True)
    answer = await call("GET", f"{pg}/users")
    assert (answer.status, answer.headers["content-type"]) == (502, "text/html")
    assert "Bad Gateway" in answer.json


async def test_a_fresh_user_or_db_is_not_seen_for_a_while(sandbox: Sandbox, call: Call, pg: str) -> None:
    sandbox.faults.add(unseen_for=0.2)
    await call("POST", f"{pg}/users", {"name": "app"})
    await call("POST", f"{pg}/dbs", {"name": "alpha"})
    assert (await call("GET", f"{pg}/users/app")).status == 404
    assert (await call("GET", f"{pg}/dbs/alpha")).status == 404
    assert (await call("GET", f"{pg}/users/doadmin")).status == 200
    await asyncio.sleep(0.2)
    assert (await call("GET", f"{pg}/users/app")).status == 200
    assert (await call("GET", f"{pg}/dbs/alpha")).status == 200


async def test_a_ratelimit_reset_that_lies_in_the_past() -> None:
    async with Sandbox(windows=[Window(1, 60.0)]) as sandbox, caller(sandbox) as call:
        skew = sandbox.faults.add(reset_skew=-3600)
        cut = sandbox.faults.add(cut=True, nth=2)
        answers = [await call("GET", "/v2/databases") for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert all(int(answer.headers["ratelimit-reset"]) < time.time() for answer in answers)
        assert skew.fired == 2
        assert cut.seen == 1  # what the limit refuses meets no other fault


async def test_only_what_matches_fails(sandbox: Sandbox, call: Call, pg: str) -> None:
    other = "/v2/databases/" + await sandbox.add_cluster("pg", backend="memory")
    sandbox.faults.add({"users.create", "users.delete"}, cluster=pg.rpartition("/")[2], name="app", status=500)

    async def create(cluster: str, name: str) -> int:
        return (await call("POST", f"{cluster}/users", {"name": name})).status

    assert await create(pg, "app") == 500
    assert await create(pg, "other") == 201
    assert await create(other, "app") == 201
    assert (await call("POST", f"{pg}/dbs", {"name": "app"})).status == 201
    assert (await call("DELETE", f"{pg}/users/app")).status == 500


@pytest.mark.parametrize(
    ("options", "fails"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"nth": 2}, [2]),
        ({"times": 2}, [1, 2]),
        ({"nth": 2, "times": 3}, [2, 3, 4]),
    ],
)
async def test_the_nth_time_and_so_many_times(
    sandbox: Sandbox, call: Call, pg: str, options: dict[str, Any], fails: list[int]
) -> None:
    sandbox.faults.add("users.list", status=500, **options)
    statuses = [(await call("GET", f"{pg}/users")).status for _ in range(5)]
    assert [n for n, status in enumerate(statuses, 1) if status == 500] == fails


async def test_a_probability_with_a_seed_repeats_itself(sandbox: Sandbox, call: Call, pg: str) -> None:
    async def run() -> list[int]:
        sandbox.faults.clear()
        sandbox.faults.add("users.list", status=500, probability=0.3, seed=7)
        return [(await call("GET", f"{pg}/users")).status for _ in range(100)]

    first = await run()
    assert await run() == first
    assert 15 <= first.count(500) <= 45


@pytest.mark.parametrize(
    ("operation", "what", "message"),
    [
        ("users.destroy", {"cut": True}, "no operation users.destroy"),
        ("*", {}, "does nothing"),
        ("*", {"cut": True, "nth": 0}, "nth must be"),
        ("*", {"status": 99}, "status must be"),
        ("*", {"cut": True, "probability": 2}, "probability must be"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(operation: str, what: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sandbox().faults.add(operation, **what)
