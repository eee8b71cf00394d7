"""A fleet: what its processes know of each other, as the cell stores it, and what each does in its turn. Pure.

Each process overwrites its own entry, ``Member``: a total, so a report can arrive twice or be lost. Of the token it has
the hour and the gate: the gate that opens last wins. Times are by the clock of the process, and in the text they are
seconds since it was written.
"""

from __future__ import annotations

import json
import logging
import math
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence

from attrs import define, evolve, field
from cattrs import Converter

from .._headers import Hour
from ..errors import ConfigurationError
from .budget import Queue
from .gate import Gate
from .ledger import LATENCY, Ledger, SlidingWindow, Window

_GRACE = 0.25  # seconds by which a process may report later than it said, and still be granted its part
_MOST = 1_000_000  # requests, or refusals in a row, that a text reports; more would take all memory or time
_REPORTS = 4  # turns until it takes slots again after an outage, so that all others can report too

# A password, database or certificate that is wrong, or a right that is missing. Where PostgreSQL refuses a connection,
# libpq has only its text.
_LASTING = re.compile(
    r"SQLSTATE (28000|28P01|3D000|3F000|42501)|authentication failed|does not exist(?! \(SQLSTATE)|permission denied"
    "|no pg_hba.conf entry|does not support SSL|certificate|NOAUTH|WRONGPASS|NOPERM|ACL failure|no permissions"
    "|DB index is out of range|^(Authentication|Authorization|NoPermission)Error"
)

_converter = Converter(detailed_validation=False)
logger = logging.getLogger("aiodbclient")


class CellError(Exception):
    """The server does not serve this process now. ``lasting``: it refuses it, and waiting does not help."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting or _LASTING.search(why) is not None


@define
class Member:
    """One process, as it last reported."""

    seen: float = 0.0  # when it reported
    reports: int = 1  # how often it did
    held: int = 0  # its requests in flight, without those that a 429 answered
    waiting: list[int] = field(factory=lambda: [0, 0])  # how many of its calls wait: of each lane
    share: float = 0.0  # its fallback share
    answers: dict[int, int] = field(factory=dict)  # milliseconds before ``seen``: how many were answered then

    def moments(self) -> list[float]:
        """When its requests were answered."""
        return [self.seen - ago / 1000 for ago, count in self.answers.items() for _ in range(count)]

    def used(self, seconds: float, now: float) -> int:
        """How many slots of a window it holds."""
        return self.held + sum(count for ago, count in self.answers.items() if self.seen - ago / 1000 > now - seconds)


@define
class Fleet:
    """What a fleet knows of its budget."""

    hour: SlidingWindow  # the longest window
    gate: Gate = field(factory=Gate)
    members: dict[str, Member] = field(factory=dict)  # the processes, by their names
    written: float = 0.0  # when, by the server's clock

    def merge(self, other: Fleet) -> None:
        """Add what ``other`` knows and this one has lost."""
        for name, member in other.members.items():
            if name not in self.members or self.members[name].reports < member.reports:
                self.members[name] = member
        if other.gate.until > self.gate.until:
            self.hour, self.gate = other.hour, other.gate

    def shifted(self, ahead: float, written: float = 0.0) -> Fleet:
        """Return it by a clock that is ``ahead``."""
        return Fleet(
            evolve(self.hour, others_until=self.hour.others_until + ahead),
            self.gate.shifted(ahead),
            {name: evolve(member, seen=member.seen + ahead) for name, member in self.members.items()},
            written,
        )

    def dump(self, at: float, now: float) -> str:
        """Return it as text, which is written at ``at`` by the server's clock."""
        return json.dumps(_converter.unstructure(self.shifted(-now, at)), separators=(",", ":"))


def load(text: str, at: float, now: float) -> Fleet | None:
    """Read at ``at`` what the cell holds; None if no budget wrote it."""
    try:
        fleet = _converter.structure(json.loads(text), Fleet)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None
    members = fleet.members.values()
    counts = [fleet.gate.refusals, *(n for member in members for n in (member.held, *member.answers.values()))]
    if min(counts) < 0 or sum(counts) > _MOST:
        return None
    if not all(len(member.waiting) == 2 and 0 <= member.share <= 1 for member in members):
        return None
    return fleet.shifted(now - max(0.0, at - fleet.written))  # somebody may have set the server's clock back


