"""A rate budget that several processes share through Valkey or Redis. Needs the extra ``valkey``.

The package ``limits`` has a moving window for the same purpose. This does not use it: it trusts the clocks of its
callers, counts a request when it is sent and not when it is answered, has only one window, and answers only yes or no,
so callers must poll. ``benchmarks/fleet.py --limits`` measures what that costs.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from attrs import define, field

from ..._hosts import has_late_at
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
    """Return a ``key`` for the budget of ``token``: a hash that does not reveal the token.

    The limits are per OAuth token, so each token needs a budget of its own (source: the provider's API description).
    """
    return hashlib.sha256(b"aiodbclient:" + token.encode()).hexdigest()[:32]


@define(eq=False)
class SharedRateBudget:
    """Share one token's rate limit among all processes that use the same ``url`` and ``key``.

    Use it in place of ``RateBudget``. Each process serves its calls in order, bulk calls last. Processes that wait
    share the shortest window equally. A 429 in one process makes all of them wait. Then one request goes first, and
    each answer lets one more go.

    The slots of a killed process are free again half a shortest window later than usual. If the process was waiting,
    its ``fallback_share`` stays reserved for five shortest windows: the process may be alive but disconnected.

    While the server does not answer, each process uses its ``fallback_share``, and a task asks the server again until
    it answers. What each process sent counts afterwards. If the server lost its data, the processes report it again.
    The log says once that an outage began, and once that it ended.

    The constructor does no I/O and needs no event loop. Use the budget on one event loop, and close it with
    ``async with`` or ``aclose``. Not thread-safe.

    Args:
        url: The server: ``valkey://host:port/db``, or with ``valkeys``, ``redis``, ``rediss`` or ``unix``. It needs no
            persistence, and should not evict keys.
        windows: As for ``RateBudget``, but at least one, and the same in every process.
        key: A name for the token, not the token itself. Use ``token_key(token)``.
        reserve: How many slots of each window bulk calls leave free for other calls.
        fallback_share: The part of each window that this process uses while the server does not answer, such as
            1 / (number of processes). If the shares of all processes add up to more than 1, some requests meet a 429.
        timeout: How many seconds the server may take to answer, before the process uses its ``fallback_share``. A call
            can wait for so much longer than its ``max_wait``.

    Raises:
        InvalidArgumentError: An argument is invalid.
    """

    url: str = field(repr=False)
    windows: tuple[Window, ...] = field(default=None, converter=by_length)
    key: str = field(default="default", kw_only=True)
    reserve: int = field(default=0, kw_only=True, validator=below_every_limit)
    fallback_share: float = field(default=0.1, kw_only=True)
    timeout: float = field(default=1.0, kw_only=True)

    _slots: Slots = field(init=False, repr=False)
    _queue: Queue = field(init=False, repr=False)
    _unestimated: list[Waiter] = field(init=False, repr=False, factory=list)
    _leader: Waiter | None = field(init=False, repr=False, default=None)  # it asks for all that wait in this process
    _asked: float = field(init=False, repr=False, default=-math.inf)
    _next_ask: float = field(init=False, repr=False, default=-math.inf)
    _next_slot: float = field(init=False, repr=False, default=-math.inf)  # by the last reply

    def __attrs_post_init__(self) -> None:
        _check(self)
        client = None
        with suppress(ValueError, TypeError, AttributeError):  # the exception could quote a password from the URL
            if self.url.startswith("unix:") or not has_late_at(self.url):
                # No timeout of the library's: with one it can lose a cancellation on Python 3.11. Slots has its own.
                client = Valkey.from_url(self.url, decode_responses=True, socket_timeout=None)
        if client is None:
            raise InvalidArgumentError(
                "url must be like valkey://localhost:6379/0 (or valkeys://, redis://, rediss://, unix://), with / ? "
                "and # in the password written as %2F, %3F and %23"
            )
        options = client.connection_pool.connection_kwargs
        where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        # In braces: on a cluster all of one token's keys are in one place.
        keys = tuple(f"aiodbclient:{{{self.key}}}:{name}" for name in ("slots", "state", "queue"))
        self._slots = Slots(
            self.windows, where, client, keys, share=self.fallback_share, reserve=self.reserve, timeout=self.timeout
        )
        self._queue = Queue(time.monotonic, self._on_timer)

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        """Wait for a slot. Return it with ``release``. Safe to cancel.

        Args:
            bulk: Whether the request is part of a bulk run.
            max_wait: The longest wait in seconds; None means no limit.

        Raises:
            RateLimitError: The wait would exceed ``max_wait``. Raised as soon as that is known. ``retry_after`` is the
                expected wait in seconds.
            ConfigurationError: The budget is closed, calls on another event loop are waiting, or the server refuses
                this process, for example because of a wrong password.
        """
        now, queue = time.monotonic(), self._queue
        waiter = queue.enter(bulk, max_wait, now)
        if max_wait is not None:
            self._unestimated.append(waiter)
        if max_wait is not None or queue.first() is waiter:
            self._hurry(now)
        queue.arm(now, self._next_ask)
        try:
            while not waiter.decided:
                if self._leader is None:
                    await self._lead(waiter)
                else:
                    await waiter.sleep()
        except BaseException:
            if waiter.granted:
                self._slots.end(sent=False)
            raise
        finally:
            queue.leave(waiter)
            queue.arm(time.monotonic(), self._next_ask)
            if self._leader is None and (first := queue.first()) is not None:
                first.wake()
        if waiter.wait is not None:
            raise refusal(waiter.wait)

    def release(self, *, sent: bool = True) -> None:
        """Return a slot. The next ask reports it to the server.

        Args:
            sent: Whether the API may have counted the request. If so, the slot is free one window from now, otherwise
                at once.
        """
        if not self._slots.held.unreported:
            self._hurry(time.monotonic())
        self._slots.end(sent=sent)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers. Call it before ``release``."""
        self._slots.observe(*limit_and_remaining(headers))

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers, and stop all processes for a while. Call it before ``release``.

        The length is that of ``RateBudget.throttle``. Requests in flight are not affected.

        Returns:
            The seconds until requests go again.
        """
        now = time.monotonic()
        wait = seconds_to_wait(headers, self.windows[-1].seconds)
        await self._slots.refuse(*limit_and_remaining(headers), wait, burst=retry_after(headers) is not None)
        return round(max(0.0, self._slots.account.gate.until - now), 3)

    def snapshot(self) -> Snapshot:
        """The budget by the server's last reply; ``in_flight`` and ``waiting`` are those of this process, now."""
        now, known = time.monotonic(), self._slots.account.windows
        used = self._slots.used or tuple(0 for _ in self.windows)
        return Snapshot(
            used=tuple(ours + window.others.at(now) for ours, window in zip(used, known, strict=True)),
            in_flight=self._slots.held.in_flight,
            waiting=len(self._queue),
            next_slot=max(self._next_slot - now, 0.0),
        )

    async def aclose(self) -> None:
        """Close the connection. Waiting and later calls raise ConfigurationError. Safe to repeat."""
        await self._slots.aclose()
        self._next_ask = -math.inf
        if self._leader is not None:
            self._leader.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _hurry(self, now: float) -> None:
        """Ask soon if a call waits, since something changed."""
        self._next_ask = min(self._next_ask, max(now, self._asked + _STEP))
        if self._leader is not None:
            self._leader.wake()

    async def _lead(self, waiter: Waiter) -> None:
        """Ask for all calls that wait in this process, until this one has its slot. Then the next call takes over."""
        self._leader = waiter
        try:
            while not waiter.decided:
                now = time.monotonic()
                if now < self._next_ask:
                    self._queue.arm(now, self._next_ask)
                    await waiter.sleep()
                else:
                    await self._ask()
        finally:
            self._leader = None

    async def _ask(self) -> None:
        queue = self._queue
        wanted = len(queue)
        unestimated = self._places()
        ask = Ask(len(queue.interactive), len(queue.bulk), [place for _, place in unestimated])
        granted = await self._slots.ask(ask)
        for bulk, count in ((False, granted.interactive), (True, granted.bulk)):
            for _ in range(count):
                if not queue.grant(bulk=bulk):
                    self._slots.end(sent=False)  # somebody left meanwhile
        now = time.monotonic()
        for (waiter, _), wait in zip(unestimated, granted.waits, strict=True):
            waiter.estimated = True
            if wait > waiter.deadline - now:
                queue.refuse(waiter, wait)
        self._unestimated = [waiter for waiter in self._unestimated if not waiter.estimated]
        self._asked = self._next_ask = self._next_slot = now
        if granted.interactive + granted.bulk < wanted:
            self._next_slot += granted.wait
            self._next_ask += max(min(granted.wait, self._slots.longest_pause), _STEP)
            if queue:
                queue.announce(granted.wait)
        if self._unestimated:
            self._next_ask = min(self._next_ask, now + _STEP)

    def _places(self) -> list[tuple[Waiter, Place]]:
        """Return the calls whose wait is not compared with their patience yet, and their places."""
        if not self._unestimated:
            return []
        now, waiting = time.monotonic(), {*self._unestimated}
        places = enumerate([*self._queue.interactive, *self._queue.bulk], 1)
        return [(w, Place(n, w.bulk, w.deadline - now)) for n, w in places if w in waiting]

    def _on_timer(self, now: float) -> None:
        for waiter in self._queue.overdue(now):
            if waiter.estimated:
                self._queue.refuse(waiter, max(self._next_slot - now, 0.0))
        if self._leader is not None:
            self._leader.wake()


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
