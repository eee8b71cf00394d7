"""What the processes of a fleet know of each other, as the cell stores it: one text. Pure.

Each process overwrites its own entry, ``Member``: a total, so a report can arrive twice or be lost. What is known of
the token is one more entry, ``Token``: the gate that opens last wins. Times are in seconds of the server's clock.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from attrs import define, field
from cattrs import Converter

from .gate import Gate
from .ledger import LATENCY
from .window import Window

FORMAT = 1  # the version of the text, which begins with it and with the digest of the rest

_converter = Converter()


class CellError(Exception):
    """The server does not serve this process now. ``lasting``: it refuses it, and waiting does not help."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


@define
class Member:
    """One process, as it last reported."""

    seen: float = 0.0  # when it reported
    held: int = 0  # its requests in flight, without those that a 429 answered
    waiting: list[int] = field(
        factory=lambda: [0, 0]
    )  # how many of its calls wait: single ones, and those of bulk runs
    share: float = 0.0  # its fallback share
    answers: list[int] = field(factory=list)  # pairs: milliseconds before ``seen``, and how many were answered then

    def moments(self) -> list[float]:
        """When its requests were answered."""
        return [self.seen - ago / 1000 for ago, count in self._pairs() for _ in range(count)]

    def used(self, seconds: float, now: float) -> int:
        """How many slots of a window it holds."""
        return self.held + sum(count for ago, count in self._pairs() if self.seen - ago / 1000 > now - seconds)

    def _pairs(self) -> Iterable[tuple[int, int]]:
        return zip(self.answers[::2], self.answers[1::2], strict=True)


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
    members: dict[str, Member] = field(factory=dict)  # the processes, by their names

    def merge(self, other: Fleet) -> None:
        """Add what ``other`` knows and this one has lost."""
        for name, member in other.members.items():
            if name not in self.members or self.members[name].seen < member.seen:
                self.members[name] = member
        if other.token.gate.until > self.token.gate.until:
            self.token = other.token

    def dump(self) -> str:
        """Return it as text."""
        body = json.dumps(_converter.unstructure(self), separators=(",", ":"))
        return f"{FORMAT} {_digest(FORMAT, body)} {body}"


def load(text: str, longest: float, now: float) -> Fleet | None:
    """Read what the cell holds, without processes that hold no slot any more; None if no budget wrote it.

    Raises CellError if a later version of this package did.
    """
    version, digest, body = [*text.split(" ", 2), "", ""][:3]
    if digest != _digest(version, body):
        return None
    if int(version) > FORMAT:
        raise CellError("a later version of this package wrote the budget there")
    fleet = _converter.structure(json.loads(body), Fleet)
    fleet.members = {n: m for n, m in fleet.members.items() if m.seen > now - longest - LATENCY}
    # Somebody may have set the server's clock back.
    for member in fleet.members.values():
        member.seen = min(member.seen, now)
    token, latest = fleet.token, now + longest
    token.others_until = min(token.others_until, latest)
    token.gate.until, token.gate.later = min(token.gate.until, latest), min(token.gate.later, latest)
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


def _digest(version: object, body: str) -> str:
    return hashlib.sha256(f"{version} {body}".encode(errors="replace")).hexdigest()
