"""The slots that are taken, in all windows of a token, by one process or by a fleet. Pure."""

from __future__ import annotations

import math
from bisect import bisect, bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from .gate import Gate, Ramp
from .headers import Said
from .window import SlidingWindow, Window

LATENCY = 30.0  # seconds; an answer takes less
_SANE_LIMIT = 10_000_000
_MINUTE, _RECENT = 60.0, 64  # the shortest window where there is none, and how many answers are kept then


class Ledger:
    """Which slots are taken, and whether another one is free.

    ``fleet`` has the requests of all processes: when they were answered, and how many are in flight. It has no ramp.
    """

    __slots__ = ("_refused", "_sent", "answers", "gate", "other_limit", "ramp", "windows")

    def __init__(self, windows: Sequence[Window], fleet: tuple[Iterable[float], int] | None = None) -> None:
        answers, in_flight = fleet or ((), 0)
        self.answers = sorted(answers)  # when requests were answered that the server may still count
        self.windows = tuple(SlidingWindow(w.limit, w.seconds, self.answers) for w in windows)  # the shortest first
        self.gate = Gate()
        self.ramp = Ramp(math.inf if fleet else min((window.limit for window in windows), default=math.inf))
        # When the requests in flight were sent; the first one counts as the first to end
        self._sent = deque[float]([0.0] * in_flight)
        self._refused = 0  # how many of those in flight a 429 has answered
        self.other_limit: int | None = None  # another limit that the last answer named; the next one confirms it

    @property
    def longest(self) -> float:
        """For how many seconds after the answer a slot is taken, at most."""
        return self.windows[-1].seconds if self.windows else 3600.0

    @property
    def in_flight(self) -> int:
        """How many requests have taken a slot and have not ended."""
        return len(self._sent)

    @property
    def unanswered(self) -> int:
        """How many of those no 429 has answered."""
        return len(self._sent) - self._refused

    def held(self, now: float) -> tuple[int, ...]:
        """How many slots of each window are taken, but for those in flight."""
        return tuple(window.used(now) + window.of_others(now) for window in self.windows)

    def free(self, now: float, reserve: int, *, patient: bool = True) -> float:
        """How many slots may be taken now if ``reserve`` of each window stay free (``patient``: no ``max_wait``)."""
        if now < self.gate.opens(patient=patient):
            return 0
        free = self.ramp.at_most
        for window in self.windows:
            free = min(free, window.room(now, reserve) - window.used(now))
        return free - len(self._sent)

    def take(self, now: float, reserve: int, *, patient: bool = True) -> bool:
        """Take a slot if that leaves ``reserve`` of each window free. Returns whether it did."""
        if self.free(now, reserve, patient=patient) < 1:
            return False
        self.begin(now)
        return True

    def begin(self, now: float) -> None:
        """Take a slot, whether or not one is free."""
        self._sent.append(now)

    def opens(self, now: float, ahead: int, reserve: int, *, patient: bool = False) -> float:
        """When a request with ``ahead`` others before it may go. The ramp is left out: it depends on answers."""
        when = max(now, self.gate.opens(patient=patient))
        for window in self.windows:
            when = max(when, window.opens(now, self.unanswered, ahead, reserve))
        return when

    def reason(self, now: float) -> str:
        """Why the next request has to wait, for the log."""
        if now < self.gate.later:
            return "since the API answered 429"
        full = max(self.windows, key=lambda window: window.opens(now, self.in_flight, 0, 0), default=None)
        return "" if full is None else f"which allows {full.limit} requests in {full.seconds:g} s"

    def end(self, now: float, *, sent: bool) -> None:
        """End a request. Its slot counts from now, unless it was not ``sent``, or a 429 answered it."""
        self._sent.popleft()
        if self._refused:
            self._refused -= 1
        elif sent:
            self.answers.append(now)
            kept = bisect(self.answers, now - self.longest - LATENCY) if self.windows else -_RECENT
            del self.answers[:kept]
            if now >= self.gate.until:
                self.ramp.succeed(now)

    def hear(self, said: Said, now: float) -> None:
        """Learn of the hour from an answer's headers: its limit, and how many of its requests were others'."""
        limit, remaining = said.limit, said.remaining
        if not self.windows or limit is None or remaining is None or not max(1, remaining) <= limit <= _SANE_LIMIT:
            return
        window = self.windows[-1]
        if limit != window.limit:
            before, self.other_limit = self.other_limit, limit
            if len(self.windows) == 1 or before != limit:  # the header may be about a window that this budget lacks
                return
            window.limit = limit
        self.other_limit = None
        if remaining:  # 0 can also mean that a shorter window is full
            # When it counted, the server may still have counted those that have expired by now.
            ours = len(self.answers) + len(self._sent)
            window.others, window.others_until = max(0, limit - remaining - ours), now + window.seconds

    def refuse(self, said: Said, now: float) -> None:
        """Close the gate after a 429, before its request has ended."""
        first = now >= self.gate.until
        self._refused = min(self._refused + 1, len(self._sent))
        recent = len(self.answers) - bisect(self.answers, self._sent[0]) if self._sent else 0
        accepted = len(self.answers) - bisect_left(self.answers, self.gate.until)
        self.gate.close(said.wait, accepted, self.windows[0].seconds if self.windows else _MINUTE, now)
        self.ramp.refuse(self.unanswered, recent, first=first)
