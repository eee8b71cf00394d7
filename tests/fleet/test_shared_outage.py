"""Valkey is down, slow, or has lost its memory: requests continue, paced, and sharing resumes by itself."""

from __future__ import annotations

import asyncio
import logging
import random
import time

import pytest

from aiodbclient import Window, errors
from aiodbclient.shared_budget import SharedRateBudget
from valkey_server import ValkeyServer

from ..pacing.virtual_valkey import VirtualValkey
from ..pacing.world import Client, Latency, Server, VirtualLoop, live
from .conftest import MakeBudget
from .test_shared_budget import granted_at_once


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


async def until_shared(budget: SharedRateBudget, caplog: pytest.LogCaptureFixture) -> int:
    """Ask for a slot until the budget is shared again. Returns how many were granted."""
    granted = 0
    async with asyncio.timeout(20.0):
        while not any("shared again" in record.message for record in caplog.records):
            await asyncio.sleep(0.02)
            granted += await granted_at_once(budget, 1)
    return granted


async def test_while_valkey_is_down_each_process_goes_on_with_its_share(
    make_budget: MakeBudget, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiodbclient")
    budget = make_budget(limit=20, seconds=0.4, fallback_share=0.25)
    valkey.stop()
    started = time.monotonic()
    for _ in range(12):
        await budget.acquire()
        budget.release()
    # 5 of 20 in each 0.4 s.
    assert 0.8 <= time.monotonic() - started < 4.0
    (warning,) = warnings_in(caplog)
    assert f"127.0.0.1:{valkey.port}" in warning
    assert "0.25" in warning
    valkey.start()
    await until_shared(budget, caplog)
    assert len(warnings_in(caplog)) == 1


async def test_requests_during_an_outage_count_when_the_budget_is_shared_again(
    make_budget: MakeBudget, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiodbclient")
    alone, other = make_budget(limit=20, seconds=15.0, fallback_share=0.5), make_budget(limit=20, seconds=15.0)
    await alone.acquire()
    alone.release()
    valkey.stop()
    assert await granted_at_once(alone, 20) == 9  # of its 10, one was sent before
    for _ in range(9):
        alone.release()
    valkey.start()
    granted = await until_shared(alone, caplog)
    assert granted <= 1
    assert await granted_at_once(other, 20) == 10 - granted


async def test_a_valkey_that_is_never_there_is_no_obstacle(caplog: pytest.LogCaptureFixture) -> None:
    async with SharedRateBudget("valkey://127.0.0.1:1", [Window(20, 10.0)], fallback_share=0.1) as budget:
        await budget.acquire()
        await budget.acquire(bulk=True)
        with pytest.raises(errors.RateLimitError) as caught:
            await budget.acquire(max_wait=1.0)
        assert caught.value.retry_after == pytest.approx(10.0, abs=1.0)
        budget.release()
        await budget.throttle({"retry-after": "0.2"})
        budget.release(sent=False)
        started = time.monotonic()
        await budget.acquire()
        assert time.monotonic() - started >= 0.19
    assert len(warnings_in(caplog)) == 1


async def test_a_valkey_that_does_not_answer_costs_no_more_than_the_timeout(
    make_budget: MakeBudget, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiodbclient")
    budget = make_budget(limit=20, seconds=0.8, fallback_share=0.25, timeout=0.5)
    await budget.acquire()
    valkey.pause()
    try:
        started = time.monotonic()
        await asyncio.gather(*(budget.acquire() for _ in range(4)))
        assert time.monotonic() - started < 1.5  # once, and not for each of the four
    finally:
        valkey.resume()
    for _ in range(5):
        budget.release()
    await until_shared(budget, caplog)
    assert len(warnings_in(caplog)) == 1


async def test_a_valkey_that_lost_its_memory_gets_the_reports_again(
    make_budget: MakeBudget, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiodbclient")
    budgets = [make_budget(limit=20, seconds=10.0, fallback_share=0.1) for _ in range(2)]
    for budget in budgets:
        await budget.acquire()
        budget.release()
        assert (
            await granted_at_once(budget, 8) == 8
        )  # after an answer, so that it is known that there is no other client
        for _ in range(4):
            budget.release()
    valkey.stop()
    valkey.start()
    # Each used more than its share, so nothing is sent until all is known again. Then two slots are left.
    assert await granted_at_once(budgets[0], 9) == 0
    assert await granted_at_once(budgets[1], 9) == 0
    await asyncio.sleep(2.0)
    assert await granted_at_once(budgets[0], 9) == 2
    assert await granted_at_once(budgets[1], 9) == 0
    assert [record.message for record in caplog.records if "lost" in record.message]


async def test_a_call_cancelled_in_the_middle_of_an_ask_leaves_no_slot_behind(
    make_budget: MakeBudget, valkey: ValkeyServer
) -> None:
    budget = make_budget(limit=5, seconds=5.0, timeout=2.0)
    await budget.acquire()
    valkey.pause()
    asking = [asyncio.create_task(budget.acquire()) for _ in range(4)]
    await asyncio.sleep(0.05)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    # It may have assigned slots that no one waits for any more.
    valkey.resume()
    await asyncio.sleep(0.05)
    assert await granted_at_once(budget, 5) == 4


async def test_an_idle_process_takes_nothing_of_a_window_that_others_filled_before_the_outage(
    make_budget: MakeBudget, valkey: ValkeyServer
) -> None:
    busy, idle = (make_budget(limit=20, seconds=8.0, fallback_share=0.5) for _ in range(2))
    await busy.acquire()
    busy.release()
    await idle.acquire()
    answered = time.monotonic()
    idle.release()
    await asyncio.sleep(1.0)  # so that its facts about the other are old
    assert await granted_at_once(busy, 20) == 18

    valkey.stop()

    assert await granted_at_once(idle, 20) == 0
    with pytest.raises(errors.RateLimitError) as caught:
        await idle.acquire(max_wait=1.0)
    left = 8.0 - (time.monotonic() - answered)  # until its own first slot is free
    assert caught.value.retry_after == pytest.approx(left, abs=1.0)


@pytest.mark.parametrize("kept", [True, False], ids=["a pause", "a restart"])
async def test_after_an_outage_the_first_one_back_leaves_what_the_others_sent_alone(
    make_budget: MakeBudget, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture, kept: bool
) -> None:
    caplog.set_level(logging.INFO, "aiodbclient")
    first, other = budgets = [make_budget(limit=20, seconds=15.0, fallback_share=0.5, timeout=0.3) for _ in range(2)]
    for budget in budgets:
        await budget.acquire()
        budget.release()
    (valkey.pause if kept else valkey.stop)()
    for budget, sent in zip(budgets, await asyncio.gather(*(granted_at_once(b, 20) for b in budgets)), strict=True):
        assert 7 <= sent <= 9
        for _ in range(sent):
            budget.release()

    (valkey.resume if kept else valkey.start)()

    # The other one has no waiting callers, but still reports what it sent.
    granted = 0
    async with asyncio.timeout(20.0):
        while sum("shared again" in record.message for record in caplog.records) < 2:
            granted += await granted_at_once(first, 20)
            await asyncio.sleep(0.02)
    assert granted + await granted_at_once(first, 20) <= 2
    assert other.snapshot().used[0] >= 17


@pytest.mark.parametrize("cut_off", [2, 5], ids=["two of five are cut off", "all of five are cut off"])
def test_where_the_shares_are_no_more_than_one_at_most_1_in_100_meets_a_429(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, cut_off: int
) -> None:
    windows = Window(60, 2.0), Window(5000, 120.0)

    async def main(loop: VirtualLoop) -> None:
        api = Server(loop.time, tuple((window.limit, window.seconds) for window in windows))
        async with VirtualValkey(valkey.url, loop, monkeypatch) as shared:
            budgets, links = zip(
                *[await shared.connect(*windows, fallback_share=0.2, timeout=0.2) for _ in range(5)], strict=True
            )
            latency = Latency(random.Random(1), 0.002, 0.02)
            clients = [Client(budget, api, latency) for budget in budgets]
            working = [asyncio.create_task(client.calls(1000, 8, tries=1000)) for client in clients]
            await asyncio.sleep(3.0)
            for link in links[:cut_off]:
                link.cut()
            await asyncio.sleep(6.0)
            for link in links[:cut_off]:
                link.mend()
            await asyncio.sleep(3.0)
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
        sent, refused = sum(client.sent for client in clients), sum(client.refused for client in clients)
        assert sent > 200
        assert refused <= max(0.01 * sent, 2), (refused, sent, [(c.refused, c.sent) for c in clients])

    live(main)
