"""The state of a fleet's budget, as the cell stores it."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Window
from aiodbclient._pacing.gate import Gate, Moment
from aiodbclient._pacing.ledger import Ledger
from aiodbclient._pacing.state import Member, State, load

WINDOWS = Window(250, 60.0), Window(5000, 3600.0)
NOW = 1_700_000_000.0


def state(*ages: float) -> State:
    return State(Ledger.of_fleet(WINDOWS), answers=sorted(math.ceil((NOW - age) * 1000) for age in ages))


def test_what_is_known_comes_back() -> None:
    written = state(5.0, 1.0, 1.0)
    written.recovered = NOW - 7.0
    written.members["a"] = Member(number=3, seen=NOW, held=1, used=3, interactive=2, bulk=1, share=0.1, till=NOW + 1)
    ledger = written.ledger
    ledger.windows[1].limit, ledger.windows[1].others, ledger.windows[1].others_until = 4000, 7, NOW + 30.0
    ledger.gate = Gate(Moment(NOW + 1.0), Moment(NOW + 4.0), refusals=2, accepted=0, due=3)
    ledger.other_limit = 3000

    read = load(written.dump(NOW), WINDOWS, NOW)

    assert (read.at, read.recovered) == (NOW, NOW - 7.0)
    assert (read.answers, read.members) == (written.answers, written.members)
    assert (read.ledger.gate, read.ledger.other_limit) == (ledger.gate, 3000)
    assert [(w.limit, w.of_others(NOW)) for w in read.ledger.windows] == [(250, 0), (4000, 7)]


def test_a_state_that_says_nothing_has_no_number_that_json_lacks() -> None:
    text = state().dump(NOW)
    assert "Infinity" not in text
    read = load(text, WINDOWS, NOW)
    assert (read.ledger.gate, read.recovered) == (Gate(), -math.inf)


@given(st.lists(st.floats(0.0, 3600.0), max_size=300))
def test_old_answers_are_counted_by_the_second_and_never_too_early(ages: list[float]) -> None:
    written = state(*ages)
    text = written.dump(NOW)
    read = load(text, WINDOWS, NOW).answers
    assert len(read) == len(ages)
    for before, after in zip(written.answers, read, strict=True):
        assert before <= after < before + 1000
        if before > (NOW - 60.0) * 1000:
            assert after == before
        else:
            assert after <= (NOW - 60.0) * 1000  # it does not come back into the minute
    again = load(text, WINDOWS, NOW)
    assert json.loads(again.dump(NOW)) == json.loads(text)


def test_what_no_window_counts_is_left_out() -> None:
    written = state(10.0, 3629.0, 3631.0)
    written.members = {"idle": Member(seen=NOW - 7100.0), "long gone": Member(seen=NOW - 7300.0)}
    read = load(written.dump(NOW), WINDOWS, NOW)
    assert len(read.answers) == 2
    assert [*read.members] == ["idle"]


def test_a_state_that_is_two_longest_windows_old_counts_no_more() -> None:
    written = state(1.0)
    written.members["a"] = Member(seen=NOW, held=5)
    text = written.dump(NOW)
    assert load(text, WINDOWS, NOW + 7100.0).members
    assert not load(text, WINDOWS, NOW + 7300.0).members
    assert load(text, WINDOWS, NOW + 7300.0).at == NOW
