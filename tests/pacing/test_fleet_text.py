"""What a fleet knows of its budget, as the cell stores it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Window
from aiodbclient._pacing.fleet import Fleet, Member, Token, grouped, load
from aiodbclient._pacing.gate import Gate

WINDOWS = Window(250, 60.0), Window(5000, 3600.0)
NOW = 1_700_000_000.0


def with_member(*ages: float, seen: float = NOW, name: str = "a", **more: int) -> Fleet:
    """A fleet of one process, whose requests were answered so many seconds before it reported."""
    fleet = Fleet.of(WINDOWS)
    fleet.members[name] = Member(seen=seen, answers=grouped([seen - age for age in ages], WINDOWS, seen), **more)
    return fleet


def test_what_is_known_comes_back() -> None:
    written = with_member(5.0, 1.0, 1.0, held=1, interactive=2, bulk=1)
    written.token = Token(4000, 3000, 7, NOW + 30.0, Gate(NOW + 1.0, NOW + 4.0, refusals=2))

    read = load(written.dump(), WINDOWS, NOW)

    assert read == written
    assert read.members["a"].moments() == [NOW - 5.0, NOW - 1.0, NOW - 1.0]
    assert [w.limit for w in read.ledger(WINDOWS, read.members["a"], NOW).windows] == [250, 4000]


def test_a_fleet_that_knows_nothing_has_no_number_that_json_lacks() -> None:
    text = Fleet.of(WINDOWS).dump()
    assert "Infinity" not in text
    assert load(text, WINDOWS, NOW).ledger(WINDOWS, Member(), NOW).opens(NOW, 0, 0) == NOW


@given(st.lists(st.floats(0.0, 3600.0), max_size=300))
def test_old_answers_are_counted_by_the_second_and_never_too_early(ages: list[float]) -> None:
    moments = sorted(NOW - age for age in ages)
    read = sorted(with_member(*ages).members["a"].moments())
    assert len(read) == len(ages)
    for before, after in zip(moments, read, strict=True):
        assert before - 1e-6 <= after < before + 1.0
        if before > NOW - 60.0:
            assert after < before + 0.0011
        else:
            assert after <= NOW - 60.0 + 1e-6  # it does not come back into the minute


def test_what_no_window_counts_is_left_out() -> None:
    written = with_member(10.0, 3629.0, 3631.0)
    written.members["idle"] = Member(seen=NOW - 3620.0)
    written.members["long gone"] = Member(seen=NOW - 3640.0, held=5)
    read = load(written.dump(), WINDOWS, NOW)
    assert len(read.members["a"].moments()) == 2
    assert [*read.members] == ["a", "idle"]


def test_what_the_cell_has_lost_comes_back_and_what_is_newer_stays() -> None:
    known = with_member(1.0, seen=NOW - 1.0)
    known.members["b"] = Member(seen=NOW, held=2)
    known.token.gate.until = NOW + 5.0
    cell = with_member(1.0, 2.0)

    cell.merge(known)

    assert (len(cell.members["a"].moments()), cell.members["b"].held) == (2, 2)
    assert cell.token.gate.until == NOW + 5.0


def test_a_process_that_died_holds_what_it_had_in_flight_until_a_lease_and_a_window_are_over() -> None:
    fleet = with_member(1.0, held=10)
    me = fleet.members["me"] = Member(seen=NOW, held=3)
    taken = list[int]()
    for after in (0.0, 29.9, 30.1, 58.9, 59.1, 89.9, 90.1):
        ledger = fleet.ledger(WINDOWS, me, NOW + after)
        taken.append(ledger.in_flight + ledger.windows[0].used(NOW + after))
    assert taken == [14, 14, 14, 14, 13, 13, 3]
    assert json.loads(fleet.dump())["members"]["a"]["held"] == 10
