"""One process's part of the slots that a token's processes share: what it holds, and how it asks for more.

Valkey keeps the slots and hands them out (``slots.lua``). It also keeps what the processes know of the token
(``facts.py``).

What ended here is told with the next ask: until then a slot is leased for longer than a request takes, so it is never
free too early. While Valkey does not answer, or has lost its memory, the process hands out slots itself (``alone.py``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import deque
from typing import Any, NamedTuple

from attrs import define, field
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from ...errors import ConfigurationError
from ..account import Account, Ours, sliding
from ..window import SlidingWindow, Window
from .alone import Alone, alone
from .memory import ForgottenError, Memory
from .messages import Ask, Granted, Reply, micro

logger = logging.getLogger("aiodbclient")

# s by which a process may ask later than it was told to, and still keep its claim to a share.
_PATIENCE = 0.25
_LATENCY = 1.0  # s; nearly every answer takes less
_TRIES = 5  # of one ask, while other processes change what is known at the same time
_REMEMBERED = 100  # answers that wait to be judged
_LEARN = Ask(learning=True)


class _Heard(NamedTuple):
    """An answer that the account has not learned from yet. ``busy_since``: it was sent after that."""

    at: float
    busy_since: float
    limit: int | None
    remaining: int | None


class _Refused(NamedTuple):
    at: float
    limit: int | None
    remaining: int | None
    wait: float | None
    burst: bool


@define(eq=False)
class Slots:
    """The slots of one process."""

    windows: tuple[Window, ...]
    where: str
    _client: Valkey = field(repr=False)
    _keys: tuple[str, ...]
    _share: float
    _reserve: int
    _timeout: float

    account: Account = field(init=False, repr=False)
    used: tuple[int, ...] = field(init=False, default=())  # by all, as last told
    longest_pause: float = field(init=False)
    _memory: Memory = field(init=False, repr=False)
    _alone: Alone = field(init=False, repr=False)
    _probe: float = field(init=False)
    _lease: float = field(init=False)
    # One call at a time, so that there is one connection and none that opens while it is being closed.
    _calling: asyncio.Lock = field(init=False, repr=False, factory=asyncio.Lock)

    _process: str = field(init=False, default="")
    _asks: int = field(init=False, default=0)
    _held: deque[str] = field(init=False, repr=False, factory=deque)  # in flight
    _busy_since: float = field(init=False, default=0.0)
    _done: deque[tuple[str, float]] = field(init=False, repr=False)  # answered and not told yet
    _unused: list[str] = field(init=False, repr=False, factory=list)
    _refused: int = field(init=False, default=0)  # answered with 429, and not ended yet: without a slot
    _in_flight: int = field(init=False, default=0)  # of all, as last told
    _events: deque[_Heard | _Refused] = field(init=False, repr=False)  # not learned from yet
    _answers: deque[float] = field(init=False, repr=False)  # when, as the account has not learned yet
    _closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        shortest, longest = self.windows[0], self.windows[-1]
        self.account = Account(sliding(self.windows))
        self._memory = Memory(self.account, self._client, self._keys, self._timeout)
        self._alone = alone(self.windows, self.where, self._share, self._reserve)
        self._done = deque(maxlen=longest.limit)
        self._events, self._answers = deque(maxlen=_REMEMBERED), deque(maxlen=_REMEMBERED)
        self.longest_pause = shortest.seconds / 10
        self._probe = min(1.0, shortest.seconds / 20)
        self._lease = max(1.0, shortest.seconds / 2)

    @property
    def in_flight(self) -> int:
        return len(self._held) + self._refused

    @property
    def untold(self) -> bool:
        """Something ended of which Valkey has not heard."""
        return bool(self._done or self._unused)

    async def ask(self, ask: Ask) -> Granted:
        """Ask for slots. Answers in bounded time, from Valkey or alone. Cancelling leaks none.

        Raises ConfigurationError after ``aclose``, and where Valkey says at the first contact that it will never answer
        this process.
        """
        if not self._held:
            self._busy_since = time.monotonic()
        reply = await self._call(ask)
        if self._closed:
            if reply is not None:
                self._give_back(reply)
            raise ConfigurationError("this SharedRateBudget is closed")
        if reply is not None:
            return Granted(reply.interactive, reply.bulk, reply.wait, reply.waits)
        granted = self._alone.grant(ask, self.in_flight, self.account.gate)
        self._asks += 1
        self._held.extend(f"{self._process}:alone:{self._asks}:{n}" for n in range(granted.interactive + granted.bulk))
        return granted

    async def refuse(self, limit: int | None, remaining: int | None, wait: float | None, *, burst: bool) -> None:
        """A 429 came, of a request that has not ended yet: nobody gets a slot for a while."""
        now = time.monotonic()
        if self._held:
            self._unused.append(self._held.popleft())  # the API did not count it
            self._refused += 1
        if wait is None:
            # Drawn here, so that it is the same however often this event is applied to newer facts.
            wait = self.account.gate.backoff(now)
        self._events.append(_Refused(now, limit, remaining, wait, burst))
        if await self._call(_LEARN) is None:
            self.account.gate.close(wait, now)

    def end(self, *, sent: bool) -> None:
        """A request ended. Which of the slots in flight it had does not matter: the others' leases are longer."""
        if self._refused and (sent or not self._held):
            self._refused -= 1
            return
        slot, now = self._held.popleft(), time.monotonic()
        if not sent:
            self._unused.append(slot)
            return
        self._answers.append(now)
        if self._alone.active:
            self.account.answered(now)
        self._done.append((slot, now))
        self._alone.sent(now)

    def hear(self, limit: int | None, remaining: int | None) -> None:
        """Remember what an answer's headers said until the next ask, which tells what is ours of it."""
        if limit is not None:
            self._events.append(_Heard(time.monotonic(), self._busy_since, limit, remaining))

    async def aclose(self) -> None:
        """Tell what ended, and close the connection. Asks that are under way or come later raise ConfigurationError."""
        if self._closed:
            return
        self._closed = True
        try:
            async with self._calling:
                if self.untold and time.monotonic() >= self._alone.until:
                    async with asyncio.timeout(self._timeout):
                        await self._tell_and_ask(Ask())
        except (ValkeyError, OSError):
            pass  # the leases run out
        finally:
            await self._client.aclose()

    async def _call(self, ask: Ask) -> Reply | None:
        """Run the script; None where this process is to go on alone for now."""
        async with self._calling:
            if self._closed or time.monotonic() < self._alone.until:
                return None
            try:
                async with asyncio.timeout(self._timeout):
                    try:
                        reply = await self._tell_and_ask(ask)
                    except ForgottenError as error:
                        self._tell_all_again(error)
                        reply = await self._tell_and_ask(ask)
            except ForgottenError:
                self._wait_for_the_others(0.0)
                return None
            except (ValkeyError, OSError) as error:  # a TimeoutError is an OSError
                self._alone.warn(error)
                self._go_alone(self._probe)
                return None
            if reply.settling > 0:
                self._give_back(reply)  # an honest one grants nothing meanwhile
                self._wait_for_the_others(reply.settling)
                return None
            self._alone.end()
            return reply

    async def _tell_and_ask(self, ask: Ask) -> Reply:
        """Tell what ended and ask for slots, then tell what the account learned from that. Raises ValkeyError, OSError.

        Where other processes changed what is known in between, that is taken over first, and it is asked again.
        """
        judged = bool(self._events) and not self.account.quiet
        if judged:
            # What they say of others is to count for this ask already, as it would in one process.
            self._learn(await self._run(_LEARN))
        tries = 0
        while True:
            self._apply_answers(starting=not self._in_flight and ask.interactive + ask.bulk > 0)
            reply = await self._run(ask)
            tries += 1
            if not reply.stale or tries == _TRIES:
                break
            if judged:
                self._learn(reply)
        if not reply.stale:
            self._answers.clear()
        if judged and not reply.stale:
            self._events.clear()
            return reply
        try:
            await self._tell_what_was_learned(reply)
        except BaseException:
            self._give_back(reply)
            raise
        return reply

    async def _tell_what_was_learned(self, reply: Reply) -> None:
        self._learn(reply)
        for _ in range(_TRIES):
            if self._memory.knows_all:
                break
            told = await self._run(_LEARN)
            if not told.stale:
                break
            self._learn(told)
        self._events.clear()

    def _apply_answers(self, *, starting: bool) -> None:
        account = self.account
        heard, now = account.heard, time.monotonic()
        if starting:
            account.starts(now)
        for at in self._answers:
            account.answered(at)
        if account.heard - heard < self.windows[0].seconds / 20:
            account.heard = heard  # not worth telling

    def _learn(self, reply: Reply) -> None:
        """Apply the events to the newest facts. Without any of others there is nothing that only time would change."""
        account = self.account
        # An answer that was heard was itself counted.
        ours = Ours(reply.used, reply.in_flight, reply.least + 1, reply.most)
        for event in self._events:
            if isinstance(event, _Heard):
                account.hear(event.limit, event.remaining, ours, event.at)
            else:
                # Its slot was given back, so that it is not among those in flight any more.
                in_flight = ours.in_flight + 1
                account.refuse(
                    event.limit, event.remaining, ours._replace(in_flight=in_flight), event.wait,
                    burst=event.burst, now=event.at,
                )  # fmt: skip
        if account.quiet:
            account.compared = account.heard

    async def _run(self, ask: Ask) -> Reply:
        """Run the script once, and take over what it tells."""
        now = time.monotonic()
        # Not in __init__: processes that were forked from one another would have one name.
        self._process = self._process or secrets.token_hex(6)
        self._asks += 1
        batch = f"{self._process}:{self._asks}"
        done, self._done = self._done, deque(maxlen=self._done.maxlen)
        unused, self._unused = self._unused, []
        gate = self.account.gate
        busy_since = min([event.busy_since for event in self._events if isinstance(event, _Heard)], default=now)
        longest = self.windows[-1].seconds
        details: dict[str, Any] = {
            "process": self._process,
            "batch": batch,
            "windows": [_told(window, now) for window in self.account.windows],
            "closed": micro(max(0.0, gate.until - now)),
            "at_most": -1 if math.isinf(gate.at_most) else gate.at_most,
            "lease": micro(self._lease),
            "latency": micro(min(_LATENCY, self._lease)),
            "settle": micro(4 * self._probe),
            "longest_pause": micro(self.longest_pause),
            "patience": micro(_PATIENCE),
            "share": self._share,
            "reserve": self._reserve,
            "done": [{"id": slot, "age": micro(now - at)} for slot, at in done],
            "unused": unused,
            "held": list(self._held) if self._alone.active else [],
            "used": self._alone.used(now) + self.in_flight,
            "busy": micro(now - max(busy_since, now - 30.0)),
            "margin": micro(min(30.0, longest / 10)),
            "interactive": ask.interactive,
            "bulk": ask.bulk,
            "places": [
                {"place": place.place, "bulk": place.bulk, "patience": micro(min(max(place.patience, 0.0), 1e6))}
                for place in ask.places
            ],
            "wants": not ask.learning,
        }
        try:
            reply = await self._memory.run(ask, details)
        except BaseException as error:
            self._done.extendleft(reversed(done))
            if not isinstance(error, ForgottenError):
                # It may have run all the same, so that its slots are taken: they go back, and what it told is told
                # again.
                self._unused += [*unused, *(f"{batch}:{n + 1}" for n in range(ask.interactive + ask.bulk))]
            raise
        self._held.extend(f"{batch}:{n + 1}" for n in range(reply.interactive + reply.bulk))
        self.used, self._in_flight = reply.used, reply.in_flight
        return reply

    def _give_back(self, reply: Reply) -> None:
        for _ in range(reply.interactive + reply.bulk):
            self.end(sent=False)

    def _tell_all_again(self, forgotten: ForgottenError) -> None:
        logger.info("%s has lost the rate budget's memory: telling it again", self.where)
        self._memory.forget(forgotten.epoch)
        self._go_alone(self._probe)
        self._done.clear()
        answers = self._alone.answers(time.monotonic())
        self._done.extend((f"{self._process}:again:{n}", at) for n, at in enumerate(answers))

    def _wait_for_the_others(self, settling: float) -> None:
        """Go alone until all processes have told Valkey again what it forgot."""
        self._go_alone(min(settling, self._probe))
        if settling <= self._probe:
            # What went now would not be known when the others go on.
            self.account.gate.until = max(self.account.gate.until, self._alone.until)

    def _go_alone(self, seconds: float) -> None:
        limits = [window.limit for window in self.account.windows]
        self._alone.begin(seconds, limits, self.used, self._memory.told, self.in_flight)


def _told(window: SlidingWindow, now: float) -> dict[str, Any]:
    told: dict[str, Any] = {"limit": window.limit, "length": micro(window.seconds), "others": 0}
    if others := window.others.at(now):
        told |= {"others": others, "opens": micro(max(0.0, window.others.falls_to(others - 1) - now))}
    return told
