"""A process's turn at the cell: it overwrites its own entry, and takes slots. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from attrs import evolve, frozen

from .fleet import Fleet, Member, NonsenseError, load
from .gate import Gate
from .headers import Said
from .window import Window

_GRACE = 0.25  # seconds by which a process may report later than it said, and still be granted its part
STEP = 0.02  # seconds between two turns of one process, at least
_STEP_OF_OTHERS = 0.005  # seconds more for each other process that waits


class Heard(NamedTuple):
    """An answer's headers, since when its request may have been sent, and when they came."""

    said: Said
    begun: float
    at: float


@frozen
class Report:
    """What a process brings to its turn. Times are by its own clock."""

    name: str
    now: float  # when it began
    member: Member  # its entry
    gate: Gate  # as it knows it
    heard: Heard | None  # the headers that came last
    patient: bool  # whether the first of its calls has no ``max_wait``
    takes: bool  # whether it takes slots
    last: Turn | None  # its last turn, in case that the cell has lost it


class Turn:
    """What came of one turn. Each process that waits may have an equal part of the shortest window.

    One that does not report in time may be cut off and use its fallback share, so that share stays free for five
    shortest windows.
    """

    def __init__(self, windows: Sequence[Window], reserve: int, report: Report, text: str, now: float) -> None:
        self.now = now  # by the server's clock
        self.ahead = now - report.now  # of the clock of the process
        self.nonsense: str | None = None  # why the cell held no budget
        self.fleet = Fleet.of(windows)
        if text:
            try:
                self.fleet = load(text, windows, now)
            except NonsenseError as error:
                self.nonsense = str(error)
        self.lost = self._lacks(report, windows[-1].seconds)  # whether the cell lacked what the process had reported
        if self.lost and report.last is not None:
            self.fleet.merge(report.last.fleet)
        self._me = evolve(report.member, seen=now)  # a cell may repeat the turn
        self.fleet.members[report.name] = self._me
        if report.gate.until + self.ahead > self.fleet.token.gate.until:
            self.fleet.token.gate = report.gate.shifted(self.ahead)
        self.ledger = self.fleet.ledger(windows, self._me, now)
        if report.heard is not None:
            said, begun, at = report.heard
            self.ledger.hear(said, begun + self.ahead, at + self.ahead)
        self._patient, self._shortest = report.patient, windows[0]
        self._wait_for_others(reserve)
        self.interactive, self.bulk = (0, 0) if self.is_unknown or not report.takes else self._take()
        self._me.interactive -= self.interactive
        self._me.bulk -= self.bulk
        self.fleet.learn(self.ledger)
        self.text = self.fleet.dump()

    @property
    def is_unknown(self) -> bool:
        """Whether others may hold slots that the cell does not know of."""
        return self.lost or self.nonsense is not None

    def wait(self, place: int, bulk: bool, now: float) -> float:
        """For how many seconds from ``now`` on a call at ``place`` waits, if the processes are served side by side."""
        at = now + self.ahead
        before = sum(min(m.interactive + (m.bulk if bulk else 0), place + 1) for m in self._others)
        return self.ledger.opens(at, place + before, self._kept_for_bulk if bulk else self._kept) - at

    def again(self) -> float:
        """For how many seconds it is of no use to have another turn."""
        step = max(STEP, self._shortest.seconds / 1000) + _STEP_OF_OTHERS * len(self._others)
        reserve = self._kept if self._me.interactive else self._kept_for_bulk
        return max(step, self.ledger.opens(self.now, 0, reserve, patient=self._patient) - self.now)

    def _lacks(self, report: Report, longest: float) -> bool:
        if report.last is None or self.now - report.last.now >= longest:
            return False
        old = self.fleet.members.get(report.name)
        return old is None or old.seen < min(report.last.now, self.now)

    def _wait_for_others(self, reserve: int) -> None:
        """Find out which other processes wait, and what is kept for them."""
        limit, seconds = self._shortest.limit, self._shortest.seconds
        waiting = [m for m in self.fleet.members.values() if m is not self._me and m.interactive + m.bulk]
        in_time = self.now - seconds / 10 - _GRACE
        self._others = [member for member in waiting if member.seen >= in_time]
        gone = [member for member in waiting if in_time - 5 * seconds <= member.seen < in_time]
        self._kept = sum(int(limit * member.share) for member in gone)
        self._kept_for_bulk = self._kept + reserve
        self._fair = math.ceil(limit / (len(self._others) + 1))

    def _take(self) -> tuple[int, int]:
        """Take slots for calls of both lanes, and return how many."""
        me, others = self._me, self._others
        interactive = self._take_up_to(me.interactive, [member.interactive for member in others], self._kept, 0)
        if interactive < me.interactive:
            return interactive, 0
        ahead = sum(member.interactive for member in others)
        return interactive, self._take_up_to(me.bulk, [member.bulk for member in others], self._kept_for_bulk, ahead)

    def _take_up_to(self, wanted: int, of_others: Sequence[int], reserve: int, ahead: int) -> int:
        """Take the fair part of the free slots, or all that the others do not need if that is more."""
        free = self.ledger.free(self.now, reserve, patient=self._patient) - ahead
        due = sum(max(0, min(n, self._fair - self._used(m))) for n, m in zip(of_others, self._others, strict=True))
        most = min(wanted, free, max(self._fair - self._used(self._me), free - due))
        taken = 0
        while taken < most and self.ledger.take(self.now, reserve, patient=self._patient):
            taken += 1
        self._me.held += taken
        return taken

    def _used(self, member: Member) -> int:
        return member.used(self._shortest.seconds, self.now)
