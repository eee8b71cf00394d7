"""What the processes that share a budget ask of Valkey and hear from it, and what they tell each other of a token."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from aiodbclient import Window
from aiodbclient._pacing.account import Account, sliding
from aiodbclient._pacing.shared.facts import dump, load
from aiodbclient._pacing.shared.messages import Ask, Forgot, Late, Place, Reply, decoded

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


def read(reply: Any, ask: Ask = ASK) -> Reply | Forgot | Late:
    return decoded(json.dumps(reply), ask, windows=2)


def test_a_reply_is_in_seconds_of_the_servers_clock() -> None:
    assert read(GRANTED) == Reply(
        epoch="a",
        now=1.5,
        interactive=2,
        bulk=1,
        wait=0.25,
        waits=[0.0, 2.0],
        used=(4, 5),
        counted=(1, 2),
        in_flight=3,
        least=6,
        most=7,
        recovering=0.5,
        version=3,
        stale=False,
        facts=None,
    )
    nobody_waits = read(GRANTED | {"waits": {}, "interactive": 0}, Ask(2, 1))  # Lua's empty list
    assert isinstance(nobody_waits, Reply)
    assert (nobody_waits.interactive, nobody_waits.waits) == (0, [])


def test_facts_come_with_a_reply_that_is_stale() -> None:
    def facts(**changed: Any) -> Any:
        reply = read(GRANTED | changed)
        assert isinstance(reply, Reply)
        return reply.facts

    assert facts(stale=True, facts="{}") == "{}"
    assert facts(stale=True) is None
    assert facts(stale=False, facts="{}") is None


def test_valkey_may_have_forgotten_or_been_asked_too_late() -> None:
    assert read({"epoch": "b", "forgotten": True}) == Forgot("b")
    assert read({"late": True}) == Late()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"epoch": None}, "epoch is no text"),
        ({"stale": 0}, "stale is no boolean"),
        ({"now": 1500000}, "now is no text"),
        ({"now": "soon"}, "now is no finite number"),
        ({"interactive": 3}, "interactive is out of range"),
        ({"interactive": -1}, "interactive is out of range"),
        ({"interactive": 0.5}, "interactive is out of range"),
        ({"interactive": True}, "interactive is no number"),
        ({"bulk": 2}, "bulk is out of range"),
        ({"bulk": None}, "bulk is no number"),
        ({"wait": 10**400}, "wait is no finite number"),
        ({"waits": [0]}, "waits does not hold 2 values"),
        ({"waits": [0, []]}, "waits is no number"),
        ({"waits": "00"}, "waits does not hold 2 values"),
        ({"used": [1, 2, 3]}, "used does not hold 2 values"),
        ({"used": [1, -2]}, "used is out of range"),
        ({"counted": [1]}, "counted does not hold 2 values"),
        ({"counted": [1, -2]}, "counted is out of range"),
        ({"in_flight": -1}, "in_flight is out of range"),
        ({"least": -1}, "least is out of range"),
        ({"most": -1}, "most is out of range"),
        ({"recovering": None}, "recovering is no number"),
        ({"version": -1}, "version is out of range"),
        ({"stale": True, "facts": 5}, "facts is no text"),
    ],
)
def test_a_reply_that_cannot_be_is_told_by_what_is_wrong(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}$"):
        read(GRANTED | changed)


@pytest.mark.parametrize("text", [None, 7, b"{}", "[]", "null", "[" * 100_000])
def test_what_is_no_object_is_no_reply(text: object) -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        decoded(text, ASK, windows=2)


def account() -> Account:
    return Account(sliding([Window(10, 60.0), Window(100, 3600.0)]))


def test_what_one_process_knows_the_other_takes_over_by_its_own_clock() -> None:
    one, other = account(), account()
    minute, hour = one.windows
    minute.limit = 9
    hour.others.level, hour.others.since, hour.others.sure = 7, 50.0, True
    hour.others.seen.append((40.0, 60.0, 3))
    one.gate.until, one.gate.at_most, one.gate.strikes = 70.0, 4, 2
    one.last_answer, one.last_count = 65.0, 64.0

    load(other, dump(one, offset=1000.0), offset=900.0)  # whose clock is 100 s ahead

    assert [window.limit for window in other.windows] == [9, 100]
    others = other.windows[1].others
    assert (others.level, others.since, others.sure, list(others.seen)) == (7, 150.0, True, [(140.0, 160.0, 3)])
    assert (others.seconds, others.steady) == (hour.others.seconds, hour.others.steady)
    assert (other.gate.until, other.gate.at_most, other.gate.strikes) == (170.0, 4, 2)
    assert (other.last_answer, other.last_count) == (165.0, 164.0)
    assert not other.alone


def test_who_knows_nothing_tells_nothing() -> None:
    one, other = account(), account()

    load(other, dump(one, offset=1000.0), offset=0.0)

    assert dump(other, offset=0.0) == dump(one, offset=1000.0)
    assert (other.gate.until, other.gate.at_most, other.last_answer) == (
        one.gate.until,
        one.gate.at_most,
        one.last_answer,
    )
    assert other.alone


def test_what_cannot_be_right_is_not_taken_over_in_part() -> None:
    told = json.loads(dump(account(), offset=0.0))
    seen = {"level": 1, "since": 0, "sure": 1, "seen": [[0, 1, "x"]]}
    changes: list[dict[str, Any]] = [
        {"limits": [1]},
        {"limits": [1, 2, 3]},
        {"limits": [1, "x"]},
        {"others": [seen, seen]},
        {"gate": "x"},
        {"strikes": None},
        {"last_count": []},
    ]
    for changed in changes:
        other = account()
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
            load(other, json.dumps(told | {"limits": [1, 1]} | changed), offset=0.0)
        assert [window.limit for window in other.windows] == [10, 100]
    load(other, json.dumps(told | {"limits": [0, -1]}), offset=0.0)
    assert [window.limit for window in other.windows] == [1, 1]
