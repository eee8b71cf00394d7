"""A rate budget that several processes share through PostgreSQL, Valkey or Redis.

The package ``limits`` has a moving window for the same purpose. This does not use it: it trusts the clocks of its
callers, counts a request when it is sent and not when it is answered, has only one window, and answers only yes or no,
so callers must poll. ``benchmarks/fleet.py --limits`` measures what that costs.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from attrs import define, field

from ..errors import ConfigurationError, InvalidArgumentError
from .budget import Snapshot, below_every_limit, by_length, serve
from .cells import Cell, cell_at
from .fleet import STEP, Ask, Place, Reply, Terms, change
from .headers import said_by, said_by_429
from .process import Process
from .queue import Queue, Waiter
from .state import CellError, NewerError
from .window import Window, positive

__all__ = ["SharedRateBudget", "token_key"]


def token_key(token: str) -> str:
    """Return a ``key`` for the budget of ``token``: a hash that does not reveal the token.

    The limits are per OAuth token, so each token needs a budget of its own (source: the provider's API description).
    """
    return hashlib.sha256(b"aiodbclient:" + token.encode()).hexdigest()[:32]


@define(eq=False)
class SharedRateBudget:
    """Share one token's rate limit among all processes that use the same ``url`` and ``key``.

    Use it in place of ``RateBudget``. Each process serves its calls in order, bulk calls last. Processes that wait
    share the shortest window equally. A 429 in one process makes all of them wait.

    The slots of a killed process are free again half a shortest window later than usual. If the process was waiting,
    its ``fallback_share`` stays reserved for five shortest windows: the process may be alive but disconnected.

    While the server does not answer, each process uses its ``fallback_share``. What it sent counts afterwards. The log
    says once that an outage began, and once that it ended.

    The constructor does no I/O and needs no event loop. Use the budget on one event loop, and close it with
    ``async with`` or ``aclose``. Not thread-safe.

    Args:
        url: The server: ``postgresql://user@host/db`` with the extra ``tenants``, or ``valkey://host:port/db`` with the
            extra ``valkey`` (or ``valkeys``, ``redis``, ``rediss``, ``unix``). PostgreSQL takes libpq's options, such
            as ``?sslmode=verify-full&sslrootcert=ca.crt``, and the budget makes a table ``aiodbclient_budgets`` there.
            Valkey needs no persistence, and should not evict keys.
        windows: As for ``RateBudget``, but at least one, and the same in every process.
        key: A name for the token, not the token itself. Use ``token_key(token)``.
        reserve: How many slots of each window bulk calls leave free for other calls.
        fallback_share: The part of each window that this process uses while the server does not answer, such as
            1 / (number of processes). If the shares of all processes add up to more than 1, some requests meet a 429.
        timeout: How many seconds the server may take to answer, before the process uses its ``fallback_share``. A call
            can wait for so much longer than its ``max_wait``.

    Raises:
        InvalidArgumentError: An argument is invalid.
        ConfigurationError: The extra for this server is not installed.
    """

    url: str = field(repr=False)
    windows: tuple[Window, ...] = field(default=None, converter=by_length)
    key: str = field(default="default", kw_only=True)
    reserve: int = field(default=0, kw_only=True, validator=below_every_limit)
    fallback_share: float = field(default=0.1, kw_only=True)
    timeout: float = field(default=1.0, kw_only=True, validator=positive)

    _cell: Cell = field(init=False, repr=False)
    _terms: Terms = field(init=False, repr=False)
    _process: Process = field(init=False, repr=False)
    _queue: Queue = field(init=False, repr=False)
    _unestimated: list[Waiter] = field(init=False, repr=False, factory=list)
    _asking: asyncio.Lock = field(init=False, repr=False, factory=asyncio.Lock)
    _asked: float = field(init=False, repr=False, default=-math.inf)
    _next_ask: float = field(init=False, repr=False, default=-math.inf)
    _next_slot: float = field(init=False, repr=False, default=-math.inf)  # by the last reply
    _task: asyncio.Task[None] | None = field(init=False, repr=False, default=None)  # asks while somebody waits
    _must_report: bool = field(init=False, repr=False, default=False)
    _hurried: asyncio.Event = field(init=False, repr=False, factory=asyncio.Event)
    _closed: bool = field(init=False, repr=False, default=False)

    def __attrs_post_init__(self) -> None:
        _check(self)
        shortest, longest = self.windows[0].seconds, self.windows[-1].seconds
        self._cell = cell_at(self.url, self.key, 2 * longest, self.timeout)
        probe = min(1.0, shortest / 20)
        self._terms = Terms(self.windows, self.reserve, self.fallback_share, probe)
        self._process = Process(self._terms, self._cell.where)
        self._queue = Queue(time.monotonic, self._on_timer, self._on_overdue)

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None, place: int | None = None) -> int:
        """Wait for a slot. Return it with ``release``. Safe to cancel.

        Args:
            bulk: Whether the request is part of a bulk run.
            max_wait: The longest wait in seconds; None means no limit.
            place: What ``acquire`` returned for an earlier try of the same call, which then waits in its old place.

        Returns:
            The place of the call, among those of this process.

        Raises:
            RateLimitError: The wait would exceed ``max_wait``. Raised as soon as that is known. ``retry_after`` is the
                rest of the wait in seconds, as far as it is known.
            ConfigurationError: The budget is closed, calls on another event loop are waiting, or the server refuses
                this process, for example because of a wrong password.
        """
        if self._closed:
            raise _closed()
        now, queue = time.monotonic(), self._queue
        number = queue.next_number() if place is None else place
        waiter = queue.enter(number, bulk, max_wait, now)
        if max_wait is not None:
            self._unestimated.append(waiter)
        if self._process.alone:
            self._serve_alone(now)
        elif max_wait is not None or queue.first() is waiter:
            self._ask_by(now)
        await queue.decision(waiter, self._on_leaving)
        return number

    def release(self, *, sent: bool = True) -> None:
        """Return a slot. The server learns of it within a tenth of the shortest window.

        Args:
            sent: Whether the API may have counted the request. If so, the slot is free one window from now, otherwise
                at once.
        """
        now, process = time.monotonic(), self._process
        process.end(now, sent=sent)
        if process.alone:
            self._serve_alone(now)
        is_urgent = not sent or process.reply is None or (len(self._queue) > 0 and process.ramp_was_full)
        self._report_by(now if is_urgent else now + self._terms.longest_pause)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers. Call it before ``release``."""
        self._process.hear(said_by(headers), time.monotonic())

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers, and stop all processes for a while. Call it before ``release``.

        The length is that of ``RateBudget.throttle``. Requests in flight are not affected.

        Returns:
            The seconds until requests go again.
        """
        now, process = time.monotonic(), self._process
        said = said_by_429(headers, self.windows[-1].seconds)
        process.hear(said, now)
        if not process.alone:
            await self._ask()
        gate = process.ledger.gate
        self._queue.refuse_before(gate.until, time.monotonic())
        return round(max(0.0, gate.until - time.monotonic()), 3)

    @property
    def is_shared(self) -> bool:
        """Whether the server answered the last ask. Otherwise this process uses its ``fallback_share``."""
        return self._process.reply is not None and not self._process.alone

    def snapshot(self) -> Snapshot:
        """The budget by the server's last reply; ``in_flight`` and ``waiting`` are those of this process, now."""
        reply = self._process.reply
        return Snapshot(
            used=tuple(0 for _ in self.windows) if reply is None else reply.used,
            in_flight=self._process.ledger.in_flight,
            waiting=len(self._queue),
            next_slot=max(self._next_slot - time.monotonic(), 0.0),
        )

    async def aclose(self) -> None:
        """Report, and close the connection. Waiting and later calls raise ConfigurationError. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self._queue.fail(_closed())
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            if not self._process.alone and self._process.reply is not None:
                await self._ask()
        finally:
            await self._cell.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _report_by(self, when: float) -> None:
        """Ask at that time, or before, although no call may wait. While alone, the task asks anyway."""
        if not self._closed and not self._process.alone:
            self._must_report = True
            self._ask_by(when)

    def _ask_by(self, when: float) -> None:
        """Ask at that time, or before."""
        when = max(when, self._asked + STEP)
        if self._task is None or self._task.done():
            self._next_ask = when
            self._task = asyncio.create_task(self._work(), name="aiodbclient-budget")
            self._task.add_done_callback(self._stopped)
        elif when < self._next_ask:
            self._next_ask = when
            self._hurried.set()

    def _stopped(self, task: asyncio.Task[None]) -> None:
        error = _closed() if task.cancelled() else task.exception()
        if error is not None:
            self._queue.fail(error)

    async def _work(self) -> None:
        """Ask while a call waits, there is something to report, or the server does not answer."""
        while self._queue or self._process.alone or self._must_report:
            delay = self._next_ask - time.monotonic()
            if delay <= 0:
                await self._ask()
                continue
            self._hurried.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._hurried.wait()

    async def _ask(self) -> None:
        """Ask once, and serve the calls that wait by what the server replies, or by the share of this process."""
        async with self._asking:
            process, queue, unestimated = self._process, self._queue, self._places()
            now, self._must_report = time.monotonic(), False
            places = [place for _, place in unestimated]
            ask = process.ask(queue, places, now, leaves=self._closed)
            was_alone = process.alone
            try:
                reply = await self._change(ask)
            except CellError as error:
                process.warn(error, time.monotonic())
                self._go_alone(None)
                return
            except BaseException:
                self._must_report = True
                raise
            now = self._asked = time.monotonic()
            process.heed(ask, reply, now)
            if process.alone:
                self._go_alone(reply)
            elif was_alone:
                self._next_ask = now
            else:
                self._serve(reply, unestimated, now)

    def _go_alone(self, reply: Reply | None) -> None:
        """Serve the calls that wait from the share of this process until the server answers, or has recovered."""
        now, probe = time.monotonic(), self._terms.probe
        if reply is None:
            self._process.go_alone(now)
        self._asked = now
        self._next_ask = now + (probe if reply is None else min(reply.recovering, probe))
        if not self._closed:
            self._ask_by(self._next_ask)
        self._serve_alone(now)

    async def _change(self, ask: Ask) -> Reply:
        """Change the state in the server. Raises CellError."""

        def step(text: str, now: float) -> tuple[str, Reply]:
            reply = change(self._terms, ask, text, now)
            return reply.state, reply

        try:
            async with asyncio.timeout(self.timeout):
                return await self._cell.change(step)
        except TimeoutError:
            raise CellError(f"no answer within {self.timeout:g} s") from None
        except NewerError:
            raise CellError("a later version of this package wrote the budget there") from None

    def _serve(self, reply: Reply, unestimated: list[tuple[Waiter, Place]], now: float) -> None:
        queue, process = self._queue, self._process
        for bulk, count in ((False, reply.interactive), (True, reply.bulk)):
            for _ in range(count):
                if queue.grant(bulk=bulk):  # otherwise somebody left meanwhile; the next ask says that it is not held
                    process.ledger.begin(now)
        for (waiter, _), wait in zip(unestimated, reply.waits, strict=True):
            waiter.estimated = True
            if wait > waiter.deadline - now:
                queue.refuse(waiter, wait)
        self._unestimated = [waiter for waiter in self._unestimated if not waiter.estimated and not waiter.decided]
        self._next_slot = now + reply.again
        self._next_ask = now + (STEP if self._unestimated else min(reply.again, self._terms.longest_pause))
        if queue:
            queue.announce(now + reply.again, now, process.ledger.reason(now))
        queue.arm(now, math.inf)

    def _serve_alone(self, now: float) -> None:
        """Serve the calls that wait from the share of this process."""
        ledger, queue = self._process.ledger, self._queue
        reserve = int(self.reserve * self.fallback_share)
        if not self._process.paused:
            serve(queue, ledger, reserve, now)
        for waiter, place in self._places():
            waiter.estimated = True
            wait = ledger.opens(now, place.place, reserve if place.bulk else 0) - now
            if wait > place.patience:
                queue.refuse(waiter, wait)
        self._unestimated.clear()

    def _places(self) -> list[tuple[Waiter, Place]]:
        """Return the calls whose wait is not compared with their patience yet, and their places."""
        if not self._unestimated:
            return []
        now, waiting = time.monotonic(), {*self._unestimated}
        places = enumerate([*self._queue.interactive, *self._queue.bulk])
        return [(w, Place(n, w.bulk, w.deadline - now)) for n, w in places if w in waiting]

    def _on_leaving(self, waiter: Waiter) -> None:
        if waiter.granted:  # and cancelled before it woke
            self.release(sent=False)
        else:
            self._report_by(time.monotonic() + self._terms.longest_pause)

    def _on_overdue(self, waiter: Waiter, now: float) -> None:
        if waiter.estimated:
            self._queue.refuse(waiter, max(self._next_slot - now, 0.0))
            self._report_by(now + self._terms.longest_pause)
        self._on_timer(now)

    def _on_timer(self, now: float) -> None:
        if self._process.alone:
            self._serve_alone(now)


def _closed() -> ConfigurationError:
    return ConfigurationError("this SharedRateBudget is closed")


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
    share = budget.fallback_share
    if type(share) not in (int, float) or not 0 < share <= 1:
        raise InvalidArgumentError(f"fallback_share must be a positive number of at most 1, not {share!r}")
