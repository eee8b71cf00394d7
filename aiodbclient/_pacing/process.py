"""One process of a fleet: its own requests, its turns at the cell, and its share while the server is away. Pure."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Sequence

from attrs import evolve

from ..errors import ConfigurationError
from .fleet import CellError, Fleet, Member, NonsenseError, grouped, load
from .headers import Said
from .ledger import Ledger
from .queue import Queue
from .window import Window

logger = logging.getLogger("aiodbclient")

STEP = 0.02  # seconds between two turns of one process, at least
_STEP_OF_OTHERS = 0.005  # seconds more for each other process that waits
_GRACE = 0.25  # seconds by which a process may report later than it said, and still be granted its part
_REPORTS = 4  # turns in which a process takes nothing after an outage, so that all others can report too


class Process:
    """One process of a fleet. Its clock differs from the server's."""

    def __init__(self, windows: Sequence[Window], reserve: int, share: float, where: str) -> None:
        self.windows = windows
        self.reserve = reserve
        self.ledger = Ledger(windows)  # its own slots, in its share of each window
        self.turn: Turn | None = None  # the last one
        self.probe = min(1.0, windows[0].seconds / 20)  # seconds between two turns while the server does not answer
        self.alone = False  # whether it uses its share: the server does not answer, or has lost what it knew
        self.name = ""
        self.heard: Said | None = None  # the headers that came last, until they are reported
        self._alone_until = math.inf  # known once the server answers again
        self._share = share
        self._where = where
        self._has_warned = False  # of the present outage

    def entry(self, queue: Queue, now: float) -> Member:
        """What it writes into the cell."""
        # Not before: processes that were forked from one another would have the same name.
        self.name = self.name or secrets.token_hex(6)
        ledger = self.ledger
        room = int(min(len(queue), max(0, ledger.ramp.at_most - ledger.in_flight)))
        interactive = min(len(queue.interactive), room)
        return Member(
            held=ledger.unanswered,
            interactive=interactive,
            bulk=room - interactive,
            share=self._share,
            answers=grouped(ledger.answers, self.windows, now),
        )

    def heed(self, turn: Turn, now: float) -> None:
        """Take in what came of a turn, except for its slots."""
        self.turn = turn
        if self.heard is turn.heard:
            self.heard = None
        gate = turn.ledger.gate.shifted(-turn.ahead)
        if gate.until > self.ledger.gate.until:
            if self.ledger.gate.until <= now < gate.until:  # a 429 of another process closed it
                self.ledger.ramp.restart()
            self.ledger.gate = gate
        if turn.lost is not None:
            self.warn(CellError(turn.lost))
            self.go_alone(now)
        elif self.alone:
            self._alone_until = min(self._alone_until, now + _REPORTS * self.probe)
            if now >= self._alone_until:
                self.alone = False
                if self._has_warned:
                    self._has_warned = False
                    logger.info("the rate budget is shared again through %s", self._where)

    def go_alone(self, now: float) -> None:
        """Use the share from now on."""
        self._alone_until = math.inf
        if self.alone:
            return
        self.alone = True
        for place, window in enumerate(self.windows):
            own = self.ledger.windows[place]
            own.limit = max(1, int(window.limit * self._share))
            if self.turn is not None:
                # Other processes may hold slots of our share for one more window. So this process first takes only its
                # share of the slots that are free.
                free = self.turn.free(place, now) * own.limit // window.limit
                own.others = max(0, own.limit - own.used(now) - self.ledger.in_flight - free)
                own.others_until = now + window.seconds

    def warn(self, error: CellError) -> None:
        """Log once for each outage why the budget is not shared."""
        if error.lasting and self.turn is None:
            raise ConfigurationError(
                f"the rate budget is not shared: {self._where} refuses this process ({error}); nothing was sent, and "
                "waiting does not help"
            )
        if not self._has_warned:
            self._has_warned = True
            logger.log(
                logging.ERROR if error.lasting else logging.WARNING,
                "the rate budget is not shared: %s %s (%s); meanwhile this process uses %g of the budget",
                self._where,
                "refuses this process" if error.lasting else "failed",
                error,
                self._share,
            )


