"""One sliding window: which slots we and others hold, and when the next one is free. Pure."""

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
    """The slots of one window, as of now.

    Attributes:
        limit: How many slots there are. It can change, see ``Account``.
        seconds: The length of the window. Our slots are free again this long after the answer.
        others: The slots that other clients hold.
        answers: When our requests were answered, the oldest first.
    """

    __slots__ = ("answers", "limit", "others", "seconds")

    def __init__(self, limit: int, seconds: float, others: Others, answers: Iterable[float] = ()) -> None:
        self.limit = limit
        self.seconds = seconds
        self.others = others
        self.answers = deque(answers)

    def used(self, now: float) -> int:
        """How many of our answered requests hold a slot at ``now``."""
        answers, seconds = self.answers, self.seconds
        while answers and answers[0] + seconds <= now:
            answers.popleft()
        return len(answers)

    def room(self, now: float, reserve: int) -> int:
        """How many slots we may hold at ``now``, if ``reserve`` of them stay free."""
        return max(0, max(1, self.limit - reserve) - self.others.at(now))

    def has_room(self, now: float, in_flight: int, reserve: int) -> bool:
        """Whether one more request may go beside those ``in_flight``."""
        return self.used(now) + in_flight < self.room(now, reserve)

    def opens(self, now: float, in_flight: int, ahead: int, reserve: int) -> float:
        """When a request with ``ahead`` others before it in the queue may go.

        This assumes that the requests in flight are answered now, and that those ahead go as soon as they may.
        """
        # Line up those that hold slots: our answered requests, those in flight, those ahead. A request may go when the
        # one ``room`` places before it gives up its slot. So every ``room`` requests ahead take one window.
        used = self.used(now)
        room = self.room(now, reserve)
        windows, place = divmod(ahead, max(1, room))
        rank = place + used + in_flight - room
        if rank < 0:
            return now + windows * self.seconds
        first = (self.answers[rank] if rank < used else now) + self.seconds
        if held := self.others.at(now):
            # Others may give up a slot earlier.
            first = min(first, max(now, self.others.falls_to(max(0, held - rank - 1))))
        return first + windows * self.seconds
