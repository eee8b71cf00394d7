"""A sliding window: which slots we and others hold, and when the next one is free. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

from attrs import Attribute, field, frozen

from ..errors import InvalidArgumentError

# An estimate that no full window confirmed falls with time, slowly at first, to find out whether it is too high: from
# 125 slots by 3 after a 16th of the window, and by 39 after a quarter. A full window ends that. After t windows the
# estimate has lost the part (_SLOWLY + _FASTER * t) * t.
_SLOWLY = 1 / 8
_FASTER = 4.5
_MOMENT = 1e-6  # seconds
_PIECES = 32  # Requests seen within one such piece of a window share an entry.


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


class Others:
    """How many slots others probably hold, and how that changes until the next answer."""

    # Two answers show how many requests of others the server counted between them. The estimate spreads these evenly
    # over that time. Each holds its slot for one window.

    __slots__ = ("level", "seconds", "seen", "since", "steady", "sure")

    def __init__(
        self,
        seconds: float,
        steady: bool,
        level: int = 0,
        since: float = 0.0,
        sure: bool = False,
        seen: Iterable[tuple[float, float, float]] = (),
    ) -> None:
        self.seconds = seconds  # the length of the window
        # Whether others probably go on as they did. If so, a ``sure`` estimate holds for one window, then falls to zero
        # over the next, because no later answer may show that they stopped. Otherwise it falls from now on.
        self.steady = steady
        self.level = level  # how many slots they probably held at the time ``since``
        self.since = since  # when ``level`` was set
        self.sure = sure  # whether a full window confirmed the estimate then
        self.seen = list(seen)  # the requests that were seen: from when to when, and how many

    def at(self, now: float) -> int:
        """How many slots they hold at ``now``."""
        if not self.level:
            return 0
        passed = (now - self.since) / self.seconds
        held = self.level * min(1.0 + self.steady - passed, 1.0)
        if self.steady and not self.sure:
            held = min(held, self.level * (1.0 - (_SLOWLY + _FASTER * passed) * passed))
        # Rounding could leave a millionth of a slot.
        return max(0, math.ceil(held - 1e-6))

    def falls_to(self, level: int) -> float:
        """When they hold no more than ``level`` slots."""
        if level >= self.level:
            return self.since
        passed = 1.0 + self.steady - level / self.level
        if self.steady and not self.sure:
            given = 1.0 - level / self.level
            passed = min(passed, (math.sqrt(_SLOWLY**2 + 4 * _FASTER * given) - _SLOWLY) / (2 * _FASTER))
        return self.since + passed * self.seconds

    def believe(self, level: int, now: float, *, sure: bool = False) -> None:
        """Set the estimate to ``level`` slots of unknown age."""
        self.seen.clear()
        if level:  # steady ones are spread evenly over the window, others are new: later answers show when they expire
            self.seen.append((now - (self.seconds if self.steady else _MOMENT), now, level))
        self.level, self.since, self.sure = level, now, sure

    def expected(self, now: float) -> float:
        """How many of the seen requests still hold a slot at ``now``."""
        seen, start = self.seen, now - self.seconds
        while seen and seen[0][1] <= start:
            seen.pop(0)
        return sum(count * min(1.0, (to - start) / max(to - begin, _MOMENT)) for begin, to, count in seen)

    def saw(self, count: float, since: float, now: float, at_most: float) -> None:
        """Learn that they sent at least ``count`` requests since ``since``, and hold at most ``at_most`` slots."""
        # This raises an estimate that is too low at once. It lowers one no further than to ``at_most``, since the seen
        # requests may be younger than they seem.
        begin = max(since, self.since)
        if count > 0 and now > begin:
            self._remember(begin, now, count * (now - begin) / (now - since))
        surely, before = self.expected(now), self.at(now)
        if surely > at_most:
            self.seen = [(begin, to, one * at_most / surely) for begin, to, one in self.seen]
            surely = at_most
        if before > at_most or surely >= before or not self.steady:
            self.level, self.since, self.sure = round(min(max(surely, before), at_most)), now, False

    def _remember(self, begin: float, now: float, count: float) -> None:
        seen = self.seen
        if seen and now - seen[-1][0] <= self.seconds / _PIECES:
            begin, _, before = seen.pop()
            count += before
        seen.append((begin, now, count))


class SlidingWindow:
    """The slots of one window, as of now."""

    __slots__ = ("answers", "limit", "others", "seconds")

    def __init__(self, limit: int, seconds: float, others: Others, answers: Iterable[float] = ()) -> None:
        self.limit = limit  # how many slots there are; an answer can change it
        self.seconds = seconds  # our slots are free again this long after the answer
        self.others = others  # the slots that other clients hold
        self.answers = deque(answers)  # when our requests were answered, the oldest first

    def used(self, now: float) -> int:
        """How many of our answered requests hold a slot at ``now``."""
        answers, seconds = self.answers, self.seconds
        while answers and answers[0] + seconds <= now:
            answers.popleft()
        return len(answers)

    def room(self, now: float, reserve: int) -> int:
        """How many slots we may hold at ``now``, if ``reserve`` of them stay free."""
        return max(0, max(1, self.limit - reserve) - self.others.at(now))

    def free(self, now: float, reserve: int) -> int:
        """How many of these our requests in flight and new ones may take, at most."""
        return self.room(now, reserve) - self.used(now)

    def opens(self, now: float, in_flight: int, ahead: int, reserve: int) -> float:
        """When a request with ``ahead`` others before it may go, if those in flight are answered now."""
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