class Turn:
    """What came of one turn: the process overwrites its own entry in the cell, and takes slots.

    Each process that waits may have an equal part of the shortest window. One that does not report in time may be cut
    off and use its fallback share, so that share stays free for one window.
    """

    def __init__(self, process: Process, queue: Queue, began: float, text: str, now: float) -> None:
        windows, first = process.windows, queue.first()
        self.now = now  # by the server's clock
        self.ahead = now - began  # of the clock of the process
        self.asked = {*queue}
        self.heard = process.heard
        self.lost: str | None = None  # why others may hold slots that the cell does not know of
        self.fleet = Fleet.of(windows)
        if text:
            try:
                self.fleet = load(text, windows, now)
            except NonsenseError as error:
                self.lost = f"it held no budget, but nonsense: {error}"
        if process.turn is not None and self._lacks(process.name, process.turn, windows[-1].seconds):
            self.fleet.merge(process.turn.fleet)
            self.lost = self.lost or "it has lost what was reported"
        self._me = evolve(process.entry(queue, began), seen=now)
        self.fleet.members[process.name] = self._me
        if process.ledger.gate.until + self.ahead > self.fleet.token.gate.until:
            self.fleet.token.gate = process.ledger.gate.shifted(self.ahead)
        self.ledger = self.fleet.ledger(windows, self._me, now)
        if self.heard is not None:
            self.ledger.hear(self.heard, now)
        self._patient = first is None or first.deadline == math.inf
        self._shortest = windows[0]
        in_time = now - windows[0].seconds / 10 - _GRACE
        waiting = [m for m in self.fleet.members.values() if m is not self._me and m.interactive + m.bulk]
        self._others = [member for member in waiting if member.seen >= in_time]
        gone = [member for member in waiting if in_time - windows[0].seconds <= member.seen < in_time]
        self._kept = sum(int(windows[0].limit * member.share) for member in gone)
        self._kept_for_bulk = self._kept + process.reserve
        self.interactive, self.bulk = (0, 0) if self.lost is not None or process.alone else self._take()
        self._me.interactive -= self.interactive
        self._me.bulk -= self.bulk
        self.fleet.learn(self.ledger)
        self.text = self.fleet.dump()

    def free(self, place: int, now: float) -> int:
        """How many slots of a window are free at ``now``, if nobody has taken one since."""
        window = self.ledger.windows[place]
        at = now + self.ahead
        return max(0, window.room(at, 0) - window.used(at) - self.ledger.in_flight)

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

    def _lacks(self, name: str, last: Turn, longest: float) -> bool:
        """Whether the cell lacks what the process reported in its last turn."""
        old = self.fleet.members.get(name)
        return self.now - last.now < longest and (old is None or old.seen < min(last.now, self.now))

    def _take(self) -> tuple[int, int]:
        """Take slots for calls of both lanes, and return how many."""
        me, others = self._me, self._others
        interactive = self._take_up_to(me.interactive, [member.interactive for member in others], self._kept, 0)
        if interactive < me.interactive:
            return interactive, 0
        ahead = sum(member.interactive for member in others)
        return interactive, self._take_up_to(me.bulk, [member.bulk for member in others], self._kept_for_bulk, ahead)

    def _take_up_to(self, wanted: int, of_others: Sequence[int], reserve: int, ahead: int) -> int:
        """Take an equal part of the window, or all that the others do not need if that is more."""
        part = math.ceil(self._shortest.limit / (len(self._others) + 1))
        free = self.ledger.free(self.now, reserve, patient=self._patient) - ahead
        due = sum(max(0, min(n, part - self._used(m))) for n, m in zip(of_others, self._others, strict=True))
        taken = int(max(0, min(wanted, free, max(part - self._used(self._me), free - due))))
        for _ in range(taken):
            self.ledger.begin(self.now)
        self._me.held += taken
        return taken

    def _used(self, member: Member) -> int:
        return member.used(self._shortest.seconds, self.now)
