"""One sliding window: which slots are taken, by us and by others, and when the next opens. Pure arithmetic on times."""

from __future__ import annotations

import math
from collections import deque

from attrs import Attribute, define, field, frozen

from ..errors import InvalidArgumentError


def _whole(_: object, attribute: Attribute[int], value: int) -> None:
    if type(value) is not int or value < 1:
        raise InvalidArgumentError(f"Window: {attribute.name} must be an int of at least 1, not {value!r}")


def _positive(_: object, attribute: Attribute[float], value: float) -> None:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise InvalidArgumentError(f"Window: {attribute.name} must be a positive number of seconds, not {value!r}")


@frozen
class Window:
    """At most ``limit`` requests in any span of ``seconds`` seconds.

    Raises InvalidArgumentError where ``limit`` is not a positive int, or ``seconds`` not a positive finite number.
    """

    limit: int = field(validator=_whole)
    seconds: float = field(validator=_positive)


@define(eq=False)
class SlidingWindow:
    """The slots of one window.

    Our own requests are known one by one: a slot frees ``seconds`` after the answer. Of other clients' requests we know
    at best how many there were (``level``) at some moment (``since``). What the server told (``believe``) fades evenly
    to none within a window, as those requests expire, unless it is told anew. What we worked out (``suspect``) stays in
    full for one window more, since nothing but another 429 would tell that they are still there.
    """

    limit: int
    seconds: float
    answers: deque[float] = field(factory=deque[float])
    level: int = 0
    since: float = 0.0
    _hold: int = 0
    _seen: deque[float] = field(factory=deque[float])

    def used(self, now: float) -> int:
        """How many of our own answered requests count at ``now``."""
        answers, seconds = self.answers, self.seconds
        while answers and answers[0] + seconds <= now:
            answers.popleft()
        return len(answers)

    def foreign(self, now: float) -> int:
        """How many slots others are believed to hold at ``now``."""
        if not self.level:
            return 0
        left = 1 + self._hold - (now - self.since) / self.seconds
        # The last millionth is rounding: without it a slot that fades at 3.0 would still be taken at 3.0.
        return math.ceil(self.level * min(left, 1.0) - 1e-6) if left > 0 else 0

    def believe(self, level: int, now: float) -> None:
        """The server says that others hold ``level`` slots."""
        self.level, self.since, self._hold = min(level, self.limit), now, 0

    def suspect(self, level: int, now: float) -> None:
        """Others seem to hold at least ``level`` slots. A share stays ours, or we would never learn when they stop."""
        level = min(level, self.limit - max(1, self.limit // 16))
        if level >= self.foreign(now):
            self.level, self.since, self._hold = level, now, 1

    def saw(self, count: int, now: float) -> None:
        """Others sent ``count`` requests just now. Expect as many in each window as there were in this one."""
        seen = self._seen
        seen.extend([now] * min(count, self.limit))
        while seen[0] + self.seconds <= now or len(seen) > self.limit:
            seen.popleft()
        self.suspect(len(seen), now)

    def room(self, now: float, reserve: int) -> int:
        """How many requests of ours the window may hold at ``now``, with ``reserve`` slots left alone."""
        room = max(1, self.limit - reserve)
        return max(0, room - self.foreign(now)) if self.level else room

    def has_room(self, now: float, in_flight: int, reserve: int) -> bool:
        """Whether one more request fits beside what is in flight."""
        if self.level or reserve:
            return self.used(now) + in_flight < self.room(now, reserve)
        answers = self.answers
        while answers and answers[0] + self.seconds <= now:
            answers.popleft()
        return len(answers) + in_flight < self.limit

    def opens(self, now: float, in_flight: int, ahead: int, reserve: int) -> float:
        """When a request behind ``ahead`` others may go, if what is in flight is answered now and all the others go.

        Each request takes the place of the one ``room`` before it: the first of the queue follow our answered ones in
        their order, the next follow those in flight, and then the queue follows itself, a window later.
        """
        used = self.used(now)
        room = self.room(now, reserve)
        windows, place = divmod(ahead, max(1, room))
        rank = place + used + in_flight - room
        if rank < 0:
            return now + windows * self.seconds
        first = (self.answers[rank] if rank < used else now) + self.seconds
        if others := self.foreign(now):
            first = min(first, self._faded(max(0, others - rank - 1)))
        return first + windows * self.seconds

    def _faded(self, level: int) -> float:
        """When the others hold no more than ``level`` slots."""
        return self.since + (1 + self._hold - level / self.level) * self.seconds
