"""How one process asks Valkey for slots, and reports the slots that ended.

Valkey stores the slots of all processes and hands them out (``slots.lua``). It also stores what the processes know
about the token (``facts.py``). While Valkey does not answer, or has lost its memory, the process hands out slots itself
(``fallback.py``).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from ...errors import ConfigurationError
from ..account import Account, Ours, sliding
from ..window import Window
from .fallback import Fallback
from .held import Held
from .messages import Ask, ForgottenError, Granted, Reply, micro
from .script import Script

logger = logging.getLogger("aiodbclient")

_GRACE = 0.25  # s by which a process may ask later than it said, and still be granted its part
_LATENCY = 1.0  # s; nearly every answer takes less
_TRIES = 5  # of one ask, while other processes change the facts at the same time
_REMEMBERED = 100  # answers that the account has not learned from
_SYNC = Ask(sync=True)


class _Answer(NamedTuple):
    """What an answer's headers said.

    Its request was sent after ``busy_since``, and probably not before ``sent``. ``wait`` and ``burst`` are those of
    ``Account.refuse`` if it was a 429.
    """

    at: float
    busy_since: float
    sent: float
    limit: int | None
    remaining: int | None
    wait: float | None = None
    burst: bool = False


class Slots:
    """The slots of one process, as ``SharedRateBudget`` asks for them.

    Args:
        windows: The token's windows, the shortest first.
        where: Names the server, for the log.
        client: The connection to it. Nothing else may use it.
        keys: Its keys there, as ``slots.lua`` lists them.
        share: The part of each window that this process may use while the server does not answer.
        reserve: How many slots bulk calls leave free for other calls.
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
        self.used: tuple[int, ...] = ()  # slots of each window that all processes hold, by the last reply
        self.longest_pause = shortest / 10  # s between two asks of a process that waits
        self._in_flight = 0  # of all processes, by the last reply
        self._where = where
        self._client = client
        self._timeout = timeout
        self._script = Script(self.account, client, keys, timeout)
        self._answers: list[_Answer] = []  # which of the requests the API counted are ours, only Valkey knows
        self._fallback = Fallback(windows, where, share, reserve)
        self._returning: asyncio.Task[None] | None = None
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
        """Ask for slots, of Valkey or of the fallback share. Takes a bounded time. Safe to cancel: no slot is lost.

        Raises:
            ConfigurationError: This is closed, or Valkey refused this process for good at the first contact.
        """
        if not self.held.ids:
            self._busy_since = time.monotonic()
        reply = None if self._fallback.active else await self._call(ask)
        if self._closed:
            if reply is not None:
                self._give_back(reply)
            raise ConfigurationError("this SharedRateBudget is closed")
        if reply is not None:
            return reply
        self._keep_returning()
        granted = self._fallback.grant(ask, self.held.in_flight, self.account.gate)
        self._asks += 1
        many = granted.interactive + granted.bulk
        self.held.take((f"{self._process}:alone:{self._asks}:{n}" for n in range(many)), time.monotonic())
        return granted

    def end(self, *, sent: bool) -> None:
        """End a request."""
        now = time.monotonic()
        if self.held.end(now, sent=sent):
            self._fallback.answered(now)
            self.account.answered(now)

    def observe(self, limit: int | None, remaining: int | None) -> None:
        """Learn from an answer's headers, with the next reply of Valkey."""
        if limit is not None and remaining is not None and len(self._answers) < _REMEMBERED:
            now = time.monotonic()
            self._answers.append(_Answer(now, self._busy_since, self.held.first_taken(now), limit, remaining))

    async def refuse(self, limit: int | None, remaining: int | None, wait: float | None, *, burst: bool) -> None:
        """Learn from a 429 whose request has not ended yet, and close the gate for all processes."""
        now = time.monotonic()
        sent = self.held.first_taken(now)
        self.held.refuse()
        if wait is None:
            wait = self.account.gate.backoff(now)
        self._answers.append(_Answer(now, now, sent, limit, remaining, wait, burst))
        if self._fallback.active or await self._call(_SYNC) is None:
            self.account.gate.close(wait, now)

    async def aclose(self) -> None:
        """Report what ended, and close the connection. An ``ask`` that is under way, or comes later, raises."""
        if self._closed:
            return
        self._closed = True
        if self._returning is not None:
            self._returning.cancel()
        try:
            async with self._calling:
                if self.held.unreported and not self._fallback.active:
                    async with asyncio.timeout(self._timeout):
                        await self._run(Ask())
        except (ValkeyError, ForgottenError, OSError):
            pass  # the leases run out
        finally:
            await self._client.aclose()

    async def _call(self, ask: Ask) -> Reply | None:
        """Ask Valkey. Returns None if this process has to go on by itself for now."""
        async with self._calling:
            if self._closed:
                return None
            age = time.monotonic() - self._script.replied
            try:
                async with asyncio.timeout(self._timeout):
                    try:
                        reply = await self._ask_and_learn(ask)
                    except ForgottenError as error:
                        self._report_all_again(error, age)
                        reply = await self._ask_and_learn(ask)
            except ForgottenError:
                self._go_on_alone(self._probe, age)
                return None
            except (ValkeyError, OSError) as error:  # a TimeoutError is an OSError
                self._fallback.warn(error)
                self._go_on_alone(self._probe, age)
                return None
            if reply.recovering > 0:
                self._give_back(reply)  # the script grants none meanwhile; whatever else answers might
                self._go_on_alone(min(reply.recovering, self._probe), age)
                # What went in the end would not be known when the others go on.
                self._fallback.paused = reply.recovering <= self._probe
                return None
            self._fallback.end()
            return reply

    async def _ask_and_learn(self, ask: Ask) -> Reply:
        """Ask for slots, let the account learn from answers, and send the others what it learned."""
        if self._answers and not self.account.alone:
            # First, so that what they say about others counts for this ask already, as it would in one process.
            await self._run_and_learn(_SYNC)
        if not self._in_flight and ask.interactive + ask.bulk > 0:
            self.account.starts(time.monotonic())
        reply = await self._run_and_learn(ask)
        if self._script.facts.note(time.monotonic()):
            try:
                await self._run(_SYNC)
            except BaseException:
                self._give_back(reply)
                raise
        return reply

    async def _run_and_learn(self, ask: Ask) -> Reply:
        answers = [*self._answers]  # more may come meanwhile
        reply = await self._run(ask)
        del self._answers[: len(answers)]
        # A request whose answer came was counted itself.
        ours = Ours(reply.counted, reply.in_flight, reply.least + 1, reply.most)
        # The slot of a refused request was given back already. For the account it is among those in flight.
        with_it = ours._replace(in_flight=ours.in_flight + 1)
        for at, _, _, limit, remaining, wait, burst in answers:
            if wait is None:
                self.account.hear(limit, remaining, ours, at)
            else:
                self.account.refuse(limit, remaining, with_it, wait, burst=burst, now=at)
        return reply

    async def _run(self, ask: Ask) -> Reply:
        """Run the script, and run it again if other processes changed the facts in between."""
        for _ in range(_TRIES - 1):
            reply = await self._run_once(ask)
            if not reply.stale:
                return reply
        return await self._run_once(ask)

    async def _run_once(self, ask: Ask) -> Reply:
        """Run the script once. If it fails, no slot is lost, and what ended is reported again."""
        now = time.monotonic()
        # Not in __init__: processes that were forked from one another would have the same name.
        self._process = self._process or secrets.token_hex(6)
        self._asks += 1
        batch = f"{self._process}:{self._asks}"
        ended = self.held.take_ended()
        fallback = self._fallback
        sent = min((answer.sent for answer in self._answers), default=now)
        busy_since = min((answer.busy_since for answer in self._answers), default=now)
        report = self._terms | {
            "process": self._process,
            "batch": batch,
            "answered": [{"id": slot, "age": micro(now - at)} for slot, at in ended.answered],
            "unused": ended.unused,
            "held": self.held.ids if fallback.active else [],
            "alone": micro(now - fallback.since) if fallback.active else 0,
            "used": fallback.used(now) + self.held.in_flight,
            "sent": micro(min(now - sent, 30.0)),
            "busy": micro(min(now - busy_since, 30.0)),
        }
        try:
            reply = await self._script.run(ask, report)
        except BaseException:
            # The script may have run all the same. So its slots are given back, and what ended is reported again.
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

    def _report_all_again(self, forgotten: ForgottenError, age: float) -> None:
        logger.info("%s has lost the rate budget's memory: reporting all slots again", self._where)
        self._script.start_over(forgotten.epoch)
        self._go_on_alone(self._probe, age)
        answers = self._fallback.answers(time.monotonic())
        self.held.take_ended()  # the answered ones are in ``answers``, and Valkey forgot the unused ones
        self.held.put_back([(f"{self._process}:again:{n}", at) for n, at in enumerate(answers)], ())

    def _go_on_alone(self, seconds: float, age: float) -> None:
        """Use the fallback share, and ask Valkey again after ``seconds``. ``age`` is as for ``Fallback.begin``."""
        limits = [window.limit for window in self.account.windows]
        self._fallback.begin(seconds, limits, self.used, self.held.in_flight, age)
        self._keep_returning()

    def _keep_returning(self) -> None:
        if self._fallback.active and (self._returning is None or self._returning.done()):
            self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        """Ask Valkey until it answers, even if no call waits, so that it counts what this process sent meanwhile."""
        while self._fallback.active:
            await asyncio.sleep(self._fallback.probe)
            try:
                await self._call(_SYNC)
            except ConfigurationError:
                self._fallback.active = False  # the next ask raises it
