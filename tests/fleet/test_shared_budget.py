"""Several processes share one budget: how Valkey assigns slots. Each budget object acts as a process."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from valkey.asyncio import Valkey

from aiodbclient import DatabaseClient, Window, errors
from aiodbclient.sandbox import Sandbox
from aiodbclient.shared_budget import SharedRateBudget, token_key
from valkey_server import ValkeyServer

from .conftest import MakeBudget


async def granted_at_once(budget: SharedRateBudget, many: int) -> int:
    """Make calls without waiting, and return how many get a slot. They keep it."""
    calls = (budget.acquire(max_wait=0.0) for _ in range(many))
    verdicts = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(verdict) for verdict in verdicts} <= {type(None), errors.RateLimitError}
    return verdicts.count(None)


async def test_two_processes_have_one_budget_between_them(make_budget: MakeBudget) -> None:
    one, other = make_budget(limit=10), make_budget(limit=10)
    assert await granted_at_once(one, 7) == 7
    assert await granted_at_once(other, 7) == 3
    assert one.snapshot().in_flight == 7
    assert other.snapshot().used == (10,)


async def test_accounts_have_budgets_of_their_own(make_budget: MakeBudget) -> None:
    one, other = make_budget(key=token_key("token-1")), make_budget(key=token_key("token-2"))
    assert await granted_at_once(one, 10) == 10
    assert await granted_at_once(other, 10) == 10


async def test_a_slot_counts_for_its_window_from_the_answer_on(make_budget: MakeBudget) -> None:
    one, other = make_budget(limit=1, seconds=0.4), make_budget(limit=1, seconds=0.4)
    await one.acquire()
    waiting = asyncio.create_task(other.acquire())
    await asyncio.sleep(0.1)
    answered = time.monotonic()
    one.release()
    # It reports what it knows of the answer with its next ask.
    assert await granted_at_once(one, 1) == 0
    await waiting
    assert 0.35 <= time.monotonic() - answered < 4.0  # it knows the server's clock only as well as its ask was quick


@pytest.mark.parametrize("latency", [0.0, 0.15])
async def test_no_request_meets_a_429_and_no_slot_stays_idle(make_budget: MakeBudget, latency: float) -> None:
    window = Window(20, 0.5)
    async with Sandbox(windows=[window]) as sandbox:
        cluster = await sandbox.add_cluster("pg", backend="memory")
        if latency:
            sandbox.faults.add("users.create", delay=latency)

        async def work(budget: SharedRateBudget, process: int) -> None:
            async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=budget) as client:
                users = client.cluster(cluster, engine="pg").users
                await asyncio.gather(*(users.create(f"user-{process}-{n}") for n in range(25)))

        started = time.monotonic()
        await asyncio.gather(*(work(make_budget(windows=[window]), process) for process in range(4)))
        took = time.monotonic() - started
        assert sandbox.counts == {("users.create", 201): 100}
    # Each round takes the window and an answer, which is slow on a busy machine.
    assert took < 3 * 4 * (0.5 + latency)


async def test_each_process_that_waits_has_a_claim_to_its_share(make_budget: MakeBudget) -> None:
    greedy, modest = make_budget(limit=20), make_budget(limit=20)
    order: list[str] = []

    async def use(budget: SharedRateBudget, name: str) -> None:
        await budget.acquire()
        order.append(name)
        budget.release()

    many = [asyncio.create_task(use(greedy, "greedy")) for _ in range(60)]
    await asyncio.sleep(0.1)
    await asyncio.gather(*(use(modest, "modest") for _ in range(10)))
    # It came when 20 of 60 were sent and 40 waited, and got half of the next window.
    assert order.count("greedy") <= 31
    await asyncio.gather(*many)


async def test_first_come_first_served_within_a_process(make_budget: MakeBudget) -> None:
    budget, order = make_budget(limit=5, seconds=0.2), list[int]()

    async def use(n: int) -> None:
        await budget.acquire()
        order.append(n)
        budget.release()

    await asyncio.gather(*(use(n) for n in range(15)))
    assert order == list(range(15))


async def test_max_wait_is_judged_at_once_and_the_error_has_the_wait(make_budget: MakeBudget) -> None:
    budget = make_budget(limit=2, seconds=60.0)
    assert await granted_at_once(budget, 2) == 2
    budget.release()
    started = time.monotonic()
    with pytest.raises(errors.RateLimitError, match="nothing was sent") as caught:
        await budget.acquire(max_wait=30.0)
    elapsed = time.monotonic() - started
    assert elapsed < 15.0
    assert caught.value.retry_after == pytest.approx(60.0 - elapsed, abs=2.0)
    assert not caught.value.may_have_applied


async def test_a_wait_within_max_wait_is_waited_for(make_budget: MakeBudget) -> None:
    budget = make_budget(limit=2, seconds=0.4)
    assert await granted_at_once(budget, 2) == 2
    budget.release()
    await budget.acquire(max_wait=20.0)


async def test_max_wait_counts_those_ahead_in_the_queue(make_budget: MakeBudget) -> None:
    budget = make_budget(limit=2, seconds=30.0)
    assert await granted_at_once(budget, 2) == 2
    ahead = [asyncio.create_task(budget.acquire()) for _ in range(4)]
    await asyncio.sleep(0.05)
    with pytest.raises(errors.RateLimitError) as caught:
        await budget.acquire(max_wait=50.0)
    assert caught.value.retry_after == pytest.approx(90.0, abs=5.0)
    for task in ahead:
        task.cancel()


async def test_a_429_closes_the_gate_of_every_process_and_it_opens_gently(make_budget: MakeBudget) -> None:
    one, other = make_budget(limit=40, seconds=60.0), make_budget(limit=40, seconds=60.0)
    await one.acquire()
    headers = {"retry-after": "1.5", "ratelimit-limit": "40", "ratelimit-remaining": "39"}
    closed = time.monotonic()
    assert await one.throttle(headers) == pytest.approx(1.5, abs=0.02)
    one.release()
    with pytest.raises(errors.RateLimitError) as caught:
        await other.acquire(max_wait=0.1)
    assert caught.value.retry_after == pytest.approx(1.5 - (time.monotonic() - closed), abs=0.3)
    await other.acquire()
    assert time.monotonic() - closed >= 1.4  # it knows the server's clock only as well as its ask was quick
    # One is sent first; the others after its answer.
    assert await granted_at_once(one, 5) == 0
    other.release()
    assert await granted_at_once(other, 5) == 2


async def test_requests_of_others_are_seen_in_the_headers(make_budget: MakeBudget) -> None:
    windows = [Window(10, 0.2), Window(50, 600.0)]
    one, other = make_budget(windows=windows), make_budget(windows=windows)
    await one.acquire()
    one.observe({"ratelimit-limit": "50", "ratelimit-remaining": "1", "ratelimit-reset": "1"})
    one.release()
    await one.acquire()  # and reports
    one.observe({"ratelimit-limit": "999999999999999", "ratelimit-remaining": "-1", "ratelimit-reset": "nan"})
    other.observe({"ratelimit-limit": "50"})
    with pytest.raises(errors.RateLimitError) as caught:
        await other.acquire(max_wait=2.0)
    assert other.snapshot().used[1] == 50
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 2.0


async def test_slots_of_a_killed_process_free_themselves(make_budget: MakeBudget, valkey: ValkeyServer) -> None:
    code = (
        "import asyncio, os, signal, sys\n"
        "from aiodbclient import Window\n"
        "from aiodbclient.shared_budget import SharedRateBudget\n"
        "async def main():\n"
        "    budget = SharedRateBudget(sys.argv[1], [Window(10, 0.4)])\n"
        "    for _ in range(10): await budget.acquire()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", code, valkey.url)
    assert await killed.wait() == -9
    budget = make_budget(limit=10, seconds=0.4)
    started = time.monotonic()
    await asyncio.gather(*(budget.acquire() for _ in range(10)))
    assert time.monotonic() - started < 0.4 + 1.0 + 0.4  # the window and the lease


async def test_cancelling_gives_the_slots_back_and_hands_the_asking_over(make_budget: MakeBudget) -> None:
    budget = make_budget(limit=5, seconds=0.3)
    assert await granted_at_once(budget, 5) == 5
    waiting = [asyncio.create_task(budget.acquire()) for _ in range(1000)]
    await asyncio.sleep(0.05)
    for task in waiting[:-5]:  # the one that asks for all is the first
        task.cancel()
    await asyncio.gather(*waiting[-5:])
    assert budget.snapshot().waiting == 0
    for _ in range(10):
        budget.release(sent=False)
    assert await granted_at_once(budget, 5) == 5


async def test_closing_ends_the_calls_that_wait(make_budget: MakeBudget) -> None:
    budget = make_budget(limit=1, seconds=5.0)
    await budget.acquire()
    waiting = [asyncio.create_task(budget.acquire()) for _ in range(3)]
    await asyncio.sleep(0.05)
    budget.release()
    await budget.aclose()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [errors.ConfigurationError] * 3


async def test_the_token_is_not_in_the_key(make_budget: MakeBudget, valkey: ValkeyServer) -> None:
    token = "dop_v1_" + "5ec2e7" * 8
    budget = make_budget(key=token_key(token))
    await budget.acquire()
    budget.release()
    await budget.aclose()
    async with Valkey.from_url(valkey.url, decode_responses=True) as client:
        keys = [key async for key in client.scan_iter()]
        assert len(keys) == 2
        assert all([await client.pttl(key) > 0 for key in keys])
    assert not any(part in key for key in keys for part in (token, "5ec2e7"))
    with pytest.raises(errors.InvalidArgumentError, match="token_key"):
        make_budget(key=token)


@pytest.mark.parametrize(
    "options",
    [
        {"windows": []},
        {"windows": [(250, 60.0)]},
        {"reserve": 10},
        {"reserve": -1},
        {"key": ""},
        {"fallback_share": 0.0},
        {"fallback_share": 1.5},
        {"timeout": 0.0},
        {"timeout": "1"},
        {"fallback_share": None},
        {"windows": 5},
        {"url": 5},
        {"key": b"bytes"},
        {"url": "http://localhost"},
        {"url": "valkey://:hunter2@localhost:nonsense/0"},
        *({"url": f"valkey://:a@hunter2{end}b@localhost"} for end in "/?#"),  # the host would be hunter2
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any]) -> None:
    arguments = {"url": "valkey://localhost", "windows": [Window(10, 1.0)]} | options
    with pytest.raises(errors.InvalidArgumentError, match=next(iter(options))) as caught:
        SharedRateBudget(**arguments)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_it_is_made_without_a_loop_or_a_server_and_shows_no_password() -> None:
    budget = SharedRateBudget("valkey://user:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in repr(budget) + repr(vars(type(budget)))
    assert "250" in repr(budget)
    for url in ("valkey://:a@hunter2@localhost/0", "valkey://localhost?password=a@hunter2", "unix:///run/a@b.sock"):
        assert "hunter2" not in repr(SharedRateBudget(url))


def test_without_the_extra_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['valkey'] = None; import aiodbclient; import aiodbclient.shared_budget"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "pip install 'aiodbclient[valkey]'" in run.stderr


async def test_a_waiter_learns_its_wait_although_the_call_that_asked_for_it_left(
    make_budget: MakeBudget, valkey: ValkeyServer
) -> None:
    budget = make_budget(limit=1, seconds=60.0, timeout=2.0)
    await budget.acquire()
    valkey.pause()
    leader = asyncio.create_task(budget.acquire())
    await asyncio.sleep(0.05)
    other = asyncio.create_task(budget.acquire(max_wait=0.3))
    await asyncio.sleep(0.05)
    leader.cancel()
    valkey.resume()
    started = time.monotonic()
    with pytest.raises(errors.RateLimitError):
        await other
    assert time.monotonic() - started < 1.0
    budget.release()


COMMANDS = [
    *("evalsha", "eval", "script|load", "hello", "client|setinfo", "client|setname", "select", "ping"),
    *("zadd", "zcount", "zrem", "zremrangebyscore", "zrevrange"),
    *("hget", "hset", "hsetnx", "hdel", "hgetall", "pexpire", "time"),
]


async def allow(valkey: ValkeyServer, name: str, commands: list[str]) -> str:
    """Create a Valkey user that may run these commands on our keys. Returns its URL."""
    async with Valkey.from_url(valkey.url) as client:
        rules = ["reset", "on", ">hunter2", "~aiodbclient:*", "-@all", *(f"+{command}" for command in commands)]
        await client.execute_command("ACL", "SETUSER", name, *rules)
    return valkey.url.replace("valkey://", f"valkey://{name}:hunter2@")


async def test_the_documented_commands_suffice(
    make_budget: MakeBudget, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    guide = (Path(__file__).parents[2] / "docs/how-to/fleet.md").read_text()
    assert set(re.findall(r"\+([a-z|]+)", guide)) == set(COMMANDS)
    url = await allow(valkey, "fleet", COMMANDS)
    for _ in range(2):
        async with SharedRateBudget(url, [Window(4, 0.2), Window(50, 600.0)], timeout=5.0) as budget:
            for n in range(10):
                await budget.acquire(max_wait=5.0)
                if n == 5:
                    await budget.throttle({"retry-after": "0.1"})
                else:
                    budget.observe({"ratelimit-limit": "50", "ratelimit-remaining": "20"})
                budget.release()
        valkey.stop()
        valkey.start()
        url = await allow(valkey, "fleet", COMMANDS)
    assert not [record for record in caplog.records if record.levelno >= 30]


@pytest.mark.parametrize("missing", ["evalsha", "zadd", "password", "database"])
async def test_a_failure_that_waiting_cannot_cure_is_an_error(valkey: ValkeyServer, missing: str) -> None:
    url = await allow(valkey, "fleet", [command for command in COMMANDS if command != missing])
    if missing == "password":
        url = url.replace("hunter2", "hunter3")
    if missing == "database":
        url = f"{valkey.url}/99"
    async with SharedRateBudget(url, [Window(4, 0.2)]) as budget:
        for _ in range(2):
            with pytest.raises(errors.ConfigurationError, match="waiting does not help") as caught:
                await budget.acquire()
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


async def test_a_login_that_is_taken_away_later_is_logged_as_an_error(
    valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with SharedRateBudget(await allow(valkey, "fleet", COMMANDS), [Window(20, 10.0)]) as budget:
        await budget.acquire()
        budget.release()
        await allow(valkey, "fleet", ["hello"])
        await budget.acquire()  # with its share
        budget.release()
    (logged,) = [record for record in caplog.records if record.levelno >= 30]
    assert logged.levelname == "ERROR"
    assert "refuses this process" in logged.getMessage()
