"""A rate budget that several processes share through Valkey or Redis. Needs the extra ``valkey``.

``SharedRateBudget`` takes the place of ``RateBudget``: in each process one object with the same ``url`` and ``key``.

Why not the moving window of the ``limits`` package, which has the same purpose: it goes by its callers' clocks, counts
a request when it is let go and not when it is answered, keeps one window, and answers yes or no, so that whoever waits
can only try again: ``benchmarks/fleet.py --limits`` measures what that costs.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from attrs import define, field

from ...errors import InvalidArgumentError, RateLimitError
from ..budget import DOCUMENTED_WINDOWS, Snapshot
from ..headers import limit_and_remaining, seconds_to_wait
from ..window import Window

try:
    from valkey.asyncio import Valkey
except ImportError as error:
    raise ImportError("aiodbclient.shared_budget needs the extra: pip install 'aiodbclient[valkey]'") from error

from .slots import Granted, Place, Slots

__all__ = ["SharedRateBudget", "token_key"]

logger = logging.getLogger("aiodbclient")

_STEP = 0.02  # s between two asks of one process that waits
_WORTH_TELLING = 3.0  # s of waiting
_LONGEST_BACKOFF = 60.0  # s, where a 429 does not say how long to stay away


def token_key(token: str) -> str:
    """A ``key`` for ``token``: a hash, from which the token cannot be found.

    The limits are per OAuth token, so each token has a budget of its own (source: the provider's API description).
    """
    return hashlib.sha256(b"aiodbclient:" + token.encode()).hexdigest()[:32]


def _tuple(windows: Iterable[Window]) -> tuple[Window, ...]:
    return tuple(windows)


@define(eq=False)
class _Waiter:
    called: asyncio.Future[None]  # to lead, or to hear the verdict
    bulk: bool
    max_wait: float | None
    deadline: float
    granted: bool = False
    refused: float | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def decided(self) -> bool:
        return self.granted or self.refused is not None

    def call(self) -> None:
        if not self.called.done():
            self.called.set_result(None)


@define(eq=False)
class SharedRateBudget:
    """The requests that one token may make, shared by every process that names the same ``url`` and ``key``.

    Args:
        url: ``valkey://host:port/db``, also ``valkeys://``, ``redis://``, ``rediss://`` and ``unix://``. The server
            needs no persistence, and should not evict keys.
        windows: as for ``RateBudget``, the same in every process; at least one.
        key: names the token, and is not the token itself: ``token_key(token)`` makes a key of that.
        reserve: requests of each window that only calls outside bulk work may use.
        fallback_share: the part of each window that this process uses by itself while the server does not answer, such
            as 1 / (number of processes). Where all of them are more than 1, some requests meet a 429 then.
        timeout: seconds that the server may take to answer. Past it the process goes on alone, and tries again at least
            once a second.

    By the server's clock, first come first served within a process, and of those that wait each has a claim to an equal
    part of the shortest window. A slot is held while its request is in flight and for the window after its answer.
    Those of a process that was killed free themselves half a shortest window later than that. A 429 in one process
    closes the gate of all, which then opens gently.

    A server that does not answer is told once in a warning, and its return once. What was sent in the meantime counts
    afterwards. If it has lost its data, the processes tell it again what they sent.

    Making one needs no event loop and does no I/O; use it in one loop. ``async with`` or ``aclose`` closes its
    connections. Raises InvalidArgumentError for an argument that cannot be right.
    """

    url: str = field(repr=False)
    windows: tuple[Window, ...] = field(default=DOCUMENTED_WINDOWS, converter=_tuple)
    key: str = field(default="default", kw_only=True)
    reserve: int = field(default=0, kw_only=True)
    fallback_share: float = field(default=0.1, kw_only=True)
    timeout: float = field(default=1.0, kw_only=True)

    _slots: Slots = field(init=False, repr=False)
    _lanes: tuple[OrderedDict[_Waiter, None], OrderedDict[_Waiter, None]] = field(init=False, repr=False)
    _impatient: list[_Waiter] = field(init=False, repr=False, factory=list)  # not told yet how long they would wait
    _leader: _Waiter | None = field(init=False, repr=False, default=None)
    _changed: asyncio.Event = field(init=False, repr=False, factory=asyncio.Event)
    _asked: float = field(init=False, repr=False, default=-math.inf)
    _next_ask: float = field(init=False, repr=False, default=-math.inf)
    _announced: bool = field(init=False, repr=False, default=False)
    _gate: float = field(init=False, repr=False, default=-math.inf)
    _strikes: int = field(init=False, repr=False, default=0)

    def __attrs_post_init__(self) -> None:
        windows = _checked(self)
        try:
            # Slots has a timeout of its own, and with this one the library can lose a cancellation on Python 3.11.
            client = Valkey.from_url(self.url, decode_responses=True, socket_timeout=None)
        except ValueError:
            # The exception could quote a URL that has a password in it.
            client = None
        if client is None:
            raise InvalidArgumentError(
                "url must be like valkey://localhost:6379/0 (or valkeys://, redis://, rediss://, unix://)"
            )
        options = client.connection_pool.connection_kwargs
        where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        # In braces: on a cluster all of one token's keys are in one place.
        keys = tuple(f"aiodbclient:{{{self.key}}}:{name}" for name in ("slots", "state", "queue"))
        self._slots = Slots(windows, where, client, keys, self.fallback_share, self.reserve, self.timeout)
        self._lanes = OrderedDict(), OrderedDict()

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        """Wait for a slot; ``release`` it in any case.

        Raises RateLimitError at once where the wait would be longer than ``max_wait`` seconds by what is known now, and
        when it has become so. Its ``retry_after`` is the wait in seconds. Nothing was sent. Cancelling gives the slot
        back. Raises ConfigurationError after ``aclose``.
        """
        loop = asyncio.get_running_loop()
        deadline = math.inf if max_wait is None else time.monotonic() + max_wait
        waiter = _Waiter(loop.create_future(), bulk, max_wait, deadline)
        lane = self._lanes[bulk]
        if max_wait is not None:
            self._impatient.append(waiter)
        if max_wait is not None or not (lane or self._lanes[0]):
            self._hurry()
        lane[waiter] = None
        try:
            if self._leader is None:
                self._leader = waiter
            else:
                await waiter.called
            while not waiter.decided:
                await self._lead()
        except BaseException:
            if waiter.granted:
                self._slots.end(sent=False)
            raise
        finally:
            lane.pop(waiter, None)
            if waiter.timer is not None:
                waiter.timer.cancel()
            if self._leader is waiter:
                self._leader = next((other for lane in self._lanes for other in lane), None)
                if self._leader is not None:
                    self._leader.call()
        if waiter.refused is not None:
            raise RateLimitError(
                f"the rate budget has no slot for another {waiter.refused:.1f} s, and max_wait is {max_wait} s; "
                "nothing was sent",
                retry_after=waiter.refused,
            )

    def release(self, *, sent: bool = True) -> None:
        """End a request: its slot counts from now if it was ``sent``, as far as we know, else it is free at once."""
        if not self._slots.untold:
            self._hurry()
        self._slots.end(sent=sent)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers, before its ``release``."""
        self._slots.listen(*limit_and_remaining(headers))

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """A 429 came: stop every process, before its ``release``. Returns for how many seconds from now.

        That is ``retry-after``, or ``ratelimit-reset``, where it is in the future and no further than the longest
        window; else a random part of a second, which doubles with each consecutive 429.
        """
        self.observe(headers)
        now = time.monotonic()
        wait = seconds_to_wait(headers, self._slots.windows[-1].seconds)
        if now >= self._gate:
            # What was in flight with the first one tells nothing new.
            self._strikes = self._strikes + 1 if now - self._gate < _LONGEST_BACKOFF else 1
        if wait is None:
            wait = random.uniform(0.0, min(_LONGEST_BACKOFF, 2.0 ** (self._strikes - 1)))
        self._gate = max(self._gate, now + wait)
        await self._slots.close_gate(wait)
        return wait

    def snapshot(self) -> Snapshot:
        """How the budget stood when the server was last asked, the shortest window first; ``in_flight`` and ``waiting``
        are this process's, now.
        """
        return Snapshot(
            used=self._slots.used or tuple(0 for _ in self._slots.windows),
            in_flight=self._slots.in_flight,
            waiting=sum(map(len, self._lanes)),
            next_slot=max(self._next_ask - time.monotonic(), 0.0),
        )

    async def aclose(self) -> None:
        """Close the connections. Calls that wait, and later ones, raise ConfigurationError. May be called again."""
        await self._slots.aclose()
        self._changed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _hurry(self) -> None:
        """Something changed that is worth an ask, if somebody waits."""
        self._next_ask = min(self._next_ask, self._asked + _STEP)
        self._changed.set()

    async def _lead(self) -> None:
        """Of all that wait in this process one asks for all of them. When it has its slot, the next one does."""
        pause = self._next_ask - time.monotonic()
        if pause > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                pass
            return
        interactive, bulk = self._lanes
        wanted = len(interactive) + len(bulk)
        impatient, self._impatient = [waiter for waiter in self._impatient if waiter in self._lanes[waiter.bulk]], []
        granted = await self._slots.ask(len(interactive), len(bulk), self._places(impatient))
        self._hand_out(granted)
        self._asked = self._next_ask = time.monotonic()
        if granted.interactive + granted.bulk < wanted:
            self._next_ask += max(min(granted.wait, self._slots.longest_pause), _STEP)
        for waiter, wait in zip(impatient, granted.waits, strict=True):
            self._judge(waiter, wait)
        if any(self._lanes) and granted.wait > _WORTH_TELLING and not self._announced:
            logger.info("the rate budget is spent: waiting %.1f s for its next slot", granted.wait)
        self._announced = any(self._lanes) and (self._announced or granted.wait > _WORTH_TELLING)

    def _places(self, waiters: list[_Waiter]) -> list[Place]:
        if not waiters:
            return []
        places = {waiter: n for n, waiter in enumerate([*self._lanes[0], *self._lanes[1]], 1)}
        return [Place(places[waiter], waiter.bulk) for waiter in waiters]

    def _hand_out(self, granted: Granted) -> None:
        for lane, count in zip(self._lanes, (granted.interactive, granted.bulk), strict=True):
            for _ in range(count):
                waiter = next((waiter for waiter in lane if waiter is self._leader or not waiter.called.done()), None)
                if waiter is None:
                    self._slots.end(sent=False)
                else:
                    del lane[waiter]
                    waiter.granted = True
                    waiter.call()

    def _judge(self, waiter: _Waiter, wait: float) -> None:
        """Refuse a waiter that would wait for too long; the others when their time is over."""
        if waiter.decided:
            return
        left = waiter.deadline - time.monotonic()
        if wait > left:
            self._refuse(waiter, wait)
        else:
            waiter.timer = asyncio.get_running_loop().call_later(left, self._refuse, waiter)

    def _refuse(self, waiter: _Waiter, wait: float | None = None) -> None:
        if not waiter.decided:
            self._lanes[waiter.bulk].pop(waiter, None)
            waiter.refused = max(self._next_ask - time.monotonic(), 0.0) if wait is None else wait
            waiter.call()
            self._changed.set()


def _checked(budget: SharedRateBudget) -> tuple[Window, ...]:
    """The windows, the shortest first. Raises InvalidArgumentError."""
    windows = budget.windows
    if not windows or not all(isinstance(window, Window) for window in windows):
        raise InvalidArgumentError("windows must be an iterable of at least one Window")
    smallest = min(window.limit for window in windows)
    if not isinstance(budget.reserve, int) or isinstance(budget.reserve, bool) or not 0 <= budget.reserve < smallest:
        raise InvalidArgumentError(
            f"reserve must be a whole number of at least 0 and below the smallest limit, {smallest}, "
            f"not {budget.reserve!r}"
        )
    if not isinstance(budget.key, str) or not budget.key or budget.key.startswith("dop_v1_"):
        # The provider's tokens begin so.
        raise InvalidArgumentError(
            "key must be a name for the token, not empty and not the token itself: see token_key"
        )
    if not 0 < budget.fallback_share <= 1:
        raise InvalidArgumentError(f"fallback_share must be more than 0 and at most 1, not {budget.fallback_share!r}")
    if not 0 < budget.timeout < math.inf:
        raise InvalidArgumentError(f"timeout must be a positive number of seconds, not {budget.timeout!r}")
    return tuple(sorted(windows, key=lambda window: window.seconds))
