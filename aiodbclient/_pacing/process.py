"""One process of a fleet: its turns at the cell, and its share while the server is away. Pure."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Sequence

from attrs import define, field

from ..errors import ConfigurationError
from .fleet import CellError, Fleet, Member, Token, grouped, load
from .headers import RateLimitStatus
from .ledger import Ledger
from .queue import Queue
from .window import Window

logger = logging.getLogger("aiodbclient")

_GRACE = 0.25  # seconds by which a process may report later than it said, and still be granted its part
_REPORTS = 4  # turns until it takes slots again after an outage, so that all others can report too


@define(eq=False)
class Process:
    """One process of a fleet.

    In a turn it overwrites its entry in the cell, puts what the others reported into its ledger, and takes slots. Each
    process that waits may have an equal part of the shortest window. One that does not report in time may be cut off
    and use its fallback share, so that share stays free for one window.
    """

    ledger: Ledger
    queue: Queue
    windows: Sequence[Window]
    reserve: int
    share: float
    where: str
    alone: int = 0  # for how many turns it still uses its share: the server did not answer, or lost what it knew
    fleet: Fleet | None = None  # by its last turn
    granted: list[int] = field(factory=list)  # how many slots it took for the calls of each lane
    others: list[Member] = field(factory=list)  # the other processes that wait
    kept: int = 0  # slots that stay free for processes that do not report
    _name: str = ""
    # By the turn, and why others may hold slots that the cell does not know of.
    _written: tuple[Fleet, str] = field(init=False)

    def turn(self, text: str, at: float, now: float, heard: RateLimitStatus | None) -> str:
        """Have a turn at ``at`` by the server's clock. Returns the new text. It can be repeated until it is written.

        ``heard``: the newest headers.
        """
        # Not before: processes that were forked from one another would have the same name.
        self._name = self._name or secrets.token_hex(6)
        fleet, lost = self._read(text, at)
        me = fleet.members[self._name] = self._entry(at, now)
        self._share_gate(fleet, at - now, now)
        self.granted = [0, 0]
        if not self.alone:
            self._take_over(fleet, at, now)
            self.ledger.hear(heard, now)
            self._find_others(fleet, me, at)
            if not lost:
                self.granted = self._take(me, at, now)
            hour = self.ledger.windows[-1]
            until = hour.others_until + at - now
            fleet.token = Token(hour.limit, self.ledger.other_limit, hour.others, until, fleet.token.gate)
        self._written = fleet, lost
        return fleet.dump()

    def heed(self, now: float) -> None:
        """Note that what came of the turn is written."""
        self.fleet, lost = self._written
        if lost:
            self.go_alone(CellError(lost), now)
        elif self.alone:
            self.alone -= 1
            if not self.alone:
                self._take_over(self.fleet, self.fleet.members[self._name].seen, now)
                logger.info("the rate budget is shared again through %s", self.where)

    def go_alone(self, error: CellError, now: float) -> None:
        """Use the share from now on. Raises ConfigurationError if the server refuses this process for good."""
        if error.lasting and self.fleet is None:
            raise ConfigurationError(
                f"the rate budget is not shared: {self.where} refuses this process ({error}); nothing was sent, and "
                "waiting does not help"
            )
        if not self.alone:
            logger.log(
                logging.ERROR if error.lasting else logging.WARNING,
                "the rate budget is not shared: %s %s (%s); meanwhile this process uses %g of the budget",
                self.where,
                "refuses this process" if error.lasting else "failed",
                error,
                self.share,
            )
            self._use_share(now)
        self.alone = _REPORTS

    def reserved(self, bulk: bool) -> int:
        """How many slots of each window a call leaves free."""
        reserve = self.reserve if bulk else 0
        return int(reserve * self.share) if self.alone else self.kept + reserve

    def before(self, ahead: int, bulk: bool) -> int:
        """How many calls of other processes go before one with so many of its own ``ahead``, side by side."""
        return sum(min(sum(member.waiting[: bulk + 1]), ahead + 1) for member in self.others)

    def _read(self, text: str, at: float) -> tuple[Fleet, str]:
        """Return what the fleet knows, and why others may hold slots that the cell does not know of."""
        longest, lost = self.windows[-1].seconds, ""
        fleet = load(text, longest, at) if text else None
        if text and fleet is None:
            lost = "it held no budget, but nonsense"
        fleet = fleet or Fleet(Token(self.windows[-1].limit))
        if self.fleet is not None:
            last, mine = self.fleet.members[self._name].seen, fleet.members.get(self._name)
            if at - last < longest and (mine is None or mine.seen < min(last, at)):
                fleet.merge(self.fleet)
                lost = lost or "it has lost what was reported"
        return fleet, lost

    def _entry(self, at: float, now: float) -> Member:
        ledger, queue = self.ledger, self.queue
        room = int(min(len(queue), max(0, ledger.ramp.at_most - ledger.in_flight)))
        interactive = min(queue.ahead((True, 0)), room)
        answers = grouped(ledger.own, self.windows, now)
        return Member(at, ledger.unanswered, [interactive, room - interactive], self.share, answers)

    def _share_gate(self, fleet: Fleet, ahead: float, now: float) -> None:
        """Let the gate that opens last be that of all."""
        ledger, gate = self.ledger, fleet.token.gate.shifted(-ahead)
        if gate.until <= ledger.gate.until:
            fleet.token.gate = ledger.gate.shifted(ahead)
            return
        if ledger.gate.until <= now < gate.until:  # a 429 of another process closed it
            ledger.ramp.restart()
        ledger.gate = gate

    def _take_over(self, fleet: Fleet, at: float, now: float) -> None:
        """Have the requests of all processes in the ledger, and what is known of the token."""
        ledger, ahead = self.ledger, at - now
        lease = max(1.0, self.windows[0].seconds / 2)  # a process that reported before may have died
        answers, in_flight = list[float](), 0
        for name, member in fleet.members.items():
            if name == self._name:
                continue
            answers += [moment - ahead for moment in member.moments()]
            if at <= member.seen + lease:
                in_flight += member.held
            else:
                answers += [member.seen + lease - ahead] * member.held
        ledger.share(answers, in_flight)
        for window, given in zip(ledger.windows, self.windows, strict=True):
            window.limit, window.others = given.limit, 0
        hour, token = ledger.windows[-1], fleet.token
        hour.limit, hour.others, hour.others_until = token.limit, token.others, token.others_until - ahead
        ledger.other_limit = token.other_limit

    def _find_others(self, fleet: Fleet, me: Member, at: float) -> None:
        """Look which other processes wait, and for whom of them a share is kept."""
        shortest = self.windows[0]
        in_time = at - shortest.seconds / 10 - _GRACE
        waiting = [m for m in fleet.members.values() if m is not me and any(m.waiting)]
        self.others = [member for member in waiting if member.seen >= in_time]
        gone = [member for member in waiting if in_time - shortest.seconds <= member.seen < in_time]
        self.kept = sum(int(shortest.limit * member.share) for member in gone)

    def _take(self, me: Member, at: float, now: float) -> list[int]:
        """Take an equal part of the shortest window for the calls of each lane, or all that the others do not need."""
        shortest, first = self.windows[0], self.queue.first()
        part = math.ceil(shortest.limit / (len(self.others) + 1))
        granted = [0, 0]
        for bulk in (False, True):
            ahead = sum(granted) + sum(sum(member.waiting[:bulk]) for member in self.others)
            free = self.ledger.free(now, self.reserved(bulk), patient=first is None or first.is_patient) - ahead
            due = sum(max(0, min(m.waiting[bulk], part - m.used(shortest.seconds, at))) for m in self.others)
            mine = max(part - me.used(shortest.seconds, at), free - due)
            granted[bulk] = int(max(0, min(me.waiting[bulk], free, mine)))
            me.waiting[bulk] -= granted[bulk]
            me.held += granted[bulk]
            if me.waiting[bulk]:
                break
        return granted

    def _use_share(self, now: float) -> None:
        """Let the ledger have this process alone, and its share of each window."""
        ledger = self.ledger
        free = [window.room(now, 0) - held for window, held in zip(ledger.windows, ledger.held(now), strict=True)]
        ledger.share((), 0)
        for window, left in zip(ledger.windows, free, strict=True):
            whole, window.limit = window.limit, max(1, int(window.limit * self.share))
            # Other processes may hold slots of our share for one more window. So this process first takes only its
            # share of the slots that are free.
            part = max(0, left - ledger.in_flight) * window.limit // whole
            window.others = max(0, window.limit - window.used(now) - ledger.in_flight - part)
            window.others_until = now + window.seconds
