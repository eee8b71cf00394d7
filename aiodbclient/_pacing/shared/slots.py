"""One process's part of the slots that an account's processes share: what it holds, and how it asks Valkey for more.

Valkey keeps the slots and hands them out (``slots.lua``). What ended here is told with the next ask: until then
a slot is leased for longer than a request takes, so it is never free too early. While Valkey does not answer, or has
lost its memory, the process hands out slots itself: of each window the share that it may use alone, in which everything
that it sent before counts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Protocol, cast

from attrs import define, field, frozen
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from ...errors import ConfigurationError
from ..others import Others
from ..window import SlidingWindow, Window

logger = logging.getLogger("aiodbclient")

_SCRIPT = files(__package__).joinpath("slots.lua").read_text("utf-8")
_SANE_LIMITS = range(1, 10_000_001)
_MICROSECONDS = 1_000_000
# s by which a process may ask later than it was told to, and still keep its claim to a share.
_PATIENCE = 0.25


class _Script(Protocol):
    async def __call__(self, keys: Sequence[str], args: Sequence[str]) -> str: ...


@frozen
class Place:
    """A place in this process's queue: ``place`` is 1 for the first that waits."""

    place: int
    bulk: bool


@frozen
class Granted:
    """How many slots were handed out, after how many seconds to ask for more, and how many each place would wait."""

    interactive: int
    bulk: int
    wait: float
    waits: Sequence[float]


