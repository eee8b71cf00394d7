"""A sliding window: which slots we hold, and when the next one is free. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from attrs import Attribute, field, frozen

from ..errors import InvalidArgumentError


def whole(of: object, attribute: Attribute[int], value: int) -> None:
    """Validate a count."""
    if type(value) is not int or value < 1:
        raise InvalidArgumentError(f"{type(of).__name__}: {attribute.name} must be an int of at least 1, not {value!r}")


def positive(of: object, attribute: Attribute[float], value: float) -> None:
    """Validate a time."""
    check_seconds(f"{type(of).__name__}: {attribute.name}", value)


def check_seconds(name: str, value: object) -> None:
    """Refuse a time that is not a positive number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidArgumentError(f"{name} must be a positive number of seconds, not {value!r}")


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


class SlidingWindow:
    """The slots of one window. ``answers``, which all windows share: when our requests were answered, in order."""

    __slots__ = ("answers", "limit", "others", "others_until", "seconds")

    def __init__(self, limit: int, seconds: float, answers: list[float]) -> None:
        self.limit = limit  # how many slots there are; an answer can change it
        self.seconds = seconds  # our slots are free again this long after the answer
        self.answers = answers
        self.others = 0  # how many slots other clients hold
        self.others_until = -math.inf  # when the last of them expires, as far as we know

    def used(self, now: float) -> int:
        """How many of our answered requests hold a slot at ``now``."""
        return len(self.answers) - self._expired(now)

    def of_others(self, now: float) -> int:
        """How many slots others hold at ``now``."""
        return self.others if now < self.others_until else 0

    def room(self, now: float, reserve: int) -> int:
        """How many slots we may hold at ``now``, if ``reserve`` of them stay free."""
        return max(0, max(1, self.limit - reserve) - self.of_others(now))

    def opens(self, now: float, in_flight: int, ahead: int, reserve: int) -> float:
        """When a request with ``ahead`` others before it may go, if those in flight are answered now."""
        # Line up those that hold slots: our answered requests, those in flight, those ahead. A request may go when the
        # one ``room`` places before it gives up its slot. So every ``room`` requests ahead take one window.
        expired, room = self._expired(now), self.room(now, reserve)
        used = len(self.answers) - expired
        if not room:
            return self.others_until
        windows, place = divmod(ahead, room)
        rank = place + used + in_flight - room
        if rank < 0:
            return now + windows * self.seconds
        return (self.answers[expired + rank] if rank < used else now) + (windows + 1) * self.seconds

    def _expired(self, now: float) -> int:
        return bisect_right(self.answers, now - self.seconds)


def seconds_for(requests: int, windows: Sequence[Window], used: Iterable[int] = ()) -> float:
    """Return how many seconds pass at least until the last of ``requests`` may be sent, in all windows together."""
    # It assumes that a request itself takes no time, that nobody else spends from now on, and that what is spent
    # already stays spent for a whole window. 10,000 requests in the documented windows take 4740.0: 79 minutes.
    spent = list(used) or [0] * len(windows)
    if not windows or requests <= 0:
        return 0.0
    *shorter, longest = windows
    alone = seconds_for(requests, shorter, spent[:-1])
    free = max(longest.limit - spent[-1], 0)
    if requests <= free:
        return alone
    # One window later there is room for ``limit`` more, and so on. Those of the last window are paced by the shorter
    # ones, which are empty by then.
    full = math.ceil((requests - free) / longest.limit)
    last = requests - free - (full - 1) * longest.limit
    return max(alone, full * longest.seconds + seconds_for(last, shorter))
