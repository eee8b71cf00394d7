"""Estimate from answers how many slots of a window other clients of the same token hold. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

# An estimate that no full window confirmed falls with time, slowly at first, to find out whether it is too high: from
# 125 slots by 3 after a 16th of the window, and by 39 after a quarter. A full window ends that. After t windows the
# estimate has lost the part (_SLOWLY + _FASTER * t) * t.
_SLOWLY = 1 / 8
_FASTER = 4.5
_MOMENT = 1e-6  # seconds
_PIECES = 32  # Requests seen within one such piece of a window share an entry.


class Others:
    """How many slots others probably hold, and how that changes until the next answer.

    Two answers show how many requests of others the server counted between them. The estimate spreads these evenly over
    that time. Each holds its slot for one window.

    Attributes:
        seconds: The length of the window.
        steady: Whether others probably go on as they did. If so, a ``sure`` estimate holds for one window, then falls
            to zero over the next, because no later answer may show that they stopped. Otherwise it falls from now on.
        level: How many slots they probably held at the time ``since``.
        since: When ``level`` was set.
        sure: Whether a full window confirmed the estimate then.
        seen: The requests that were seen: from when to when, and how many.
    """

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
        self.seconds = seconds
        self.steady = steady
        self.level = level
        self.since = since
        self.sure = sure
        self.seen = deque(seen)

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
        """Set the estimate to ``level`` slots of unknown age.

        If others are ``steady``, their requests count as spread evenly over the window. Otherwise they count as new,
        since later answers show when they expire.
        """
        self.seen.clear()
        if level:
            self.seen.append((now - (self.seconds if self.steady else _MOMENT), now, level))
        self.level, self.since, self.sure = level, now, sure

    def expected(self, now: float) -> float:
        """How many of the seen requests still hold a slot at ``now``."""
        seen, start = self.seen, now - self.seconds
        while seen and seen[0][1] <= start:
            seen.popleft()
        return sum(count * min(1.0, (to - start) / max(to - begin, _MOMENT)) for begin, to, count in seen)

    def saw(self, count: float, since: float, now: float, at_most: float) -> None:
        """Learn that they sent at least ``count`` requests since ``since``, and hold at most ``at_most`` slots.

        This raises an estimate that is too low at once. It lowers one no further than to ``at_most``, since the seen
        requests may be younger than they seem.
        """
        begin = max(since, self.since)
        if count > 0 and now > begin:
            self._remember(begin, now, count * (now - begin) / (now - since))
        surely, before = self.expected(now), self.at(now)
        if surely > at_most:
            self.seen = deque((begin, to, one * at_most / surely) for begin, to, one in self.seen)
            surely = at_most
        if before > at_most or surely >= before or not self.steady:
            self.level, self.since, self.sure = round(min(max(surely, before), at_most)), now, False

    def _remember(self, begin: float, now: float, count: float) -> None:
        seen = self.seen
        if seen and now - seen[-1][0] <= self.seconds / _PIECES:
            begin, _, before = seen.pop()
            count += before
        seen.append((begin, now, count))
