"""A rate budget that several processes share through Valkey or Redis. Needs the extra ``valkey``.

``SharedRateBudget`` takes the place of ``RateBudget``: in each process one object with the same ``url`` and ``key``.

Why not the moving window of the ``limits`` package, which has the same purpose: it goes by its callers' clocks, counts
a request when it is let go and not when it is answered, keeps one window, and answers yes or no, so that whoever waits
can only try again: ``benchmarks/fleet.py --limits`` measures what that costs.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from attrs import define, field

from ...errors import InvalidArgumentError
from ..budget import Snapshot, below_every_limit, by_length
from ..headers import limit_and_remaining, retry_after, seconds_to_wait
from ..queue import Queue, Waiter, refusal
from ..window import Window

try:
    from valkey.asyncio import Valkey
except ImportError as error:
    raise ImportError("aiodbclient.shared_budget needs the extra: pip install 'aiodbclient[valkey]'") from error

from .messages import Ask, Place
from .slots import Slots

__all__ = ["SharedRateBudget", "token_key"]

_STEP = 0.02  # s between two asks of one process that waits


def token_key(token: str) -> str:
    """A ``key`` for ``token``: a hash, from which the token cannot be found.

    The limits are per OAuth token, so each token has a budget of its own (source: the provider's API description).
    """
    return hashlib.sha256(b"aiodbclient:" + token.encode()).hexdigest()[:32]


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
            once a second. By so much a call can wait for longer than its ``max_wait``.

    By the server's clock, first come first served within a process, and of those that wait each has a claim to an equal
    part of the shortest window. A slot is held while its request is in flight and for the window after its answer.
    Those of a process that was killed free themselves half a shortest window later than that. If it was waiting, its
    fallback share is left alone for five shortest windows, since it may only have been cut off. A 429 in one process
    closes the gate of all, which then opens gently.

    A server that does not answer is told once in a warning, and its return once. What was sent in the meantime counts
    afterwards. If it has lost its data, the processes tell it again what they sent.

    Making one needs no event loop and does no I/O; use it in one loop. ``async with`` or ``aclose`` closes its
    connections. Raises InvalidArgumentError for an argument that cannot be right.
    """

    url: str = field(repr=False)
    windows: tuple[Window, ...] = field(default=None, converter=by_length)
    key: str = field(default="default", kw_only=True)
    reserve: int = field(default=0, kw_only=True, validator=below_every_limit)
    fallback_share: float = field(default=0.1, kw_only=True)
    timeout: float = field(default=1.0, kw_only=True)

    _slots: Slots = field(init=False, repr=False)
    _queue: Queue = field(init=False, repr=False)
    _unjudged: list[Waiter] = field(init=False, repr=False, factory=list)  # not told yet how long they would wait
    _leader: Waiter | None = field(init=False, repr=False, default=None)
    _asked: float = field(init=False, repr=False, default=-math.inf)
    _next_ask: float = field(init=False, repr=False, default=-math.inf)
    _next_slot: float = field(init=False, repr=False, default=-math.inf)  # as last told

    def __attrs_post_init__(self) -> None:
        _check(self)
        try:
            # Slots has a timeout of its own, and with this one the library can lose a cancellation on Python 3.11.
            client = Valkey.from_url(self.url, decode_responses=True, socket_timeout=None)
        except (ValueError, TypeError, AttributeError):
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
        self._slots = Slots(self.windows, where, client, keys, self.fallback_share, self.reserve, self.timeout)
        self._queue = Queue(time.monotonic, self._wake)

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        """Wait for a slot; ``release`` it in any case.

        Raises RateLimitError at once where the wait would be longer than ``max_wait`` seconds by what is known now, and
        when it has become so. Its ``retry_after`` is the wait in seconds. Nothing was sent. Cancelling gives the slot
        back. Raises ConfigurationError after ``aclose``.
        """
        now, queue = time.monotonic(), self._queue
        waiter = queue.enter(bulk, max_wait, now)
        if max_wait is not None:
            self._unjudged.append(waiter)
        if max_wait is not None or queue.first() is waiter:
            self._hurry(now)
        queue.arm(now, self._next_ask)
        try:
            while not waiter.decided:
                if self._leader is None:
                    await self._lead(waiter)
                else:
                    await waiter.called()
        except BaseException:
            if waiter.granted:
                self._slots.end(sent=False)
            raise
        finally:
            queue.leave(waiter)
            queue.arm(time.monotonic(), self._next_ask)
            if self._leader is None and (first := queue.first()) is not None:
                first.call()
        if waiter.wait is not None:
            raise refusal(waiter.wait)

    def release(self, *, sent: bool = True) -> None:
        """End a request: its slot counts from now if it was ``sent``, as far as we know, else it is free at once."""
        if not self._slots.untold:
            self._hurry(time.monotonic())
        self._slots.end(sent=sent)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers, before its ``release``."""
        self._slots.hear(*limit_and_remaining(headers))

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """A 429 came: stop every process, before its ``release``. Returns for how many seconds from now.

        That is ``retry-after``, or until ``ratelimit-reset``, where it is in the future and no further than the longest
        window; else a random part of a second, of two, four ... with each 429 in a row. What is in flight may finish.
        """
        now = time.monotonic()
        wait = seconds_to_wait(headers, self.windows[-1].seconds)
        await self._slots.refuse(*limit_and_remaining(headers), wait, burst=retry_after(headers) is not None)
        return round(max(0.0, self._slots.account.gate.until - now), 3)

    def snapshot(self) -> Snapshot:
        """How the budget stood when the server was last asked.

        ``in_flight`` and ``waiting`` are this process's, now.
        """
        now, known = time.monotonic(), self._slots.account.windows
        used = self._slots.used or tuple(0 for _ in self.windows)
        return Snapshot(
            used=tuple(ours + window.others.at(now) for ours, window in zip(used, known, strict=True)),
            in_flight=self._slots.in_flight,
            waiting=len(self._queue),
            next_slot=max(self._next_slot - now, 0.0),
        )

    async def aclose(self) -> None:
        """Close the connections. Calls that wait, and later ones, raise ConfigurationError. May be called again."""
        await self._slots.aclose()
        self._next_ask = -math.inf
        if self._leader is not None:
            self._leader.call()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _hurry(self, now: float) -> None:
        """Something changed that is worth an ask, if somebody waits."""
        self._next_ask = min(self._next_ask, max(now, self._asked + _STEP))
        if self._leader is not None:
            self._leader.call()

    async def _lead(self, waiter: Waiter) -> None:
        """Of all that wait in this process one asks for all of them. When it has its slot, the next one does."""
        self._leader = waiter
        try:
            while not waiter.decided:
                now = time.monotonic()
                if now < self._next_ask:
                    self._queue.arm(now, self._next_ask)
                    await waiter.called()
                else:
                    await self._ask()
        finally:
            self._leader = None

    async def _ask(self) -> None:
        queue = self._queue
        wanted = len(queue)
        unjudged = self._places()
        ask = Ask(len(queue.interactive), len(queue.bulk), [place for _, place in unjudged])
        granted = await self._slots.ask(ask)
        for bulk, count in ((False, granted.interactive), (True, granted.bulk)):
            for _ in range(count):
                if not queue.grant(bulk=bulk):
                    self._slots.end(sent=False)  # somebody left meanwhile
        now = time.monotonic()
        for (waiter, _), wait in zip(unjudged, granted.waits, strict=True):
            waiter.judged = True
            if wait > waiter.deadline - now:
                queue.refuse(waiter, wait)
        self._unjudged = [waiter for waiter in self._unjudged if not waiter.judged]
        self._asked = self._next_ask = self._next_slot = now
        if granted.interactive + granted.bulk < wanted:
            self._next_slot += granted.wait
            self._next_ask += max(min(granted.wait, self._slots.longest_pause), _STEP)
            if queue:
                queue.announce(granted.wait)
        if self._unjudged:
            self._next_ask = min(self._next_ask, now + _STEP)

    def _places(self) -> list[tuple[Waiter, Place]]:
        """Those that want to know how long they would wait, and where they stand."""
        if not self._unjudged:
            return []
        now, waiting = time.monotonic(), {*self._unjudged}
        places = enumerate([*self._queue.interactive, *self._queue.bulk], 1)
        return [(w, Place(n, w.bulk, w.deadline - now)) for n, w in places if w in waiting]

    def _wake(self, now: float) -> None:
        for waiter in self._queue.overdue(now):
            if waiter.judged:
                self._queue.refuse(waiter, max(self._next_slot - now, 0.0))
        if self._leader is not None:
            self._leader.call()


def _check(budget: SharedRateBudget) -> None:
    """Raises InvalidArgumentError."""
    if not isinstance(budget.url, str):
        raise InvalidArgumentError(f"url must be a string, not a {type(budget.url).__name__}")
    if not budget.windows:
        raise InvalidArgumentError("windows must be at least one Window")
    if not isinstance(budget.key, str) or not budget.key or budget.key.startswith("dop_v1_"):
        # The provider's tokens begin so.
        raise InvalidArgumentError(
            "key must be a name for the token, not empty and not the token itself: see token_key"
        )
    for name, most in (("fallback_share", 1.0), ("timeout", math.inf)):
        value = getattr(budget, name)
        if type(value) not in (int, float) or not 0 < value <= most or math.isinf(value):
            bound = " of at most 1" if most == 1 else ""
            raise InvalidArgumentError(f"{name} must be a positive number{bound}, not {value!r}")