def _micro(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)


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

    used: tuple[int, ...] = field(init=False, default=())  # by all processes, as last told
    _told: float = field(init=False, default=0.0)  # when that was
    longest_pause: float = field(init=False)
    _limits: list[int] = field(init=False)
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
    _done: deque[tuple[str, float]] = field(init=False, repr=False)  # answered and not told yet
    _unused: list[str] = field(init=False, repr=False, factory=list)
    _answered: int = field(init=False, default=0)
    _counted: tuple[int, float] | None = field(init=False, default=None)  # by the API, and when that was
    _gate: float = field(init=False, default=0.0)
    _alone_until: float = field(init=False, default=0.0)
    _alone: bool = field(init=False, default=False)
    _warned: bool = field(init=False, default=False)
    _closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        shortest, longest = self.windows[0], self.windows[-1]
        self._limits = [window.limit for window in self.windows]
        self._own = tuple(SlidingWindow(w.limit, w.seconds, Others(w.seconds, steady=False)) for w in self.windows)
        self._done = deque(maxlen=longest.limit)
        self.longest_pause = shortest.seconds / 10
        self._probe = min(1.0, shortest.seconds / 20)
        self._lease = max(1.0, shortest.seconds / 2)
        # redis-py's types, which valkey inherited, do not say that this is a coroutine function.
        self._script = cast(_Script, self._client.register_script(_SCRIPT))

    @property
    def in_flight(self) -> int:
        return len(self._held)

    @property
    def untold(self) -> bool:
        """Something ended of which Valkey has not heard."""
        return bool(self._done or self._unused)

    async def ask(self, interactive: int, bulk: int, places: Sequence[Place] = ()) -> Granted:
        """Ask for slots for so many that wait. Answers in bounded time, from Valkey or alone. Cancelling leaks none."""
        answer = await self._call(interactive=interactive, bulk=bulk, places=places)
        if self._closed:
            for _ in range(answer["interactive"] + answer["bulk"] if answer else 0):
                self.end(sent=False)
            raise ConfigurationError("this SharedRateBudget is closed")
        if answer is None:
            return self._grant_alone(interactive, bulk, places)
        return Granted(
            answer["interactive"],
            answer["bulk"],
            answer["wait"] / _MICROSECONDS,
            [wait / _MICROSECONDS for wait in answer["waits"]],
        )

    async def close_gate(self, seconds: float) -> None:
        """A 429: nobody gets a slot for ``seconds``."""
        self._gate = max(self._gate, time.monotonic() + seconds)
        self._answered -= 1  # its release will look like that of any answer
        await self._call(refused=_micro(seconds))

    def end(self, *, sent: bool) -> None:
        """A request ended. Which of the slots in flight it had does not matter: the others' leases are longer."""
        slot, now = self._held.popleft(), time.monotonic()
        if not sent:
            self._unused.append(slot)
            return
        self._done.append((slot, now))
        self._answered += 1
        for window in self._own:
            window.answers.append(now)

    def listen(self, limit: int | None, remaining: int | None) -> None:
        """Take over the longest window's limit, and remember what the API counted in it."""
        if limit is None or limit not in _SANE_LIMITS:
            return
        if len(self._limits) > 1:
            self._limits[-1] = limit
        if limit == self._limits[-1] and remaining is not None and remaining <= limit:
            self._counted = limit - remaining, time.monotonic()

    async def aclose(self) -> None:
        """Tell what ended, and close the connection. Asks that are under way or come later raise ConfigurationError."""
        if self._closed:
            return
        self._closed = True
        try:
            async with self._calling:
                if self.untold and time.monotonic() >= self._alone_until:
                    async with asyncio.timeout(self._timeout):
                        await self._tell_and_ask()
        except (ValkeyError, OSError):
            pass  # the leases run out
        finally:
            await self._client.aclose()

    async def _call(self, **ask: Any) -> dict[str, Any] | None:
        """Run the script; None where this process is to go on alone for now."""
        async with self._calling:
            if self._closed or time.monotonic() < self._alone_until:
                return None
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await self._tell_and_ask(**ask)
                    if answer.get("forgotten"):
                        self._tell_all_again(answer["epoch"])
                        answer = await self._tell_and_ask(**ask)
            except (ValkeyError, OSError) as error:  # a TimeoutError is an OSError
                self._warn(error)
                self._go_alone(self._probe)
                return None
            if answer.get("forgotten") or answer["settling"] > 0:
                settling = answer.get("settling", 0) / _MICROSECONDS
                self._go_alone(min(settling, self._probe))
                if settling <= self._probe:
                    # What went now would not be known when the others go on.
                    self._gate = max(self._gate, self._alone_until)
                return None
            self._alone, self._alone_until = False, 0.0
            if self._warned:
                self._warned = False
                logger.info("the rate budget is shared again through %s", self.where)
            self.used, self._told = tuple(answer["used"]), time.monotonic()
            return answer

    async def _tell_and_ask(
        self, *, interactive: int = 0, bulk: int = 0, places: Sequence[Place] = (), **more: Any
    ) -> dict[str, Any]:
        now = time.monotonic()
        # Not in __init__: processes that were forked from one another would have one name.
        self._process = self._process or secrets.token_hex(6)
        self._asks += 1
        batch = f"{self._process}:{self._asks}"
        done, self._done = self._done, deque(maxlen=self._done.maxlen)
        unused, self._unused = self._unused, []
        answered = max(self._answered, 0)
        self._answered -= answered
        counted, self._counted = self._counted, None
        used = [window.used(now) for window in self._own]
        ask: dict[str, Any] = {
            "process": self._process,
            "batch": batch,
            "epoch": self._epoch,
            "windows": [
                {"limit": limit, "length": _micro(window.seconds)}
                for limit, window in zip(self._limits, self.windows, strict=True)
            ],
            "lease": _micro(self._lease),
            "settle": _micro(4 * self._probe),
            "longest_pause": _micro(self.longest_pause),
            "patience": _micro(_PATIENCE),
            "reserve": self._reserve,
            "done": [{"id": slot, "age": _micro(now - at)} for slot, at in done],
            "unused": unused,
            "held": list(self._held) if self._alone else [],
            "answered": answered,
            "used": used[0] + self.in_flight,
            "interactive": interactive,
            "bulk": bulk,
            "places": [{"place": place.place, "bulk": place.bulk} for place in places],
            **more,
        }
        if counted is not None and now - counted[1] < self._lease:
            ask["counted"] = {"requests": counted[0], "age": _micro(now - counted[1])}
        try:
            answer: dict[str, Any] = json.loads(await self._script(self._keys, [json.dumps(ask)]))
        except BaseException:
            # It may have run all the same, so that its slots are taken: they go back, and what it told is told again.
            self._done.extendleft(reversed(done))
            self._unused += [*unused, *(f"{batch}:{n + 1}" for n in range(interactive + bulk))]
            self._answered += answered
            raise
        if answer.get("forgotten"):
            self._done.extendleft(reversed(done))
            self._answered += answered
            return answer
        self._epoch = answer["epoch"]
        self._held.extend(f"{batch}:{n + 1}" for n in range(answer["interactive"] + answer["bulk"]))
        return answer

    def _tell_all_again(self, epoch: str) -> None:
        logger.info("%s has lost the rate budget's memory: telling it again", self.where)
        self._epoch = epoch
        self._go_alone(self._probe)
        own = self._own[-1]
        own.used(time.monotonic())
        self._done.clear()
        self._done.extend((f"{self._process}:again:{n}", at) for n, at in enumerate(own.answers))

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "the rate budget cannot be shared through %s (%s): this process goes on with %g of it until it can",
                self.where,
                f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
                self._share,
            )

    def _go_alone(self, seconds: float) -> None:
        now = time.monotonic()
        self._alone_until = now + seconds
        for window, limit in zip(self._own, self._limits, strict=True):
            window.limit = max(1, int(limit * self._share))
        if self._alone:
            return
        self._alone = True
        for window, limit, used in zip(self._own, self._limits, self.used, strict=False):
            # All the shares may be more than what is free now. So from what this process has already it comes to its
            # whole share only as the slots of all expire.
            still_used = min(used, limit) if now - self._told < window.seconds else 0
            free = window.limit * (limit - still_used) // limit
            window.others.believe(max(0, window.limit - window.used(now) - self.in_flight - free), now)

    def _grant_alone(self, interactive: int, bulk: int, places: Sequence[Place]) -> Granted:
        now = time.monotonic()
        reserve = int(self._reserve * self._share)
        room = min(window.room(now, 0) - window.used(now) for window in self._own) - self.in_flight
        if now < self._gate:
            room = 0
        granted = min(interactive, max(room, 0))
        granted_bulk = min(bulk, max(room - granted - reserve, 0)) if granted == interactive else 0
        self._asks += 1
        self._held.extend(f"{self._process}:alone:{self._asks}:{n}" for n in range(granted + granted_bulk))

        def wait(rank: int, bulk: bool) -> float:
            free_at = max(window.opens(now, self.in_flight, rank - 1, reserve if bulk else 0) for window in self._own)
            return max(free_at, self._gate) - now

        taken = granted + granted_bulk
        pause = max(min(wait(1, granted == interactive), self._alone_until - now), 0.0)
        return Granted(
            granted,
            granted_bulk,
            pause,
            [wait(place.place - taken, place.bulk) if place.place > taken else 0.0 for place in places],
        )
