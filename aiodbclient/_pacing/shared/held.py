"""The slots that one process holds, and those that have ended and Valkey does not know of yet. Pure."""

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

    A slot belongs to no certain request: where one ends, that is the one that was taken first. Valkey hears of it with
    the next ask. Until then the slot is leased, for longer than a request takes, so it is never free too early.

    Args:
        most: How many answered requests are remembered until Valkey knows of them.
    """

    __slots__ = ("_answered", "_refused", "_taken", "_unused")

    def __init__(self, most: int) -> None:
        self._taken: deque[tuple[str, float]] = deque()  # of requests that are not answered, and when they were taken
        self._refused = 0  # requests that a 429 answered, and that have not ended yet: they have no slot any more
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
    def untold(self) -> bool:
        """Whether something ended that Valkey does not know of."""
        return bool(self._answered or self._unused)

    def take(self, ids: Iterable[str], now: float) -> None:
        """Take slots that were granted."""
        self._taken.extend((slot, now) for slot in ids)

    def refuse(self) -> None:
        """A 429 answered a request, which will end soon. The API did not count it."""
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
        """What ended since the last time, to tell it to Valkey."""
        ended = Ended([*self._answered], self._unused)
        self._answered.clear()
        self._unused = []
        return ended

    def put_back(self, answered: Iterable[tuple[str, float]], unused: Iterable[str]) -> None:
        """Valkey may not have heard of these: tell them again."""
        self._answered.extendleft(reversed([*answered]))
        self._unused.extend(unused)

    def replace_answered(self, answered: Iterable[tuple[str, float]]) -> None:
        """Tell these the next time, and no others."""
        self._answered.clear()
        self._answered.extend(answered)
