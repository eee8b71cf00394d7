"""The slots of one window: ours, the estimated slots of others, and when the next one is free."""

from __future__ import annotations

from bisect import insort
from collections import deque

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from aiodbclient._pacing.window import Others, SlidingWindow

MINUTE = 60.0
HOUR = 3600.0


def window(limit: int, others: Others | None = None, answers: list[float] | None = None) -> SlidingWindow:
    return SlidingWindow(limit, MINUTE, others or Others(MINUTE, steady=True), deque(answers or []))


def held(others: Others, *moments: float) -> list[int]:
    return [others.at(moment) for moment in moments]


# Our own.


def test_an_answered_request_counts_for_a_window_and_no_longer() -> None:
    ours = window(3, answers=[0.0, 10.0, 20.0])
    assert [ours.used(now) for now in (20.0, 59.9, 60.0, 69.9, 70.0, 80.0)] == [3, 3, 2, 2, 1, 0]


def test_there_is_room_until_the_limit_less_the_reserve_is_taken() -> None:
    ours = window(5, answers=[0.0, 10.0])
    assert ours.free(30.0, reserve=0) == 3
    assert ours.free(30.0, reserve=2) == 1
    assert ours.free(60.0, reserve=0) > 3
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

    assert window(limit, answers=answers).opens(now, in_flight, ahead, reserve) == goes


# Others'.


def test_others_of_the_hour_fade_over_an_hour_from_when_they_were_heard_of() -> None:
    assert held(Others(HOUR, steady=False, level=60), 0.0, 1800.0, 3540.0, 3600.0, 9000.0) == [60, 30, 1, 0, 0]


def test_others_of_the_minute_are_expected_to_go_on_for_another_one() -> None:
    sure = Others(MINUTE, steady=True, level=60, since=100.0, sure=True)
    assert held(sure, 100.0, 160.0, 190.0, 219.0, 220.0, 500.0) == [60, 60, 30, 1, 0, 0]


def test_others_that_no_429_confirmed_give_way_slowly_at_first() -> None:
    guessed = Others(MINUTE, steady=True, level=125)
    assert held(guessed, 0.0, MINUTE / 16, MINUTE / 4, MINUTE / 2, MINUTE) == [125, 122, 86, 0, 0]


def test_nobody_holds_nothing() -> None:
    assert held(Others(MINUTE, steady=True), 0.0, 30.0) == [0, 0]


@given(
    level=st.integers(1, 500),
    down_to=st.integers(0, 500),
    since=st.floats(0.0, 1e5),
    seconds=st.floats(1.0, HOUR),
    steady=st.booleans(),
    sure=st.booleans(),
)
def test_it_is_foretold_when_others_hold_no_more_than_so_many(
    level: int, down_to: int, since: float, seconds: float, steady: bool, sure: bool
) -> None:
    others = Others(seconds, steady, level, since, sure)
    moment = others.falls_to(down_to)
    assert others.at(moment) <= down_to
    if down_to < level:
        assert others.at(moment - seconds / 1000) > down_to
    else:
        assert moment == since


def test_the_room_beside_others_is_what_they_do_not_hold() -> None:
    shared = window(10, Others(MINUTE, steady=False, level=4))
    assert [shared.room(now, 0) for now in (0.0, 30.0, 60.0)] == [6, 8, 10]
    assert [shared.room(0.0, reserve) for reserve in (3, 6, 8)] == [3, 0, 0]
    assert shared.free(0.0, 0) == 6


def test_beside_others_a_request_goes_when_a_slot_of_theirs_or_of_ours_is_free() -> None:
    theirs = Others(MINUTE, steady=False, level=10)
    assert [window(10, theirs).opens(0.0, 0, ahead, 0) for ahead in (0, 1, 4)] == pytest.approx(
        [6.0, 60.0 + 6.0, 246.0]
    )

    soon = window(10, Others(MINUTE, steady=False, level=7), answers=[-58.0, -20.0, -10.0])
    assert soon.opens(0.0, 0, 0, 0) == pytest.approx(2.0)  # our first expires before one of theirs
    later = window(10, Others(MINUTE, steady=False, level=7), answers=[-20.0, -20.0, -10.0])
    assert [later.opens(0.0, 0, ahead, 0) for ahead in (0, 1)] == pytest.approx([MINUTE / 7, MINUTE * 2 / 7])


