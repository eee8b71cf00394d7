"""The answers of one process that its account has not learned from yet. Pure.

Which of the requests that the API counted are ours only Valkey knows, as it counts the slots of all processes. So what
an answer says is kept until the reply to the next ask.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ..account import Account, Ours
from .messages import Reply

_REMEMBERED = 100  # answers


class _Heard(NamedTuple):
    """What an answer's headers said. The request was sent after ``busy_since``, and probably not before ``sent``."""

    at: float
    busy_since: float
    sent: float
    limit: int | None
    remaining: int | None


class _Refused(NamedTuple):
    """What a 429 said: the arguments of ``Account.refuse``. ``sent``: as for ``_Heard``."""

    at: float
    sent: float
    limit: int | None
    remaining: int | None
    wait: float
    burst: bool


class Backlog:
    """What the answers said, in their order, and when they came."""

    __slots__ = ("_answers", "_events")

    def __init__(self) -> None:
        self._events: deque[_Heard | _Refused] = deque(maxlen=_REMEMBERED)
        self._answers: deque[float] = deque(maxlen=_REMEMBERED)

    def __bool__(self) -> bool:
        """Whether there is something to learn with ``learn``."""
        return bool(self._events)

    def answered(self, now: float) -> None:
        """A request was answered, with no 429."""
        self._answers.append(now)

    def hear(self, now: float, busy_since: float, sent: float, limit: int | None, remaining: int | None) -> None:
        """An answer's headers said this.

        Args:
            now: When it came.
            busy_since: Since when this process has always had a request in flight.
            sent: When the first of the requests that are in flight now was sent.
            limit: as for ``Account.hear``.
            remaining: as for ``Account.hear``.
        """
        if limit is not None:
            self._events.append(_Heard(now, busy_since, sent, limit, remaining))

    def refuse(
        self, now: float, sent: float, limit: int | None, remaining: int | None, wait: float, *, burst: bool
    ) -> None:
        """A 429 said this. The arguments are those of ``hear`` and ``Account.refuse``."""
        self._events.append(_Refused(now, sent, limit, remaining, wait, burst))

    def busy_since(self, now: float) -> float:
        """After which moment all of the requests were sent whose answers are to be learned from."""
        return min([event.busy_since for event in self._events if isinstance(event, _Heard)], default=now)

    def sent(self, now: float) -> float:
        """When the first of these requests was sent, as far as known."""
        return min([event.sent for event in self._events], default=now)

    def apply_answers(self, account: Account) -> None:
        """Take the steps of the account's ramp for the requests that were answered.

        They stay here until ``forget_answers``, as they are applied again where other processes changed the facts.
        """
        before = account.last_answer
        for at in self._answers:
            account.answered(at)
        if account.last_answer - before < account.windows[0].seconds / 20:
            account.last_answer = before  # not worth telling the others

    def forget_answers(self) -> None:
        """The others know what ``apply_answers`` did."""
        self._answers.clear()

    def learn(self, account: Account, reply: Reply) -> None:
        """Apply what the answers said to the facts that the account has, which are those of ``reply``.

        The answers stay here until ``forget``, as for ``apply_answers``.
        """
        # A request whose answer was heard was counted itself.
        ours = Ours(reply.counted, reply.in_flight, reply.least + 1, reply.most)
        for event in self._events:
            if isinstance(event, _Heard):
                account.hear(event.limit, event.remaining, ours, event.at)
            else:
                # Its slot was given back already. For the account it is among those in flight.
                with_it = ours._replace(in_flight=ours.in_flight + 1)
                account.refuse(
                    event.limit, event.remaining, with_it, event.wait, burst=event.burst, now=event.at
                )  # fmt: skip
        if account.alone:
            # Else each answer would change the facts, and they would have to be told for that alone.
            account.last_count = account.last_answer

    def forget(self) -> None:
        """The account has learned from all that the answers said."""
        self._events.clear()
