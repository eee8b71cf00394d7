"""One process of a fleet: its own requests, and what it may send while the server of the budget is away. Pure."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Sequence

from ..errors import ConfigurationError
from .fleet import CellError, Member, grouped
from .headers import Said
from .ledger import Ledger
from .queue import Queue
from .turn import Heard, Report, Turn
from .window import Window

logger = logging.getLogger("aiodbclient")

_WARN_AGAIN = 60.0  # s between two warnings of one permanent mistake
_REPORTS = 4  # turns in which a process takes nothing after an outage, so that all others can report too


class Process:
    """One process of a fleet: its requests, and its fallback share."""

    def __init__(self, windows: Sequence[Window], share: float, where: str) -> None:
        self.ledger = Ledger(windows)  # its own slots, in its share of each window
        self.turn: Turn | None = None  # the last one
        self.probe = min(1.0, windows[0].seconds / 20)  # seconds between two turns while the server does not answer
        self.alone = False  # whether it uses its share: the server does not answer, or has lost what it knew
        self._alone_until = math.inf  # known once the server answers again
        self._windows = windows
        self._share = share
        self._where = where
        self._name = ""
        self._heard: Heard | None = None  # the headers that came last, until they are reported
        self._warned = -math.inf  # when the present outage was last logged

    def hear(self, said: Said, now: float) -> None:
        """Remember an answer's headers for the next report."""
        if said.limit is not None and said.remaining is not None:
            self._heard = Heard(said, self.ledger.begun(now), now)

    def report(self, queue: Queue, now: float) -> Report:
        """What it brings to its next turn."""
        ledger, first = self.ledger, queue.first()
        room = max(0, ledger.ramp.at_most - ledger.in_flight)
        interactive = min(len(queue.interactive), room)
        # Not before: processes that were forked from one another would have the same name.
        self._name = self._name or secrets.token_hex(6)
        member = Member(
            held=ledger.unanswered,
            interactive=int(interactive),
            bulk=int(min(len(queue.bulk), room - interactive)),
            share=self._share,
            answers=grouped(ledger.answers, self._windows, now),
        )
        patient = first is None or first.deadline == math.inf
        return Report(self._name, now, member, ledger.gate, self._heard, patient, not self.alone, self.turn)

    def heed(self, report: Report, turn: Turn, now: float) -> None:
        """Take in what came of a turn, except for its slots."""
        self.turn = turn
        if self._heard is report.heard:
            self._heard = None
        gate = turn.ledger.gate.shifted(-turn.ahead)
        if gate.until > self.ledger.gate.until:
            if now >= self.ledger.gate.until and now < gate.until:  # a 429 of another process closed it
                self.ledger.ramp.restart()
            self.ledger.gate = gate
        if turn.nonsense is not None:
            self.warn(CellError(f"it held no budget, but nonsense: {turn.nonsense}"), now)
        elif turn.lost:
            logger.info("%s has lost the state of the rate budget: all processes report again", self._where)
        if turn.is_unknown:
            self.go_alone(now)
        if not self.alone:
            return
        self._alone_until = min(self._alone_until, now + _REPORTS * self.probe)
        if now >= self._alone_until:
            self.alone = False
            if self._warned > -math.inf:
                self._warned = -math.inf
                logger.info("the rate budget is shared again through %s", self._where)

    def go_alone(self, now: float) -> None:
        """Use the share from now on."""
        self._alone_until = math.inf
        if self.alone:
            return
        self.alone = True
        of_fleet = Ledger(self._windows) if self.turn is None else self.turn.ledger
        then = now if self.turn is None else now + self.turn.ahead
        for window, whole, held in zip(self.ledger.windows, of_fleet.windows, of_fleet.held(then), strict=True):
            window.limit = max(1, int(whole.limit * self._share))
            if self.turn is not None:
                # Other processes may hold slots of our share for one more window. So this process first takes only its
                # share of the slots that are free. The rest counts as answered now.
                free = max(0, whole.limit - held - of_fleet.in_flight) * window.limit // whole.limit
                window.answers.extend([now] * (window.limit - window.used(now) - self.ledger.in_flight - free))

    def warn(self, error: CellError, now: float) -> None:
        """Log why the budget is not shared: once for each outage, once a minute if waiting does not help."""
        where, share = self._where, self._share
        if error.lasting and self.turn is None:
            raise ConfigurationError(
                f"the rate budget is not shared: {where} refuses this process ({error}); nothing was sent, and "
                "waiting does not help"
            )
        if error.lasting and now - self._warned >= _WARN_AGAIN:
            logger.error(
                "the rate budget is no longer shared: %s refuses this process (%s); waiting does not help; this "
                "process uses %g of the budget",
                where,
                error,
                share,
            )
        elif self._warned == -math.inf:
            logger.warning(
                "the rate budget is not shared: %s failed (%s); until it answers, this process uses %g of the budget",
                where,
                error,
                share,
            )
        else:
            return
        self._warned = now
