"""The slots of one window, and when the next one is free."""

from __future__ import annotations

from bisect import insort

from hypothesis import given
from hypothesis import strategies as st

from aiodbclient._pacing.ledger import SlidingWindow

MINUTE = 60.0


def window(limit: int) -> SlidingWindow:
    return SlidingWindow(limit, MINUTE)


def test_an_answered_request_counts_for_a_window_and_no_longer() -> None:
    ours, answers = window(3), [0.0, 10.0, 20.0]
    assert [ours.used(answers, now) for now in (20.0, 59.9, 60.0, 69.9, 70.0, 80.0)] == [3, 3, 2, 2, 1, 0]


def test_there_is_room_until_the_limit_less_the_reserve_is_taken() -> None:
    ours = window(5)
    assert [ours.room(30.0, reserve) for reserve in (0, 2, 4, 5)] == [5, 3, 1, 1]


@given(
    limit=st.integers(1, 8),
    reserve=st.integers(0, 3),
    answers=st.lists(st.integers(1, 60).map(float), max_size=8).map(sorted),
    in_flight=st.integers(0, 6),
    ahead=st.integers(0, 30),
)
def test_each_of_a_queue_goes_as_soon_as_a_slot_is_free(
    limit: int, reserve: int, answers: list[float], in_flight: int, ahead: int
) -> None:
    now = 60.0
    free_again = [answer + MINUTE for answer in answers] + [now + MINUTE] * in_flight
    goes = now
    for _ in range(ahead + 1):
        while sum(moment > goes for moment in free_again) >= max(1, limit - reserve):
            goes = min(moment for moment in free_again if moment > goes)
        insort(free_again, goes + MINUTE)

    assert window(limit).opens(answers, now, in_flight, ahead, reserve) == goes


def test_what_others_hold_of_it_is_subtracted_for_a_window() -> None:
    ours = window(10)
    ours.others, ours.others_until = 6, 90.0

    assert [ours.room(now, 0) for now in (30.0, 89.0, 90.0)] == [4, 4, 10]
    assert ours.room(30.0, reserve=5) == 0
    assert ours.opens([0.0], 30.0, 0, 0, reserve=5) == 90.0
    assert ours.opens([0.0], 30.0, 0, 3, reserve=0) == 60.0
