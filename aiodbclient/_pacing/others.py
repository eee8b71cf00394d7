"""What other clients of the same token hold of one window, estimated from answers. Pure arithmetic on times."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

# An estimate that no 429 confirmed gives way, slowly at first: of 125 slots, 3 after a 16th of the window, which is
# enough where it is too high by one, and 39 after a quarter. The first 429 ends that.
_SLOWLY = 1 / 8  # of the estimate, in a window
_FASTER = 4.5  # of the estimate in a window, growing with the square of the time
_MOMENT = 1e-6  # seconds
_PIECES = 32  # of a window, beyond which requests that were seen one after the other are kept together


class Others:
    """How many slots others are believed to hold, and how that changes while nothing is heard.

    Answers tell how many requests came between two of them, so those are taken to be spread evenly over that time, and
    each expires when it is as old as the window (``seconds``). With ``steady`` set they are expected to go on as they
    did: the estimate stays for one window more, and then fades to none in another one, since nobody may be left to tell
    that they stopped. Without it, it fades at once.
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
        self.level = level  # at ``since``
        self.since = since
        self.sure = sure  # a full window was met, so that no probing is needed
        self.seen = deque(seen)  # from, to, how many

    def at(self, now: float) -> int:
        """How many slots they hold at ``now``."""
        if not self.level:
            return 0
        passed = (now - self.since) / self.seconds
        held = self.level * min(1.0 + self.steady - passed, 1.0)
        if self.steady and not self.sure:
            held = min(held, self.level * (1.0 - (_SLOWLY + _FASTER * passed) * passed))
        # The last millionth is rounding: without it a slot that fades at 3.0 would still be taken at 3.0.
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
        """They hold ``level`` slots, of an age that nobody knows.

        Taken to be spread evenly where they go on, and else to be new: answers tell when those expire.
        """
        self.seen.clear()
        if level:
            self.seen.append((now - (self.seconds if self.steady else _MOMENT), now, level))
        self.level, self.since, self.sure = level, now, sure

    def expected(self, now: float) -> float:
        """How many of those that were seen have not expired at ``now``."""
        seen, start = self.seen, now - self.seconds
        while seen and seen[0][1] <= start:
            seen.popleft()
        return sum(count * min(1.0, (to - start) / max(to - begin, _MOMENT)) for begin, to, count in seen)

    def saw(self, count: float, since: float, now: float, at_most: float) -> None:
        """They sent at least ``count`` requests between ``since`` and ``now``, and hold at most ``at_most`` slots.

        More than was believed is believed at once. Less is not, as those may be younger than it seems.
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
