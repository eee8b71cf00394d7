"""What is known about an account's budget: our requests, the others', the gate. Pure arithmetic on times."""

from __future__ import annotations

import math
import random
from collections import deque

from attrs import define, field

from .window import SlidingWindow

_SANE_LIMIT = 10_000_000
_LONGEST_BACKOFF = 60.0  # seconds, where a 429 does not say how long to stay away
_LATENCY = 30.0  # seconds; an answer takes less


@define(eq=False)
class Ledger:
    """The slots of all windows, and how carefully they may be used.

    While we are alone every slot is used as soon as it is free. Whether we are is learned from answers. So only a few
    requests may be in flight after a pause, until the first answer, and as long as somebody else is about; after a 429
    it is one, and one more with each answer. That bounds how many can run into the same full window.
    """

    windows: tuple[SlidingWindow, ...]
    in_flight: int = 0
    gate: float = -math.inf  # closed until then
    at_most: float = math.inf  # in flight
    _few: float = field(init=False)
    _by_length: tuple[SlidingWindow, ...] = field(init=False)
    _countable: deque[float] = field(init=False, factory=deque[float])  # our answers that the server may still count
    _counts_for: float = field(init=False)
    _heard: float = field(init=False, default=-math.inf)  # when the last answer came
    _stale_after: float = field(init=False)
    _shared: bool = field(init=False, default=False)
    _refused: int = field(init=False, default=0)
    _strikes: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._by_length = tuple(sorted(self.windows, key=lambda window: window.seconds))
        self._few = max(10, min(window.limit for window in self.windows) // 16) if self.windows else math.inf
        self._counts_for = self.longest + _LATENCY
        self._stale_after = self._by_length[0].seconds / 10 if self.windows else math.inf

    @property
    def longest(self) -> float:
        """Seconds for which a slot can be taken."""
        return self._by_length[-1].seconds if self.windows else 3600.0

    def ready(self, now: float, reserve: int) -> bool:
        """Whether a request may go now and leave ``reserve`` slots of each window."""
        in_flight = self.in_flight
        for window in self.windows:
            if not window.has_room(now, in_flight, reserve):
                return False
        return now >= self.gate and in_flight < self.at_most

    def opens(self, now: float, ahead: int, reserve: int) -> float:
        """When a request behind ``ahead`` others may go, as far as is known."""
        when = max(now, self.gate)
        for window in self.windows:
            when = max(when, window.opens(now, self.in_flight, ahead, reserve))
        return when

    def take(self, now: float) -> None:
        """A request goes."""
        if not self.in_flight and now - self._heard > self._stale_after:
            self._shared = any(window.foreign(now) for window in self.windows)
            self.at_most = min(self.at_most, self._few)
        self.in_flight += 1

    def end(self, now: float, sent: bool) -> None:
        """A request ends: answered, or not if it was not ``sent``. One that was refused took no slot."""
        self.in_flight -= 1
        if self._refused:
            self._refused -= 1
        elif sent:
            for window in self.windows:
                window.answers.append(now)
            if self.windows:
                countable = self._countable
                countable.append(now)
                while countable[0] <= now - self._counts_for:
                    countable.popleft()
            if now >= self.gate:
                self._heard = now
                self.at_most = min(self.at_most + 1, self._few) if self._shared else math.inf

    def listen(self, limit: int | None, remaining: int | None, now: float) -> int | None:
        """Take over the longest window's limit, and find how much of it others hold; None if that cannot be told.

        The server has counted those of our requests that were answered a while ago, the one that it answers now, and
        perhaps the others. What it counted beyond all of them is somebody else's for certain. What we took for somebody
        else's, and it did not count beyond the former, has expired.
        """
        if not self.windows or limit is None or not max(1, remaining or 0) <= limit <= _SANE_LIMIT:
            return None
        shortest, longest = self._by_length[0], self._by_length[-1]
        if len(self.windows) > 1:
            longest.limit = limit
        elif longest.limit != limit:
            return None  # the header is about a window that this budget does not have
        if remaining is None:
            return None
        counted = limit - remaining
        least = counted - len(self._countable) - self.in_flight
        if least <= 0 and not longest.level:
            return 0  # nobody else is about, as almost always
        surely_ours = longest.used(now) - shortest.used(now) + min(1, self.in_flight)
        most = max(least, counted - surely_ours, 0)
        level = longest.level
        if least > level:
            if now - self._heard > shortest.seconds:
                level = most  # from before our time: nobody knows how old
            else:
                for window in self._by_length[:-1]:
                    window.saw(least - level, now)
                level = least
            self._shared, self.at_most = True, min(self.at_most, self._few)
        level = min(level, most)
        if level or longest.level:
            longest.believe(level, now)
        return level

    def refuse(self, limit: int | None, remaining: int | None, wait: float | None, now: float) -> None:
        """A 429 came: close the gate for ``wait`` seconds; None: for a random while, longer with each 429 in a row."""
        foreign = self.listen(limit, remaining, now)
        if remaining != 0:
            self._blame_others(foreign, now)
        if now >= self.gate:  # else it was in flight with the one that closed it, and tells nothing new
            self._strikes = self._strikes + 1 if now - self.gate < _LONGEST_BACKOFF else 1
            if wait is None:
                wait = random.uniform(0.0, min(_LONGEST_BACKOFF, 2.0 ** (self._strikes - 1)))
        self.gate = max(self.gate, now + (wait or 0.0))
        self._shared, self.at_most = True, 1
        self._refused = min(self._refused + 1, self.in_flight)

    def _blame_others(self, foreign: int | None, now: float) -> None:
        """Our own count does not explain a 429: others hold the rest of the window that is nearest to its limit."""
        suspects = self._by_length[:-1] or self._by_length
        if suspects:
            window = min(suspects, key=lambda window: (window.room(now, 0) - window.used(now)) / window.limit)
            missing = window.limit - window.used(now) - self.in_flight + 1
            window.suspect(missing if foreign is None else min(missing, foreign + self.in_flight), now)
