"""The replies of the script in Valkey, and the facts about a token that processes exchange."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from aiodbclient import Window
from aiodbclient._pacing.account import Account, sliding
from aiodbclient._pacing.shared.facts import Facts
from aiodbclient._pacing.shared.messages import Ask, ForgottenError, LateError, Place, Reply, Seconds, read_reply

ASK = Ask(2, 1, [Place(1, False, math.inf), Place(2, True, 5.0)])
GRANTED: dict[str, Any] = {
    "epoch": "a",
    "stale": False,
    "version": 3,
    "now": "1500000",
    "interactive": 2,
    "bulk": 1,
    "wait": 250_000,
    "waits": [0, 2_000_000],
    "used": [4, 5],
    "counted": [1, 2],
    "in_flight": 3,
    "recovering": 500_000,
    "most": 7,
    "least": 6,
}


def read(reply: Any, ask: Ask = ASK) -> Reply:
    return read_reply(json.dumps(reply), ask, windows=2)


def test_a_reply_is_in_seconds_of_the_servers_clock() -> None:
    assert read(GRANTED) == Reply(
        epoch="a",
        now=Seconds(1.5),
        interactive=2,
        bulk=1,
        wait=Seconds(0.25),
        waits=(Seconds(0.0), Seconds(2.0)),
        used=(4, 5),
        counted=(1, 2),
        in_flight=3,
        least=6,
        most=7,
        recovering=Seconds(0.5),
        version=3,
        stale=False,
        facts=None,
    )
    nobody_waits = read(GRANTED | {"waits": {}, "interactive": 0}, Ask(2, 1))  # Lua's empty list
    assert (nobody_waits.interactive, nobody_waits.waits) == (0, ())
    assert read(GRANTED | {"stale": True, "facts": "{}"}).facts == "{}"


def test_valkey_may_have_lost_its_memory_or_been_asked_too_late() -> None:
    with pytest.raises(ForgottenError) as caught:
        read({"epoch": "b", "forgotten": True})
    assert caught.value.epoch == "b"
    with pytest.raises(LateError):
        read({"late": True})


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": None},
        {"stale": 0},
        {"now": "soon"},
        {"interactive": 3},
        {"interactive": -1},
        {"interactive": 0.5},
        {"interactive": True},
        {"bulk": 2},
        {"bulk": None},
        {"wait": 10**400},
        {"wait": math.nan},
        {"waits": [0]},
        {"waits": [0, []]},
        {"used": [1, 2, 3]},
        {"used": [1, -2]},
        {"counted": [1]},
        {"counted": [1, -2]},
        {"in_flight": -1},
        {"least": -1},
        {"most": -1},
        {"recovering": None},
        {"version": -1},
        {"stale": True, "facts": 5},
        {"forgotten": True, "epoch": None},
        *({name: ...} for name in GRANTED),  # missing
    ],
    ids=str,
)
def test_a_reply_that_cannot_be_right_is_refused(changed: dict[str, Any]) -> None:
    reply = {name: value for name, value in (GRANTED | changed).items() if value is not ...}
    with pytest.raises((ValueError, TypeError, LookupError)):
        read(reply)


@pytest.mark.parametrize(
    "text", [None, 7, b"{}", "[]", "null", "[" * 100_000], ids=["None", "7", "b", "[]", "null", "["]
)
def test_a_reply_that_is_not_an_object_is_invalid(text: object) -> None:
    with pytest.raises((ValueError, AttributeError, RecursionError)):
        read_reply(text, ASK, windows=2)


def account() -> Account:
    return Account(sliding([Window(10, 60.0), Window(100, 3600.0)]))


def test_facts_of_one_process_are_merged_by_the_clock_of_the_other() -> None:
    one, other = account(), account()
    known, taken = Facts(one), Facts(other)
    assert not known.note(60.0)
    minute, hour = one.windows
    minute.limit = 9
    hour.others.level, hour.others.since, hour.others.sure = 7, 50.0, True
    hour.others.seen.append((40.0, 60.0, 3))
    one.gate.until, one.gate.at_most, one.gate.strikes = 70.0, 4, 2
    one.last_answer = 65.0

    assert known.note(66.0)
    other.gate.at_most = 3
    assert taken.note(160.0)  # earlier by Valkey's clock than the gate of the first opens
    taken.unsent = False
    taken.merge(known.dump(offset=1000.0), offset=900.0)  # whose clock is 100 s ahead

    assert [window.limit for window in other.windows] == [9, 100]
    others = other.windows[1].others
    assert (others.level, others.since, others.sure, list(others.seen)) == (7, 150.0, True, [(140.0, 160.0, 3)])
    assert (others.seconds, others.steady) == (hour.others.seconds, hour.others.steady)
    assert (other.gate.until, other.gate.at_most, other.gate.strikes) == (170.0, 4, 2)
    assert (other.last_answer, other.last_count) == (165.0, 166.0)
    assert not other.alone
    assert not taken.note(180.0)  # the other process need not report them again


def test_of_each_fact_the_newer_one_wins() -> None:
    one, other = account(), account()
    known, taken = Facts(one), Facts(other)
    one.windows[0].limit, other.windows[0].limit = 8, 9
    one.windows[1].limit, other.windows[1].limit = 80, 90
    known.note(5.0)
    one.windows[1].limit = 81
    taken.note(6.0)
    known.note(7.0)

    taken.merge(known.dump(0.0), 0.0)

    assert [window.limit for window in other.windows] == [9, 81]
    assert other.alone  # neither knows of anybody else


def test_the_gate_that_opens_last_wins_over_a_later_step_of_the_ramp() -> None:
    one, other = account(), account()
    known, taken = Facts(one), Facts(other)
    one.gate.close(10.0, 100.0)
    known.note(100.0)
    other.gate.close(2.0, 100.5)
    other.gate.at_most = 2
    taken.note(103.0)

    taken.merge(known.dump(0.0), 0.0)
    assert (other.gate.until, other.gate.at_most) == (110.0, 1)

    # When it is open, the newer step counts.
    other.gate.at_most = 2
    taken.note(111.0)
    known.merge(taken.dump(0.0), 0.0)
    assert (one.gate.until, one.gate.at_most) == (110.0, 2)
    other.gate.at_most = math.inf
    taken.note(112.0)
    known.merge(taken.dump(0.0), 0.0)
    assert one.gate.at_most == math.inf


def test_each_change_of_a_window_or_of_the_gate_is_sent() -> None:
    changing = account()
    facts = Facts(changing)
    changing.windows[1].limit = 90
    assert facts.note(1.0)
    facts.unsent = False
    assert not facts.note(2.0)
    changing.gate.at_most = 4
    assert facts.note(3.0)


def test_an_answer_right_after_another_is_not_worth_an_update() -> None:
    one, other = account(), account()
    facts = Facts(one)
    one.last_answer = 10.0
    assert facts.note(10.0)
    facts.unsent = False
    one.last_answer = 12.9  # less than a twentieth of a minute later
    assert not facts.note(12.9)
    one.last_answer = 13.0
    assert facts.note(13.0)
    Facts(other).merge(facts.dump(0.0), 0.0)
    assert other.last_answer == 13.0


def test_a_process_without_knowledge_changes_nothing() -> None:
    one, other = account(), account()
    other.windows[0].others.believe(3, 5.0)
    facts = Facts(other)

    facts.merge(Facts(one).dump(1000.0), 0.0)

    assert other.windows[0].others.level == 3
    assert (other.gate.until, other.gate.at_most, other.last_answer) == (-math.inf, math.inf, -math.inf)


def test_invalid_facts_are_not_merged_in_part() -> None:
    source = account()
    facts = Facts(source)
    source.windows[0].limit = 5
    facts.note(1.0)
    right = json.loads(facts.dump(0.0))
    minute, hour = right["windows"]
    changes: list[dict[str, Any]] = [
        {"windows": [minute]},
        {"windows": [minute, hour, hour]},
        {"windows": [minute, hour | {"limit": "x"}]},
        {"windows": [minute, hour | {"seen": [[0, 1, "x"]]}]},
        {"gate": "x"},
        {"gate": right["gate"] | {"strikes": None}},
        {"last_answer": []},
    ]
    for changed in changes:
        other = account()
        with pytest.raises((ValueError, KeyError, TypeError)):
            Facts(other).merge(json.dumps(right | changed), 0.0)
        assert [window.limit for window in other.windows] == [10, 100]
    other = account()
    Facts(other).merge(json.dumps(right | {"windows": [minute | {"limit": 0}, hour]}), 0.0)
    assert [window.limit for window in other.windows] == [1, 100]
