"""The slots that one process holds, and those that ended and are not reported to Valkey yet. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Ended(NamedTuple):
    """Slots that have ended: those of answered requests, with the time of the answer, and those that were not used."""

    answered: Sequence[tuple[str, float]]
    unused: Sequence[str]


class Held:
    """The slots that one process holds.

    Slots are interchangeable: a request that ends gives up the slot that was taken first. The next ask reports it.
    Until then Valkey counts the slot by its lease. A lease is longer than nearly every request, so hardly any slot is
    free too early.

    Args:
        most: How many answered requests are remembered until they are reported.
    """

    __slots__ = ("_answered", "_refused", "_taken", "_unused")

    def __init__(self, most: int) -> None:
        self._taken: deque[tuple[str, float]] = deque()  # slots of unanswered requests, and when they were taken
        self._refused = 0  # requests in flight whose slot a 429 took
        self._answered: deque[tuple[str, float]] = deque(maxlen=most)
        self._unused: list[str] = []

    @property
    def ids(self) -> list[str]:
        """The slots of requests that are not answered."""
        return [slot for slot, _ in self._taken]

    @property
    def in_flight(self) -> int:
        """How many requests have not ended."""
        return len(self._taken) + self._refused

    def first_taken(self, now: float) -> float:
        """When the first of these slots was taken; ``now`` if there is none."""
        return self._taken[0][1] if self._taken else now

    @property
    def unreported(self) -> bool:
        """Whether something ended that is not reported yet."""
        return bool(self._answered or self._unused)

    def take(self, ids: Iterable[str], now: float) -> None:
        """Take slots that were granted."""
        self._taken.extend((slot, now) for slot in ids)

    def refuse(self) -> None:
        """Take the slot from a request that a 429 answered, since the API did not count it. The request ends later."""
        if self._taken:
            self._unused.append(self._taken.popleft()[0])
            self._refused += 1

    def end(self, now: float, *, sent: bool) -> bool:
        """End a request. Returns whether its slot counts from now: not if it was not ``sent``, or was refused."""
        if self._refused and (sent or not self._taken):
            self._refused -= 1
            return False
        slot, _ = self._taken.popleft()
        if sent:
            self._answered.append((slot, now))
        else:
            self._unused.append(slot)
        return sent

    def take_ended(self) -> Ended:
        """Return what ended since the last call, to report it."""
        ended = Ended([*self._answered], self._unused)
        self._answered.clear()
        self._unused = []
        return ended

    def put_back(self, answered: Iterable[tuple[str, float]], unused: Iterable[str]) -> None:
        """Report these again, since Valkey may not have received them."""
        self._answered = deque((*answered, *self._answered), self._answered.maxlen)  # the oldest are forgotten first
        self._unused.extend(unused)
