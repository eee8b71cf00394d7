"""What the processes of a fleet know of each other, as the cell stores it: one text in JSON. Pure.

Each process overwrites its own entry, ``Member``: a total, so a report can arrive twice or be lost. What is known of
the token is one more entry, ``Token``: the gate that opens last wins. Times are in seconds of the server's clock.

The text may have been written by another version, or by somebody else: what it says is checked, and a time in the
future counts as now.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self

from attrs import define, field
from cattrs import Converter

from .gate import Gate
from .ledger import LATENCY, Ledger
from .window import Window

FORMAT = 1
LARGEST = 4_000_000  # characters that a cell may hold
_MOST_REFUSALS = 10  # after so many in a row the wait is the longest one

_NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class CellError(Exception):
    """The server does not serve this process now. ``lasting``: it refuses it, and waiting does not help."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class NonsenseError(Exception):
    """The cell holds something that no budget wrote."""


class NewerError(Exception):
    """The cell was written in a later format than this version can read."""


@define
class Member:
    """One process, as it last reported."""

    seen: float = 0.0  # when it reported
    held: int = 0  # its requests in flight, without those that a 429 answered
    interactive: int = 0  # how many of its calls wait in this lane
    bulk: int = 0  # how many of its calls wait in this lane
    share: float = 0.0  # its fallback share
    answers: list[int] = field(factory=list)  # pairs: milliseconds before ``seen``, and how many were answered then

    def moments(self) -> list[float]:
        """When its requests were answered."""
        pairs = zip(self.answers[::2], self.answers[1::2], strict=True)
        return [self.seen - ago / 1000 for ago, count in pairs for _ in range(count)]

    def used(self, seconds: float, now: float) -> int:
        """How many slots of a window it holds."""
        return self.held + sum(answered > now - seconds for answered in self.moments())


@define
class Token:
    """What is known of the token."""

    limit: int  # of its longest window
    other_limit: int | None = None
    others: int = 0  # requests of others in the longest window
    others_until: float = -math.inf
    gate: Gate = field(factory=Gate)


@define
class Fleet:
    """What a fleet knows of its budget."""

    token: Token
    members: dict[str, Member]  # the processes, by their names
    format: int = FORMAT

    @classmethod
    def of(cls, windows: Sequence[Window]) -> Self:
        """Return one that knows nothing."""
        return cls(Token(windows[-1].limit), {})

    def merge(self, other: Fleet) -> None:
        """Add what ``other`` knows and this one has lost."""
        for name, member in other.members.items():
            if name not in self.members or self.members[name].seen < member.seen:
                self.members[name] = member
        if other.token.gate.until > self.token.gate.until:
            self.token = other.token

    def ledger(self, windows: Sequence[Window], me: Member, now: float) -> Ledger:
        """Return a ledger of the requests of all processes. ``me`` reports now."""
        lease = max(1.0, windows[0].seconds / 2)  # a process that reported before may have died
        answers, in_flight = list[float](), 0
        for member in self.members.values():
            answers += member.moments()
            if member is me or now <= member.seen + lease:
                in_flight += member.held
            else:
                answers += [member.seen + lease] * member.held
        ledger = Ledger(windows, (answers, in_flight))
        ledger.gate, ledger.other_limit = self.token.gate, self.token.other_limit
        hour = ledger.windows[-1]
        hour.limit, hour.others, hour.others_until = self.token.limit, self.token.others, self.token.others_until
        return ledger

    def learn(self, ledger: Ledger) -> None:
        """Take over what ``ledger`` knows of the token."""
        hour = ledger.windows[-1]
        self.token = Token(hour.limit, ledger.other_limit, hour.others, hour.others_until, ledger.gate)

    def dump(self) -> str:
        """Return it as text."""
        return json.dumps(_converter.unstructure(self), separators=(",", ":"))


def load(text: str, windows: Sequence[Window], now: float) -> Fleet:
    """Read what the cell holds, without processes that hold no slot any more. Raises NonsenseError and NewerError."""
    longest = windows[-1]
    try:
        if len(text) > LARGEST:
            raise ValueError("too long")
        decoded = json.loads(text)
        if _count(decoded["format"]) > FORMAT:
            raise NewerError
        fleet = _converter.structure(decoded, Fleet)
        requests = sum(member.held + sum(member.answers[1::2]) for member in fleet.members.values())
        if not isinstance(decoded["token"]["gate"], dict):
            raise ValueError("no gate")
        if fleet.token.limit == 0 or requests > 4 * longest.limit + 1000:
            raise ValueError("no limit, or more requests than there are slots")
        if any(len(member.answers) % 2 for member in fleet.members.values()):
            raise ValueError("half an answer")
    except _NONSENSE as error:
        raise NonsenseError(type(error).__name__) from error
    fleet.members = {n: m for n, m in fleet.members.items() if m.seen > now - longest.seconds - LATENCY}
    for member in fleet.members.values():
        member.seen, member.share = min(member.seen, now), min(max(member.share, 0.0), 1.0)
    token, latest = fleet.token, now + longest.seconds
    token.others, token.others_until = min(token.others, token.limit - 1), min(token.others_until, latest)
    token.gate.until, token.gate.later = min(token.gate.until, latest), min(token.gate.later, latest)
    token.gate.refusals = min(token.gate.refusals, _MOST_REFUSALS)
    return fleet


def grouped(moments: Iterable[float], windows: Sequence[Window], now: float) -> list[int]:
    """Write ``moments`` as a member's answers. What only the longest window counts is by its 3600th part, and later."""
    longest, exact = windows[-1].seconds * 1000, round(windows[-2:][0].seconds * 1000)
    piece = max(1, int(longest / 3600))
    counts = Counter[int]()
    for moment in moments:
        ago = int((now - moment) * 1000)
        if ago < longest + LATENCY * 1000:
            counts[max(0, ago) if ago <= exact else max(exact, ago // piece * piece)] += 1
    return [number for pair in counts.items() for number in pair]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a number")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError("not a count")
    return value


_converter = Converter(detailed_validation=False)
_converter.register_structure_hook(int, lambda value, _: _count(value))
_converter.register_structure_hook(float, lambda value, _: _number(value))
_converter.register_unstructure_hook(float, lambda value: max(value, 0.0))  # JSON has no minus infinity
