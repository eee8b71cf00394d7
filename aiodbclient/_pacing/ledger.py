"""The slots that are taken, in all windows of a token, by one process or by a fleet. Pure."""

from __future__ import annotations

import math
from bisect import bisect, bisect_left
from collections import deque
from collections.abc import Sequence

from .gate import Gate
from .headers import Said
from .ramp import Ramp
from .window import SlidingWindow, Window

LATENCY = 30.0  # seconds; an answer takes less
_SANE_LIMIT = 10_000_000
_MINUTE = 60.0  # the shortest window, where there is none
_RECENT = 64  # answers, where there are no windows


class Ledger:
    """Which slots are taken, and whether another one is free."""

    __slots__ = ("_busy_since", "_refused", "_sent", "answers", "gate", "other_limit", "ramp", "windows")

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = tuple(SlidingWindow(window.limit, window.seconds) for window in windows)  # the shortest first
        self.gate = Gate()
        self.ramp = Ramp(min((window.limit for window in windows), default=math.inf))
        # When requests were answered that the server may still count
        self.answers = deque[float](maxlen=None if windows else _RECENT)
        self._sent = deque[float]()  # when the requests in flight were sent; the first one counts as the first to end
        self._busy_since = 0.0  # since then a request has always been in flight
        self._refused = 0  # how many of those in flight a 429 has answered
        self.other_limit: int | None = None  # another limit that the last answer named; the next one confirms it

    def restore(self, answers: Sequence[float], in_flight: int, now: float) -> None:
        """Count the requests of a fleet: those answered, the oldest first, and those in flight. It has no ramp."""
        self.ramp = Ramp(math.inf)
        self.answers.extend(answers)
        for window in self.windows:
            window.answers.extend(answers[bisect(answers, now - window.seconds) :])
        self._sent.extend([now] * in_flight)

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
        """How many slots may be taken now if ``reserve`` of each window stay free: a whole number, or ``math.inf``.

        Args:
            now: The time.
            reserve: How many slots of each window stay free.
            patient: Whether the next call has no ``max_wait``.
        """
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
        if not self._sent:
            self._busy_since = now
        self._sent.append(now)

    def opens(self, now: float, ahead: int, reserve: int, *, patient: bool = False) -> float:
        """When a request with ``ahead`` others before it may go, as far as we know.

        The ramp is left out: when it lets a request go depends on answers.
        """
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
            for window in self.windows:
                window.answers.append(now)
            self.answers.append(now)
            while self.answers[0] <= now - self.longest - LATENCY:
                self.answers.popleft()
            if now >= self.gate.until:
                self.ramp.succeed(now)

    def begun(self, now: float) -> float:
        """Since when the request that is answered ``now`` may have been sent."""
        return max(self._busy_since, now - LATENCY) if self._sent else now

    def hear(self, said: Said, begun: float, now: float) -> None:
        """Learn of the hour from an answer's headers, whose request was sent after ``begun`` and has not ended."""
        limit, remaining = said.limit, said.remaining
        if limit is not None and remaining is not None and self.windows:
            window = self.windows[-1]
            explained = len(window.answers) + len(self._sent)
            if limit != window.limit or limit - remaining > explained or window.others or self.other_limit:
                self._compare(limit, remaining, begun, now)

    def _compare(self, limit: int, remaining: int, begun: float, now: float) -> None:
        """Take over the longest window's limit, and find out how many of its requests were others'."""
        window = self.windows[-1]
        if not max(1, remaining) <= limit <= _SANE_LIMIT:
            return
        if limit != window.limit:
            before, self.other_limit = self.other_limit, limit
            if len(self.windows) == 1 or before != limit:  # the header may be about a window that this budget lacks
                return
            window.limit = limit
        self.other_limit = None
        if remaining:  # 0 can also mean that a shorter window is full
            # The server counted this request after it was sent: no earlier than when we last had nothing in flight.
            ours = len(self.answers) - bisect(self.answers, begun - window.seconds) + len(self._sent)
            window.others, window.others_until = max(0, limit - remaining - ours), now + window.seconds

    def refuse(self, said: Said, now: float) -> None:
        """Close the gate after a 429, before its request has ended."""
        first = now >= self.gate.until
        self._refused = min(self._refused + 1, len(self._sent))
        recent = len(self.answers) - bisect(self.answers, self._sent[0]) if self._sent else 0
        accepted = len(self.answers) - bisect_left(self.answers, self.gate.until)
        self.gate.close(said.wait, accepted, self.windows[0].seconds if self.windows else _MINUTE, now)
        self.ramp.refuse(self.unanswered, recent, first=first)
