"""The slots that are taken, in all windows of a token, by one process or by a fleet. Pure."""

from __future__ import annotations

from bisect import bisect, insort
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from .account import Account, OwnRequests
from .headers import Said

_LATENCY = 30.0  # seconds; an answer takes less


class Begun(NamedTuple):
    """When the request that is now answered was sent: after ``after``, and probably not before ``probably``."""

    probably: float
    after: float


class Ledger:
    """Which slots are taken, and whether another one is free."""

    __slots__ = ("_busy_since", "_countable", "_refused", "_sent", "account", "longest", "windows")

    def __init__(self, account: Account, answers: Sequence[float] = (), in_flight: int = 0, now: float = 0.0) -> None:
        self.account = account  # what is known of the token
        self.windows = account.windows  # the account's windows, the shortest first, in which the slots are counted
        # For how many seconds after the answer a slot is taken, at most
        self.longest = self.windows[-1].seconds if self.windows else 3600.0
        for window in self.windows:
            window.answers.extend(answers[bisect(answers, now - window.seconds) :])
        self._countable = deque(answers)  # when requests were answered that the server may still count
        # When the requests in flight were sent. The first one counts as the first to end.
        self._sent = deque([now] * in_flight)
        self._busy_since = 0.0  # since then a request has always been in flight
        self._refused = 0  # how many of those in flight a 429 has answered

    @property
    def in_flight(self) -> int:
        """How many requests have taken a slot and have not ended."""
        return len(self._sent)

    @property
    def unanswered(self) -> int:
        """How many of them no 429 has answered."""
        return len(self._sent) - self._refused

    def free(self, now: float, reserve: int) -> float:
        """How many slots may be taken now if ``reserve`` of each window stay free: a whole number, or ``math.inf``."""
        gate = self.account.gate
        if now < gate.until:
            return 0
        free = gate.at_most
        for window in self.windows:
            free = min(free, window.free(now, reserve))
        return free - len(self._sent)

    def take(self, now: float, reserve: int) -> bool:
        """Take a slot if that leaves ``reserve`` of each window free. Returns whether it did."""
        if self.free(now, reserve) < 1:
            return False
        self.begin(now)
        return True

    def begin(self, now: float) -> None:
        """Take a slot, whether or not one is free."""
        if not self._sent:
            self.account.starts(now)
            self._busy_since = now
        self._sent.append(now)

    def opens(self, now: float, ahead: int, reserve: int) -> float:
        """When a request with ``ahead`` others before it may go, as far as we know."""
        when = max(now, self.account.gate.until)
        for window in self.windows:
            when = max(when, window.opens(now, self.in_flight, ahead, reserve))
        return when

    def end(self, now: float, sent: bool) -> bool:
        """End a request. Returns whether its slot counts from now: not if it was not ``sent``, or a 429 answered it."""
        self._sent.popleft()
        if self._refused:
            self._refused -= 1
            return False
        if sent:
            for window in self.windows:
                _add(window.answers, now)
            if self.windows:
                countable = self._countable
                _add(countable, now)
                while countable[0] <= now - self.longest - _LATENCY:
                    countable.popleft()
            self.account.answered(now)
        return sent

    def begun(self, now: float) -> Begun:
        """When the request that is answered ``now`` was sent, as far as we know."""
        # No earlier than when we last had nothing in flight, and probably no earlier than our oldest request in flight.
        return Begun(self._sent[0] if self._sent else now, max(self._busy_since, now - _LATENCY))

    def hear(self, said: Said, now: float, begun: Begun | None = None) -> None:
        """Learn from an answer's headers, before its request has ended."""
        limit, remaining, account = said.limit, said.remaining, self.account
        if said.refused:
            account.refuse(said, self._own_requests(now, begun or self.begun(now)), now)
            self.refused()
            return
        if limit is None or remaining is None or not self.windows:
            return
        if (
            account.alone
            and remaining
            and limit == self.windows[-1].limit
            and limit - remaining <= len(self.windows[-1].answers) + len(self._sent)
        ):
            return  # nothing new, as nearly always; this saves the rest
        account.hear(said, self._own_requests(now, begun or self.begun(now)), now)

    def refused(self) -> None:
        """Note that a 429 answered a request: the next one that ends."""
        self._refused = min(self._refused + 1, self.in_flight)

    def _own_requests(self, now: float, begun: Begun) -> OwnRequests:
        # The server counted the answered request after it was sent.
        answers, longest = self._countable, self.longest
        in_flight = self.unanswered
        used = tuple(len(answers) - bisect(answers, begun.probably - window.seconds) for window in self.windows)
        counted_before = bisect(answers, begun.after - longest)
        surely = bisect(answers, begun.after) - bisect(answers, now - longest + min(_LATENCY, longest / 10))
        return OwnRequests(
            used,
            in_flight,
            least=max(0, surely) + min(1, in_flight),
            most=len(answers) - counted_before + self.in_flight,
        )


def _add(moments: deque[float], moment: float) -> None:
    # Processes of a fleet report late.
    if moments and moments[-1] > moment:
        insort(moments, moment)
    else:
        moments.append(moment)
