"""What a fleet knows of its budget, as the cell stores it."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Window
from aiodbclient._pacing.budget import Queue
from aiodbclient._pacing.fleet import CellError, Fleet, Member, Process, grouped, load
from aiodbclient._pacing.gate import Gate
from aiodbclient._pacing.ledger import Ledger, SlidingWindow
from aiodbclient.errors import ConfigurationError

WINDOWS = Window(250, 60.0), Window(5000, 3600.0)
NOW = 1_700_000_000.0


def with_member(*ages: float, seen: float = NOW, name: str = "a", **more: Any) -> Fleet:
    """A fleet of one process, whose requests were answered so many seconds before it reported."""
    fleet = Fleet(SlidingWindow(5000, 3600.0))
    fleet.members[name] = Member(seen=seen, answers=grouped([seen - age for age in ages], WINDOWS, seen), **more)
    return fleet


def read(fleet: Fleet) -> Fleet:
    """Write it and read it again."""
    loaded = load(fleet.dump(0.0, 0.0), 0.0, 0.0)
    assert loaded is not None
    return loaded


def test_what_is_known_comes_back() -> None:
    written = with_member(5.0, 1.0, 1.0, held=1, waiting=[2, 1])
    written.hour = SlidingWindow(4000, 3600.0, others=7, others_until=NOW + 30.0, named=3000)
    written.gate = Gate(NOW + 1.0, NOW + 4.0, refusals=2)

    assert read(written) == written
    assert read(written).members["a"].moments() == [NOW - 5.0, NOW - 1.0, NOW - 1.0]
    assert read(Fleet(SlidingWindow(5000, 3600.0))) == Fleet(SlidingWindow(5000, 3600.0))


@given(st.lists(st.floats(0.0, 3600.0), max_size=300))
def test_answers_are_counted_by_the_600th_part_of_a_minute_and_never_too_early(ages: list[float]) -> None:
    moments = sorted(NOW - age for age in ages)
    written = sorted(with_member(*ages).members["a"].moments())
    assert len(written) == len(ages)
    for before, after in zip(moments, written, strict=True):
        assert before - 1e-6 <= after < before + 0.1011
        if before <= NOW - 60.0:
            assert after <= NOW - 60.0 + 1e-6  # it does not come back into the minute


def process(ledger: Ledger, share: float = 0.1, reserve: int = 0) -> Process:
    return Process(ledger, Queue(), WINDOWS, reserve, share, "the cell")


def turn(fleet: Fleet, after: float = 0.0, written: float = NOW) -> tuple[Ledger, Fleet]:
    """Let a process have a turn after so many seconds; its clock begins at 7. Returns its ledger, and what it knows."""
    ledger, now = Ledger(WINDOWS), 7.0 + after
    one = process(ledger)
    one.turn(fleet.dump(written, NOW), NOW + after, now, (None, None))
    one.heed(now)
    assert one.fleet is not None
    return ledger, one.fleet


def test_what_no_window_counts_is_left_out() -> None:
    written = with_member(10.0, 3629.0, 3631.0)
    written.members["idle"] = Member(seen=NOW - 3620.0)
    written.members["long gone"] = Member(seen=NOW - 3640.0, held=5)
    _, known = turn(written)
    assert len(known.members["a"].moments()) == 2
    assert [*known.members][:-1] == ["a", "idle"]


def test_after_a_clock_was_set_back_all_counts_from_now_on() -> None:
    fleet = with_member(1.0, held=1)
    fleet.hour.others, fleet.hour.others_until = 7, NOW + 30.0
    fleet.gate = Gate(NOW + 5.0, NOW + 6.0)
    ledger, known = turn(fleet, written=NOW + 1e9)
    assert known.members["a"].seen == 7.0
    assert (ledger.gate.until, ledger.gate.later, ledger.windows[-1].others_until) == (12.0, 13.0, 37.0)


def test_whatever_the_text_says_nobody_waits_for_longer_than_a_window() -> None:
    fleet = with_member(1.0, seen=NOW + 1e9, held=1)
    fleet.hour = SlidingWindow(5000, 1e9, others=7, others_until=NOW + 1e9)
    fleet.gate = Gate(NOW + 1e9, NOW + 1e9)
    ledger, known = turn(fleet)
    assert known.members["a"].seen == 7.0
    assert (ledger.gate.until, ledger.gate.later, ledger.windows[-1].others_until) == (3607.0, 3607.0, 3607.0)
    assert ledger.windows[-1].seconds == 3600.0


def test_what_the_cell_has_lost_comes_back_and_what_is_newer_stays() -> None:
    known = with_member(1.0)
    known.members["b"] = Member(seen=NOW, held=2)
    known.gate.until = NOW + 5.0
    cell = with_member(1.0, 2.0, reports=2)

    cell.merge(known)

    assert (len(cell.members["a"].moments()), cell.members["b"].held) == (2, 2)
    assert cell.gate.until == NOW + 5.0


def test_a_process_that_died_holds_what_it_had_in_flight_until_a_lease_and_a_window_are_over() -> None:
    taken = list[int]()
    for after in (0.0, 29.9, 30.1, 58.9, 59.1, 89.9, 90.1):
        ledger, _ = turn(with_member(1.0, held=10), after)
        taken.append(ledger.held(7.0 + after)[0])
    assert taken == [11, 11, 11, 11, 10, 10, 0]


def test_a_member_holds_what_was_answered_within_the_window() -> None:
    member = with_member(0.0, 30.0, 50.0, held=2, seen=NOW - 20.0).members["a"]
    assert [member.used(seconds, NOW) for seconds in (10.0, 30.0, 60.0, 100.0)] == [2, 3, 4, 5]


def test_alone_a_process_uses_its_share_of_what_is_free_and_of_the_reserve() -> None:
    ledger = Ledger(WINDOWS)
    for _ in range(50):
        assert ledger.take(0.0, False)
        ledger.end(0.0, sent=True)
    for _ in range(10):
        assert ledger.take(1.0, False)
    ledger.share([0.0] * 100, 0)
    ledger.allowance = 0
    alone = process(ledger, share=0.5, reserve=40)

    alone.go_alone(CellError("timed out"), 1.0)

    # Half of 250 is 125. It holds 60 of them, and takes half of the 90 that are free: for one more window, others may
    # hold the remaining 20. The same holds for 5,000.
    assert [window.limit for window in ledger.windows] == [125, 2500]
    assert [[window.of_others(now) for now in (60.9, 61.0)] for window in ledger.windows] == [[20, 0], [20, 20]]
    assert [window.of_others(3601.0) for window in ledger.windows] == [0, 0]
    assert (ledger.reserve, ledger.allowance) == (20, math.inf)


@pytest.mark.parametrize(
    ("error", "level", "what"),
    [
        (CellError("timed out"), "WARNING", "the cell failed (timed out)"),
        (CellError("WRONGPASS"), "ERROR", "the cell refuses this process (WRONGPASS)"),
    ],
)
def test_that_a_process_goes_alone_is_logged_once(
    error: CellError, level: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    alone = process(Ledger(WINDOWS))
    alone.turn("", NOW, 7.0, (None, None))
    alone.heed(7.0)
    for _ in range(2):
        alone.go_alone(error, 8.0)
    [record] = caplog.records
    assert record.levelname == level
    assert (
        record.getMessage() == f"the rate budget is not shared: {what}; meanwhile this process uses 0.1 of the budget"
    )


def test_a_process_that_was_never_served_and_is_refused_for_good_raises() -> None:
    said = "the rate budget is not shared: the cell refuses this process (WRONGPASS); nothing was sent, and waiting"
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        process(Ledger(WINDOWS)).go_alone(CellError("WRONGPASS"), 0.0)
