"""The slots that one process has taken, in all windows of its token. Pure."""

from __future__ import annotations

from bisect import bisect
from collections import deque

from .account import Account, Ours

_LATENCY = 30.0  # seconds; an answer takes less


class Ledger:
    """Which slots this process has taken, and whether another one is free.

    Attributes:
        account: What is known of the token.
        windows: The account's windows, the shortest first, in which the slots are counted.
        longest: For how many seconds after the answer a slot is taken, at most.
    """

    __slots__ = ("_busy_since", "_countable", "_refused", "_sent", "account", "longest", "windows")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.windows = account.windows
        self.longest = self.windows[-1].seconds if self.windows else 3600.0
        self._countable = deque[float]()  # when requests were answered that the server may still count
        self._sent = deque[float]()  # when the requests in flight went; the first to go counts as the first to end
        self._busy_since = 0.0  # since then a request has always been in flight
        self._refused = 0  # how many of those in flight a 429 has answered

    @property
    def in_flight(self) -> int:
        """How many requests have taken a slot and have not ended."""
        return len(self._sent)

    def take(self, now: float, reserve: int) -> bool:
        """Take a slot if that leaves ``reserve`` of each window free. Returns whether it did."""
        in_flight, account = len(self._sent), self.account
        for window in self.windows:
            if not window.has_room(now, in_flight, reserve):
                return False
        if now < account.gate.until or in_flight >= account.gate.at_most:
            return False
        if not in_flight:
            account.starts(now)
            self._busy_since = now
        self._sent.append(now)
        return True

    def opens(self, now: float, ahead: int, reserve: int) -> float:
        """When a request with ``ahead`` others before it may go, as far as we know."""
        when = max(now, self.account.gate.until)
        for window in self.windows:
            when = max(when, window.opens(now, self.in_flight, ahead, reserve))
        return when

    def end(self, now: float, sent: bool) -> None:
        """End a request. Its slot is free at once if it was not ``sent``, or if a 429 answered it."""
        self._sent.popleft()
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
        """Learn from an answer's headers, before its request has ended."""
        if limit is None or remaining is None or not self.windows:
            return
        if (
            self.account.alone
            and remaining
            and limit == self.windows[-1].limit
            and limit - remaining <= len(self.windows[-1].answers) + len(self._sent)
        ):
            return  # nothing new, as nearly always; this saves the rest
        self.account.hear(limit, remaining, self._ours(now), now)

    def refuse(self, limit: int | None, remaining: int | None, wait: float | None, *, burst: bool, now: float) -> None:
        """Learn from a 429, before its request has ended. The arguments are those of ``Account.refuse``."""
        self.account.refuse(limit, remaining, self._ours(now), wait, burst=burst, now=now)
        self._refused = min(self._refused + 1, self.in_flight)

    def _ours(self, now: float) -> Ours:
        answers, longest = self._countable, self.longest
        in_flight = self.in_flight - self._refused
        # The server counted the answered request after we sent it: no earlier than when we last had nothing in flight,
        # and probably no earlier than our oldest request in flight.
        sent = self._sent[0] if self._sent else now
        since = max(self._busy_since, now - _LATENCY)
        used = tuple(len(answers) - bisect(answers, sent - window.seconds) for window in self.windows)
        counted_before = bisect(answers, since - longest)
        surely = bisect(answers, since) - bisect(answers, now - longest + min(_LATENCY, longest / 10))
        return Ours(
            used,
            in_flight,
            least=max(0, surely) + min(1, in_flight),
            most=len(answers) - counted_before + self.in_flight,
        )
