"""Injected failures."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from aiodbclient import Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox.__main__ import read_fault

from .conftest import Call, Clock, Delays, caller


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
async def test_a_delay_before_or_after_the_work(
    sandbox: Sandbox, call: Call, pg: str, delays: Delays, after: bool
) -> None:
    sandbox.faults.add("users.create", delay=0.2, after=after)
    creating = asyncio.ensure_future(call("POST", f"{pg}/users", {"name": "app"}))
    await delays.begun.wait()
    assert await exists(call, pg, "app") is after
    assert not creating.done()
    delays.end.set()
    assert (await creating).status == 201
    assert delays.seconds == [0.2]


async def test_a_body_that_breaks_off_and_a_proxys_page(sandbox: Sandbox, call: Call, pg: str) -> None:
    fault = sandbox.faults.add("users.list", truncate=True)
    with pytest.raises(json.JSONDecodeError):
        await call("GET", f"{pg}/users")
    sandbox.faults.remove(fault)
    sandbox.faults.add("users.list", status=502, html=True)
    answer = await call("GET", f"{pg}/users")
    assert (answer.status, answer.headers["content-type"]) == (502, "text/html")
    assert "Bad Gateway" in answer.json


async def test_a_fresh_user_or_db_is_not_seen_for_a_while(sandbox: Sandbox, call: Call, pg: str, clock: Clock) -> None:
    sandbox.faults.add(unseen_for=60)
    await call("POST", f"{pg}/users", {"name": "app"})
    await call("POST", f"{pg}/dbs", {"name": "alpha"})
    assert (await call("GET", f"{pg}/users/app")).status == 404
    assert (await call("GET", f"{pg}/dbs/alpha")).status == 404
    assert (await call("GET", f"{pg}/users/doadmin")).status == 200
    clock.ahead += 60
    assert (await call("GET", f"{pg}/users/app")).status == 200
    assert (await call("GET", f"{pg}/dbs/alpha")).status == 200


async def test_a_password_is_empty_for_a_while_after_create_and_reset(
    sandbox: Sandbox, call: Call, pg: str, clock: Clock
) -> None:
    late = sandbox.faults.add(name="app", password_empty_for=60)
    for method, path in (("POST", f"{pg}/users"), ("POST", f"{pg}/users/app/reset_auth")):
        shown = (await call(method, path, {"name": "app"})).json["user"]
        assert shown["password"] == ""
        assert (await call("GET", f"{pg}/users/app")).json["user"] == shown
        primary, listed = (await call("GET", f"{pg}/users")).json["users"]
        assert listed == shown
        assert primary["password"]
        assert (await call("GET", pg)).json["database"]["users"][1] == shown
        clock.ahead += 60
        assert (await call("GET", f"{pg}/users/app")).json["user"]["password"].startswith("AVNS_")
    assert late.seen == 2  # it affects only matching requests


async def test_a_deleted_user_is_listed_for_a_while(sandbox: Sandbox, call: Call, pg: str, clock: Clock) -> None:
    sandbox.faults.add("users.delete", still_listed_for=60)

    async def listed() -> list[str]:
        users = (await call("GET", f"{pg}/users")).json["users"]
        assert (await call("GET", pg)).json["database"]["users"] == users
        return [user["name"] for user in users]

    await call("POST", f"{pg}/users", {"name": "app"})
    await call("POST", f"{pg}/users", {"name": "other"})
    assert (await call("DELETE", f"{pg}/users/nobody")).status == 404
    assert (await call("DELETE", f"{pg}/users/doadmin")).status == 422
    assert await listed() == ["doadmin", "app", "other"]
    assert (await call("DELETE", f"{pg}/users/app")).status == 204
    assert await listed() == ["doadmin", "other", "app"]
    assert not await exists(call, pg, "app")
    assert (await call("DELETE", f"{pg}/users/app")).status == 404
    clock.ahead += 60
    assert await listed() == ["doadmin", "other"]


@pytest.mark.parametrize("status", [520, 522, 524])
async def test_the_proxy_in_front_answers_with_a_page_of_its_own(
    sandbox: Sandbox, call: Call, pg: str, status: int
) -> None:
    sandbox.faults.add("users.create", status=status, after=True)
    answer = await call("POST", f"{pg}/users", {"name": "app"})
    assert (answer.status, answer.headers["content-type"]) == (status, "text/html")
    assert f"<title>{status} " in answer.json
    assert await exists(call, pg, "app")


async def test_settings_that_the_provider_has_not_implemented(sandbox: Sandbox, call: Call) -> None:
    mongodb = "/v2/databases/" + await sandbox.add_cluster("mongodb")
    sandbox.faults.add("users.update", status=501)
    await call("POST", f"{mongodb}/users", {"name": "app"})
    settings = {"settings": {"mongo_user_settings": {"databases": ["a"], "role": "readOnly"}}}
    answer = await call("PUT", f"{mongodb}/users/app", settings)
    assert (answer.status, answer.json["id"], answer.json["message"]) == (501, "Not Implemented", "Server Error")
    assert "settings" not in (await call("GET", f"{mongodb}/users/app")).json["user"]


async def test_an_answer_about_somebody_else(sandbox: Sandbox, call: Call, pg: str) -> None:
    sandbox.faults.add(answer_name="bob")
    shown = (await call("POST", f"{pg}/users", {"name": "alice"})).json["user"]
    assert (shown["name"], shown["password"][:5]) == ("bob", "AVNS_")
    assert (await call("GET", f"{pg}/users/alice")).json["user"]["name"] == "bob"
    assert (await call("POST", f"{pg}/dbs", {"name": "alpha"})).json == {"db": {"name": "bob"}}
    assert (await call("GET", pg)).json["database"]["id"] == "bob"
    sandbox.faults.clear()
    assert await exists(call, pg, "alice")
    assert not await exists(call, pg, "bob")
    assert (await call("GET", pg)).json["database"]["id"] == pg.rpartition("/")[2]


async def test_a_list_that_has_ever_one_more_page(sandbox: Sandbox, call: Call, pg: str) -> None:
    sandbox.faults.add("users.list", endless=True)
    path = f"{pg}/users?per_page=5"
    for page in range(2, 6):
        answer = await call("GET", path)
        assert [user["name"] for user in answer.json["users"]] == ["doadmin"]
        path = answer.json["links"]["pages"]["next"].removeprefix(sandbox.url)
        assert path == f"{pg}/users?per_page=5&page={page}"
    assert "links" not in (await call("GET", f"{pg}/dbs")).json


async def gone(request: Awaitable[Any], begun: Callable[[], Any]) -> None:
    """Disconnect the client of ``request`` once it has ``begun``."""
    asking = asyncio.ensure_future(request)
    while not begun():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    asking.cancel()
    await asyncio.wait([asking])


async def test_a_delayed_request_is_done_when_its_client_has_gone(
    sandbox: Sandbox, call: Call, pg: str, delays: Delays
) -> None:
    sandbox.faults.add("users.create", delay=1.0)
    await gone(call("POST", f"{pg}/users", {"name": "app"}), delays.begun.is_set)
    assert not await exists(call, pg, "app")
    delays.end.set()
    while not sandbox.counts["users.create", 201]:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert await exists(call, pg, "app")


async def test_a_delay_does_not_outlive_its_sandbox(caplog: pytest.LogCaptureFixture) -> None:
    before = asyncio.all_tasks()
    async with Sandbox(windows=[]) as sandbox, caller(sandbox) as call:
        sandbox.faults.add(delay=600)
        for number in range(3):
            await gone(call("GET", "/v2/databases"), lambda: len(sandbox.requests) > number)  # noqa: B023
        started = time.monotonic()
    assert time.monotonic() - started < 60
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert [record.status for record in sandbox.requests] == [None] * 3
    assert caplog.text == ""


def test_nor_does_it_hold_up_a_sandbox_in_a_thread() -> None:
    with Sandbox(windows=[]) as sandbox:
        sandbox.faults.add(delay=600)
        with socket.create_connection(("127.0.0.1", int(sandbox.url.rpartition(":")[2]))) as client:
            head = f"GET /v2/databases HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {sandbox.token}\r\n\r\n"
            client.sendall(head.encode())
            while not sandbox.requests:
                time.sleep(0.001)
        started = time.monotonic()
    assert time.monotonic() - started < 60


async def test_an_answer_broken_off_for_a_client_that_has_gone(
    sandbox: Sandbox, call: Call, pg: str, delays: Delays, caplog: pytest.LogCaptureFixture
) -> None:
    broken = sandbox.faults.add("users.list", delay=0.1, cut=True, truncate=True)
    await gone(call("GET", f"{pg}/users"), delays.begun.is_set)
    delays.end.set()
    while not sandbox.counts["users.list", 200]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert broken.fired == 1
    assert caplog.text == ""


async def test_a_ratelimit_reset_that_lies_in_the_past() -> None:
    async with Sandbox(windows=[Window(1, 60.0)]) as sandbox, caller(sandbox) as call:
        past = sandbox.faults.add(headers={"ratelimit-reset": "1"})
        answers = [await call("GET", "/v2/databases") for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert answers[0].headers["ratelimit-reset"] == "1"
        assert past.seen == 1  # a request that the limit refuses meets no fault


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
        ("users.destroy", {"cut": True}, "unknown operation users.destroy"),
        ("*", {}, "has no effect"),
        ("*", {"headers": {}}, "has no effect"),
        ("*", {"cut": True, "nth": 0}, "nth must be"),
        ("*", {"status": 99}, "status must be"),
        ("*", {"cut": True, "probability": 2}, "probability must be"),
        ("users.list", {"still_listed_for": 1}, "still_listed_for has no effect there; it applies to users.delete"),
        ("users.get", {"password_empty_for": 1, "cut": True}, "it applies to users.create, users.reset_auth"),
        ("users.get", {"endless": True}, "endless has no effect there"),
        ("users.create", {"password_empty_for": -1}, "password_empty_for must be from 0"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(operation: str, what: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sandbox().faults.add(operation, **what)


@pytest.mark.parametrize(
    ("text", "operation", "options"),
    [
        ("users.create: status=503 nth=3", ["users.create"], {"status": 503, "nth": 3}),
        ("users.get, users.list: unseen_for=0.5", ["users.get", "users.list"], {"unseen_for": 0.5}),
        ("*: cut", "*", {"cut": True}),
        ("*:cut=true after=false", "*", {"cut": True, "after": False}),
        ("users.get: answer_name='a b' cluster=main", ["users.get"], {"answer_name": "a b", "cluster": "main"}),
        (
            "users.get: status=503 headers=retry-after:7 headers='x-at : 12:30'",
            ["users.get"],
            {"status": 503, "headers": {"retry-after": "7", "x-at": "12:30"}},
        ),
    ],
)
def test_a_fault_is_read_from_text(text: str, operation: str | list[str], options: dict[str, Any]) -> None:
    assert read_fault(text) == {"operation": operation, **options}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("users.create", "'users.create' is not OPERATION: OPTION..., such as 'users.create: status=503 nth=3'"),
        (": cut", "': cut' is not OPERATION: OPTION..."),
        ("*: statis=503", "unknown option 'statis'; the options are cluster, name, nth, "),
        ("*: status", "'status' is not a valid value of status"),
        ("*: status=many", "'status=many' is not a valid value of status"),
        ("*: cut=yes", "'cut=yes' is not a valid value of cut"),
        ("*: cut headers=retry-after", "'headers=retry-after' is not a valid value of headers"),
        ("*: cut headers=:7", "'headers=:7' is not a valid value of headers"),
        ("*: status=99", "status must be from 200 to 599"),
        ("*, users.get: cut", r"unknown operation \*"),
    ],
)
def test_a_text_that_says_no_fault_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_fault(text)
