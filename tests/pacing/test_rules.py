"""After a 429: the gate, strikes, and the ramp."""

from __future__ import annotations

import math
import random

import pytest

from aiodbclient._pacing.account import Gate


def closed_by_429s_at(*moments: float) -> Gate:
    gate = Gate(few=4)
    for now in moments:
        gate.close(0.0, now)
    return gate


def longest_backoff(gate: Gate, now: float, monkeypatch: pytest.MonkeyPatch) -> float:
    with monkeypatch.context() as patched:
        patched.setattr(random, "uniform", lambda _, longest: longest)
        return gate.backoff(now)


def test_the_longest_backoff_doubles_with_each_429_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [float(n) for n in range(9)]

    longest = [longest_backoff(closed_by_429s_at(*moments[:strikes]), 9.0, monkeypatch) for strikes in range(9)]

    assert longest == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_backoff_is_any_part_of_the_longest_one() -> None:
    gate = closed_by_429s_at(0.0, 1.0)
    backoffs = [gate.backoff(2.0) for _ in range(1000)]

    assert 0.0 <= min(backoffs) < 0.4
    assert 3.6 < max(backoffs) <= 4.0


def test_after_a_minute_without_a_429_the_count_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = closed_by_429s_at(0.0, 1.0, 2.0)

    assert longest_backoff(gate, 61.9, monkeypatch) == 8
    assert longest_backoff(gate, 62.0, monkeypatch) == 1
    gate.close(0.0, 62.0)
    assert gate.strikes == 1


def test_a_429_while_the_gate_is_closed_is_no_further_strike_and_can_keep_it_closed_for_longer() -> None:
    gate = Gate(few=4)
    gate.close(5.0, 0.0)
    gate.close(1.0, 4.5)
    assert (gate.strikes, gate.until) == (1, 5.5)
    gate.close(0.1, 5.0)
    assert (gate.strikes, gate.until) == (1, 5.5)
    gate.close(None, 5.1)
    assert (gate.strikes, gate.until) == (1, 5.5)
    gate.close(1.0, 5.5)
    assert (gate.strikes, gate.until) == (2, 6.5)


def test_the_ramp_goes_up_to_a_few_and_ends_when_nobody_else_is_about() -> None:
    gate = closed_by_429s_at(0.0)
    steps = []
    for _ in range(5):
        gate.opens_further(alone=False)
        steps.append(gate.at_most)
    assert steps == [2, 3, 4, 4, 4]

    gate.opens_further(alone=True)
    assert gate.at_most == math.inf


def test_alone_or_not_the_ramp_goes_a_step_at_a_time() -> None:
    gate = closed_by_429s_at(0.0)
    gate.opens_further(alone=True)

    assert gate.at_most == 2


def test_a_careful_gate_opens_for_a_few_and_never_for_more_than_before() -> None:
    gate = Gate(few=4)
    gate.careful(at_least=10)
    assert gate.at_most == 10
    gate.careful()
    assert gate.at_most == 4
    gate.careful(at_least=10)
    assert gate.at_most == 4
