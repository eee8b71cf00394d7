"""The state of a budget that a fleet shares, as the cell stores it: one text in JSON. Pure.

Times are in seconds of the server's clock. The text may have been written by another version, or by somebody else: what
it says is checked, and a time in the future counts as now.
"""

from __future__ import annotations

import json
import math
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field, frozen
from cattrs import Converter

from .gate import Gate, Moment
from .ledger import Ledger
from .window import Window

FORMAT = 1
LARGEST = 4_000_000  # characters that a cell may hold

_NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class NonsenseError(Exception):
    """The cell holds something that no budget wrote."""


class CellError(Exception):
    """The server does not serve this process now. ``lasting``: it refuses it, and waiting does not help."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class NewerError(Exception):
    """The cell was written in a later format than this version can read."""


@define
class Member:
    """One process of the fleet, as it last reported."""

    number: int = 0  # that of its last event that the state includes
    seen: float = 0.0  # when it reported
    held: int = 0  # its requests in flight
    used: int = 0  # the slots of the shortest window that it held
    interactive: int = 0  # how many of its calls waited in this lane
    bulk: int = 0  # how many of its calls waited in this lane
    share: float = 0.0  # its fallback share
    till: float = 0.0  # until when it asks again while it waits


@frozen
class _Token:
    limit: int
    other_limit: int | None
    others: int
    others_until: Moment
    gate: Gate


@frozen
class _Stored:
    format: int
    at: float
    recovered: Moment
    answers: list[int]  # for each moment of answers: milliseconds since the one before, and how many they were
    members: dict[str, Member]
    token: _Token


@define
class State:
    """What a fleet knows of its budget."""

    ledger: Ledger  # what is known of the token: its limit, and its gate
    at: float = -math.inf  # when it was last changed
    # When all processes have reported, or had reported, what was lost or sent without the server
    recovered: float = -math.inf
    answers: list[int] = field(factory=list)  # when requests were answered, in milliseconds, the oldest first
    members: dict[str, Member] = field(factory=dict)  # the processes, by their names

    def dump(self, now: float) -> str:
        """The state as text. What no window counts any more is left out."""
        self.at = now
        windows, longest = self.ledger.windows, self.ledger.windows[-1]
        remembered = now - 2 * longest.seconds  # a process reports again what its forgotten record had
        self.members = {name: member for name, member in self.members.items() if member.seen > remembered}
        others_until = Moment(longest.others_until)
        token = _Token(longest.limit, self.ledger.other_limit, longest.others, others_until, self.ledger.gate)
        answers = _dumped(self.answers, [window.seconds for window in windows], now)
        stored = _Stored(FORMAT, round(now, 3), Moment(self.recovered), answers, self.members, token)
        return json.dumps(_converter.unstructure(stored), separators=(",", ":"))


def load(text: str, windows: Sequence[Window], now: float) -> State:
    """Read the state from ``text``; empty if it is too old to count."""
    ledger, longest = Ledger.of_fleet(windows), windows[-1]
    state = State(ledger)
    try:
        if len(text) > LARGEST:
            raise ValueError("too long")
        decoded = json.loads(text)
        state.at = min(_number(decoded["at"]), now)
        if state.at < now - 2 * longest.seconds:
            return state
        if _count(decoded["format"]) > FORMAT:
            raise NewerError
        stored = _converter.structure(decoded, _Stored)
        token = stored.token
        if token.limit == 0 or not isinstance(decoded["token"]["gate"], dict):
            raise ValueError("no limit, or no gate")
        most = 4 * longest.limit + 1000
        if sum(member.held for member in stored.members.values()) > most:
            raise ValueError("more requests than there are slots")
        state.answers = _loaded(stored.answers, most, now)
    except _NONSENSE as error:
        raise NonsenseError(type(error).__name__) from error
    state.recovered = stored.recovered
    for name, member in stored.members.items():
        member.seen, member.till = min(member.seen, now), min(member.till, now + windows[0].seconds)
        member.share = min(max(member.share, 0.0), 1.0)
        state.members[name] = member
    ledger.gate, ledger.other_limit = token.gate, token.other_limit
    ledger.gate.until = Moment(min(token.gate.until, now + longest.seconds))
    ledger.gate.later = Moment(min(token.gate.later, now + longest.seconds))
    hour = ledger.windows[-1]
    hour.limit, hour.others = token.limit, min(token.others, token.limit - 1)
    hour.others_until = min(token.others_until, now + longest.seconds)
    return state


def _dumped(answers: list[int], lengths: list[float], now: float) -> list[int]:
    """Write when requests were answered; those of the longest window alone by the 3600th part of it, and later."""
    oldest = math.ceil((now - lengths[-1] - 30.0) * 1000)
    piece = max(1, int(lengths[-1] * 1000 / 3600))
    coarse = int((now - (lengths[-2] if len(lengths) > 1 else 0.0)) * 1000 / piece - 1) * piece
    kept = answers[bisect(answers, oldest) :]
    alone = bisect(kept, coarse)
    written, before = list[int](), 0
    for at, count in Counter([*[-(-at // piece) * piece for at in kept[:alone]], *kept[alone:]]).items():
        written += [at - before, count]
        before = at
    return written


def _loaded(written: list[int], most: int, now: float) -> list[int]:
    answers, at = list[int](), 0
    latest = int(now * 1000)
    for since, count in zip(written[::2], written[1::2], strict=True):
        at += since
        if count > most - len(answers):
            raise ValueError("more answers than there are slots")
        answers += [min(at, latest)] * count
    return answers


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a number")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError("not a count")
    return value


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"not a {kind.__name__}")
        return value

    return check


_converter = Converter(detailed_validation=False)
_converter.register_structure_hook(str, _exactly(str))
_converter.register_structure_hook(bool, _exactly(bool))
_converter.register_structure_hook(int, lambda value, _: _count(value))
_converter.register_structure_hook(float, lambda value, _: _number(value))
_converter.register_structure_hook(Moment, lambda value, _: -math.inf if value is None else _number(value))
_converter.register_unstructure_hook(Moment, lambda value: None if value == -math.inf else value)
