"""The facts about a token that processes share through Valkey: what each window holds, the gate, the last answer. Pure.

Each fact carries the time of its last change, and the newer one wins. A closed gate counts as changed when it opens, so
the gate that is closed for longest wins. Times are in seconds of Valkey's clock, ``offset`` seconds ahead of ours.
"""

from __future__ import annotations

import json
import math
from collections import deque

from attrs import asdict, evolve, frozen

from ..account import Account
from ..window import SlidingWindow
from .messages import Moment, structure

_NEVER = Moment(-math.inf)


@frozen
class _Window:
    changed: Moment
    limit: int
    level: int
    since: float
    sure: bool
    seen: tuple[tuple[float, float, float], ...]

    def shifted(self, by: float) -> _Window:
        seen = tuple((begin + by, to + by, count) for begin, to, count in self.seen)
        return evolve(self, changed=Moment(self.changed + by), since=self.since + by, seen=seen)


@frozen
class _Gate:
    changed: Moment
    until: Moment
    at_most: int | None  # None: any number
    strikes: int

    def shifted(self, by: float) -> _Gate:
        return evolve(self, changed=Moment(self.changed + by), until=Moment(self.until + by))


@frozen
class _Shared:
    windows: tuple[_Window, ...]
    gate: _Gate
    last_answer: Moment


class Facts:
    """The facts as this process knows them, taken from its account and brought together with those of others.

    Attributes:
        unsent: Whether something changed here that Valkey has not stored.
    """

    __slots__ = ("_account", "_gate", "_last_answer", "_windows", "unsent")

    def __init__(self, account: Account) -> None:
        self.unsent = False
        self._account = account
        self._windows = [_fact(window, _NEVER) for window in account.windows]
        self._gate = _gate(account, _NEVER)
        self._last_answer = _NEVER

    def note(self, now: float) -> bool:
        """Note which facts have changed in the account. Returns whether some are not stored in Valkey yet."""
        account = self._account
        for n, window in enumerate(account.windows):
            if _fact(window, self._windows[n].changed) != self._windows[n]:
                self._windows[n] = _fact(window, Moment(now))
                self.unsent = True
        if _gate(account, self._gate.changed) != self._gate:
            self._gate = _gate(account, Moment(max(now, account.gate.until)))
            self.unsent = True
        if account.last_answer - self._last_answer >= account.windows[0].seconds / 20:  # less is not worth an update
            self._last_answer = Moment(account.last_answer)
            self.unsent = True
        return self.unsent

    def dump(self, offset: float) -> str:
        """The facts as JSON."""
        shared = _Shared(
            tuple(window.shifted(offset) for window in self._windows),
            self._gate.shifted(offset),
            Moment(self._last_answer + offset),
        )
        return json.dumps(asdict(shared, value_serializer=lambda _, __, value: None if value == _NEVER else value))

    def merge(self, text: str, offset: float) -> None:
        """Take over from ``text`` each fact that is newer than ours, into the account too.

        Raises what ``read_reply`` raises for nonsense, and then takes over nothing.
        """
        shared = structure(json.loads(text), _Shared)
        if len(shared.windows) != len(self._windows):
            raise ValueError("other windows")
        account = self._account
        for n, (window, theirs) in enumerate(zip(account.windows, shared.windows, strict=True)):
            fact = theirs.shifted(-offset)
            if fact.changed > self._windows[n].changed:
                self._windows[n] = fact
                window.limit = max(1, fact.limit)
                others = window.others
                others.level, others.since, others.sure = fact.level, fact.since, fact.sure
                others.seen = deque(fact.seen)
                account.last_count = max(account.last_count, fact.changed)
        gate = shared.gate.shifted(-offset)
        if gate.changed > self._gate.changed:
            self._gate = gate
            account.gate.until, account.gate.strikes = gate.until, gate.strikes
            account.gate.at_most = math.inf if gate.at_most is None else gate.at_most
        self._last_answer = Moment(max(self._last_answer, shared.last_answer - offset))
        account.last_answer = max(account.last_answer, self._last_answer)
        account.alone = account.alone and not any(window.others.level for window in account.windows)


def _fact(window: SlidingWindow, changed: Moment) -> _Window:
    others = window.others
    return _Window(changed, window.limit, others.level, others.since, others.sure, tuple(others.seen))


def _gate(account: Account, changed: Moment) -> _Gate:
    gate = account.gate
    at_most = None if math.isinf(gate.at_most) else int(gate.at_most)
    return _Gate(changed, Moment(gate.until), at_most, gate.strikes)
