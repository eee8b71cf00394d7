"""The server is down, slow, or has lost its memory: requests go on, paced, and sharing resumes. In virtual time."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from aiodbclient import Window, errors
from aiodbclient.shared_budget import SharedRateBudget

from ..pacing.virtual_fleet import VirtualFleet, now, virtually
from ..pacing.world import Client, Latency, LimitingServer
from .test_shared_budget import answer, granted_at_once


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Those about the budget's server."""
    return [r.message for r in caplog.records if r.levelno >= logging.WARNING and "waiting" not in r.message]


async def until_shared(budget: SharedRateBudget, caplog: pytest.LogCaptureFixture, times: int = 1) -> int:
    """Ask for slots until the budget is shared again. Returns how many were granted."""
    caplog.set_level(logging.INFO, "aiodbclient")
    granted = 0
    async with asyncio.timeout(20.0):
        while sum("shared again" in record.message for record in caplog.records) < times:
            await asyncio.sleep(0.02)
            granted += await granted_at_once(budget, 1)
    return granted


@virtually
async def test_while_the_server_is_down_each_process_goes_on_with_its_share(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    budget = await fleet.make(20, fallback_share=0.25)
    fleet.down = True
    started = now()
    await answer(budget, 12)
    assert now() - started == pytest.approx(2 * 60.0, abs=0.1)  # 5 of 20 in each minute
    (warning,) = warnings_in(caplog)
    assert "127.0.0.1:" in warning
    assert "0.25" in warning
    fleet.down = False
    await until_shared(budget, caplog)
    assert len(warnings_in(caplog)) == 1


@virtually
async def test_requests_during_an_outage_count_when_the_budget_is_shared_again(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    alone, other = await fleet.make(20, fallback_share=0.5), await fleet.make(20)
    await answer(alone)
    fleet.down = True
    assert await granted_at_once(alone, 20) == 9  # of its 10, one was sent before
    for _ in range(9):
        alone.release()
    fleet.down = False
    granted = await until_shared(alone, caplog)
    assert granted <= 1
    assert await granted_at_once(other, 20) == 10 - granted


@virtually
async def test_a_server_that_is_never_there_is_no_obstacle(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.down = True
    budget = await fleet.make(20, fallback_share=0.1)
    await budget.acquire()
    await budget.acquire(bulk=True)
    with pytest.raises(errors.RateLimitError) as caught:
        await budget.acquire(max_wait=1.0)
    assert caught.value.retry_after == pytest.approx(60.0, abs=0.1)
    budget.release()
    assert await budget.throttle({"retry-after": "0.2"}) == pytest.approx(0.2, abs=0.01)
    budget.release(sent=False)
    started = now()
    await budget.acquire()
    assert now() - started == pytest.approx(0.2, abs=0.01)
    assert len(warnings_in(caplog)) == 1


@virtually
async def test_a_429_during_an_outage_closes_the_gate_of_all_afterwards(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = await fleet.make(20), await fleet.make(20)
    await answer(one)
    fleet.down = True
    await one.acquire()
    await one.throttle({"retry-after": "30", "ratelimit-limit": "20", "ratelimit-remaining": "18"})
    one.release()
    fleet.down = False
    await until_shared(one, caplog)
    with pytest.raises(errors.RateLimitError) as caught:
        await other.acquire(max_wait=0.0)
    assert caught.value.retry_after == pytest.approx(30.0, abs=6.0)


@virtually
async def test_a_server_that_does_not_answer_costs_no_more_than_the_timeout(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    budget, link = await fleet.connect(Window(20, 60.0), fallback_share=0.25, timeout=0.5)
    await budget.acquire()
    link.cut()
    started = now()
    await asyncio.gather(*(budget.acquire() for _ in range(4)))
    assert now() - started == pytest.approx(0.5, abs=0.03)  # once, and not for each of the four
    link.mend()
    for _ in range(5):
        budget.release()
    await until_shared(budget, caplog)
    assert len(warnings_in(caplog)) == 1


@virtually
async def test_a_server_that_lost_its_memory_gets_the_reports_again(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiodbclient")
    budgets = [await fleet.make(20, fallback_share=0.1) for _ in range(2)]
    for budget in budgets:
        await answer(budget)
        assert await granted_at_once(budget, 8) == 8  # after an answer showed that there is no other client
        for _ in range(4):
            budget.release()
    await fleet.write("")
    # Each used more than its share, so nothing is sent until all is known again. Then two slots are left.
    assert await granted_at_once(budgets[0], 9) == 0
    assert await granted_at_once(budgets[1], 9) == 0
    await asyncio.sleep(5.0)
    assert await granted_at_once(budgets[0], 9) == 2
    assert await granted_at_once(budgets[1], 9) == 0
    assert all("it has lost what was reported" in warning for warning in warnings_in(caplog))
    assert len(warnings_in(caplog)) == 2


@virtually
async def test_the_limit_and_the_gate_outlive_the_servers_memory(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    windows = Window(20, 60.0), Window(100, 3600.0)
    one, other = [(await fleet.connect(*windows))[0] for _ in range(2)]
    for _ in range(2):
        await one.acquire()
        one.observe({"ratelimit-limit": "50", "ratelimit-remaining": "48"})
        one.release()
    await one.acquire()
    await one.throttle({"retry-after": "20", "ratelimit-limit": "50", "ratelimit-remaining": "48"})
    one.release()
    await fleet.write("")
    await granted_at_once(one, 1)
    await asyncio.sleep(6.0)
    with pytest.raises(errors.RateLimitError) as caught:
        await other.acquire(max_wait=0.0)
    assert caught.value.retry_after == pytest.approx(14.0, abs=0.2)
    assert (await fleet.known())["hour"]["limit"] == 50


@virtually
async def test_a_server_with_an_old_copy_of_its_memory_gets_what_it_lacks(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = await fleet.make(20, fallback_share=0.1), await fleet.make(20, fallback_share=0.1)
    await answer(one)
    old = await fleet.read()
    await answer(one, 8)
    await answer(other, 8)
    await asyncio.sleep(7.0)  # it has reported that they ended
    await fleet.write(old)
    assert await granted_at_once(one, 9) == 0
    assert await granted_at_once(other, 9) == 0
    await asyncio.sleep(5.0)
    assert await granted_at_once(one, 9) == 3
    assert await granted_at_once(other, 9) == 0


@virtually
async def test_an_idle_process_goes_on_at_once_with_its_share_of_what_it_knew_to_be_free(fleet: VirtualFleet) -> None:
    busy, idle = await fleet.make(20, fallback_share=0.5), await fleet.make(20, fallback_share=0.5)
    await answer(busy)
    await answer(idle)
    await asyncio.sleep(10.0)  # so that its facts about the other are old
    fleet.down = True

    assert await granted_at_once(idle, 20) == 9


@virtually
async def test_a_process_that_knows_of_a_full_window_waits_for_its_end(fleet: VirtualFleet) -> None:
    busy, other = await fleet.make(20, fallback_share=0.5), await fleet.make(20, fallback_share=0.5)
    await answer(other)
    answered = now()
    await answer(busy, 3)
    assert await granted_at_once(busy, 20) == 16
    assert await granted_at_once(other, 1) == 0

    fleet.down = True

    with pytest.raises(errors.RateLimitError) as caught:
        await other.acquire(max_wait=1.0)
    left = 60.0 - (now() - answered)  # until its own first slot is free
    assert caught.value.retry_after == pytest.approx(left, abs=0.1)


@pytest.mark.parametrize("kept", [True, False], ids=["a pause", "a restart"])
@virtually
async def test_after_an_outage_the_first_one_back_leaves_what_the_others_sent_alone(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture, kept: bool
) -> None:
    first, other = budgets = [await fleet.make(20, fallback_share=0.5) for _ in range(2)]
    for budget in budgets:
        await answer(budget)
    fleet.down = True
    for budget in budgets:
        sent = await granted_at_once(budget, 20)
        assert 8 <= sent <= 9
        for _ in range(sent):
            budget.release()
    if not kept:
        await fleet.write("")
    fleet.down = False
    # The other one has no waiting callers, but still reports what it sent.
    granted = await until_shared(first, caplog, times=2)
    assert granted + await granted_at_once(first, 20) <= 2
    assert other.snapshot().used[0] >= 18


@pytest.mark.parametrize(
    ("cut_off", "most"), [(2, 0.1), (5, 0.01)], ids=["two of five are cut off", "all of five are cut off"]
)
@virtually
async def test_where_the_shares_are_no_more_than_one_few_meet_a_429_and_none_if_the_server_is_away_for_all(
    fleet: VirtualFleet, cut_off: int, most: float
) -> None:
    windows = Window(60, 60.0), Window(5000, 3600.0)
    api = LimitingServer(now, tuple((window.limit, window.seconds) for window in windows))
    budgets, links = zip(*[await fleet.connect(*windows, fallback_share=0.2) for _ in range(5)], strict=True)
    latency = Latency(random.Random(1), 0.05, 0.5)
    clients = [Client(budget, api, latency) for budget in budgets]
    working = [asyncio.create_task(client.calls(1000, 8)) for client in clients]
    await asyncio.sleep(65.0)
    for link in links[:cut_off]:
        link.cut()
    await asyncio.sleep(80.0)
    for link in links[:cut_off]:
        link.mend()
    await asyncio.sleep(65.0)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    sent, refused = sum(client.sent for client in clients), sum(client.refused for client in clients)
    assert sent > 180
    assert refused <= most * sent, (refused, sent, [(c.refused, c.sent) for c in clients])


@virtually
async def test_a_process_that_is_cut_off_while_it_waits_keeps_its_share_for_a_window(fleet: VirtualFleet) -> None:
    (gone, link), stays = await fleet.connect(Window(12, 60.0), fallback_share=0.25), await fleet.make(12)
    for budget in (gone, stays):
        await answer(budget)
    assert await granted_at_once(stays, 10) == 10
    waiting = asyncio.create_task(gone.acquire())
    await asyncio.sleep(1.0)
    link.cut()
    for _ in range(10):
        stays.release()
    await asyncio.sleep(61.0)
    await answer(stays)
    assert await granted_at_once(stays, 12) == 8
    for _ in range(8):
        stays.release()
    await asyncio.sleep(61.0)
    await answer(stays)
    assert await granted_at_once(stays, 12) == 11
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
