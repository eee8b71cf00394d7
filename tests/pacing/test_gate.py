"""After a 429: the gate and the ramp."""

from __future__ import annotations

import math
import random

import pytest

from aiodbclient._pacing.gate import Gate, Ramp

MINUTE = 60.0


def reached(ramp: Ramp) -> float:
    """How many may be in flight after many successes at one moment."""
    for _ in range(64):
        ramp.succeed(0.0)
    return ramp.at_most


def test_the_gate_is_closed_for_as_long_as_the_429_says() -> None:
    gate = Gate()
    for now in (0.0, 10.0):
        gate.close(5.0, 4, MINUTE, now)
        assert (gate.until, gate.later) == (now + 5.0, now + 5.0)


def test_without_a_time_it_is_a_random_part_of_a_longest_one_that_doubles_up_to_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    gate, now, waits = Gate(), 0.0, list[float]()
    for _ in range(9):
        gate.close(None, 0, MINUTE, now)
        waits.append(gate.until - now)
        now = gate.until
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_where_the_server_refuses_again_at_once_calls_without_max_wait_wait_longer_up_to_a_quarter_of_a_window() -> (
    None
):
    gate, now, waits = Gate(), 0.0, list[tuple[float, float]]()
    for accepted in (0, 0, 2, 0, 3, 0):
        gate.close(1.0, accepted, MINUTE, now)
        waits.append((gate.until - now, gate.later - now))
        now = gate.later
    assert waits == [(1, 1), (1, 4), (1, 15), (1, 15), (1, 1), (1, 4)]


def test_no_wait_is_shorter_than_the_429_says() -> None:
    gate = Gate()
    gate.close(30.0, 0, MINUTE, 0.0)
    gate.close(30.0, 0, MINUTE, 30.0)
    assert (gate.until, gate.later) == (60.0, 60.0)


def test_a_429_long_after_the_gate_opened_is_a_new_one() -> None:
    gate = Gate()
    gate.close(1.0, 0, MINUTE, 0.0)
    gate.close(1.0, 0, MINUTE, 62.0)
    assert (gate.until, gate.later) == (63.0, 63.0)


def test_a_429_that_was_in_flight_when_the_gate_closed_counts_once_and_can_keep_it_closed() -> None:
    gate = Gate()
    gate.close(5.0, 0, MINUTE, 0.0)
    gate.close(1.0, 0, MINUTE, 4.5)
    assert (gate.refusals, gate.until) == (0, 5.5)
    gate.close(0.1, 0, MINUTE, 5.0)
    assert (gate.refusals, gate.until) == (0, 5.5)


@pytest.mark.parametrize(("limit", "few"), [(20, 16), (250, 16), (1600, 100), (math.inf, math.inf)])
def test_at_first_a_few_may_be_in_flight(limit: float, few: float) -> None:
    assert Ramp(limit).at_most == few


def test_after_a_429_one_tries_and_the_ramp_doubles_to_a_little_less_than_what_was_accepted() -> None:
    ramp = Ramp(250)
    ramp.refuse(15, 0, first=True)
    for others in range(14, 7, -1):
        ramp.refuse(others, 0, first=False)  # so the server had accepted eight at once
    sizes = [ramp.at_most]
    for n in range(12):
        ramp.succeed(n / 1000)
        sizes.append(ramp.at_most)
    assert sizes == [1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6]


@pytest.mark.parametrize(
    ("in_flight", "recent", "first", "goal"),
    [
        (10, 0, True, 7),
        (10, 12, True, 7),
        (1, 10, True, 4),  # half of what was accepted in the last round trip counts too
        (1, 0, True, 1),
        (0, 1, True, 1),
        (0, 0, True, 16),  # it was alone: the goal stays
        (0, 0, False, 1),  # others were refused before it
    ],
)
def test_the_goal_is_seven_tenths_of_what_was_accepted(in_flight: int, recent: int, first: bool, goal: float) -> None:
    ramp = Ramp(250)
    ramp.refuse(in_flight, recent, first=first)
    assert (ramp.at_most, reached(ramp)) == (1, goal)


def test_later_429s_of_a_round_lower_the_goal_and_the_next_round_may_raise_it() -> None:
    ramp = Ramp(250)
    for accepted, first, goal in ((10, True, 7), (4, False, 3), (12, False, 3), (12, True, 9)):
        ramp.refuse(accepted, 0, first=first)
        assert reached(ramp) == goal


def test_the_ramp_grows_slowly_near_what_was_accepted_and_faster_later() -> None:
    ramp = Ramp(250)
    ramp.refuse(4, 0, first=True)
    sizes = list[float]()
    for n in range(1500):
        ramp.succeed(n / 100)
        sizes.append(ramp.at_most)
    assert sizes[400] == 4
    assert sizes[700] <= 6
    assert sizes[1499] > 20


def test_a_budget_without_windows_has_no_ramp_before_a_429() -> None:
    ramp = Ramp(math.inf)
    assert ramp.at_most == math.inf
    ramp.refuse(1000, 0, first=True)
    assert ramp.at_most == 1
