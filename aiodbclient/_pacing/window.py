"""One sliding window: which slots are taken, by us and by others, and when the next opens. Pure arithmetic on times."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from attrs import Attribute, field, frozen

from ..errors import InvalidArgumentError
from .others import Others


def _whole(_: object, attribute: Attribute[int], value: int) -> None:
    if type(value) is not int or value < 1:
        raise InvalidArgumentError(f"Window: {attribute.name} must be an int of at least 1, not {value!r}")


def _positive(_: object, attribute: Attribute[float], value: float) -> None:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise InvalidArgumentError(f"Window: {attribute.name} must be a positive number of seconds, not {value!r}")


@frozen
class Window:
    """At most ``limit`` requests in any span of ``seconds`` seconds.

    Attributes:
        limit: The requests in one window, at least 1.
        seconds: The length of the window, above 0.

    Raises:
        InvalidArgumentError: ``limit`` is not a positive int, or ``seconds`` not a positive finite number.
    """

    limit: int = field(validator=_whole)
    seconds: float = field(validator=_positive)


class SlidingWindow:
    """The slots of one window: our own, each of which frees ``seconds`` after its answer, and those of ``others``."""

    __slots__ = ("answers", "limit", "others", "seconds")

    def __init__(self, limit: int, seconds: float, others: Others, answers: Iterable[float] = ()) -> None:
        self.limit = limit
        self.seconds = seconds
        self.others = others
        self.answers = deque(answers)

    def used(self, now: float) -> int:
        """How many of our own answered requests count at ``now``."""
        answers, seconds = self.answers, self.seconds
        while answers and answers[0] + seconds <= now:
            answers.popleft()
        return len(answers)

    def room(self, now: float, reserve: int) -> int:
        """How many requests of ours the window may hold at ``now``, with ``reserve`` slots left alone."""
        room = max(1, self.limit - reserve)
        return max(0, room - self.others.at(now)) if self.others.level else room

    def has_room(self, now: float, in_flight: int, reserve: int) -> bool:
        """Whether one more request fits beside what is in flight."""
        room = self.room(now, reserve) if reserve or self.others.level else self.limit
        return self.used(now) + in_flight < room

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
        if held := self.others.at(now):
            first = min(first, max(now, self.others.falls_to(max(0, held - rank - 1))))
        return first + windows * self.seconds
