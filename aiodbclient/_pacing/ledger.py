"""The requests of one process, in all windows of its token. Pure arithmetic on times."""

from __future__ import annotations

from bisect import bisect
from collections import deque

from attrs import define, field

from .account import Account, Ours
from .window import SlidingWindow

_LATENCY = 30.0  # seconds; an answer takes less


@define(eq=False, repr=False)
class Ledger:
    """Which slots are ours, and whether one more request may go beside them."""

    account: Account
    windows: tuple[SlidingWindow, ...] = field(init=False)
    in_flight: int = field(init=False, default=0)
    longest: float = field(init=False)  # seconds for which a slot can be taken
    _countable: deque[float] = field(init=False, factory=deque[float])  # answers that the server may still count
    _busy_since: float = field(init=False, default=0.0)  # when a request went while none was in flight
    _refused: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.windows = self.account.windows
        self.longest = self.windows[-1].seconds if self.windows else 3600.0

    def ready(self, now: float, reserve: int) -> bool:
        """Whether a request may go now and leave ``reserve`` slots of each window."""
        in_flight = self.in_flight
        for window in self.windows:
            if not window.has_room(now, in_flight, reserve):
                return False
        gate = self.account.gate
        return now >= gate.until and in_flight < gate.at_most

    def opens(self, now: float, ahead: int, reserve: int) -> float:
        """When a request behind ``ahead`` others may go, as far as is known."""
        when = max(now, self.account.gate.until)
        for window in self.windows:
            when = max(when, window.opens(now, self.in_flight, ahead, reserve))
        return when

    def take(self, now: float) -> None:
        """A request goes."""
        if not self.in_flight:
            self.account.starts(now)
            self._busy_since = now
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
                while countable[0] <= now - self.longest - _LATENCY:
                    countable.popleft()
            self.account.answered(now)

    def hear(self, limit: int | None, remaining: int | None, now: float) -> None:
        """Learn from an answer's headers."""
        if (
            self.account.quiet
            and remaining
            and self.windows
            and limit is not None
            and limit == self.windows[-1].limit
            and limit - remaining <= len(self.windows[-1].answers) + self.in_flight
        ):
            return  # nobody else is about, as almost always
        self.account.hear(limit, remaining, self._ours(now), now)

    def refuse(self, limit: int | None, remaining: int | None, wait: float | None, *, burst: bool, now: float) -> None:
        """A 429 came, of a request that has not ended yet."""
        self.account.refuse(limit, remaining, self._ours(now), wait, burst=burst, now=now)
        self._refused = min(self._refused + 1, self.in_flight)

    def _ours(self, now: float) -> Ours:
        used = tuple(window.used(now) for window in self.windows)
        in_flight = self.in_flight - self._refused
        # The server stamped the request that it answers now after this, and before now.
        since = max(self._busy_since, now - _LATENCY)
        answers = self._countable
        longest = self.longest
        counted_before = bisect(answers, since - longest)
        surely = bisect(answers, since) - bisect(answers, now - longest + min(_LATENCY, longest / 10))
        return Ours(
            used,
            in_flight,
            least=max(0, surely) + min(1, in_flight),
            most=len(answers) - counted_before + self.in_flight,
        )
