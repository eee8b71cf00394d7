"""Which slots are taken, and when the next one is free. Pure."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from attrs import define, field

from ..errors import DatabaseClientError
from .cooldown import ConcurrencyLimit, Cooldown
from .windows import SlidingWindowLog, Window

_HANGING = 1.0  # seconds without a response, after which a request does not hold up others


@define(eq=False)
class Slot:
    """The slot of one call. The call keeps it, and with it its place, for all its tries."""

    order: tuple[bool, int]  # bulk calls go behind all others
    is_held: bool = False  # from ``acquire`` until ``release`` or ``refuse``
    sent_at: float = -math.inf
    ready_at: float = -math.inf  # when a call that got a lone 429 may try again
    deadline: float = math.inf  # when its ``max_wait`` ends
    woken: asyncio.Future[DatabaseClientError | None] = field(init=False)  # the error says why it gets none


class Slots:
    """The slots of all windows, and what a 429 allows."""

    __slots__ = ("_concurrency", "_logs", "_recent", "cooldown", "in_flight")

    def __init__(self, windows: Sequence[Window], share: float) -> None:
        self.in_flight = 0
        self.cooldown = Cooldown()
        self._logs = [SlidingWindowLog(window, share) for window in windows]  # the shortest first
        self._concurrency = ConcurrencyLimit()
        self._recent: dict[Slot, None] = {}  # in flight, in order; not those sent before a cooldown, or that hang

    def count_used(self, now: float) -> tuple[int, ...]:
        """Count the slots of each window that answered requests hold."""
        return tuple(log.count_used(now) for log in self._logs)

    def take(self, slot: Slot, now: float) -> bool:
        """Take a slot if one is free. Returns whether it did."""
        if now < self.cooldown.ends_at:
            return False
        for log in self._logs:
            if log.count_used(now) + self.in_flight >= log.limit:
                return False
        if self._concurrency.is_on and self._count_recent(now) + 1 > self._concurrency.at_most(now):
            return False
        self.in_flight += 1
        self._recent[slot] = None
        slot.is_held, slot.sent_at = True, now
        return True

    def free(self, slot: Slot, counted_at: float | None) -> None:
        """Free a slot: one window from ``counted_at``, or now if the API did not count the request."""
        slot.is_held = False
        self.in_flight -= 1
        self._recent.pop(slot, None)
        if counted_at is not None:
            for log in self._logs:
                log.add(counted_at)

    def accept(self, slot: Slot, now: float) -> None:
        """Take note of a response that is no 429."""
        cooldown = self.cooldown
        if (cooldown.in_row or self._concurrency.is_on) and cooldown.is_fresh(slot.sent_at):
            cooldown.succeed()
            self._concurrency.succeed(now)

    def refuse(self, slot: Slot, named: float | None, now: float) -> bool:
        """Take note of a 429, and free its slot. Returns whether it was the try after a cooldown."""
        cooldown, concurrency = self.cooldown, self._concurrency
        was_first_try = concurrency.is_on and cooldown.in_row > 0 and cooldown.is_fresh(slot.sent_at)
        concurrency.refuse(slot.sent_at, self.in_flight, now)
        wait, closed = cooldown.refuse(slot.sent_at, named, now)
        if cooldown.in_row == 1:
            slot.ready_at = now + wait
        if closed:
            concurrency.restart()
            self._recent.clear()
        self.free(slot, None)
        return was_first_try

    def estimate_wait(self, ahead: int, now: float) -> float:
        """Estimate the seconds that a call waits with so many calls ``ahead`` of it."""
        when = max(now, self.cooldown.ends_at)
        for log in self._logs:
            when = max(when, log.free_at(now, self.in_flight, ahead))
        longest = self._logs[-1] if self._logs else None
        if longest is not None and ahead >= longest.limit:  # one longest window later, the shorter ones are empty again
            full, rest = divmod(ahead, longest.limit)
            when = max(when, now + self.estimate_wait(rest, now) + full * longest.seconds)
        return when - now

    def next_at(self, now: float) -> float:
        """Return when a slot may be free, if no response comes before."""
        wait = self.estimate_wait(0, now)
        if wait <= 0 and self._recent:  # too many are in flight
            return next(iter(self._recent)).sent_at + _HANGING
        return now + wait

    def explain(self, next_at: float, now: float) -> str:
        """Say why the next slot is not free before ``next_at``."""
        if self.cooldown.ends_at >= next_at:
            return "after 429s"
        full = max(self._logs, key=lambda log: log.free_at(now, self.in_flight, 0))
        return f"which allows {full.limit} requests in {full.seconds:g} s"

    def _count_recent(self, now: float) -> int:
        """Count the requests in flight that hold up others."""
        recent = self._recent
        while recent and (first := next(iter(recent))).sent_at <= now - _HANGING:
            del recent[first]
        return len(recent)
