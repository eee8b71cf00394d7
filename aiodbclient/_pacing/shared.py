"""A rate budget that several processes share through PostgreSQL, Valkey or Redis."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Self

from attrs import define, field

from .._checks import positive
from .._headers import Hour, hour_of
from ..errors import ConfigurationError, InvalidArgumentError
from .budget import Pacer, Queue, Waiter, below_every_limit, by_length
from .cells import Cell
from .fleet import CellError, Process
from .ledger import Ledger, Window

__all__ = ["SharedRateBudget", "token_key"]

_STEP = 0.02  # seconds between two turns of one process, at least
_STEP_OF_OTHERS = 0.005  # seconds more for each other process that waits


def token_key(token: str) -> str:
    """Return a ``key`` for the budget of ``token``: a hash that does not reveal the token.

    The limits are per OAuth token, so each token needs a budget of its own (source: the provider's API description).
    """
    return hashlib.sha256(b"aiodbclient:" + token.encode()).hexdigest()[:32]


@define(eq=False)
class SharedRateBudget(Pacer):
    """Share one token's rate limit among all processes that use the same ``url`` and ``key``.

    Use it in place of ``RateLimiter``. Each process serves its calls in order, bulk calls last. A 429 in one process
    makes all of them wait.

    The constructor does no I/O and needs no event loop. Use the budget on one event loop, and close it with
    ``async with`` or ``aclose``. Not thread-safe.

    Args:
        url: The server: ``postgresql://user@host/db`` with the extra ``tenants``, or ``valkey://host:port/db`` with the
            extra ``valkey`` (or ``valkeys``, ``redis``, ``rediss``, ``unix``). PostgreSQL takes libpq's options, such
            as ``?sslmode=verify-full&sslrootcert=ca.crt``, and the budget makes a table ``aiodbclient_budgets`` there.
            Valkey needs no persistence, and should not evict keys.
        windows: As for ``RateLimiter``, but at least one, and the same in every process.
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

    _clock: Callable[[], float] = field(init=False, repr=False, default=time.monotonic)
    _ledger: Ledger = field(init=False, repr=False)
    _queue: Queue = field(init=False, repr=False, factory=Queue)
    _cell: Cell = field(init=False, repr=False)
    _process: Process = field(init=False, repr=False)
    _heard: Hour = field(init=False, repr=False, default=(None, None))  # since the last turn
    _asked: float = field(init=False, repr=False, default=-math.inf)  # when the last turn ended
    _due: float = field(init=False, repr=False, default=math.inf)  # when the next one begins
    _timer: asyncio.TimerHandle | None = field(init=False, repr=False, default=None)  # for that
    _loop: asyncio.AbstractEventLoop | None = field(init=False, repr=False, default=None)  # of the first call
    _task: asyncio.Task[None] | None = field(init=False, repr=False, default=None)  # the turn that the timer began
    _longer: float = field(init=False, repr=False)
    _pause: float = field(init=False, repr=False)  # seconds between two turns of a process that waits, at most

    def __attrs_post_init__(self) -> None:
        _check(self)
        self._longer, self._pause = self.timeout, self.windows[0].seconds / 10
        self._ledger = Ledger(self.windows, self.reserve)
        self._cell = _cell_at(self.url, self.key, 2 * self.windows[-1].seconds, self.timeout)
        share, where = self.fallback_share, self._cell.where
        self._process = Process(self._ledger, self._queue, self.windows, self.reserve, share, where)

    def release(self, *, sent: bool = True) -> None:
        """Return a slot, as ``RateLimiter.release``. The server learns of it within a tenth of the shortest window."""
        ledger = self._ledger
        ramp_was_full = ledger.in_flight >= ledger.ramp.at_most
        super().release(sent=sent)
        is_urgent = not sent or (ramp_was_full and len(self._queue) > 0)
        self._ask_by(self._clock() + (0.0 if is_urgent else self._pause))

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers. Call it before ``release``."""
        self._heard = hour_of(headers)

    async def throttle(self, headers: Mapping[str, str]) -> float:
        """Learn from a 429's headers, and stop all processes for as long as ``RateLimiter.throttle`` does."""
        wait = await super().throttle(headers)
        self._asked = -math.inf  # at once, however short ago the last turn was
        self._ask_by(self._clock())
        return wait

    @property
    def is_shared(self) -> bool:
        """Whether the server answered the last ask. Otherwise this process uses its ``fallback_share``."""
        return self._process.fleet is not None and not self._process.alone

    async def aclose(self) -> None:
        """Report, and close the connection. Waiting and later calls raise ConfigurationError. Safe to repeat."""
        if self._queue.closed is not None:
            return
        self._queue.close(ConfigurationError("this SharedRateBudget is closed"))
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

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _ask_by(self, when: float) -> None:
        """Have a turn at that time, or before."""
        probe = min(1.0, self.windows[0].seconds / 20)  # while the server does not answer
        when = max(when, self._asked + (probe if self._process.alone else _STEP))
        if self._queue.closed is not None or when >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = asyncio.get_running_loop().call_later(max(0.0, when - self._clock()), self._begin)

    def _begin(self) -> None:
        self._due = math.inf
        if self._task is not None and not self._task.done():
            self._ask_by(self._clock() + _STEP)
            return
        self._task = asyncio.create_task(self._ask(), name="aiodbclient-budget")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._queue.fail_all(error)

    async def _ask(self) -> None:
        """Have a turn, and serve the calls that wait by what comes of it, or by the share of this process."""
        process, began = self._process, self._clock()
        heard, self._heard = self._heard, (None, None)
        try:
            async with asyncio.timeout(self.timeout):
                await self._cell.change(lambda text, at: process.turn(text, at, self._clock(), heard))
            process.heed(self._clock())
        except TimeoutError:
            process.go_alone(CellError(f"no answer within {self.timeout:g} s"), self._clock())
        except CellError as error:
            process.go_alone(error, self._clock())
        self._asked = now = self._clock()
        self._serve(now)
        if process.alone:
            self._ask_by(now)
            self._refuse_late(now)
        else:
            self._ledger.allowance = 0  # those whose calls left meanwhile
            self._refuse_late(now, since=began)

    def _came(self, waiter: Waiter, now: float) -> None:
        loop = waiter.woken.get_loop()
        self._loop = self._loop or loop
        if loop is not self._loop:  # which runs no timer any more
            why = "this SharedRateBudget was first used on another event loop: make one for each loop"
            self._queue.fail(waiter, ConfigurationError(why))
        elif self._process.alone:
            super()._came(waiter, now)
        elif not waiter.is_patient or self._queue.first() is waiter:
            self._ask_by(now)

    def _opens(self, first: Waiter, now: float) -> float:
        when = super()._opens(first, now)
        if self._process.alone:
            return when
        step = max(_STEP, self.windows[0].seconds / 1000) + _STEP_OF_OTHERS * len(self._process.others)
        self._ask_by(now + min(max(step, when - now), self._pause))
        return math.inf

    def _wait(self, ahead: int, bulk: bool, now: float) -> float:
        before = 0 if self._process.alone else self._process.before(ahead, bulk)
        return super()._wait(ahead + before, bulk, now)

    def _leave(self, waiter: Waiter) -> None:
        super()._leave(waiter)
        self._ask_by(self._clock() + self._pause)


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


def _cell_at(url: str, key: str, lives: float, timeout: float) -> Cell:
    """Return the cell named ``key`` in the server at ``url``, which keeps it for ``lives`` seconds."""
    is_postgres = url.startswith(("postgresql://", "postgres://"))
    try:
        if is_postgres:
            from .postgres_cell import PostgresCell

            return PostgresCell(url, key, timeout)
        from .valkey_cell import ValkeyCell

        return ValkeyCell(url, key, lives)
    except ImportError:
        server, extra = ("PostgreSQL", "tenants") if is_postgres else ("Valkey or Redis", "valkey")
        raise ConfigurationError(f"a budget in {server} needs the extra: pip install 'aiodbclient[{extra}]'") from None
