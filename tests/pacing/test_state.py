"""The state of a fleet's budget, as the cell stores it."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Window
from aiodbclient._pacing.account import Account
from aiodbclient._pacing.state import Member, State, load
from aiodbclient._pacing.window import Others

WINDOWS = Window(250, 60.0), Window(5000, 3600.0)
NOW = 1_700_000_000.0


def state(*ages: float) -> State:
    return State(Account(WINDOWS), answers=sorted(math.ceil((NOW - age) * 1000) for age in ages))


def test_what_is_known_comes_back() -> None:
    written = state(5.0, 1.0, 1.0)
    written.recovered = NOW - 7.0
    written.members["a"] = Member(number=3, seen=NOW, held=1, used=3, interactive=2, bulk=1, share=0.1, till=NOW + 1)
    account = written.account
    minute, hour = account.windows
    hour.limit = 4000
    minute.others.believe(7, NOW - 3.0, sure=True)
    hour.others.saw(4, NOW - 20.0, NOW - 10.0, math.inf)
    account.gate.close(30.0, NOW)
    account.alone, account.last_answer, account.last_count, account.other_limit = False, NOW - 2, NOW - 10.0, 3000

    read = load(written.dump(NOW), WINDOWS, NOW)

    assert (read.at, read.recovered) == (NOW, NOW - 7.0)
    assert (read.answers, read.members) == (written.answers, written.members)
    gate = read.account.gate
    assert (gate.until, gate.at_most, gate.strikes) == (NOW + 30.0, 1, 1)
    assert [window.limit for window in read.account.windows] == [250, 4000]
    for before, after in zip(account.windows, read.account.windows, strict=True):
        for name in Others.__slots__:
            assert getattr(after.others, name) == getattr(before.others, name), name
    for name in ("alone", "last_answer", "last_count", "other_limit"):
        assert getattr(read.account, name) == getattr(account, name), name


def test_a_state_that_says_nothing_has_no_number_that_json_lacks() -> None:
    text = state().dump(NOW)
    assert "Infinity" not in text
    read = load(text, WINDOWS, NOW)
    assert (read.account.gate.until, read.account.gate.at_most) == (-math.inf, math.inf)
    assert (read.account.last_answer, read.account.last_count, read.recovered) == (-math.inf, -math.inf, -math.inf)


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


def test_other_windows_keep_what_is_theirs() -> None:
    written = state(1.0, 100.0)
    written.account.windows[0].others.believe(7, NOW)
    written.account.windows[1].others.believe(9, NOW)
    read = load(written.dump(NOW), [Window(10, 30.0), Window(5000, 3600.0)], NOW)
    assert len(read.answers) == 2
    assert [window.others.level for window in read.account.windows] == [0, 9]
