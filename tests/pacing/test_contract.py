"""The contract of budgets: ``RateLimiter``, and the shared one on each server, pass the same tests, in virtual time.

Runs beside others are here for the shared budget, against APIs with both readings of the description. test_simulation
covers the local one, more strictly.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from aiodbclient import Window, errors
from aiodbclient._pacing.budget import Budget, Pacer

from .conftest import Pairs
from .virtual_fleet import ROUND_TRIP, VirtualFleet, now, virtually
from .world import Client, Latency, LimitingServer, Perfect, optimum

MINUTE = 60.0
LONG = Window(250, MINUTE), Window(5000, 3600.0)

both_ways = pytest.mark.parametrize("zero", [False, True], ids=["remaining of the hour", "0 where the minute is full"])


def said(remaining: int, limit: int = 5000, **more: str) -> dict[str, str]:
    headers = {"ratelimit-limit": str(limit), "ratelimit-remaining": str(remaining)}
    return headers | {name.replace("_", "-"): value for name, value in more.items()}


async def answered(budget: Pacer, headers: dict[str, str], count: int = 1) -> None:
    for _ in range(count):
        await budget.acquire()
        budget.observe(headers)
        budget.release()


async def refused(budget: Pacer, headers: dict[str, str]) -> float:
    await budget.acquire()
    wait = await budget.throttle(headers)
    budget.release()
    return wait


async def go_at_once(budget: Pacer, many: int) -> int:
    """Make ``many`` calls without waiting, and return how many get a slot. They keep it."""
    verdicts = await asyncio.gather(*(budget.acquire(max_wait=0.0) for _ in range(many)), return_exceptions=True)
    assert {type(verdict) for verdict in verdicts} <= {int, errors.RateLimitError}
    return sum(isinstance(verdict, int) for verdict in verdicts)


async def run(ends: tuple[Budget, Budget], server: LimitingServer, count: int) -> tuple[float, list[Client]]:
    """Make ``count`` calls, half of them through each end, and return the seconds that they take."""
    latency = Latency(random.Random(1), 0.002, 0.01)
    clients = [Client(end, server, latency) for end in ends]
    started = server.now()
    await asyncio.gather(*(client.calls(count // 2, 16) for client in clients))
    took = server.now() - started
    assert [len(client.done) for client in clients] == [count // 2] * 2
    return took, clients


async def run_perfectly(limit: int, count: int) -> float:
    """Do the same with a perfect budget of ``limit`` requests, and return the seconds."""
    perfect = Perfect(limit, MINUTE, lambda: asyncio.sleep(ROUND_TRIP))
    server = LimitingServer(now, ((limit, MINUTE),))
    best, _ = await run((perfect, perfect), server, count)
    assert best >= optimum(count, server.windows)
    return best


def least_share(done: list[float], best: float, limit: int) -> float:
    """The lowest share of the limit that was used by the end of each of the first three minutes.

    If all clients send in bursts, a few requests that miss their slot wait for a whole minute. So the amount of work
    says more than the time of the last request. ``done`` has the seconds of each request. ``best`` is the time of a
    perfect budget.
    """
    return min(sum(when <= minute * best / 3 for when in done) / (limit * minute) for minute in (1, 2, 3))


@both_ways
@virtually
async def test_alone_it_takes_the_least_time_and_meets_no_429(fleet: VirtualFleet, zero: bool) -> None:
    best = await run_perfectly(250, 1000)
    server = LimitingServer(now, tuple((w.limit, w.seconds) for w in LONG), zero=zero)
    one, other = [(await fleet.connect(*LONG))[0] for _ in range(2)]
    started = now()
    took, clients = await run((one, other), server, 1000)
    assert sum(client.refused for client in clients) == 0
    done = [when - started for client in clients for when in client.done]
    assert least_share(done, best, 250) >= 0.99
    assert took <= 1.01 * best


@both_ways
@virtually
async def test_beside_somebody_who_spends_half_it_takes_its_share(fleet: VirtualFleet, zero: bool) -> None:
    best = await run_perfectly(125, 500)
    server = LimitingServer(now, tuple((w.limit, w.seconds) for w in LONG), zero=zero)

    async def spend() -> None:
        while True:
            server.hit()
            await asyncio.sleep(MINUTE / 125)

    one, other = [(await fleet.connect(*LONG))[0] for _ in range(2)]
    spending = asyncio.create_task(spend())
    await asyncio.sleep(MINUTE)
    took, clients = await run((one, other), server, 500)
    spending.cancel()
    refused, sent = sum(client.refused for client in clients), sum(client.sent for client in clients)
    assert refused <= 0.1 * sent
    assert took <= best + 1.1 * MINUTE


@virtually
async def test_a_documented_burst_429_costs_its_retry_after(make_pair: Pairs) -> None:
    one, other = await make_pair(*LONG)
    await answered(one, said(4990))
    started = now()
    assert await refused(one, said(0, retry_after="0.3")) == pytest.approx(0.3, abs=0.01)
    for end in (one, other, one):
        await asyncio.wait_for(answered(end, said(4980)), 3.0)
    assert now() - started == pytest.approx(0.3, abs=0.1)
    with pytest.raises(errors.RateLimitError) as caught:
        await asyncio.gather(*(other.acquire(max_wait=1.0) for _ in range(251)))
    assert (caught.value.retry_after or 0) <= 60


@virtually
async def test_the_answer_that_fills_the_minute_says_nothing_of_the_hour(make_pair: Pairs) -> None:
    one, other = await make_pair(Window(10, 0.5), Window(5000, 3600.0))
    for n in range(10):
        await answered(one, said(0 if n == 9 else 4999 - n))
    await asyncio.sleep(0.6)
    await asyncio.wait_for(answered(other, said(4989)), 1.0)
    assert one.snapshot().next_slot <= 0.5


@virtually
async def test_slots_that_expire_before_an_answer_arrives_do_not_count_as_others(make_pair: Pairs) -> None:
    one, _ = await make_pair(Window(2, 1.5))
    await answered(one, said(1, limit=2))
    await asyncio.sleep(0.9)
    await one.acquire()  # the server counts two
    await asyncio.sleep(0.9)  # and its answer comes when the first has expired
    one.observe(said(0, limit=2))
    one.release()
    assert await go_at_once(one, 2) == 1


@virtually
async def test_the_estimate_of_others_holds_until_an_answer_changes_it(make_pair: Pairs) -> None:
    one, other = await make_pair(Window(250, 60.0), Window(300, 360.0))  # others free a slot every 1.2 s
    await answered(one, said(2, limit=300))
    await answered(one, said(1, limit=300))
    assert await go_at_once(other, 4) <= 1
    await answered(one, said(295, limit=300))
    await one.acquire(max_wait=0.0)
    one.release()
    assert await go_at_once(other, 8) >= 3


@virtually
async def test_a_limit_is_believed_when_two_answers_in_a_row_name_it(make_pair: Pairs) -> None:
    one, _ = await make_pair(Window(100, 60.0), Window(100, 3600.0))
    await answered(one, said(8, limit=9))
    assert await go_at_once(one, 10) == 10
    for _ in range(10):
        one.release()
    await answered(one, said(30, limit=50))
    await answered(one, said(37, limit=50))
    await answered(one, said(36, limit=50))
    assert await go_at_once(one, 60) <= 50 - 14


@virtually
async def test_one_request_goes_when_the_gate_opens_and_one_more_with_each_answer(make_pair: Pairs) -> None:
    one, other = await make_pair(*LONG)
    await answered(one, said(4999))
    await refused(one, said(4999, retry_after="0.2"))
    assert await go_at_once(other, 3) == 0
    await asyncio.sleep(0.25)
    allowed: list[int] = []
    for n in range(3):
        allowed.append(await go_at_once(other, 5))
        for _ in range(n + 1):
            other.observe(said(4990))
            other.release()
    assert allowed == [1, 2, 4]


@virtually
async def test_throttle_returns_how_long_the_gate_is_closed(make_pair: Pairs) -> None:
    one, _ = await make_pair(*LONG)
    await one.acquire()
    await one.acquire()
    assert await one.throttle({"retry-after": "30"}) == pytest.approx(30, abs=0.01)
    assert await one.throttle({"retry-after": "0.2"}) == pytest.approx(30, abs=0.01)


@virtually
async def test_calls_that_come_together_all_hear_of_their_patience(make_pair: Pairs) -> None:
    one, _ = await make_pair(Window(2, 60.0))
    await answered(one, {}, 2)
    started = now()
    verdicts = await asyncio.gather(*(one.acquire(max_wait=0.5) for _ in range(10)), return_exceptions=True)
    assert now() - started <= 0.03
    waits = [verdict.retry_after for verdict in verdicts if isinstance(verdict, errors.RateLimitError)]
    assert len(waits) == 10
    assert waits[0] == pytest.approx(60, abs=0.1)


@virtually
async def test_bulk_calls_leave_the_reserve_to_others(make_pair: Pairs) -> None:
    one, other = await make_pair(Window(10, 60.0), reserve=3)
    bulk = [asyncio.create_task(one.acquire(bulk=True)) for _ in range(12)]
    await asyncio.sleep(0.2)
    assert sum(task.done() for task in bulk) == 7
    assert await go_at_once(other, 5) == 3
    for task in bulk:
        task.cancel()
    await asyncio.gather(*bulk, return_exceptions=True)


@virtually
async def test_cancelled_anywhere_nothing_is_left(make_pair: Pairs) -> None:
    one, other = await make_pair(Window(20, 0.1))
    chance = random.Random(7)

    async def use(end: Pacer) -> None:
        await end.acquire(max_wait=chance.choice([None, 0.01, 5.0]), bulk=chance.random() < 0.5)
        try:
            await asyncio.sleep(chance.random() * 0.01)
        finally:
            end.release()

    for _ in range(10):
        tasks = [asyncio.create_task(use(end)) for end in (one, other) for _ in range(20)]
        await asyncio.sleep(chance.random() * 0.02)
        for task in tasks:
            if chance.random() < 0.8:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for end in (one, other):
        assert (end.snapshot().waiting, end.snapshot().in_flight) == (0, 0)
    await asyncio.sleep(0.15)
    for end in (one, other):
        await answered(end, {})
    assert await go_at_once(one, 20) >= 9


@virtually
async def test_a_slot_for_a_call_that_left_during_the_ask_is_given_back(fleet: VirtualFleet) -> None:
    budget = await fleet.make(3)
    first, stays, leaves = [asyncio.create_task(budget.acquire()) for _ in range(3)]
    await asyncio.sleep(ROUND_TRIP / 4)  # all of them are asked for
    assert budget.snapshot().waiting == 3
    leaves.cancel()
    await asyncio.gather(first, stays)
    assert budget.snapshot().in_flight == 2