def grouped(moments: Iterable[float], windows: Sequence[Window], now: float) -> dict[int, int]:
    """Write ``moments`` as a member's answers, by the 600th part of the shortest window, and never too early."""
    piece = max(1, int(windows[0].seconds / 0.6))  # milliseconds
    recent = (now - moment for moment in moments if now - moment < windows[-1].seconds + LATENCY)
    return dict(Counter(int(ago * 1000) // piece * piece for ago in recent))


@define(eq=False)
class Process:
    """One process of a fleet.

    In a turn it overwrites its entry in the cell, puts what the others reported into its ledger, and takes slots. Each
    process that waits may have an equal part of the shortest window. The share of one that waits and does not report in
    time stays free for one window.
    """

    ledger: Ledger
    queue: Queue
    windows: Sequence[Window]
    reserve: int
    share: float
    where: str
    alone: int = 0  # for how many turns it still uses its share: the server did not answer, or lost what it knew
    fleet: Fleet | None = None  # by its last turn
    others: list[Member] = field(factory=list)  # the other processes that wait
    _name: str = ""
    # By the turn, until it is written: what is known, how many slots it took, and why others may hold unknown ones.
    _written: tuple[Fleet, int, str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ledger.allowance = 0  # until a turn takes some

    def turn(self, text: str, at: float, now: float, heard: Hour) -> str:
        """Have a turn at ``at`` by the server's clock. Returns the new text. It can be repeated until it is written.

        ``heard``: the newest headers.
        """
        # Not before: processes that were forked from one another would have the same name.
        self._name = self._name or secrets.token_hex(6)
        fleet, lost = self._read(text, at, now)
        me = fleet.members[self._name] = self._entry(now)
        fleet.gate, taken = self.ledger.agree(fleet.gate, now), 0
        if not self.alone:
            self._take_over(fleet, now)
            self.ledger.hear(*heard, now)
            taken = 0 if lost else self._take(me, now)
        self._written = fleet, taken, lost
        return fleet.dump(at, now)

    def heed(self, now: float) -> None:
        """Note that what came of the turn is written."""
        self.fleet, taken, lost = self._written
        if lost:
            self.go_alone(CellError(lost), now)
        elif self.alone:
            self.alone -= 1
            if not self.alone:
                self._take_over(self.fleet, now)
                logger.info("the rate budget is shared again through %s", self.where)
        self.ledger.allowance = math.inf if self.alone else taken

    def go_alone(self, error: CellError, now: float) -> None:
        """Use the share from now on. Raises ConfigurationError if the server refuses this process for good."""
        what = f"{self.where} {'refuses this process' if error.lasting else 'failed'} ({error})"
        if error.lasting and self.fleet is None:
            raise ConfigurationError(
                f"the rate budget is not shared: {what}; nothing was sent, and waiting does not help"
            )
        if not self.alone:
            level, text = logging.ERROR if error.lasting else logging.WARNING, "the rate budget is not shared: %s; %s"
            logger.log(level, text, what, f"meanwhile this process uses {self.share:g} of the budget")
            self._use_share(now)
        self.alone = _REPORTS
        self.ledger.allowance = math.inf

    def before(self, ahead: int, bulk: bool) -> int:
        """How many calls of other processes go before one with so many of its own ``ahead``, side by side."""
        return sum(min(sum(member.waiting[: bulk + 1]), ahead + 1) for member in self.others)

    def _read(self, text: str, at: float, now: float) -> tuple[Fleet, str]:
        """Return what the fleet knows, and why others may hold slots that the cell does not know of."""
        longest = self.windows[-1]
        known = load(text, at, now)
        lost = "it held no budget, but nonsense" if text and known is None else ""
        fleet = known or Fleet(SlidingWindow(longest.limit, longest.seconds))
        if self.fleet is not None:
            last, mine = self.fleet.members[self._name], fleet.members.get(self._name)
            if now - last.seen < longest.seconds and (mine is None or mine.reports < last.reports):
                fleet.merge(self.fleet)
                lost = lost or "it has lost what was reported"
        fleet.members = {n: m for n, m in fleet.members.items() if m.seen > now - longest.seconds - LATENCY}
        # Whatever the text says, nobody waits for longer than a window.
        for member in fleet.members.values():
            member.seen = min(member.seen, now)
        hour, gate, latest = fleet.hour, fleet.gate, now + longest.seconds
        hour.seconds, hour.others_until = longest.seconds, min(hour.others_until, latest)
        gate.until, gate.later = min(gate.until, latest), min(gate.later, latest)
        return fleet, lost

    def _entry(self, now: float) -> Member:
        ledger, queue = self.ledger, self.queue
        reports = self.fleet.members[self._name].reports if self.fleet is not None else 0
        room = int(min(len(queue), max(0, ledger.ramp.at_most - ledger.in_flight)))
        interactive = min(queue.ahead((True, 0)), room)
        waiting, answers = [interactive, room - interactive], grouped(ledger.own, self.windows, now)
        return Member(now, reports + 1, ledger.unanswered, waiting, self.share, answers)

    def _take_over(self, fleet: Fleet, now: float) -> None:
        """Have the requests of all processes in the ledger, and what is known of the hour."""
        shortest, ledger = self.windows[0], self.ledger
        in_time = now - shortest.seconds / 10 - _GRACE
        lease = max(1.0, shortest.seconds / 2)  # a process that reported before may have died
        answers, in_flight, kept, self.others = list[float](), 0, 0, []
        for name, member in fleet.members.items():
            if name == self._name:
                continue
            answers += member.moments()
            if now <= member.seen + lease:
                in_flight += member.held
            else:
                answers += [member.seen + lease] * member.held
            if any(member.waiting):
                if member.seen >= in_time:
                    self.others.append(member)
                elif member.seen >= in_time - shortest.seconds:  # it may be cut off, and use its share
                    kept += int(shortest.limit * member.share)
        ledger.share(answers, in_flight + min(kept, shortest.limit - 1))
        ledger.reserve = self.reserve
        ledger.windows = [*(SlidingWindow(w.limit, w.seconds) for w in self.windows[:-1]), fleet.hour]

    def _take(self, me: Member, now: float) -> int:
        """Take an equal part of the shortest window, or all that the others do not need. Returns how many slots."""
        shortest, taken = self.windows[0], 0
        part = math.ceil(shortest.limit / (len(self.others) + 1))
        for bulk in (False, True):
            ahead = taken + sum(sum(member.waiting[:bulk]) for member in self.others)
            free = self.ledger.free(now, bulk, patient=self.queue.is_patient) - ahead
            due = sum(max(0, min(m.waiting[bulk], part - m.used(shortest.seconds, now))) for m in self.others)
            mine = max(part - me.used(shortest.seconds, now), free - due)
            granted = int(max(0, min(me.waiting[bulk], free, mine)))
            me.waiting[bulk] -= granted
            me.held += granted
            taken += granted
            if me.waiting[bulk]:
                break
        return taken

    def _use_share(self, now: float) -> None:
        """Let the ledger have this process alone, and its share of each window."""
        ledger, windows = self.ledger, list[SlidingWindow]()
        for window, held in zip(ledger.windows, ledger.held(now), strict=True):
            limit = max(1, int(window.limit * self.share))
            # Other processes may hold slots of our share for one more window. So this process first takes only its
            # share of the slots that are free.
            part = max(0, window.limit - held - ledger.in_flight) * limit // window.limit
            others = max(0, limit - window.used(ledger.own, now) - ledger.in_flight - part)
            windows.append(SlidingWindow(limit, window.seconds, others, now + window.seconds))
        ledger.share((), 0)
        ledger.windows, ledger.reserve = windows, int(self.reserve * self.share)
