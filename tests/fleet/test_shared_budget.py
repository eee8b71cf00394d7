"""Several processes share one budget, on each server: how slots are assigned. In virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from aiodbclient import RateLimiter, Window, errors
from aiodbclient._pacing.budget import Budget
from aiodbclient.shared_budget import SharedRateBudget

from ..pacing.virtual_fleet import ROUND_TRIP, VirtualFleet, now, virtually
from ..pacing.world import Client, LimitingServer


async def granted_at_once(budget: SharedRateBudget, many: int) -> int:
    """Make calls without waiting, and return how many get a slot. They keep it."""
    calls = (budget.acquire(max_wait=0.0) for _ in range(many))
    verdicts = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(verdict) for verdict in verdicts} <= {int, errors.RateLimitError}
    return sum(isinstance(verdict, int) for verdict in verdicts)


async def answer(budget: SharedRateBudget, many: int = 1) -> None:
    for _ in range(many):
        await budget.acquire()
        budget.release()


@virtually
async def test_two_processes_have_one_budget_between_them(fleet: VirtualFleet) -> None:
    one, other = await fleet.make(10), await fleet.make(10)
    assert await granted_at_once(one, 7) == 7
    assert await granted_at_once(other, 7) == 3
    assert [(end.snapshot().used, end.snapshot().in_flight) for end in (one, other)] == [((0,), 7), ((7,), 3)]


@virtually
async def test_a_slot_counts_for_its_window_from_the_answer_on(fleet: VirtualFleet) -> None:
    one, other = await fleet.make(1), await fleet.make(1)
    await one.acquire()
    waiting = asyncio.create_task(other.acquire())
    await asyncio.sleep(0.1)
    answered = now()
    one.release()
    await waiting
    assert now() - answered == pytest.approx(60.0, abs=0.1)


@pytest.mark.parametrize("latency", [0.0, 4.5])
@virtually
async def test_no_request_meets_a_429_and_no_slot_stays_idle(fleet: VirtualFleet, latency: float) -> None:
    async def run(*budgets: Budget) -> float:
        api = LimitingServer(now, ((20, 15.0),))
        clients = [Client(budget, api, lambda: latency / 2) for budget in budgets]
        started = now()
        await asyncio.gather(*(client.calls(42 // len(budgets), 100) for client in clients))
        assert sum(client.refused for client in clients) == 0
        return now() - started

    best = await run(RateLimiter([Window(20, 15.0)], clock=now))
    assert await run(*[await fleet.make(20, 15.0) for _ in range(3)]) <= best + 3 * 0.1


@virtually
async def test_40_processes_use_the_documented_limits_and_ask_little(fleet: VirtualFleet) -> None:
    windows = Window(250, 60.0), Window(5000, 3600.0)
    api = LimitingServer(now)
    budgets = [(await fleet.connect(*windows, fallback_share=1 / 40))[0] for _ in range(40)]
    clients = [Client(budget, api, lambda: 0.05) for budget in budgets]
    started = now()
    await asyncio.gather(*(client.calls(8, 8) for client in clients))
    assert sum(client.refused for client in clients) == 0
    assert now() - started <= 60.0 * 1.03
    assert fleet.changes <= 3 * 320


@virtually
async def test_each_process_that_waits_has_a_claim_to_its_share(fleet: VirtualFleet) -> None:
    greedy, modest = await fleet.make(20), await fleet.make(20)
    order: list[str] = []

    async def use(budget: SharedRateBudget, name: str) -> None:
        await budget.acquire()
        order.append(name)
        budget.release()

    many = [asyncio.create_task(use(greedy, "greedy")) for _ in range(60)]
    await asyncio.sleep(0.1)
    await asyncio.gather(*(use(modest, "modest") for _ in range(10)))
    # It came when 20 of 60 were sent and 40 waited, and got half of the next window.
    assert order.count("greedy") <= 30
    await asyncio.gather(*many)


@virtually
async def test_first_come_first_served_within_a_process(fleet: VirtualFleet) -> None:
    budget, order = await fleet.make(5), list[int]()

    async def use(n: int) -> None:
        await budget.acquire()
        order.append(n)
        budget.release()

    await asyncio.gather(*(use(n) for n in range(15)))
    assert order == list(range(15))


@virtually
async def test_the_bulk_calls_of_one_process_leave_room_for_the_others_calls(fleet: VirtualFleet) -> None:
    bulk, other = await fleet.make(10), await fleet.make(10)
    many = [asyncio.create_task(bulk.acquire(bulk=True)) for _ in range(30)]
    await asyncio.sleep(1.0)
    started = now()
    waiting = [asyncio.create_task(other.acquire()) for _ in range(10)]
    await asyncio.sleep(1.0)
    for _ in range(10):
        bulk.release()
    await asyncio.gather(*waiting)
    assert now() - started == pytest.approx(61.0, abs=0.5)
    assert sum(task.done() for task in many) == 10
    for task in many:
        task.cancel()
    await asyncio.gather(*many, return_exceptions=True)


@virtually
async def test_max_wait_is_judged_at_once_and_the_error_has_the_wait(fleet: VirtualFleet) -> None:
    budget = await fleet.make(2)
    assert await granted_at_once(budget, 2) == 2
    budget.release()
    started = now()
    with pytest.raises(errors.RateLimitError, match="nothing was sent") as caught:
        await budget.acquire(max_wait=30.0)
    assert now() - started <= 0.03
    assert caught.value.retry_after == pytest.approx(60.0, abs=0.1)
    assert not caught.value.may_have_applied


@virtually
async def test_a_wait_within_max_wait_is_waited_for(fleet: VirtualFleet) -> None:
    budget = await fleet.make(2)
    assert await granted_at_once(budget, 2) == 2
    budget.release()
    await budget.acquire(max_wait=61.0)


@virtually
async def test_max_wait_counts_those_ahead_in_the_queue(fleet: VirtualFleet) -> None:
    budget = await fleet.make(2, 30.0)
    assert await granted_at_once(budget, 2) == 2
    ahead = [asyncio.create_task(budget.acquire()) for _ in range(4)]
    await asyncio.sleep(0.05)
    with pytest.raises(errors.RateLimitError) as caught:
        await budget.acquire(max_wait=50.0)
    assert caught.value.retry_after == pytest.approx(90.0, abs=0.1)
    for task in ahead:
        task.cancel()
    await asyncio.gather(*ahead, return_exceptions=True)


@virtually
async def test_a_wait_that_grows_beyond_max_wait_is_refused_as_soon_as_that_is_known(fleet: VirtualFleet) -> None:
    one, other = await fleet.make(1), await fleet.make(1)
    await one.acquire()
    started = now()
    with pytest.raises(errors.RateLimitError) as caught:
        await other.acquire(max_wait=70.0)
    # The first one is not answered after 10 s, and its slot is free no earlier than 60 s after the answer.
    assert 10.0 <= now() - started <= 10.0 + 60.0 / 10 + 0.1
    assert caught.value.retry_after == pytest.approx(60.0, abs=0.1)


@virtually
async def test_a_429_closes_the_gate_of_every_process_and_it_opens_gently(fleet: VirtualFleet) -> None:
    one, other = await fleet.make(40), await fleet.make(40)
    await one.acquire()
    closed = now()
    headers = {"retry-after": "1.5", "ratelimit-limit": "40", "ratelimit-remaining": "39"}
    assert await one.throttle(headers) == pytest.approx(1.5, abs=0.01)
    one.release()
    with pytest.raises(errors.RateLimitError) as caught:
        await other.acquire(max_wait=0.1)
    assert caught.value.retry_after == pytest.approx(1.5 - (now() - closed), abs=0.01)
    await other.acquire()
    assert now() - closed == pytest.approx(1.5, abs=0.05)
    # One of each process is sent first; its others after the answer.
    assert await granted_at_once(other, 5) == 0
    assert await granted_at_once(one, 5) == 1
    other.release()
    assert await granted_at_once(other, 5) == 2


@virtually
async def test_a_429_with_no_time_closes_all_for_a_random_one(fleet: VirtualFleet) -> None:
    one, other = await fleet.make(40), await fleet.make(40)
    waits = list[float]()
    for _ in range(5):
        await one.acquire()
        waits.append(await one.throttle({}))
        closed = now()
        one.release()
        await other.acquire()
        assert now() - closed >= waits[-1] - 0.001
        other.release()
    assert len({*waits}) == 5
    assert max(waits) <= 16.0


@virtually
async def test_requests_of_others_are_seen_in_the_headers(fleet: VirtualFleet) -> None:
    windows = Window(10, 0.2), Window(50, 600.0)
    one, other = [(await fleet.connect(*windows))[0] for _ in range(2)]
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


@virtually
async def test_slots_of_a_killed_process_free_themselves(fleet: VirtualFleet) -> None:
    (killed, link), budget = await fleet.connect(Window(10, 60.0)), await fleet.make(10)
    for _ in range(10):
        await killed.acquire()
    link.cut()  # it never reports that they ended
    started = now()
    await asyncio.gather(*(budget.acquire() for _ in range(10)))
    assert now() - started == pytest.approx(30.0 + 60.0, abs=0.5)  # the lease and the window


@virtually
async def test_a_request_that_takes_longer_than_a_lease_counts_once(fleet: VirtualFleet) -> None:
    one, other = await fleet.make(10), await fleet.make(10)
    await one.acquire()
    await asyncio.sleep(45.0)
    assert await granted_at_once(other, 9) == 9
    one.release()
    for _ in range(9):
        other.release()
    await asyncio.sleep(30.0)
    assert await granted_at_once(other, 1) == 0
    assert other.snapshot().used == (10,)


@pytest.mark.parametrize("patience", [None, 65.0], ids=["cancelled", "out of patience"])
@virtually
async def test_a_process_whose_calls_no_longer_wait_keeps_no_share(fleet: VirtualFleet, patience: float | None) -> None:
    waits, other = await fleet.make(12, fallback_share=0.5), await fleet.make(12)
    await answer(other)
    assert await granted_at_once(other, 11) == 11
    await asyncio.sleep(61.0)
    assert await granted_at_once(other, 1) == 1  # all are in flight
    waiting = asyncio.create_task(waits.acquire(max_wait=patience))
    await asyncio.sleep(66.0)
    waiting.cancel()
    with suppress(asyncio.CancelledError, errors.RateLimitError):
        await waiting
    for _ in range(12):
        other.release()
    await asyncio.sleep(60.1)
    await answer(other)
    assert await granted_at_once(other, 12) == 11


@virtually
async def test_clocks_that_differ_do_not_matter(fleet: VirtualFleet) -> None:
    one, other = await fleet.make(2), await fleet.make(2)
    await answer(one)
    fleet.ahead += 20.0  # somebody sets the server's clock
    await answer(other)
    assert await granted_at_once(one, 1) == 0
    fleet.ahead -= 1000.0
    assert await granted_at_once(one, 1) == 0  # all counts from now on
    await asyncio.sleep(60.1)
    assert await granted_at_once(one, 2) == 2


@virtually
async def test_cancelling_gives_the_slots_back(fleet: VirtualFleet) -> None:
    budget = await fleet.make(5, 30.0)
    assert await granted_at_once(budget, 5) == 5
    waiting = [asyncio.create_task(budget.acquire()) for _ in range(1000)]
    await asyncio.sleep(0.05)
    for task in waiting[:-5]:
        task.cancel()
    for _ in range(5):
        budget.release()
    await asyncio.gather(*waiting[-5:])
    assert budget.snapshot().waiting == 0
    for _ in range(5):
        budget.release(sent=False)
    assert await granted_at_once(budget, 6) == 5


@virtually
async def test_a_call_cancelled_in_the_middle_of_an_ask_leaves_no_slot_behind(fleet: VirtualFleet) -> None:
    budget = await fleet.make(5)
    await budget.acquire()
    asking = [asyncio.create_task(budget.acquire()) for _ in range(4)]
    await asyncio.sleep(ROUND_TRIP / 4)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert await granted_at_once(budget, 5) == 4


@virtually
async def test_closing_ends_the_calls_that_wait(fleet: VirtualFleet) -> None:
    budget, other = await fleet.make(1, 5.0), await fleet.make(1, 5.0)
    await budget.acquire()
    waiting = [asyncio.create_task(budget.acquire()) for _ in range(3)]
    await asyncio.sleep(0.05)
    budget.release()
    await budget.aclose()
    await budget.aclose()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [errors.ConfigurationError] * 3
    with pytest.raises(errors.ConfigurationError, match="closed"):
        await budget.acquire()
    started = now()
    await other.acquire()
    assert now() - started == pytest.approx(5.0, abs=0.1)  # it reported what ended


@virtually
async def test_a_process_that_left_is_forgotten_when_its_slots_are_free(fleet: VirtualFleet) -> None:
    one, other = await fleet.make(10), await fleet.make(10)
    await answer(one, 3)
    await one.aclose()
    await answer(other)
    assert await granted_at_once(other, 10) == 6
    await asyncio.sleep(91.0)
    other.release()
    await answer(other)
    assert len((await fleet.known())["members"]) == 1


@virtually
async def test_a_waiter_learns_its_wait_although_the_call_before_it_left(fleet: VirtualFleet) -> None:
    budget = await fleet.make(1)
    await budget.acquire()
    first = asyncio.create_task(budget.acquire())
    await asyncio.sleep(ROUND_TRIP / 4)
    other = asyncio.create_task(budget.acquire(max_wait=0.3))
    await asyncio.sleep(ROUND_TRIP / 4)
    first.cancel()
    started = now()
    with pytest.raises(errors.RateLimitError):
        await other
    assert now() - started <= 0.03
    budget.release()


@virtually
async def test_a_state_is_short_and_no_window_is_counted_too_low(fleet: VirtualFleet) -> None:
    windows = Window(150, 60.0), Window(400, 600.0)
    api = LimitingServer(now, ((150, 60.0), (400, 600.0)))
    client = Client((await fleet.connect(*windows))[0], api, lambda: 0.01)
    started = now()
    await client.calls(500, 16)
    assert client.refused == 0
    assert now() - started <= 600.0 + 2.0
    await asyncio.sleep(6.1)  # then it has reported the last ones too
    (member,) = (await fleet.known())["members"].values()
    answers = member["answers"]
    assert sum(answers.values()) == 500
    assert len(answers) < 250
