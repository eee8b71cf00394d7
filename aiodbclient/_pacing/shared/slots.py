"""How one process asks Valkey for slots and tells it of those that ended.

Valkey keeps the slots of all processes and hands them out (``slots.lua``). It also keeps what the processes know of the
token (``facts.py``). While it does not answer, or has lost its memory, the process hands out slots itself
(``fallback.py``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Sequence
from typing import Any

from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from ...errors import ConfigurationError
from ..account import Account, sliding
from ..window import SlidingWindow, Window
from .backlog import Backlog
from .fallback import Fallback
from .held import Held
from .memory import ForgottenError, Memory
from .messages import Ask, Granted, Reply, micro

logger = logging.getLogger("aiodbclient")

_GRACE = 0.25  # s by which a process may ask later than it said, and still be granted its part
_LATENCY = 1.0  # s; nearly every answer takes less
_TRIES = 5  # of one ask, while other processes change what is known at the same time
_LEARN = Ask(learning=True)


class Slots:
    """The slots of one process, as ``SharedRateBudget`` asks for them.

    Args:
        windows: The token's windows, the shortest first.
        where: Names the server, for the log.
        client: The connection to it, of which this is the only user.
        keys: Its keys there, as ``slots.lua`` lists them.
        share: The part of each window that this process may use while the server does not answer.
        reserve: How many slots bulk calls leave to others.
        timeout: Seconds that the server may take to answer.
    """

    def __init__(
        self,
        windows: tuple[Window, ...],
        where: str,
        client: Valkey,
        keys: Sequence[str],
        *,
        share: float,
        reserve: int,
        timeout: float,
    ) -> None:
        shortest, longest = windows[0].seconds, windows[-1].seconds
        self.account = Account(sliding(windows))
        self.held = Held(windows[-1].limit)
        self.used: tuple[int, ...] = ()  # slots of each window that all processes hold, as last told
        self.longest_pause = shortest / 10  # s between two asks of a process that waits
        self._in_flight = 0  # of all processes, as last told
        self._where = where
        self._client = client
        self._timeout = timeout
        self._memory = Memory(self.account, client, keys, timeout)
        self._backlog = Backlog()
        self._fallback = Fallback(windows, where, share, reserve)
        self._busy_since = 0.0  # since then this process has always had a request in flight
        self._probe = min(1.0, shortest / 20)  # s between two tries while the server does not answer
        self._lease = max(1.0, shortest / 2)
        self._process = ""
        self._asks = 0
        self._closed = False
        # One call at a time: there is one connection, and none is opened while it is being closed.
        self._calling = asyncio.Lock()
        # What every ask says.
        self._terms: dict[str, Any] = {
            "lease": micro(self._lease),
            "latency": micro(min(_LATENCY, self._lease)),
            "recovery": micro(4 * self._probe),
            "longest_pause": micro(self.longest_pause),
            "grace": micro(_GRACE),
            "margin": micro(min(30.0, longest / 10)),
            "share": share,
            "reserve": reserve,
        }

    async def ask(self, ask: Ask) -> Granted:
        """Ask for slots. Answers in bounded time, by Valkey or by the fallback share. Safe to cancel: no slot is lost.

        Raises:
            ConfigurationError: This is closed, or Valkey said at the first contact that it will never answer this
            process.
        """
        if not self.held.ids:
            self._busy_since = time.monotonic()
        reply = await self._call(ask)
        if self._closed:
            if reply is not None:
                self._give_back(reply)
            raise ConfigurationError("this SharedRateBudget is closed")
        if reply is not None:
            return Granted(reply.interactive, reply.bulk, reply.wait, reply.waits)
        granted = self._fallback.grant(ask, self.held.in_flight, self.account.gate)
        self._asks += 1
        many = granted.interactive + granted.bulk
        self.held.take((f"{self._process}:alone:{self._asks}:{n}" for n in range(many)), time.monotonic())
        return granted

    def end(self, *, sent: bool) -> None:
        """A request ended."""
        now = time.monotonic()
        if self.held.end(now, sent=sent):
            self._backlog.answered(now)
            self._fallback.answered(now)
            if self._fallback.active:
                self.account.answered(now)

    def hear(self, limit: int | None, remaining: int | None) -> None:
        """Learn from an answer's headers, with the next ask."""
        now = time.monotonic()
        self._backlog.hear(now, self._busy_since, self.held.first_taken(now), limit, remaining)

    async def refuse(self, limit: int | None, remaining: int | None, wait: float | None, *, burst: bool) -> None:
        """Learn from a 429 whose request has not ended yet, and close the gate for all processes."""
        now = time.monotonic()
        sent = self.held.first_taken(now)
        self.held.refuse()
        if wait is None:
            # Drawn here, so that it is the same however often the 429 is applied to newer facts.
            wait = self.account.gate.backoff(now)
        self._backlog.refuse(now, sent, limit, remaining, wait, burst=burst)
        if await self._call(_LEARN) is None:
            self.account.gate.close(wait, now)

    async def aclose(self) -> None:
        """Tell what ended, and close the connection. An ``ask`` that is under way, or comes later, raises."""
        if self._closed:
            return
        self._closed = True
        try:
            async with self._calling:
                if self.held.untold and time.monotonic() >= self._fallback.until:
                    async with asyncio.timeout(self._timeout):
                        await self._tell_and_ask(Ask())
        except (ValkeyError, OSError):
            pass  # the leases run out
        finally:
            await self._client.aclose()

    async def _call(self, ask: Ask) -> Reply | None:
        """Ask Valkey. Returns None if this process has to go on by itself for now."""
        async with self._calling:
            if self._closed or time.monotonic() < self._fallback.until:
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
                self._fallback.warn(error)
                self._fall_back(self._probe)
                return None
            if reply.recovering > 0:
                self._give_back(reply)  # the script grants none meanwhile; whatever else answers might
                self._wait_for_the_others(reply.recovering)
                return None
            self._fallback.end()
            return reply

    async def _tell_and_ask(self, ask: Ask) -> Reply:
        """Tell what ended and ask for slots, then tell what the account learned from that. Raises ValkeyError, OSError.

        If other processes changed the facts in between, these are taken over first, and it is asked again.
        """
        learns_first = bool(self._backlog) and not self.account.alone
        if learns_first:
            # What the answers say of others is to count for this ask already, as it would in one process.
            self._backlog.learn(self.account, await self._run(_LEARN))
        tries = 0
        while True:
            if not self._in_flight and ask.interactive + ask.bulk > 0:
                self.account.starts(time.monotonic())
            self._backlog.apply_answers(self.account)
            reply = await self._run(ask)
            tries += 1
            if not reply.stale or tries == _TRIES:
                break
            if learns_first:
                self._backlog.learn(self.account, reply)
        if not reply.stale:
            self._backlog.forget_answers()
            if learns_first:
                self._backlog.forget()
                return reply
        try:
            await self._learn_and_tell(reply)
        except BaseException:
            self._give_back(reply)
            raise
        return reply

    async def _learn_and_tell(self, reply: Reply) -> None:
        self._backlog.learn(self.account, reply)
        for _ in range(_TRIES):
            if self._memory.knows_all:
                break
            reply = await self._run(_LEARN)
            if not reply.stale:
                break
            self._backlog.learn(self.account, reply)
        self._backlog.forget()

    async def _run(self, ask: Ask) -> Reply:
        """Run the script once, and take over what it replies. Whatever happens, no slot is lost and nothing untold."""
        now = time.monotonic()
        # Not in __init__: processes that were forked from one another would have the same name.
        self._process = self._process or secrets.token_hex(6)
        self._asks += 1
        batch = f"{self._process}:{self._asks}"
        ended = self.held.take_ended()
        gate = self.account.gate
        details = self._terms | {
            "process": self._process,
            "batch": batch,
            "windows": [_described(window, now) for window in self.account.windows],
            "closed": micro(max(0.0, gate.until - now)),
            "at_most": -1 if math.isinf(gate.at_most) else gate.at_most,
            "answered": [{"id": slot, "age": micro(now - at)} for slot, at in ended.answered],
            "unused": ended.unused,
            "held": self.held.ids if self._fallback.active else [],
            "used": self._fallback.used(now) + self.held.in_flight,
            "sent": micro(min(now - self._backlog.sent(now), 30.0)),
            "busy": micro(min(now - self._backlog.busy_since(now), 30.0)),
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
        except ForgottenError:
            self.held.put_back(ended.answered, ())
            raise
        except BaseException:
            # The script may have run all the same. So its slots are given back, and what ended is told again.
            granted = [f"{batch}:{n + 1}" for n in range(ask.interactive + ask.bulk)]
            self.held.put_back(ended.answered, [*ended.unused, *granted])
            raise
        slots = (f"{batch}:{n + 1}" for n in range(reply.interactive + reply.bulk))
        self.held.take(slots, time.monotonic())
        self.used, self._in_flight = reply.used, reply.in_flight
        return reply

    def _give_back(self, reply: Reply) -> None:
        for _ in range(reply.interactive + reply.bulk):
            self.end(sent=False)

    def _tell_all_again(self, forgotten: ForgottenError) -> None:
        logger.info("%s has lost the rate budget's memory: telling it again", self._where)
        self._memory.forget(forgotten.epoch)
        self._fall_back(self._probe)
        answers = self._fallback.answers(time.monotonic())
        self.held.replace_answered((f"{self._process}:again:{n}", at) for n, at in enumerate(answers))

    def _wait_for_the_others(self, recovering: float) -> None:
        """Go on by itself until all processes have told Valkey again what it forgot."""
        self._fall_back(min(recovering, self._probe))
        if recovering <= self._probe:
            # What went now would not be known when the others go on.
            self.account.gate.until = max(self.account.gate.until, self._fallback.until)

    def _fall_back(self, seconds: float) -> None:
        limits = [window.limit for window in self.account.windows]
        self._fallback.begin(seconds, limits, self.used, self._memory.told, self.held.in_flight)


def _described(window: SlidingWindow, now: float) -> dict[str, Any]:
    described: dict[str, Any] = {"limit": window.limit, "length": micro(window.seconds), "others": 0}
    if others := window.others.at(now):
        opens = window.others.falls_to(others - 1)
        described |= {"others": others, "opens": micro(max(0.0, opens - now))}
    return described
