"""One process's part of the slots that a token's processes share: what it holds, and how it asks Valkey for more.

Valkey keeps the slots and hands them out (``slots.lua``). It also keeps what the processes know of the token
(``facts.py``).

What ended here is told with the next ask: until then a slot is leased for longer than a request takes, so it is never
free too early. While Valkey does not answer, or has lost its memory, the process hands out slots itself: of each window
the share that it may use alone, in which everything that it sent before counts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple, Protocol, cast

from attrs import define, field, frozen
from valkey.asyncio import Valkey
from valkey.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError, ValkeyError

from ...errors import ConfigurationError
from ..account import Account, Ours, sliding
from ..others import Others
from ..window import SlidingWindow, Window
from .facts import MICROSECONDS, dump, load, micro

logger = logging.getLogger("aiodbclient")

_SCRIPT = files("aiodbclient._pacing.shared").joinpath("slots.lua").read_text("utf-8")
# s by which a process may ask later than it was told to, and still keep its claim to a share.
_PATIENCE = 0.25
_LATENCY = 1.0  # s; nearly every answer takes less
_TRIES = 5  # of one ask, while other processes change what is known at the same time
_REMEMBERED = 100  # answers that wait to be judged
_WARN_AGAIN = 60.0  # s between two warnings of one permanent mistake
_MISTAKES = ("NOAUTH", "WRONGPASS", "NOPERM", "ACL failure", "no permissions")


class _Script(Protocol):
    async def __call__(self, keys: Sequence[str], args: Sequence[str]) -> str: ...


class Place(NamedTuple):
    """A place in this process's queue: 1 for the first. It leaves if it would wait for over ``patience`` s."""

    place: int
    bulk: bool
    patience: float


