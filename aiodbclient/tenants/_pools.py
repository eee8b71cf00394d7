"""``TenantPools``: a connection pool for each tenant, which follows the tenant's rotations. Works with any driver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any, Generic, Protocol, Self, TypeVar

from attrs import define

from ..errors import ConfigurationError, InvalidArgumentError
from ._credential import Credential
from ._pool_slots import ServerSlots, Slots
from ._record import OnRecord
from ._tenants import Tenants, credential_to_use
from .errors import StoreError, SuspendedError, TenantNotFoundError

PoolT = TypeVar("PoolT")
T = TypeVar("T")

_logger = logging.getLogger("aiodbclient")


class HasCredentials(Protocol):
    """The methods of ``Tenants`` that ``TenantPools`` calls."""

    async def get(self, name: str) -> Credential | None:
        """Return the credential on record."""


@define(eq=False)
class _Pool(Generic[PoolT]):
    """An open pool. ``uses`` counts the blocks that use it."""

    name: str
    credential: Credential
    pool: PoolT
    slots: Slots
    stale_at: float  # from then on, a use reads the record first
    uses: int = 0
    unused_since: float = 0.0


@define(eq=False)
class _Update(Generic[PoolT]):
    """The task that reads the record of a tenant and opens its pool, and how many uses wait for it."""

    task: asyncio.Task[_Pool[PoolT]] | None = None
    waiting: int = 0
    may_stop: bool = False  # while it waits for a slot, nothing is half open


class TenantPools(Generic[PoolT]):
    """A pool for each tenant that is in use, of any driver. New uses follow a rotation within ``refresh`` seconds.

    Example:
        With asyncpg::

            async def open_pool(credential):
                return await asyncpg.create_pool(credential.uri, ssl=credential.ssl_context(), min_size=0)

            pools = TenantPools(tenants, open=open_pool, close=asyncpg.Pool.close)
            async with pools, pools.use("alpha") as pool:
                await pool.fetchval("SELECT 1")

    It reads the store, and sends no requests to the API. Simultaneous uses open one pool. It closes a pool

    - when another tenant needs its slot, and it is the least recently used one;
    - after ``idle`` seconds without a use;
    - when another credential is on record.

    A pool in use is never closed: that waits for its last use.

    If the store cannot be read, uses continue with the open pool. If a block ends with an exception, such as a
    refused login, the record is read at once: if the tenant is suspended or removed, its pool is closed, and the block
    raises SuspendedError or TenantNotFoundError instead. A pool that nobody uses is closed after ``idle`` seconds,
    so until then a driver that reconnects by itself may try the logins of a suspended tenant.

    Args:
        tenants: The tenants. Only their ``get`` is called.
        open: Opens a pool for a credential. If it fails, the record is read again. If that has another credential,
            ``open`` is called once more with it.
        close: Closes a pool. Its errors are logged by their type.
        max_pools: The largest number of pools, including those that are being opened or closed. If all are in use,
            ``use``
            waits. None: for each server, as many as fit into four fifths of the connections that it allows. The first
            use of a server then logs in as the tenant, to read that number. If several processes have pools on one
            server, pass the share of each.
        idle: Seconds without a use after which a pool is closed.
        refresh: Seconds after which a use reads the record again.
        size: How many connections one of your pools opens at most. It matters only if ``max_pools`` is None.

    Raises:
        InvalidArgumentError: ``max_pools`` or ``size`` is not a positive integer, or ``idle`` or ``refresh`` is not a
            number of 0 or more.
    """

    def __init__(
        self,
        tenants: HasCredentials,
        open: Callable[[Credential], Awaitable[PoolT]],
        close: Callable[[PoolT], Awaitable[object]],
        max_pools: int | None = None,
        idle: float = 300.0,
        refresh: float = 5.0,
        size: int = 5,
    ) -> None:
        for what, number in (("max_pools", 1 if max_pools is None else max_pools), ("size", size)):
            if not isinstance(number, int) or number < 1:
                raise InvalidArgumentError(f"{what} must be a positive integer, not {number!r}")
        for what, seconds in (("idle", idle), ("refresh", refresh)):
            if not isinstance(seconds, int | float) or not 0 <= seconds <= inf:
                raise InvalidArgumentError(f"{what} must be a number of seconds, not {seconds!r}")
        self._tenants, self._open, self._close = tenants, open, close
        self._idle, self._refresh = idle, refresh
        self._is_open = False
        self._max_pools, self._size = max_pools, size
        self._current: dict[str, _Pool[PoolT]] = {}  # by tenant
        self._unused: dict[_Pool[PoolT], None] = {}  # in ``_current`` and without a use, least recently used first
        self._every: set[_Pool[PoolT]] = set()  # also those of an earlier credential that are still in use
        self._updates: dict[str, _Update[PoolT]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: set[asyncio.Task[Any]] = set()  # those of ``_tasks`` that close a pool
        self._errors: list[Exception] = []  # of pools that failed to close at the end of the block

    def __repr__(self) -> str:
        return f"<TenantPools: {len(self._every)} open>"

    async def __aenter__(self) -> Self:
        """Start. No pool is opened yet.

        Raises:
            ConfigurationError: It is open already.
        """
        if self._is_open:
            raise ConfigurationError("these pools are open already")
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        self._slots = ServerSlots(self._max_pools, self._size)
        self._some_unused, self._all_done = asyncio.Event(), asyncio.Event()
        self._spawn(self._close_idle())
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        """Close all pools, each after its last use. If this is cancelled, pools in use are closed too.

        Raises:
            ExceptionGroup: Some pools could not be closed, and the block itself ended without an exception.
        """
        self._is_open = False
        self._errors = []
        for task in self._tasks - self._closing:
            task.cancel()
        self._updates.clear()  # also those that have not begun
        self._current.clear()
        for pool in [*self._unused]:
            self._close_soon(pool)
        try:
            await self._all_done.wait()
        except asyncio.CancelledError:
            for pool in [*self._every]:
                self._close_soon(pool)
            try:
                await self._all_done.wait()
            except asyncio.CancelledError:  # a second time: do not wait for a server that does not answer
                for task in self._tasks:
                    task.cancel()
            raise
        if self._errors and error is None:
            raise ExceptionGroup("some pools could not be closed", self._errors)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncGenerator[PoolT]:
        """Use the pool of the tenant ``name`` for the length of a block. Safe to cancel.

        Use it for one request or job at a time. A longer block keeps the pool of an earlier credential open.

        Args:
            name: The tenant.

        Yields:
            The pool that ``open`` returned.

        Raises:
            TenantNotFoundError: The tenant has no credential on record. Also if the block failed, and it has none any
                more; the cause is the exception of the block.
            SuspendedError: It is suspended. Also if the block failed, as above.
            StoreError: The store cannot be read, and no pool is open for the tenant.
            ConfigurationError: It is used outside of ``async with pools``, or on another event loop.
            Exception: What ``open`` raised.
        """
        if not self._is_open:
            raise ConfigurationError("these pools are not open: use them in 'async with pools'")
        if self._loop is not asyncio.get_running_loop():
            raise ConfigurationError("these pools were opened on another event loop: make a TenantPools for each loop")
        pool = self._current.get(name)
        if pool is None or self._loop.time() >= pool.stale_at:
            pool = await self._updated(name)
        else:
            self._begin(pool)
        try:
            yield pool.pool
        except Exception as error:
            pool.stale_at = -inf
            await self._reread(name, error)
            raise
        finally:
            self._end(pool)

    async def _reread(self, name: str, error: Exception) -> Credential | None:
        """Read the record after ``error``; None if that fails. Raises why the tenant has no credential to use."""
        with suppress(StoreError):
            try:
                return await self._required(name)
            except (SuspendedError, TenantNotFoundError) as ended:
                self._drop(name)
                raise ended from error
        return None

    def _drop(self, name: str) -> None:
        """Give the pool of a tenant to no new use."""
        pool = self._current.pop(name, None)
        if pool is not None and not pool.uses:
            self._close_soon(pool)

    def _begin(self, pool: _Pool[PoolT], uses: int = 1) -> None:
        pool.uses += uses
        self._unused.pop(pool, None)

    def _end(self, pool: _Pool[PoolT]) -> None:
        pool.uses -= 1
        self._settle(pool)

    def _settle(self, pool: _Pool[PoolT]) -> None:
        """Keep an unused pool for the next use, or close it."""
        if pool.uses or pool in self._unused:
            return
        if self._current.get(pool.name) is not pool or not self._is_open:
            self._close_soon(pool)
            return
        pool.unused_since = self._loop.time()
        self._unused[pool] = None
        self._some_unused.set()
        self._make_room(pool.slots)

    async def _updated(self, name: str) -> _Pool[PoolT]:
        """Read the record, and return the pool of its credential with one more use. Simultaneous uses read it once."""
        update = self._updates.get(name)
        if update is None:
            update = self._updates[name] = _Update()
            update.task = self._spawn(self._update(name, update))
        assert update.task is not None
        update.waiting += 1
        try:
            await asyncio.wait([update.task])
        except asyncio.CancelledError:
            if not update.task.done():
                update.waiting -= 1
                if update.may_stop and not update.waiting:
                    self._drop_update(name, update)
                    update.task.cancel()
            elif not update.task.cancelled() and update.task.exception() is None:
                self._end(update.task.result())
            raise
        if update.task.cancelled():
            raise ConfigurationError("these pools were closed, or opening the pool was cancelled")
        return update.task.result()

    async def _update(self, name: str, update: _Update[PoolT]) -> _Pool[PoolT]:
        """Return the pool, with a use for each that waits."""
        try:
            pool = await self._up_to_date(name, update)
        finally:
            self._drop_update(name, update)
        if not self._is_open:
            self._settle(pool)
            raise ConfigurationError("these pools were closed")
        self._begin(pool, update.waiting)
        self._settle(pool)
        return pool

    def _drop_update(self, name: str, update: _Update[PoolT]) -> None:
        if self._updates.get(name) is update:
            del self._updates[name]

    async def _up_to_date(self, name: str, update: _Update[PoolT]) -> _Pool[PoolT]:
        stale_at = self._loop.time() + self._refresh
        try:
            credential = await self._tenants.get(name)
        except StoreError as error:
            known = self._current.get(name)
            if known is None:
                raise
            _logger.warning("the pool of %r keeps its credential: the store cannot be read: %s", name, error)
            known.stale_at = stale_at
            return known
        pool = self._current.get(name)
        if pool is not None and pool.credential == credential:
            pool.stale_at = stale_at
            return pool
        self._drop(name)
        checked = credential or await self._required(name)
        slots = await self._slots.on_server_of(checked)
        if await self._slot(slots, update):
            stale_at = self._loop.time() + self._refresh
            try:
                checked = await self._required(name)
            except BaseException:
                slots.give_back()
                raise
        return await self._opened(name, checked, slots, stale_at)

    async def _required(self, name: str) -> Credential:
        """The credential on record. Raises TenantNotFoundError or SuspendedError if there is none to use."""
        if isinstance(self._tenants, Tenants):
            return await credential_to_use(self._tenants, name)
        credential = await self._tenants.get(name)
        if credential is None:
            raise OnRecord(name=name).unusable()
        return credential

    async def _slot(self, slots: Slots, update: _Update[PoolT]) -> bool:
        """Take one of ``slots``. Return whether it had to wait."""
        update.may_stop = True
        try:
            return await slots.take(lambda: self._make_room(slots))
        finally:
            update.may_stop = False

    async def _opened(self, name: str, credential: Credential, slots: Slots, stale_at: float) -> _Pool[PoolT]:
        """Open a pool in a slot that was taken of ``slots``. Free the slot if that fails."""
        try:
            try:
                opened = await self._open(credential)
            except Exception as error:
                stale_at = self._loop.time() + self._refresh
                another = await self._reread(name, error)
                if another is None or another == credential:
                    raise
                credential = another
                opened = await self._open(credential)
        except BaseException:
            slots.give_back()
            raise
        pool = self._current[name] = _Pool(name, credential, opened, slots, stale_at)
        self._every.add(pool)
        return pool

    def _make_room(self, slots: Slots) -> None:
        """Close one unused pool for each use that waits for one of ``slots``."""
        while slots.waiting > slots.closing:
            oldest = next((pool for pool in self._unused if pool.slots is slots), None)
            if oldest is None:
                return
            self._close_soon(oldest)

    async def _close_idle(self) -> None:
        while True:
            await self._some_unused.wait()
            oldest = next(iter(self._unused), None)
            if oldest is None:
                self._some_unused.clear()
            elif (left := oldest.unused_since + self._idle - self._loop.time()) > 0:
                await asyncio.sleep(left)
            else:
                self._close_soon(oldest)

    def _close_soon(self, pool: _Pool[PoolT]) -> None:
        if pool not in self._every:
            return  # it is being closed
        self._every.remove(pool)
        self._unused.pop(pool, None)
        if self._current.get(pool.name) is pool:
            del self._current[pool.name]
        pool.slots.closing += 1
        self._closing.add(self._spawn(self._close_one(pool)))

    async def _close_one(self, pool: _Pool[PoolT]) -> None:
        try:
            await self._close(pool.pool)
        except Exception as error:  # noqa: BLE001  the other pools are closed all the same
            _logger.warning("the pool of %r could not be closed: %s", pool.name, type(error).__name__)
            if not self._is_open:
                self._errors.append(error)
        finally:
            pool.slots.closing -= 1
            pool.slots.give_back()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work, name="aiodbclient-pools")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # so that asyncio does not log it, if all who waited were cancelled
        self._tasks.discard(task)
        self._closing.discard(task)
        if not self._tasks and not self._every:
            self._all_done.set()
