"""One process of a fleet: its own requests, and what it may send while the server of the budget is away. Pure."""

from __future__ import annotations

import logging
import math
import secrets
from bisect import bisect
from collections import deque

from ..errors import ConfigurationError
from .fleet import Ask, Event, Heard, Place, Reply, Terms
from .gate import Moment
from .headers import Said
from .ledger import Ledger
from .queue import Queue
from .state import CellError

logger = logging.getLogger("aiodbclient")

_WARN_AGAIN = 60.0  # s between two warnings of one permanent mistake
_REMEMBERED = 100  # answers that the fleet has not learned from


class Process:
    """One process of a fleet: its requests, and its fallback share."""

    def __init__(self, terms: Terms, where: str) -> None:
        self.ledger = Ledger(terms.windows)  # the slots of this process, in its share of each window
        # Whether it uses its share, since the server does not answer, or has lost the state
        self.alone = self.paused = False  # paused: nothing may go until it asks again
        self.reply: Reply | None = None  # the last one
        self._terms = terms
        self._where = where
        self._name = ""
        self._number = 0  # of the last event
        self._acknowledged = 0  # that of the last one that the server has
        self._ended = deque[Event]()  # answered requests that a window counts
        self._heard = deque[Event](maxlen=_REMEMBERED)  # headers that are not reported yet
        self._since = 0.0  # when it began to use its share
        self._replied = -math.inf  # when the last reply came
        self._warned = -math.inf  # when the present outage was last logged

    def end(self, now: float, *, sent: bool) -> None:
        """End a request."""
        if self.ledger.end(now, sent):
            self._ended.append(self._event(now))
            while self._ended[0].at <= now - 2 * self.ledger.longest:
                self._ended.popleft()

    @property
    def ramp_was_full(self) -> bool:
        """Whether only the ramp kept calls from being sent before the last request ended."""
        return self.ledger.in_flight + 1 >= self.ledger.ramp.at_most

    def hear(self, said: Said, now: float) -> None:
        """Remember an answer's headers for the next ask."""
        if said.refused or (said.limit is not None and said.remaining is not None):
            self._heard.append(self._event(now, Heard(said, self.ledger.begun(now))))
        if said.refused:
            self.ledger.refuse(said, now)

    def ask(self, queue: Queue, places: list[Place], now: float, *, leaves: bool) -> Ask:
        """What to ask for."""
        ends, heard, reply = self._ended, self._heard, self.reply
        room = max(0, self.ledger.ramp.at_most - self.ledger.in_flight)
        interactive, first = min(len(queue.interactive), room), queue.first()
        # Not before: processes that were forked from one another would have the same name.
        self._name = self._name or secrets.token_hex(6)
        return Ask(
            process=self._name,
            now=now,
            number=self._number,
            events=sorted([*ends, *heard]),
            held=self.ledger.unanswered,
            used=len(ends) - bisect(ends, now - self.ledger.windows[0].seconds, key=_at) + self.ledger.in_flight,
            interactive=int(interactive),
            bulk=int(min(len(queue.bulk), room - interactive)),
            patient=first is None or first.deadline == math.inf,
            places=places,
            leaves=leaves,
            alone=now - self._since if self.alone else None,
            last="" if reply is None else reply.state,
            acknowledged=self._acknowledged,
            reported=-math.inf if reply is None else reply.now,
        )

    def heed(self, ask: Ask, reply: Reply, now: float) -> None:
        """Take in the ``reply`` to ``ask``, except for its slots."""
        self._acknowledged = ask.number
        while self._heard and self._heard[0].number <= ask.number:
            self._heard.popleft()
        gate = self.ledger.gate
        if reply.closed and now >= gate.until:  # a 429 of another process closed it
            self.ledger.ramp.restart()
        gate.until, gate.later = Moment(now + reply.closed), Moment(now + reply.later)
        if reply.nonsense is not None:
            self.warn(CellError(f"it held no budget, but nonsense: {reply.nonsense}"), now)
        elif reply.lost:
            logger.info("%s has lost the state of the rate budget: all processes report again", self._where)
        if reply.recovering:
            # The others go on before they could learn of what is sent at the end of it.
            self.go_alone(now, paused=reply.recovering <= self._terms.probe)
        else:
            self.alone = False
            if self._warned > -math.inf:
                self._warned = -math.inf
                logger.info("the rate budget is shared again through %s", self._where)
        self.reply, self._replied = reply, now

    def go_alone(self, now: float, *, paused: bool = False) -> None:
        """Use the share from now on, until the next ask."""
        self.paused = paused
        windows, reply, age = self.ledger.windows, self.reply, now - self._replied
        limits = [window.limit for window in self._terms.windows] if reply is None else reply.limits
        for window, limit in zip(windows, limits, strict=True):
            window.limit = max(1, int(limit * self._terms.share))
        if self.alone:
            return
        self.alone, self._since = True, now
        if reply is None:
            return
        # What the other processes may have taken since that reply: up to all slots of the shortest window.
        unknown = 0 if age <= self._terms.probe else limits[0]
        for window, limit, used in zip(windows, limits, reply.used, strict=True):
            # Other processes may hold slots of our share for one more window. So this process first takes only its
            # share of the slots that are free. The rest counts as answered now.
            free = max(0, limit - unknown - (used if age < window.seconds else 0)) * window.limit // limit
            window.answers.extend([now] * (window.limit - window.used(now) - self.ledger.in_flight - free))

    def warn(self, error: CellError, now: float) -> None:
        """Log why the budget is not shared: once for each outage, once a minute if waiting does not help."""
        where, share = self._where, self._terms.share
        if error.lasting:
            if self.reply is None:
                raise ConfigurationError(
                    f"the rate budget is not shared: {where} refuses this process ({error}); nothing was sent, and "
                    "waiting does not help"
                )
            if now - self._warned >= _WARN_AGAIN:
                self._warned = now
                logger.error(
                    "the rate budget is no longer shared: %s refuses this process (%s); waiting does not help; this "
                    "process uses %g of the budget",
                    where,
                    error,
                    share,
                )
        elif self._warned == -math.inf:
            self._warned = now
            logger.warning(
                "the rate budget is not shared: %s failed (%s); until it answers, this process uses %g of the budget",
                where,
                error,
                share,
            )

    def _event(self, now: float, heard: Heard | None = None) -> Event:
        self._number += 1
        return Event(self._number, now, heard)


def _at(event: Event) -> float:
    return event.at
