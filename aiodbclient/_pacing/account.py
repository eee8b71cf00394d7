"""What answers tell of a token's limit: how high it is, what others spend of it, when to stay away. Pure.

Both budgets use it. Which requests are ours they know in different ways, so they say so with ``Ours``.

What the headers mean, by the provider's description of its API: ``ratelimit-limit`` and ``ratelimit-remaining`` are the
longest window's, but ``remaining`` may also be 0 because a shorter window is full. ``retry-after`` comes only with a
429 of a shorter window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from .others import Others
from .rules import Gate
from .window import SlidingWindow, Window

_SANE_LIMIT = 10_000_000
# A limit that is not the one we knew is believed when so many answers in a row named it.
_AGREEING = 2
# Beside others, one part in so many of the smallest limit may be in flight. All of them can meet a full window at once.
# Enough for 10 requests on the way, where the documented limit lets 4 go in a second.
_FEW = 25


class Ours(NamedTuple):
    """Our own requests at one moment.

    ``used``: of each window, those that were answered. ``in_flight``: those that were not, yet. Of those that the
    server may have counted in the longest window there are at least ``least`` and at most ``most``.
    """

    used: tuple[int, ...]
    in_flight: int
    least: int
    most: int


class Account:
    """What is known of a token's windows, the shortest first, besides our own requests.

    While we are alone every slot is used as soon as it is free. Whether we are is learned from answers. So only a few
    requests may be in flight after a pause, until the first answer, and as long as somebody else is about.
    """

    __slots__ = ("_named", "compared", "gate", "heard", "quiet", "windows")

    def __init__(self, windows: tuple[SlidingWindow, ...]) -> None:
        few = max(4, min(window.limit for window in windows) // _FEW) if windows else math.inf
        self.windows = windows
        self.gate = Gate(few)
        self.heard = -math.inf  # when the last answer came
        self.quiet = True  # nothing of others is known, nor any limit in doubt
        self.compared = -math.inf  # when the last answer told what the server counted
        self._named = 0, 0  # a limit that is not believed yet, and how often

    def starts(self, now: float) -> None:
        """A request goes while none is in flight."""
        if self.windows and now - self.heard > self.windows[0].seconds / 10:
            self.gate.careful(at_least=10)

    def answered(self, now: float) -> None:
        """A request was answered, with no 429."""
        gate = self.gate
        if now >= gate.until:
            self.heard = now
            if gate.at_most is not math.inf:
                gate.opens_further(alone=not any(window.others.at(now) for window in self.windows))

    def hear(self, limit: int | None, remaining: int | None, ours: Ours, now: float) -> None:
        """Learn from an answer's headers how high the longest limit is, and how much of it others hold.

        What the server counted beyond all of our requests is somebody else's for certain. What we took for somebody
        else's, and it did not count beyond those that it must have counted of ours, has expired.
        """
        if self._is_about_us(limit, remaining):
            if remaining == 0:
                self._meet_full_window(ours, now, self.windows, refused=False)
            else:
                self._compare(remaining or 0, ours, now)
        self.quiet = not self._named[1] and not any(window.others.level for window in self.windows)

    def _compare(self, remaining: int, ours: Ours, now: float) -> None:
        """Find out how many requests the server counted that are not ours."""
        longest, shorter = self.windows[-1], self.windows[:-1]
        counted = longest.limit - remaining
        least = max(0, counted - ours.most)
        most = max(least, counted - ours.least)
        since, self.compared = self.compared, now
        if now - since > self.windows[0].seconds:
            level = most if least else 0  # from before our time: nobody knows how old
            if level or longest.others.level:
                longest.others.believe(level, now)
            since, arrived = now, 0.0
        else:
            arrived = max(0.0, least - longest.others.expected(now))
            if arrived or longest.others.level:
                longest.others.saw(arrived, since, now, most)
        for window in shorter:
            if arrived or window.others.level:
                window.others.saw(arrived, since, now, min(most, _all_but_a_share(window)))
        if longest.others.level:
            self.gate.careful()

    def refuse(
        self, limit: int | None, remaining: int | None, ours: Ours, wait: float | None, *, burst: bool, now: float
    ) -> None:
        """A 429 came: close the gate for ``wait`` seconds. ``burst``: it had a retry-after."""
        shorter = self.windows[:-1] or self.windows
        if remaining == 0 and not burst and self._is_about_us(limit, remaining):
            self._meet_full_window(ours, now, self.windows[-1:], refused=True)
        elif remaining and self._is_about_us(limit, remaining):
            self._compare(remaining, ours, now)
            # They hold no more of a shorter window than of the longest.
            at_most = self.windows[-1].others.at(now) + ours.in_flight
            self._meet_full_window(ours, now, shorter, refused=True, at_most=at_most)
        else:
            self._meet_full_window(ours, now, shorter, refused=True)
        self.gate.close(wait, now)
        self.quiet = False

    def _is_about_us(self, limit: int | None, remaining: int | None) -> bool:
        """Whether the headers can be right, and are about the longest window. Takes over its limit."""
        if not self.windows or limit is None or remaining is None or not max(1, remaining) <= limit <= _SANE_LIMIT:
            return False
        if limit == self.windows[-1].limit:
            self._named = 0, 0
            return True
        if len(self.windows) == 1:
            return False  # the header is about a window that this budget does not have
        self._named = limit, self._named[1] + 1 if limit == self._named[0] else 1
        if self._named[1] < _AGREEING:
            return False
        self.windows[-1].limit = limit
        return True

    def _meet_full_window(
        self,
        ours: Ours,
        now: float,
        suspects: Iterable[SlidingWindow],
        *,
        refused: bool,
        at_most: float = math.inf,
    ) -> None:
        """One of ``suspects`` is full: the one that has the fewest slots left, by what we know.

        What we did not take of it others hold. A share stays ours, or nobody would learn when they stop.
        """
        used = dict(zip(map(id, self.windows), ours.used, strict=True))
        fullest, left = None, math.inf
        for window in suspects:
            free = window.limit - used[id(window)] - ours.in_flight
            if free - window.others.at(now) < left:
                fullest, left = window, free - window.others.at(now)
        if fullest is None:
            return
        missing = fullest.limit - used[id(fullest)] - ours.in_flight + refused
        level = min(missing, at_most, _all_but_a_share(fullest) if fullest.others.steady else fullest.limit)
        if level > 0 and level >= fullest.others.at(now):
            fullest.others.believe(int(level), now, sure=True)
            self.gate.careful()


def sliding(windows: Iterable[Window]) -> tuple[SlidingWindow, ...]:
    """The windows, the shortest first, with nothing in them."""
    by_length = sorted(windows, key=lambda window: window.seconds)
    return tuple(
        # What others spend of the longest window is told by answers; of the others it is a guess.
        SlidingWindow(w.limit, w.seconds, Others(w.seconds, steady=len(by_length) == 1 or w is not by_length[-1]))
        for w in by_length
    )


def _all_but_a_share(window: SlidingWindow) -> int:
    return window.limit - max(1, window.limit // 16)