@given(
    spare=st.integers(0, 1),
    level=st.integers(1, 20),
    answers=st.lists(st.integers(1, 60).map(float), max_size=20).map(sorted),
    in_flight=st.integers(0, 5),
    steady=st.booleans(),
    sure=st.booleans(),
)
@example(spare=0, level=10, answers=[], in_flight=0, steady=False, sure=False)
def test_where_ours_and_theirs_fill_the_window_the_first_goes_when_one_of_them_is_free(
    spare: int, level: int, answers: list[float], in_flight: int, steady: bool, sure: bool
) -> None:
    now = 60.0
    assume(not steady or answers or in_flight or spare)  # in a steady window a share is always ours
    others = Others(MINUTE, steady, level, now, sure)
    shared = window(level + len(answers) + in_flight + spare, others, answers)
    opens = shared.opens(now, in_flight, 0, 0)
    assert opens == now if spare else opens > now
    shared.answers.extend([now] * in_flight)
    if not spare:
        assert shared.free(opens - 0.01, 0) <= 0
    assert shared.free(opens, 0) > 0


# What is learned of others.


def test_requests_that_came_between_two_answers_expire_one_after_the_other() -> None:
    others = Others(HOUR, steady=False)
    others.saw(60, 0.0, 60.0, at_most=100)
    assert others.at(60.0) == 60
    assert [others.expected(now) for now in (HOUR, HOUR + 30, HOUR + 60)] == [60, 30, 0]


def test_two_stretches_expire_each_in_its_time() -> None:
    others = Others(HOUR, steady=False)
    others.saw(60, 0.0, 60.0, at_most=1000)
    others.saw(30, 1000.0, 1060.0, at_most=1000)
    assert others.at(1060.0) == 90
    assert [others.expected(now) for now in (HOUR, HOUR + 60, HOUR + 1000, HOUR + 1030)] == [90, 30, 30, 15]


def test_requests_from_before_the_estimate_are_not_added_to_it() -> None:
    others = Others(MINUTE, steady=True)
    others.believe(0, 30.0)
    others.saw(60, 0.0, 60.0, at_most=100)  # half of them existed when it began
    assert others.at(60.0) == 30


def test_no_more_are_believed_than_they_can_hold() -> None:
    others = Others(HOUR, steady=False)
    others.saw(60, 0.0, 60.0, at_most=100)
    others.saw(0, 60.0, 120.0, at_most=20)
    assert others.at(120.0) == 20
    assert [others.expected(now) for now in (HOUR, HOUR + 30)] == [20, 10]


def test_a_guess_about_the_hour_follows_what_has_expired() -> None:
    others = Others(HOUR, steady=False)
    others.saw(60, 0.0, 60.0, at_most=100)
    others.saw(0, 3000.0, HOUR + 30, at_most=100)
    assert others.at(HOUR + 30) == 30


def test_of_the_minute_less_is_not_believed_as_long_as_more_may_be_there() -> None:
    others = Others(MINUTE, steady=True)
    others.believe(100, 0.0, sure=True)
    others.saw(0, 0.0, 30.0, at_most=100)  # half of them have expired, if they came evenly
    assert (others.at(30.0), others.sure) == (100, True)
    others.saw(0, 0.0, 30.0, at_most=40)  # but there are only 40
    assert (others.at(30.0), others.sure) == (40, False)


def test_of_the_minute_more_is_believed_at_once() -> None:
    others = Others(MINUTE, steady=True)
    others.believe(10, 0.0, sure=True)
    others.saw(30, 0.0, 30.0, at_most=100)
    assert (others.at(30.0), others.sure) == (35, False)  # and half of the 10


def test_a_level_that_is_believed_is_as_old_as_it_may_be_where_they_go_on_and_else_new() -> None:
    steady, ending = Others(MINUTE, steady=True), Others(MINUTE, steady=False)
    for others in (steady, ending):
        others.saw(50, 0.0, 10.0, at_most=100)
        others.believe(20, 100.0)
    assert [steady.expected(now) for now in (100.0, 115.0, 160.0)] == [20, 15, 0]
    assert [ending.expected(now) for now in (100.0, 159.0, 161.0)] == [20, 20, 0]
    steady.believe(0, 100.0)
    assert steady.expected(100.0) == 0


def test_nothing_is_learned_from_an_answer_of_the_same_moment() -> None:
    others = Others(MINUTE, steady=True)
    others.saw(5, 10.0, 10.0, at_most=100)
    assert others.at(10.0) == 0


def test_the_memory_for_others_does_not_grow_with_their_requests() -> None:
    others = Others(MINUTE, steady=True)
    for n in range(1, 12_000):
        others.saw(1, (n - 1) / 100, n / 100, at_most=10_000)
    now = 119.99
    assert others.expected(now) == pytest.approx(6000, rel=0.01)
    assert 32 <= len(others.seen) <= 66
