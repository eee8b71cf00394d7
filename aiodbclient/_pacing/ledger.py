"""The slots that are taken, in all windows of a token, by one process or by a fleet. Pure."""

from __future__ import annotations

import math
from bisect import bisect, bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

from .._checks import positive, whole
from .gate import Gate, Ramp

LATENCY = 30.0  # seconds; an answer takes less
_SANE_LIMIT = 10_000_000
_MINUTE, _RECENT = 60.0, 64  # the shortest window where there is none, and how many answers are kept then


@frozen
class Window:
    """At most ``limit`` requests in any span of ``seconds`` seconds.

    Attributes:
        limit: The requests in one window, at least 1.
        seconds: The length of the window, above 0.

    Raises:
        InvalidArgumentError: ``limit`` is not a positive int, or ``seconds`` not a positive finite number.
    """

    limit: int = field(validator=whole)
    seconds: float = field(validator=positive)


@define
class SlidingWindow:
    """The slots of one window. ``answers``, in its methods: when our requests were answered, in order."""

    limit: int  # how many there are; an answer can change it
    seconds: float  # ours are free again this long after the answer
    others: int = 0  # how many other clients hold
    others_until: float = -math.inf  # when the last of those expires, as far as we know
    named: int | None = None  # another limit that the last answer named; the next one confirms it

    def used(self, answers: list[float], now: float) -> int:
        """How many of our answered requests hold a slot at ``now``."""
        return len(answers) - bisect(answers, now - self.seconds)

    def of_others(self, now: float) -> int:
        """How many slots others hold at ``now``."""
        return self.others if now < self.others_until else 0

    def room(self, now: float, reserve: int) -> int:
        """How many slots we may hold at ``now``, if ``reserve`` of them stay free."""
        return max(0, max(1, self.limit - reserve) - self.of_others(now))

    def opens(self, answers: list[float], now: float, in_flight: int, ahead: int, reserve: int) -> float:
        """When a request with ``ahead`` others before it may go, if those in flight are answered now."""
        # Line up those that hold slots: our answered requests, those in flight, those ahead. A request may go when the
        # one ``room`` places before it gives up its slot. So every ``room`` requests ahead take one window.
        room, used = self.room(now, reserve), self.used(answers, now)
        if not room:
            return self.others_until
        windows, place = divmod(ahead, room)
        rank = place + used + in_flight - room
        if rank < 0:
            return now + windows * self.seconds
        return (answers[len(answers) - used + rank] if rank < used else now) + (windows + 1) * self.seconds


