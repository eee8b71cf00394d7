"""What the answers say about a token: its limit, how many slots others hold, when to wait. Pure.

By the provider's API description, ``ratelimit-limit`` and ``ratelimit-remaining`` are about the longest window, but
``remaining`` may also be 0 because a shorter window is full. ``retry-after`` comes only with the 429 of a shorter
window.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .headers import Said
from .window import Others, SlidingWindow, Window

_SANE_LIMIT = 10_000_000
# Beside others, one 25th of the smallest limit may be in flight, since each of these requests can meet a full window.
# With the documented limits that is 10 requests, enough for the 4 a second that may go.
_FEW = 25
_LONGEST_BACKOFF = 60.0  # seconds, if a 429 does not say how long to wait


class Gate:
    """Whether requests may go, and how many may be in flight.

    A 429 closes the gate for all calls. When it opens, the ramp begins: one request may be in flight, and each answer
    allows one more, up to ``few``. If nobody else seems to use the token, the next answer ends the ramp, and any number
    may be in flight. Otherwise ``few`` stays the limit, since each request in flight can meet a window that others
    filled.
    """

    __slots__ = ("at_most", "few", "strikes", "until")

    def __init__(self, few: float) -> None:
        self.few = few  # where the ramp stops while others use the token
        self.until = -math.inf  # when the gate opens, or opened
        self.at_most = math.inf  # how many requests may be in flight: a whole number or ``math.inf``
        self.strikes = 0  # how many 429s came in a row

    def close(self, wait: float | None, now: float) -> None:
        """Close the gate after a 429, for ``wait`` seconds; None: for a random time that grows with each in a row."""
        if wait is None:
            wait = self.backoff(now)
        if now >= self.until:  # otherwise its request was in flight already: not another strike
            self.strikes = self._next_strike(now)
        self.until = max(self.until, now + wait)
        self.at_most = 1

    def backoff(self, now: float) -> float:
        """Return how many seconds to close if a 429 does not say."""
        if now < self.until:
            return 0.0
        return random.uniform(0.0, min(_LONGEST_BACKOFF, 2.0 ** min(self._next_strike(now) - 1, 6)))

    def _next_strike(self, now: float) -> int:
        return self.strikes + 1 if now - self.until < _LONGEST_BACKOFF else 1

    def careful(self, at_least: int = 0) -> None:
        """Allow only ``few`` in flight, or ``at_least`` if that is more, since others may use the token."""
        self.at_most = min(self.at_most, max(self.few, at_least))

    def opens_further(self, *, alone: bool) -> None:
        """Take a step of the ramp after an answer. ``alone``: nobody else seems to use the token."""
        if self.at_most < self.few:
            self.at_most += 1
        elif alone:
            self.at_most = math.inf


class OwnRequests(NamedTuple):
    """Our own requests at one moment, as one budget knows them."""

    # Which ones the server had counted is not known exactly: requests arrive and slots expire while the answer travels.
    # For each window, the shortest first: how many of our answered requests the server probably counted. These held a
    # slot when we sent the request that is now answered.
    used: tuple[int, ...]
    in_flight: int  # how many of our requests are not answered
    least: int  # how many of our requests the server counted in the longest window, at least
    most: int  # the same, at most


class Account:
    """What we know about a token, beside our own requests."""

    # Every slot is used as soon as it is free while nobody else uses the token. Only answers show whether somebody
    # does. So only a few requests may be in flight at first, after a pause, and while somebody does.

    __slots__ = ("alone", "gate", "last_answer", "last_count", "other_limit", "windows")

    def __init__(self, windows: Sequence[Window]) -> None:
        few = max(4, min(window.limit for window in windows) // _FEW) if windows else math.inf
        # The token's windows, the shortest first, with what others hold of each. Answers show that of the longest one.
        # For the other windows it is a guess.
        self.windows = tuple(
            SlidingWindow(w.limit, w.seconds, Others(w.seconds, steady=len(windows) == 1 or w is not windows[-1]))
            for w in windows
        )
        self.gate = Gate(few)  # whether requests may go, and how many at once
        self.alone = True  # whether all answers fit our own requests: no others, no other limit, no 429 since
        self.last_answer = -math.inf  # when a request was last answered while the gate was open
        self.last_count = -math.inf  # when an answer last showed how many requests the server counted
        self.other_limit: int | None = None  # another one that the last answer named; the next one confirms it

    def starts(self, now: float) -> None:
        """Prepare for a request while none is in flight. After a pause we do not know what others did."""
        if self.windows and now - self.last_answer > self.windows[0].seconds / 10:
            self.gate.careful(at_least=10)

    def answered(self, now: float) -> None:
        """Note that a request was answered, and not with a 429."""
        gate = self.gate
        if now >= gate.until:
            self.last_answer = now
            if gate.at_most != math.inf:
                gate.opens_further(alone=not any(window.others.at(now) for window in self.windows))

    def hear(self, said: Said, own: OwnRequests, now: float) -> None:
        """Learn from an answer's headers the longest window's limit, and how many slots others hold."""
        if self._take_over(said):
            if said.remaining:
                self._compare(said.remaining, own, now)
            else:
                self._meet_full_window(own, now, self.windows, refused=False)
        self.alone = self.other_limit is None and not any(window.others.level for window in self.windows)

    def _compare(self, remaining: int, own: OwnRequests, now: float) -> None:
        """Find out how many of the counted requests were others'."""
        # Those beyond ``own.most`` were. Those beyond ``own.least`` may be; if the estimate was higher than that, the
        # difference has expired.
        longest, shorter = self.windows[-1], self.windows[:-1]
        counted = longest.limit - remaining
        least = max(0, counted - own.most)
        most = max(least, counted - own.least)
        since, self.last_count = self.last_count, now
        if now - since > self.windows[0].seconds:
            level = most if least else 0  # nobody knows how old those are
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

    def refuse(self, said: Said, own: OwnRequests, now: float) -> None:
        """Learn from a 429, and close the gate."""
        # ``own`` has the refused request among those in flight.
        shorter = self.windows[:-1] or self.windows
        remaining = said.remaining
        if remaining == 0 and not said.burst and self._take_over(said):
            self._meet_full_window(own, now, self.windows[-1:], refused=True)
        elif remaining and self._take_over(said):
            self._compare(remaining, own, now)
            # Others hold no more slots of a shorter window than of the longest one.
            at_most = self.windows[-1].others.at(now) + own.in_flight
            self._meet_full_window(own, now, shorter, refused=True, at_most=at_most)
        else:
            self._meet_full_window(own, now, shorter, refused=True)
        self.gate.close(said.wait, now)
        self.alone = False

    def _take_over(self, said: Said) -> bool:
        """Take over the longest window's limit. Returns whether the headers are plausible and about that window."""
        limit, remaining = said.limit, said.remaining
        if not self.windows or limit is None or remaining is None or not max(1, remaining) <= limit <= _SANE_LIMIT:
            return False
        if limit == self.windows[-1].limit:
            self.other_limit = None
            return True
        if len(self.windows) == 1:
            return False  # the header is about a window that this budget lacks
        before, self.other_limit = self.other_limit, limit
        if before != limit:
            return False
        self.windows[-1].limit = limit
        return True

    def _meet_full_window(
        self,
        own: OwnRequests,
        now: float,
        suspects: Iterable[SlidingWindow],
        *,
        refused: bool,
        at_most: float = math.inf,
    ) -> None:
        """Learn that one of ``suspects`` is full: probably the one with the fewest free slots as far as we know."""
        # Its slots that we do not hold count as others', up to ``at_most``. A share stays ours all the same: without a
        # request of ours we would not learn when the others stop.
        not_own = {w: w.limit - used - own.in_flight for w, used in zip(self.windows, own.used, strict=True)}
        fullest = min(suspects, key=lambda window: not_own[window] - window.others.at(now), default=None)
        if fullest is None:
            return
        missing = not_own[fullest] + refused
        level = min(missing, at_most, _all_but_a_share(fullest) if fullest.others.steady else fullest.limit)
        if level > 0 and level >= fullest.others.at(now):
            fullest.others.believe(int(level), now, sure=True)
            self.gate.careful()


def _all_but_a_share(window: SlidingWindow) -> int:
    return window.limit - max(1, window.limit // 16)