@frozen
class Granted:
    """How many slots were handed out, after how many seconds to ask for more, and how many each place would wait."""

    interactive: int
    bulk: int
    wait: float
    waits: Sequence[float]


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
    _keys: tuple[str, ...] = field(repr=False)
    _share: float
    _reserve: int
    _timeout: float

    account: Account = field(init=False, repr=False)
    used: tuple[int, ...] = field(init=False, default=())  # by all, as last told
    _told: float = field(init=False, default=0.0)  # when that was
    longest_pause: float = field(init=False)
    _own: tuple[SlidingWindow, ...] = field(init=False, repr=False)  # what this process sent
    _probe: float = field(init=False)
    _lease: float = field(init=False)
    _script: _Script = field(init=False, repr=False)
    # One call at a time, so that there is one connection and none that opens while it is being closed.
    _calling: asyncio.Lock = field(init=False, repr=False, factory=asyncio.Lock)

    _process: str = field(init=False, default="")
    _epoch: str = field(init=False, default="")
    _asks: int = field(init=False, default=0)
    _held: deque[str] = field(init=False, repr=False, factory=deque)  # in flight
    _busy_since: float = field(init=False, default=0.0)
    _done: deque[tuple[str, float]] = field(init=False, repr=False)  # answered and not told yet
    _unused: list[str] = field(init=False, repr=False, factory=list)
    _refused: int = field(init=False, default=0)  # answered with 429, and not ended yet: without a slot
    _in_flight: int = field(init=False, default=0)  # of all, as last told

    _facts: str = field(init=False, default="")  # as Valkey has them
    _version: int = field(init=False, default=0)
    _round_trip: float = field(init=False, default=math.inf)  # s, of the ask that told the offset
    _offset: float = field(init=False, default=0.0)  # s by which the server's clock is ahead of ours
    _events: deque[_Heard | _Refused] = field(init=False, repr=False)  # not learned from yet

    _answers: deque[float] = field(init=False, repr=False)  # when, as the account has not learned yet

    _alone_until: float = field(init=False, default=0.0)
    _alone: bool = field(init=False, default=False)
    _was_shared: bool = field(init=False, default=False)
    _warned: float = field(init=False, default=-math.inf)
    _closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        shortest, longest = self.windows[0], self.windows[-1]
        self.account = Account(sliding(self.windows))
        self._own = tuple(SlidingWindow(w.limit, w.seconds, Others(w.seconds, steady=False)) for w in self.windows)
        self._done = deque(maxlen=longest.limit)
        self._events, self._answers = deque(maxlen=_REMEMBERED), deque(maxlen=_REMEMBERED)
        self.longest_pause = shortest.seconds / 10
        self._probe = min(1.0, shortest.seconds / 20)
        self._lease = max(1.0, shortest.seconds / 2)
        # redis-py's types, which valkey inherited, do not say that this is a coroutine function.
        self._script = cast(_Script, self._client.register_script(_SCRIPT))

    @property
    def in_flight(self) -> int:
        return len(self._held) + self._refused

    @property
    def untold(self) -> bool:
        """Something ended of which Valkey has not heard."""
        return bool(self._done or self._unused)

    async def ask(self, interactive: int, bulk: int, places: Sequence[Place] = ()) -> Granted:
        """Ask for slots for so many that wait. Answers in bounded time, from Valkey or alone. Cancelling leaks none.

        Raises ConfigurationError after ``aclose``, and where Valkey says at the first contact that it will never answer
        this process.
        """
        if not self._held:
            self._busy_since = time.monotonic()
        reply = await self._call(interactive, bulk, places)
        if self._closed:
            for _ in range(reply["interactive"] + reply["bulk"] if reply else 0):
                self.end(sent=False)
            raise ConfigurationError("this SharedRateBudget is closed")
        if reply is None:
            return self._grant_alone(interactive, bulk, places)
        waits = [wait / MICROSECONDS for wait in reply["waits"]] or [0.0] * len(places)
        return Granted(reply["interactive"], reply["bulk"], reply["wait"] / MICROSECONDS, waits)

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
        if await self._call(0, 0, (), learning=True) is None:
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
        if self._alone:
            self.account.answered(now)
        self._done.append((slot, now))
        for window in self._own:
            window.answers.append(now)

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
                if self.untold and time.monotonic() >= self._alone_until:
                    async with asyncio.timeout(self._timeout):
                        await self._tell_and_ask(0, 0, ())
        except (ValkeyError, OSError):
            pass  # the leases run out
        finally:
            await self._client.aclose()

    async def _call(
        self, interactive: int, bulk: int, places: Sequence[Place], *, learning: bool = False
    ) -> dict[str, Any] | None:
        """Run the script; None where this process is to go on alone for now."""
        async with self._calling:
            if self._closed or time.monotonic() < self._alone_until:
                return None
            reply: dict[str, Any] = {}
            try:
                async with asyncio.timeout(self._timeout):
                    reply = await self._tell_and_ask(interactive, bulk, places, learning=learning)
                    if reply.get("forgotten"):
                        self._tell_all_again(reply["epoch"])
                        reply = await self._tell_and_ask(interactive, bulk, places, learning=learning)
            except (ValkeyError, OSError) as error:  # a TimeoutError is an OSError
                self._warn(error)
                self._go_alone(self._probe)
                return None
            if reply.get("forgotten") or reply["settling"] > 0:
                settling = reply.get("settling", 0) / MICROSECONDS
                self._go_alone(min(settling, self._probe))
                if settling <= self._probe:
                    # What went now would not be known when the others go on.
                    self.account.gate.until = max(self.account.gate.until, self._alone_until)
                return None
            self._alone, self._alone_until, self._was_shared = False, 0.0, True
            if self._warned > -math.inf:
                self._warned = -math.inf
                logger.info("the rate budget is shared again through %s", self.where)
            return reply

    async def _tell_and_ask(
        self, interactive: int, bulk: int, places: Sequence[Place], *, learning: bool = False
    ) -> dict[str, Any]:
        """Tell what ended and ask for slots, then tell what the account learned from that. Raises ValkeyError, OSError.

        Where other processes changed what is known in between, that is taken over first, and it is asked again.
        """
        judged = bool(self._events) and not self.account.quiet
        if judged:
            # What they say of others is to count for this ask already, as it would in one process.
            known = await self._run(0, 0, (), learning=True)
            if known.get("forgotten"):
                return known
            self._learn(known)
        reply: dict[str, Any] = {}
        for _ in range(_TRIES):
            self._apply_answers(starting=not self._in_flight and interactive + bulk > 0)
            reply = await self._run(interactive, bulk, places, learning=learning)
            if reply.get("forgotten"):
                return reply
            if not reply["stale"]:
                self._answers.clear()
                break
            if judged:
                self._learn(reply)
        if judged and not reply["stale"]:
            self._events.clear()
            return reply
        try:
            await self._tell_what_was_learned(reply)
        except BaseException:
            for _ in range(reply["interactive"] + reply["bulk"]):
                self.end(sent=False)
            raise
        return reply

    async def _tell_what_was_learned(self, reply: dict[str, Any]) -> None:
        self._learn(reply)
        for _ in range(_TRIES):
            if self._facts == dump(self.account, self._offset):
                break
            told = await self._run(0, 0, (), learning=True)
            if told.get("forgotten") or not told["stale"]:
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

    def _learn(self, reply: dict[str, Any]) -> None:
        """Apply the events to the newest facts. Without any of others there is nothing that only time would change."""
        account = self.account
        # An answer that was heard was itself counted.
        ours = Ours(tuple(reply["used"]), reply["in_flight"], reply["least"] + 1, reply["most"])
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

    async def _run(
        self, interactive: int, bulk: int, places: Sequence[Place], *, learning: bool = False
    ) -> dict[str, Any]:
        """Run the script once, and take over what it tells."""
        now = time.monotonic()
        # Not in __init__: processes that were forked from one another would have one name.
        self._process = self._process or secrets.token_hex(6)
        self._asks += 1
        batch = f"{self._process}:{self._asks}"
        done, self._done = self._done, deque(maxlen=self._done.maxlen)
        unused, self._unused = self._unused, []
        gate = self.account.gate
        facts = dump(self.account, self._offset)
        # At the first contact it is not known yet what the server's clock shows.
        told = facts if self._told and facts != self._facts else None
        busy_since = min([event.busy_since for event in self._events if isinstance(event, _Heard)], default=now)
        longest = self.windows[-1].seconds
        ask: dict[str, Any] = {
            "process": self._process,
            "batch": batch,
            "epoch": self._epoch,
            "version": self._version,
            "windows": [self._window(window, now) for window in self.account.windows],
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
            "held": list(self._held) if self._alone else [],
            "used": self._own[0].used(now) + self.in_flight,
            "busy": micro(now - max(busy_since, now - 30.0)),
            "margin": micro(min(30.0, longest / 10)),
            "interactive": interactive,
            "bulk": bulk,
            "places": [
                {"place": place.place, "bulk": place.bulk, "patience": micro(min(max(place.patience, 0.0), 1e6))}
                for place in places
            ],
            "wants": not learning,
        }
        if self._told:
            ask["expires"] = micro(now + self._offset + self._timeout)
        if told is not None:
            ask["facts"] = told
        try:
            reply = _decoded(await self._script(self._keys, [json.dumps(ask)]))
            if reply.get("late"):
                # This one was not, as it is here: the server's clock was set.
                self._told, self._round_trip = 0.0, math.inf
                raise ValkeyError("its clock was set")
        except BaseException:
            # It may have run all the same, so that its slots are taken: they go back, and what it told is told again.
            self._done.extendleft(reversed(done))
            self._unused += [*unused, *(f"{batch}:{n + 1}" for n in range(interactive + bulk))]
            raise
        if reply.get("forgotten"):
            self._done.extendleft(reversed(done))
            return reply
        self._epoch = reply["epoch"]
        self._held.extend(f"{batch}:{n + 1}" for n in range(reply["interactive"] + reply["bulk"]))
        self.used, self._told, self._in_flight = tuple(reply["used"]), time.monotonic(), reply["in_flight"]
        self._take_over(reply, told, now)
        return reply

    def _take_over(self, reply: dict[str, Any], told: str | None, asked: float) -> None:
        received = time.monotonic()
        offset = int(reply["now"]) / MICROSECONDS - (asked + received) / 2
        if received - asked <= self._round_trip or abs(offset - self._offset) > 1.0:
            # The quicker, the more exact. It stays as it is until there is a better one, as all facts depend on it.
            self._offset, self._round_trip = offset, received - asked
        self._version = reply["version"]
        if not reply["stale"]:
            self._facts = self._facts if told is None else told
        elif (facts := reply.get("facts")) is not None:
            try:
                load(self.account, facts, self._offset)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValkeyError(f"it holds facts that make no sense ({type(error).__name__})") from None
            self._facts = dump(self.account, self._offset)

    def _window(self, window: SlidingWindow, now: float) -> dict[str, Any]:
        told: dict[str, Any] = {"limit": window.limit, "length": micro(window.seconds), "others": 0}
        if others := window.others.at(now):
            told |= {"others": others, "opens": micro(max(0.0, window.others.falls_to(others - 1) - now))}
        return told

    def _tell_all_again(self, epoch: str) -> None:
        logger.info("%s has lost the rate budget's memory: telling it again", self.where)
        self._epoch, self._version, self._facts = epoch, 0, ""
        self._go_alone(self._probe)
        own = self._own[-1]
        own.used(time.monotonic())
        self._done.clear()
        self._done.extend((f"{self._process}:again:{n}", at) for n, at in enumerate(own.answers))

    def _warn(self, error: Exception) -> None:
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        now = time.monotonic()
        if _is_a_mistake(error):
            if not self._was_shared:
                raise ConfigurationError(
                    f"the rate budget cannot be shared: {self.where} refuses this process, which no waiting mends "
                    f"({told}); nothing was sent"
                ) from None
            if now - self._warned >= _WARN_AGAIN:
                self._warned = now
                logger.error(
                    "the rate budget is no longer shared: %s refuses this process, which no waiting mends (%s); it "
                    "goes on with %g of the budget",
                    self.where,
                    told,
                    self._share,
                )
        elif self._warned == -math.inf:
            self._warned = now
            logger.warning(
                "the rate budget cannot be shared through %s (%s): this process goes on with %g of it until it can",
                self.where,
                told,
                self._share,
            )

    def _go_alone(self, seconds: float) -> None:
        now = time.monotonic()
        self._alone_until = now + seconds
        limits = [window.limit for window in self.account.windows]
        for window, limit in zip(self._own, limits, strict=True):
            window.limit = max(1, int(limit * self._share))
        if self._alone:
            return
        self._alone = True
        for window, limit, used in zip(self._own, limits, self.used, strict=False):
            # All the shares may be more than what is free now. So from what this process has already it comes to its
            # whole share only as the slots of all expire.
            still_used = min(used, limit) if now - self._told < window.seconds else 0
            free = window.limit * (limit - still_used) // limit
            window.others.believe(max(0, window.limit - window.used(now) - self.in_flight - free), now)

    def _grant_alone(self, interactive: int, bulk: int, places: Sequence[Place]) -> Granted:
        now, gate = time.monotonic(), self.account.gate
        reserve = int(self._reserve * self._share)
        room = min(window.room(now, 0) - window.used(now) for window in self._own) - self.in_flight
        if not math.isinf(gate.at_most):
            room = min(room, int(gate.at_most) - self.in_flight)
        if now < gate.until:
            room = 0
        granted = min(interactive, max(room, 0))
        granted_bulk = min(bulk, max(room - granted - reserve, 0)) if granted == interactive else 0
        self._asks += 1
        self._held.extend(f"{self._process}:alone:{self._asks}:{n}" for n in range(granted + granted_bulk))

        def wait(rank: int, bulk: bool) -> float:
            free_at = max(window.opens(now, self.in_flight, rank - 1, reserve if bulk else 0) for window in self._own)
            return max(free_at, gate.until) - now

        taken = granted + granted_bulk
        pause = max(min(wait(1, granted == interactive), self._alone_until - now), 0.0)
        return Granted(
            granted,
            granted_bulk,
            pause,
            [wait(place.place - taken, place.bulk) if place.place > taken else 0.0 for place in places],
        )


def _decoded(text: str) -> dict[str, Any]:
    """The script's reply. Raises ValkeyError where that is none: something else answers there."""
    try:
        reply = json.loads(text)
        if reply.get("late"):
            return cast("dict[str, Any]", reply)
        if not reply.get("forgotten"):
            for name in ("interactive", "bulk", "wait", "settling", "version", "in_flight", "most", "least"):
                if not isinstance(reply[name], int | float):
                    raise TypeError(name)
            int(reply["now"])
            # Lua writes an empty list as it writes an empty object.
            reply["waits"], reply["used"] = list(reply["waits"]), list(reply["used"])
        if not isinstance(reply["epoch"], str):
            raise TypeError("epoch")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValkeyError(f"it does not answer as a Valkey does ({type(error).__name__})") from None
    return cast("dict[str, Any]", reply)


def _is_a_mistake(error: Exception) -> bool:
    """Whether the server refuses this login for good: a wrong password, or a command or key that its ACL leaves out."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return True
    return isinstance(error, ResponseError) and any(text in str(error) for text in _MISTAKES)