class Ledger:
    """Which slots are taken, and whether another one is free.

    In a fleet ``share`` adds the requests of the other processes, and ``allowance`` is what the last turn took.
    """

    __slots__ = ("_refused", "_sent", "allowance", "answers", "elsewhere", "gate", "own", "ramp", "reserve", "windows")

    def __init__(self, windows: Sequence[Window], reserve: int = 0) -> None:
        self.windows = [SlidingWindow(window.limit, window.seconds) for window in windows]  # the shortest first
        self.reserve = reserve  # how many slots of each window bulk calls leave free
        self.answers = list[float]()  # when requests were answered that the server may still count
        self.own = self.answers  # those of this process; another list once ``share`` was called
        self.elsewhere = 0  # how many requests of other processes are in flight
        self.allowance = math.inf  # how many requests may begin, whatever is free
        self.gate = Gate()
        self.ramp = Ramp(min((window.limit for window in windows), default=math.inf))
        self._sent = deque[float]()  # when the requests in flight were sent; the first one counts as the first to end
        self._refused = 0  # how many of those in flight a 429 has answered

    @property
    def longest(self) -> float:
        """For how many seconds after the answer a slot is taken, at most."""
        return self.windows[-1].seconds if self.windows else 3600.0

    @property
    def in_flight(self) -> int:
        """How many requests of this process have taken a slot and have not ended."""
        return len(self._sent)

    @property
    def unanswered(self) -> int:
        """How many of those no 429 has answered."""
        return len(self._sent) - self._refused

    def held(self, now: float) -> tuple[int, ...]:
        """How many slots of each window are taken, but for those of this process that are in flight."""
        return tuple(w.used(self.answers, now) + w.of_others(now) + self.elsewhere for w in self.windows)

    def free(self, now: float, bulk: bool, *, patient: bool = True) -> float:
        """How many slots calls of a lane may take now (``patient``: those without ``max_wait``)."""
        if now < self.gate.opens(patient=patient):
            return 0
        free, reserve = self.ramp.at_most, self.reserve if bulk else 0
        for window in self.windows:
            free = min(free, window.room(now, reserve) - window.used(self.answers, now) - self.elsewhere)
        return free - len(self._sent)

    def take(self, now: float, bulk: bool, *, patient: bool = True) -> bool:
        """Take a slot if one is free. Returns whether it did."""
        if self.allowance < 1 or self.free(now, bulk, patient=patient) < 1:
            return False
        self.allowance -= 1
        self._sent.append(now)
        return True

    def opens(self, now: float, ahead: int, bulk: bool, *, patient: bool = False) -> float:
        """When a request with ``ahead`` others before it may go. The ramp is left out: it depends on answers."""
        when, reserve = max(now, self.gate.opens(patient=patient)), self.reserve if bulk else 0
        in_flight = self.unanswered + self.elsewhere
        for window in self.windows:
            when = max(when, window.opens(self.answers, now, in_flight, ahead, reserve))
        # One longest window later, the shorter ones are empty again.
        room = self.windows[-1].room(now, reserve) if self.windows else 0
        if 0 < room <= ahead:
            full, rest = divmod(ahead, room)
            when = max(when, self.opens(now, rest, bulk, patient=patient) + full * self.longest)
        return when

    def reason(self, now: float) -> str:
        """Why the next request has to wait, for the log."""
        if now < self.gate.later:
            return "since the API answered 429"
        opens = [window.opens(self.answers, now, self.in_flight, 0, 0) for window in self.windows]
        full = self.windows[opens.index(max(opens))]
        return f"which allows {full.limit} requests in {full.seconds:g} s"

    def end(self, now: float, *, sent: bool) -> None:
        """End a request. Its slot counts from now, unless it was not ``sent``, or a 429 answered it."""
        self._sent.popleft()
        if self._refused:
            self._refused -= 1
        elif sent:
            self._count(self.answers, now)
            if self.own is not self.answers:
                self._count(self.own, now)
            if now >= self.gate.until:
                self.ramp.succeed(now)

    def share(self, answers: Iterable[float], in_flight: int) -> None:
        """Have the requests of other processes too: when they were answered, and how many are in flight."""
        self.answers = sorted([*self.own, *answers])
        self.elsewhere = in_flight

    def agree(self, gate: Gate, now: float) -> Gate:
        """Have one gate with the other processes, which opens last. Returns it."""
        if gate.until > self.gate.until:
            if self.gate.until <= now < gate.until:  # a 429 of another process closed it
                self.ramp.restart()
            self.gate = gate
        return self.gate

    def hear(self, limit: int | None, remaining: int | None, now: float) -> None:
        """Learn of the hour from an answer's headers: its limit, and how many of its requests were others'."""
        if not self.windows or limit is None or remaining is None or not max(1, remaining) <= limit <= _SANE_LIMIT:
            return
        window = self.windows[-1]
        if limit != window.limit:
            before, window.named = window.named, limit
            if len(self.windows) == 1 or before != limit:  # the header may be about a window that this budget lacks
                return
            window.limit = limit
        window.named = None
        if remaining:  # 0 can also mean that a shorter window is full
            # When it counted, the server may still have counted those that have expired by now.
            ours = len(self.answers) + len(self._sent) + self.elsewhere
            window.others, window.others_until = max(0, limit - remaining - ours), now + window.seconds

    def refuse(self, wait: float | None, now: float) -> None:
        """Close the gate after a 429 that asks for a ``wait`` or not, before its request has ended."""
        first = now >= self.gate.until
        self._refused = min(self._refused + 1, len(self._sent))
        recent = len(self.own) - bisect(self.own, self._sent[0]) if self._sent else 0
        accepted = len(self.own) - bisect_left(self.own, self.gate.until)
        self.gate.close(wait, accepted, self.windows[0].seconds if self.windows else _MINUTE, now)
        self.ramp.refuse(self.unanswered, recent, first=first)

    def _count(self, answers: list[float], now: float) -> None:
        answers.append(now)
        since = now - self.longest - LATENCY
        if not self.windows:
            del answers[:-_RECENT]
        elif answers[0] <= since:
            del answers[: bisect(answers, since)]
