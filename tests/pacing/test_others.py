"""What a budget learns from the server: its limits, other clients, and when to pause."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiodbclient import RateBudget, Window

from .test_budget import Queue, budget_on, settle, spend
from .world import VirtualLoop, live


def said(limit: object = 5000, remaining: object = 4000, **more: str) -> dict[str, str]:
    headers = {"ratelimit-limit": str(limit), "ratelimit-remaining": str(remaining)}
    return headers | {name.replace("_", "-"): value for name, value in more.items()}


async def answered(budget: RateBudget, headers: dict[str, str], count: int = 1) -> None:
    for _ in range(count):
        await budget.acquire()
        budget.observe(headers)
        budget.release()


async def goes(budget: RateBudget) -> int:
    """The number of calls that are sent at once."""
    count = 0
    while budget.snapshot().next_slot == 0:
        await asyncio.wait_for(budget.acquire(), 0.001)
        budget.release()
        count += 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(budget.acquire(), 0.001)
    return count


def test_the_servers_limit_replaces_the_longest_windows_when_two_answers_in_a_row_name_it() -> None:
    async def main(loop: VirtualLoop) -> None:
        for limit in (7, 12):
            budget = budget_on(loop, (100, 60.0), (10, 3600.0))
            await answered(budget, said(limit, limit - 1))
            await answered(budget, said(limit, limit - 2))
            assert await goes(budget) == limit - 2

    live(main)


def test_a_limit_that_one_answer_names_changes_nothing() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = budget_on(loop, (100, 60.0), (50, 3600.0))
        for odd in (1, 10, 10, 3):
            await answered(budget, said(odd, 0 if odd == 3 else 1))
            await answered(budget, said(50, 50 - budget.snapshot().used[1] - 1))
        assert await goes(budget) == 42

    live(main)


def test_the_only_window_is_not_taken_for_the_hourly_one() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = budget_on(loop, (10, 60.0))
        await answered(budget, said(5000, 20))
        assert await goes(budget) == 9

    live(main)


def test_requests_of_others_reduce_our_room() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = budget_on(loop, (100, 60.0), (50, 3600.0))
        await answered(budget, said(50, 30))  # one is ours, 19 belong to others
        assert await goes(budget) == 30
        assert budget.snapshot().used[1] == 50

    live(main)


def test_requests_that_the_server_has_not_counted_yet_do_not_count_as_others() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = budget_on(loop, (100, 60.0), (50, 3600.0))
        for _ in range(10):
            await budget.acquire()
        for remaining in (40, 43, 49, 41, 44, 45, 42, 47, 48, 46):  # ten answers, out of order
            budget.observe(said(50, remaining))
            budget.release()
        assert budget.snapshot().used == (10, 10)
        assert await goes(budget) == 40

    live(main)


def test_an_account_that_others_exhausted_is_tried_again_little_by_little() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget, start = budget_on(loop, (100, 60.0), (50, 3600.0)), loop.time()
        await answered(budget, said(50, 0))
        await budget.acquire()
        assert 0 < loop.time() - start <= 3600 / 49 + 0.01
        budget.observe(said(50, 40))  # they have expired
        budget.release()
        assert await goes(budget) >= 39

    live(main)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        said("", ""),
        said("many", "few"),
        said(-5, -5),
        said(0, 0),
        said(10**12, 10**12),
        said("9" * 400, "9" * 400),
        said(100, 10**6),
        said(100, -1),
        said(100, 99, ratelimit_reset="0"),
        said(100, 99, ratelimit_reset="99999999999999"),
        said(100, 99, ratelimit_reset="soon"),
        {"ratelimit-remaining": "0"},
    ],
)
def test_rubbish_neither_stalls_nor_unpaces(headers: dict[str, str]) -> None:
    async def main(loop: VirtualLoop) -> None:
        budget, start = budget_on(loop, (10, 60.0), (100, 3600.0)), loop.time()
        await answered(budget, headers, 10)
        assert loop.time() == start
        await answered(budget, headers)
        assert loop.time() - start == pytest.approx(60, abs=0.001)

    live(main)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"]),
            st.integers(-2, 200).map(str) | st.text(max_size=5),
        ),
        min_size=5,
        max_size=5,
    ),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
@example([{}, {}, {}, said(1, 0), said(1, 0)], [False, False, True, True, False])
def test_the_next_honest_answer_corrects_any_wrong_ones(rubbish: list[dict[str, str]], refused: list[bool]) -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = budget_on(loop, (10, 60.0), (100, 3600.0))
        sent: list[float] = []
        for headers, status in zip(rubbish, refused, strict=True):
            await budget.acquire()
            sent.append(loop.time())
            if status:
                await budget.throttle(headers)
            else:
                budget.observe(headers)
            budget.release()
        assert loop.time() - 1000 < 5 * 3700  # a window and a little for each
        await asyncio.sleep(3700)
        believed = budget._ledger.windows[-1].limit  # the limit changes after two consecutive answers
        await answered(budget, said(100, 99), 1 if believed == 100 else 2)
        await asyncio.sleep(130)
        assert await goes(budget) == 10

    live(main)


def test_a_429_stops_everybody_until_the_time_it_names() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = RateBudget(clock=loop.time)
        await budget.acquire()
        await budget.acquire()
        assert await budget.throttle({"retry-after": "7"}) == 7
        budget.release()
        budget.release()  # requests in flight may finish, but do not open it
        queue = Queue(budget, loop)
        await asyncio.gather(*[await queue.enter(str(n)) for n in range(3)])
        assert queue.went[0] == ("0", 7)

    live(main)


def test_a_call_in_the_moment_at_which_the_gate_opens_goes_at_once() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = RateBudget(clock=loop.time)
        await budget.acquire()
        wait = await budget.throttle({"retry-after": "7"})
        budget.release()
        await asyncio.sleep(wait)
        await budget.acquire(max_wait=0)

    live(main)


@pytest.mark.parametrize(("more", "used"), [({}, (0, 5000)), ({"retry-after": "0"}, (235, 0))], ids=["hour", "minute"])
def test_a_429_with_nothing_left_is_of_the_hour_unless_it_has_a_retry_after(
    more: dict[str, str], used: tuple[int, int]
) -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = RateBudget(clock=loop.time)
        await budget.acquire()
        await budget.throttle(said(5000, 0) | more)
        assert budget.snapshot().used == used

    live(main)


def test_the_gate_closes_without_windows_too() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget, start = RateBudget([], clock=loop.time), loop.time()
        await budget.acquire()
        await budget.throttle({"retry-after": "7"})
        budget.release()
        await budget.acquire()
        assert loop.time() - start == pytest.approx(7, abs=0.001)

    live(main)


def test_one_request_probes_when_the_gate_opens_and_each_answer_lets_one_more_go() -> None:
    async def main(loop: VirtualLoop) -> list[int]:
        budget = RateBudget(clock=loop.time)
        await budget.acquire()
        await budget.throttle({"retry-after": "7"})
        budget.release()
        waiting = [asyncio.create_task(budget.acquire()) for _ in range(20)]
        await asyncio.sleep(10)
        in_flight: list[int] = []
        for _ in range(4):
            in_flight.append(budget.snapshot().in_flight)
            budget.release()
            await settle()
        for task in waiting:
            task.cancel()
        return in_flight

    assert live(main) == [1, 2, 3, 4]


def test_several_429s_of_one_moment_are_one() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = RateBudget(clock=loop.time)
        for _ in range(30):
            await budget.acquire()
            if budget.snapshot().in_flight == 10:
                break
        waits = [await budget.throttle({}) for _ in range(10)]
        assert max(waits) <= 1  # not 2 ** 9
        assert len(set(waits)) == 1

    live(main)


def test_without_a_time_that_can_be_right_429s_in_a_row_wait_longer_and_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)

    async def main(loop: VirtualLoop) -> list[float]:
        budget = RateBudget(clock=loop.time)
        waits: list[float] = []
        for _ in range(9):
            await budget.acquire()
            waits.append(await budget.throttle({"retry-after": "0", "ratelimit-reset": "12"}))
            budget.release()
        return waits

    assert live(main) == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])


@pytest.mark.parametrize("answer_headers", [said(5000, 4999), {}])
def test_after_a_429_for_no_reason_the_whole_limit_is_back_within_two_windows(answer_headers: dict[str, str]) -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = RateBudget([Window(250, 60.0), Window(5000, 3600.0)], clock=loop.time)
        await budget.acquire()
        await budget.throttle(answer_headers | {"retry-after": "1"})
        budget.release()
        await asyncio.sleep(120)
        assert await goes(budget) == 250

    live(main)


def test_a_throttled_request_took_no_slot() -> None:
    async def main(loop: VirtualLoop) -> None:
        budget = RateBudget(clock=loop.time)
        await spend(budget, 5)
        await budget.acquire()
        await budget.throttle({"retry-after": "1"} | said(5000, 4995))
        budget.release()
        assert budget.snapshot().used[1] == 5

    live(main)


def test_nothing_of_this_needs_an_event_loop_to_be_made(recwarn: pytest.WarningsRecorder) -> None:
    options: dict[str, Any] = {"reserve": 5}
    assert RateBudget(**options).snapshot().next_slot == 0
    assert not recwarn
