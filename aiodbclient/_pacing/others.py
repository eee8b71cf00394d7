"""How many slots of one window other clients of the same token hold, estimated from answers. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

# An estimate that no 429 confirmed is lowered as time passes, slowly at first, to find out whether it is too high: of
# 125 slots by 3 after a 16th of the window, and by 39 after a quarter. The first 429 ends that.
_SLOWLY = 1 / 8  # of the estimate, in a window
_FASTER = 4.5  # of the estimate in a window, growing with the square of the time
_MOMENT = 1e-6  # seconds
_PIECES = 32  # Requests that were seen within one such piece of a window are kept as one entry.


class Others:
    """How many slots others are believed to hold, and how that changes until the next answer tells more.

    Answers tell how many requests of others the server counted between two of them. These are taken to be spread evenly
    over that time, and each holds its slot for a window's length.

    Attributes:
        seconds: The length of the window.
        steady: Whether others are expected to go on as they did. Then the estimate stays for one window more, and falls
            to none in another one, since nobody may be left to tell that they stopped. Else it begins to fall at once.
        level: How many slots they were believed to hold at the time ``since``.
        since: When ``level`` was set.
        sure: Whether a full window was met then, which confirms the estimate.
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
        # Rounding could leave a millionth of a slot, which is none.
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
        """They hold ``level`` slots, and nobody knows for how long.

        They are taken to be spread evenly over the window if others are ``steady``, and else to be new: answers tell
        when those expire.
        """
        self.seen.clear()
        if level:
            self.seen.append((now - (self.seconds if self.steady else _MOMENT), now, level))
        self.level, self.since, self.sure = level, now, sure

    def expected(self, now: float) -> float:
        """How many of the requests that were seen still hold a slot at ``now``."""
        seen, start = self.seen, now - self.seconds
        while seen and seen[0][1] <= start:
            seen.popleft()
        return sum(count * min(1.0, (to - start) / max(to - begin, _MOMENT)) for begin, to, count in seen)

    def saw(self, count: float, since: float, now: float, at_most: float) -> None:
        """They sent at least ``count`` requests between ``since`` and ``now``, and hold at most ``at_most`` slots.

        An estimate that is too low by that is raised at once. It is lowered no further than to ``at_most``, as what was
        seen may be younger than it seems.
        """
        begin = max(since, self.since, now - self.seconds)
        if count > 0 and now > since:
            self._remember(begin, now, count * (now - begin) / (now - since))
        surely, before = self.expected(now), self.at(now)
        if surely > at_most:
            self.seen = deque((begin, to, one * at_most / surely) for begin, to, one in self.seen)
            surely = at_most
        if before > at_most or surely >= before or not self.steady:
            self.level, self.since, self.sure = round(min(max(surely, before), at_most)), now, False

    def _remember(self, begin: float, now: float, count: float) -> None:
        seen = self.seen
        if seen and seen[-1][1] >= begin and now - seen[-1][0] <= self.seconds / _PIECES:
            begin, _, before = seen.pop()
            count += before
        if now > begin:
            seen.append((begin, now, count))
