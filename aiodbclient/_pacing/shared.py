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
from types import TracebackType
from typing import Self

from attrs import define, field

from ..errors import ConfigurationError, InvalidArgumentError
from .budget import Snapshot, below_every_limit, by_length, serve
from .cells import Cell, cell_at
from .fleet import CellError, NewerError
from .headers import said_by, said_by_429
from .process import STEP, Process, Turn
from .queue import Queue, Waiter
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
    its ``fallback_share`` stays reserved for one window: the process may be alive but disconnected.

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
            1 / (number of processes). If the shares of all processes add up to more than 1, or only some of them are
            cut off for long, some requests meet a 429.
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
    _process: Process = field(init=False, repr=False)
    _queue: Queue = field(init=False, repr=False)
    _turns: asyncio.Lock = field(init=False, repr=False, factory=asyncio.Lock)
    _asked: float = field(init=False, repr=False, default=-math.inf)  # when the last turn ended
    _due: float = field(init=False, repr=False, default=math.inf)  # when the next one begins
    _timer: asyncio.TimerHandle | None = field(init=False, repr=False, default=None)  # for that
    _task: asyncio.Task[None] | None = field(init=False, repr=False, default=None)  # the turn that the timer began
    _closed: bool = field(init=False, repr=False, default=False)

    def __attrs_post_init__(self) -> None:
        _check(self)
        self._cell = cell_at(self.url, self.key, 2 * self.windows[-1].seconds, self.timeout)
        self._process = Process(self.windows, self.reserve, self.fallback_share, self._cell.where)
        self._queue = Queue(time.monotonic, self._on_timer)

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None, place: int | None = None) -> int:
        """Wait for a slot, as ``RateBudget.acquire`` does. Its place is among the calls of this process.

        Raises:
            RateLimitError: The wait would exceed ``max_wait``.
            ConfigurationError: The budget is closed, calls on another event loop are waiting, or the server refuses
                this process, for example because of a wrong password.
        """
        if self._closed:
            raise _closed()
        now, queue = time.monotonic(), self._queue
        number = queue.next_number() if place is None else place
        waiter = queue.enter(number, bulk, max_wait, now)
        if self._process.alone:
            self._serve_alone(now)
        elif max_wait is not None or queue.first() is waiter:
            self._ask_by(now)
        await queue.decision(waiter, self._on_leaving)
        return number

    def release(self, *, sent: bool = True) -> None:
        """Return a slot, as ``RateBudget.release``. The server learns of it within a tenth of the shortest window."""
        now, process = time.monotonic(), self._process
        ramp_was_full = process.ledger.in_flight >= process.ledger.ramp.at_most
        process.ledger.end(now, sent=sent)
        if process.alone:
            self._serve_alone(now)
        is_urgent = not sent or process.turn is None or (ramp_was_full and len(self._queue) > 0)
        self._ask_by(now if is_urgent else now + self._pause)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers. Call it before ``release``."""
        self._process.heard = said_by(headers)

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers, and stop all processes for as long as ``RateBudget.throttle`` does."""
        now, process = time.monotonic(), self._process
        process.heard = said = said_by_429(headers, self.windows[-1].seconds)
        process.ledger.refuse(said, now)
        if process.alone:
            self._serve_alone(now)
        else:
            await self._ask()
        return round(max(0.0, process.ledger.gate.until - time.monotonic()), 3)

    @property
    def is_shared(self) -> bool:
        """Whether the server answered the last ask. Otherwise this process uses its ``fallback_share``."""
        return self._process.turn is not None and not self._process.alone

    def snapshot(self) -> Snapshot:
        """The budget by the server's last reply; ``in_flight`` and ``waiting`` are those of this process, now."""
        now, turn, own = time.monotonic(), self._process.turn, self._process.ledger
        used = [0 for _ in self.windows]
        if turn is not None:
            used = [held + turn.ledger.in_flight for held in turn.ledger.held(now + turn.ahead)]
        return Snapshot(tuple(used), own.in_flight, len(self._queue), self._next_slot(now))

    async def aclose(self) -> None:
        """Report, and close the connection. Waiting and later calls raise ConfigurationError. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self._queue.fail(_closed())
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            if self.is_shared:
                await self._ask()
        finally:
            await self._cell.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def _pause(self) -> float:
        """The seconds between two turns of a process that waits, at most."""
        return self.windows[0].seconds / 10

    def _ask_by(self, when: float) -> None:
        """Have a turn at that time, or before."""
        when = max(when, self._asked + (self._process.probe if self._process.alone else STEP))
        if self._closed or when >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), self._begin)

    def _begin(self) -> None:
        self._due = math.inf
        if self._turns.locked():
            self._ask_by(time.monotonic() + STEP)
            return
        self._task = asyncio.create_task(self._ask(), name="aiodbclient-budget")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = _closed() if task.cancelled() else task.exception()
        if error is not None:
            self._queue.fail(error)

    async def _ask(self) -> None:
        """Have a turn, and serve the calls that wait by what comes of it, or by the share of this process."""
        async with self._turns:
            process = self._process
            try:
                process.heed(await self._turn(), time.monotonic())
            except CellError as error:
                process.warn(error)
                process.go_alone(time.monotonic())
            self._asked = now = time.monotonic()
            if process.alone:
                self._ask_by(now)
                self._serve_alone(now)
            else:
                self._serve(now)

    async def _turn(self) -> Turn:
        """Have a turn at the cell. Raises CellError."""
        began = time.monotonic()

        def step(text: str, now: float) -> tuple[str, Turn]:
            turn = Turn(self._process, self._queue, began, text, now)
            return turn.text, turn

        try:
            async with asyncio.timeout(self.timeout):
                return await self._cell.change(step)
        except TimeoutError:
            raise CellError(f"no answer within {self.timeout:g} s") from None
        except NewerError:
            raise CellError("a later version of this package wrote the budget there") from None

    def _serve(self, now: float) -> None:
        """Serve the calls that wait by what came of the last turn."""
        queue, process, turn = self._queue, self._process, self._process.turn
        assert turn is not None
        for bulk, count in ((False, turn.interactive), (True, turn.bulk)):
            for _ in range(count):
                if queue.grant(bulk=bulk):  # otherwise somebody left meanwhile, as the next turn says
                    process.ledger.begin(now)
        queue.refuse_late(turn.asked, lambda place, bulk: turn.wait(place, bulk, now), now)
        queue.arm(now, math.inf)
        if queue:
            again = turn.again()
            queue.announce(now + again, now, turn.ledger.reason(turn.now))
            self._ask_by(now + min(again, self._pause))

    def _serve_alone(self, now: float) -> None:
        """Serve the calls that wait from the share of this process."""
        queue, ledger, reserve = self._queue, self._process.ledger, int(self.reserve * self.fallback_share)
        serve(queue, ledger, reserve, now)
        queue.refuse_late({*queue}, lambda place, bulk: ledger.opens(now, place, reserve if bulk else 0) - now, now)

    def _on_leaving(self, waiter: Waiter) -> None:
        if waiter.granted:  # and cancelled before it woke
            self.release(sent=False)
        else:
            self._ask_by(time.monotonic() + self._pause)

    def _on_timer(self, now: float) -> None:
        if self._process.alone:
            self._serve_alone(now)
        else:
            self._ask_by(now)

    def _next_slot(self, now: float) -> float:
        """For how many seconds the next call of this process waits."""
        process = self._process
        if process.turn is None or process.alone:
            return process.ledger.opens(now, 0, 0) - now
        return process.turn.wait(0, False, now)


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
