"""What an answer's headers show of the hour, and when a request goes that waits in two windows."""

from __future__ import annotations

import pytest

from aiodbclient import Window
from aiodbclient._pacing.ledger import Ledger

from .test_gate import reached
from .world import optimum


def ledger_of(*answered_at: float) -> Ledger:
    """A ledger of ten and of a hundred seconds."""
    ledger = Ledger([Window(50, 10.0), Window(1000, 100.0)])
    for moment in answered_at:
        assert ledger.take(moment, False)
        ledger.end(moment, sent=True)
    return ledger


def others(ledger: Ledger, now: float) -> list[int]:
    return [window.of_others(now) for window in ledger.windows]


def test_what_is_missing_of_the_hour_beyond_our_own_is_subtracted_from_the_hour_alone() -> None:
    ledger = ledger_of(0.0, 1.0)
    ledger.take(2.0, False)
    ledger.hear(1000, 900, 3.0)  # it counted 100, three of them ours
    assert [others(ledger, now) for now in (3.0, 102.9, 103.0)] == [[0, 97], [0, 97], [0, 0]]
    ledger.hear(1000, 995, 4.0)
    assert others(ledger, 4.0) == [0, 2]


def test_what_may_be_ours_is_not_of_others() -> None:
    ledger = ledger_of(0.0, 20.0, 50.0)
    ledger.take(110.0, False)
    ledger.take(112.0, False)
    ledger.hear(1000, 996, 121.0)  # the second one counted when the first was sent, but not any more
    assert others(ledger, 121.0) == [0, 0]


def test_nothing_left_says_nothing_of_the_hour() -> None:
    ledger = ledger_of(0.0)
    ledger.hear(1000, 0, 1.0)
    assert others(ledger, 1.0) == [0, 0]


def test_a_limit_is_believed_when_two_answers_in_a_row_name_it() -> None:
    ledger, seen = ledger_of(), list[int]()
    for limit in (1200, 1000, 1200, 1300, 1200, 1200, 1200, 1000):
        ledger.hear(limit, limit, 0.0)
        seen.append(ledger.windows[-1].limit)
    assert seen == [1000] * 5 + [1200] * 3
    assert ledger.windows[0].limit == 50


@pytest.mark.parametrize(
    ("limit", "remaining", "believed"),
    [(10_000_000, 10_000_000, True), (10_000_001, 5, False), (0, 0, False), (4, 5, False), (5, 5, True), (1, 0, True)],
)
def test_only_a_limit_that_can_be_is_believed(limit: int, remaining: int, believed: bool) -> None:
    ledger = ledger_of()
    for _ in range(3):
        ledger.hear(limit, remaining, 0.0)
    assert ledger.windows[-1].limit == (limit if believed else 1000)


@pytest.mark.parametrize("given", [(None, None), (None, 0), (None, 400), (1000, None)])
def test_half_of_what_was_asked_says_nothing(given: tuple[int | None, int | None]) -> None:
    ledger = ledger_of(0.0)
    ledger.hear(*given, 1.0)
    assert (others(ledger, 1.0), ledger.windows[-1].limit) == ([0, 0], 1000)


def test_a_budget_of_one_window_does_not_take_the_hours_limit_for_its_own() -> None:
    ledger = Ledger([Window(250, 60.0)])
    for _ in range(3):
        ledger.hear(5000, 1, 0.0)
    assert (ledger.windows[0].limit, others(ledger, 0.0)) == (250, [0])


def test_a_429_lowers_the_ramp_to_what_was_accepted_in_the_last_round_trip() -> None:
    ledger = ledger_of(-5.0)
    for _ in range(12):
        assert ledger.take(0.0, False)
    for _ in range(10):
        ledger.end(1.0, sent=True)
    ledger.refuse(5.0, 2.0)
    assert (ledger.in_flight, ledger.unanswered) == (2, 1)
    assert (ledger.gate.until, ledger.gate.refusals) == (7.0, 0)
    assert reached(ledger.ramp) == 4  # seven tenths of five: ten were accepted in one round trip

    for _ in range(2):
        ledger.end(2.0, sent=True)
    for _ in range(4):
        assert ledger.take(7.0, False)
    ledger.refuse(1.0, 7.0)  # as soon as the gate has opened
    assert (ledger.unanswered, ledger.gate.refusals) == (3, 1)
    assert (ledger.gate.until, ledger.gate.later) == (8.0, 9.5)  # a quarter of the shortest window
    assert reached(ledger.ramp) == 3


def test_a_new_round_may_accept_more_than_the_last_one() -> None:
    ledger = ledger_of()
    for moment, accepted, goal in ((0.0, 3, 3), (10.0, 2, 2), (20.0, 10, 7)):
        for _ in range(20):
            ledger.ramp.succeed(moment)
            ledger.ramp.succeed(moment + 9.0)
        for _ in range(accepted + 1):
            assert ledger.take(moment, False)
        ledger.refuse(1.0, moment)
        for _ in range(accepted + 1):
            ledger.end(moment, sent=True)
        assert reached(ledger.ramp) == goal


@pytest.mark.parametrize(
    "windows", [((250, 60.0), (5000, 3600.0)), ((2, 1.0), (50, 10.0)), ((2, 4.0), (3, 5.0)), ((5, 1.0), (15, 10.0))]
)
def test_the_wait_of_a_long_queue_is_that_in_all_windows_together(windows: tuple[tuple[int, float], ...]) -> None:
    ledger = Ledger([Window(*window) for window in windows])
    for count in (1, 3, 6, 200, 5000, 10_000):
        assert ledger.opens(0.0, count - 1, False) == pytest.approx(optimum(count, windows), rel=0.01)
