"""``TenantPools``: a connection pool for each tenant, which follows the tenant's rotations. Works with any driver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Generic, Protocol, Self, TypeVar
from weakref import WeakValueDictionary

from attrs import define

from .._checks import check_whole
from ..errors import ConfigurationError, InvalidArgumentError
from ._credential import Credential
from ._naming import Role, check_tenant
from ._records import required, unusable
from ._role import TenantRole
from .errors import StoreError, TenantNotFoundError

PoolT = TypeVar("PoolT")

_logger = logging.getLogger("aiodbclient")


class HasCredentials(Protocol):
    """The methods of ``Tenants`` that ``TenantPools`` calls."""

    async def get(self, name: str) -> Credential | None:
        """Return the credential on record."""


@define(eq=False)
class _Pool(Generic[PoolT]):
    """An open pool, and how many blocks use it."""

    name: str
    credential: Credential
    pool: PoolT
    stale_at: float  # from then on, a use reads the record first
    uses: int = 0


class TenantPools(Generic[PoolT]):
    """A pool for each tenant that is in use, of any driver. New uses follow a rotation within ``refresh`` seconds.

    Example:
        With asyncpg::

            async def open_pool(credential):
                return await asyncpg.create_pool(credential.uri, ssl=credential.ssl_context(), min_size=0)

            pools = TenantPools(tenants, open=open_pool, close=asyncpg.Pool.close, max_pools=20)
            async with pools, pools.use("alpha") as pool:
                await pool.fetchval("SELECT 1")

    It reads the store, and sends no requests to the API. Simultaneous uses open one pool. It closes a pool

    - when another tenant needs a pool and there are ``max_pools``, and it is the least recently used one;
    - after ``idle`` seconds without a use;
    - when another credential is on record.

    A pool in use is never closed: that waits for its last use.

    If the store cannot be read, uses continue with the open pool. After a block that raised an exception, such as a
    refused login, the next use reads the record first. A driver that reconnects by itself may try the logins of a
    suspended tenant for ``idle`` seconds.

    Args:
        tenants: The tenants, or an object with their ``get``.
        open: Opens a pool for a credential. If it fails, the record is read again. If that has another credential,
            ``open`` is called once more with it.
        close: Closes a pool. Its errors are logged by their type.
        max_pools: The largest number of pools, including those that are being opened or closed. If all are in use,
            ``use`` waits. All pools of all processes must fit into the connections that the servers allow.
        idle: Seconds without a use after which a pool is closed.
        refresh: Seconds after which a use reads the record again.

    Raises:
        InvalidArgumentError: ``max_pools`` is not a positive integer, or ``idle`` or ``refresh`` is not a number of 0
            or more.
    """

    def __init__(
        self,
        tenants: HasCredentials,
        open: Callable[[Credential], Awaitable[PoolT]],
        close: Callable[[PoolT], Awaitable[object]],
        *,
        max_pools: int,
        idle: float = 300.0,
        refresh: float = 5.0,
    ) -> None:
        check_whole("max_pools", max_pools)
        for what, seconds in (("idle", idle), ("refresh", refresh)):
            if not isinstance(seconds, int | float) or not 0 <= seconds <= inf:
                raise InvalidArgumentError(f"{what} must be a number of seconds, not {seconds!r}")
        self._tenants, self._open_pool, self._close_pool = tenants, open, close
        self._max_pools, self._idle, self._refresh = max_pools, idle, refresh
        self._is_open = False
        self._current: dict[str, _Pool[PoolT]] = {}  # by tenant
        # In ``_current`` and without a use, least recently used first. The timer closes it.
        self._unused: dict[_Pool[PoolT], asyncio.TimerHandle] = {}
        self._every: set[_Pool[PoolT]] = set()  # also those of an earlier credential that are still in use
        self._locks = WeakValueDictionary[str, asyncio.Lock]()  # by tenant. Each goes with its last holder
        self._closing: set[asyncio.Task[None]] = set()
        self._waiting = 0  # uses that wait for another pool to be closed
        self._taken = 0  # slots: pools that are open, being opened, or being closed
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
        self._slots = asyncio.Semaphore(self._max_pools)
        self._all_closed = asyncio.Event()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        """Close all pools, each after its last use. If this is cancelled, pools in use are closed too.

        Raises:
            ExceptionGroup: Some pools could not be closed, and the block itself ended without an exception.
        """
        self._is_open = False
        self._errors = []
        self._current.clear()
        for pool in [*self._unused]:
            self._close_soon(pool)
        try:
            await self._closed()
        except asyncio.CancelledError:
            for pool in [*self._every]:
                self._close_soon(pool)
            try:
                await self._closed()
            except asyncio.CancelledError:  # a second time: do not wait for a server that does not answer
                for task in self._closing:
                    task.cancel()
            raise
        if self._errors and error is None:
            raise ExceptionGroup("some pools could not be closed", self._errors)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncGenerator[PoolT]:
        """Use the pool of the tenant ``name`` for the length of a block. Safe to cancel.

        Use it for one request or job at a time. A longer block keeps the pool of an earlier credential open. An
        exception of the block is raised as it is.

        Args:
            name: The tenant.

        Yields:
            The pool that ``open`` returned.

        Raises:
            TenantNotFoundError: The tenant has no credential on record.
            TenantUnavailableError: It is suspended, or is being moved. The subclass says which.
            StoreError: The store cannot be read, and no pool is open for the tenant.
            ConfigurationError: It is used outside of ``async with pools``, or on another event loop.
            Exception: What ``open`` raised.
        """
        self._check_open()
        if self._loop is not asyncio.get_running_loop():
            raise ConfigurationError("these pools were opened on another event loop: make a TenantPools for each loop")
        pool = self._current.get(name)
        if pool is None or self._loop.time() >= pool.stale_at:
            async with self._locks.setdefault(name, asyncio.Lock()):
                pool = await self._up_to_date(name)
        pool.uses += 1
        self._stop_idle_timer(pool)
        try:
            yield pool.pool
        except Exception:
            pool.stale_at = -inf
            raise
        finally:
            pool.uses -= 1
            self._settle(pool)

    def _check_open(self) -> None:
        if not self._is_open:
            raise ConfigurationError("these pools are not open: use them in 'async with pools'")

    def _stop_idle_timer(self, pool: _Pool[PoolT]) -> None:
        if pool in self._unused:
            self._unused.pop(pool).cancel()

    def _settle(self, pool: _Pool[PoolT]) -> None:
        """Keep an unused pool for the next use, or close it."""
        if pool.uses:
            return
        if self._current.get(pool.name) is not pool or not self._is_open:
            self._close_soon(pool)
            return
        self._unused[pool] = self._loop.call_later(self._idle, self._close_soon, pool)
        self._make_room()

    async def _up_to_date(self, name: str) -> _Pool[PoolT]:
        """The pool of the credential on record, for a caller that holds the lock of the tenant."""
        pool = self._current.get(name)
        if pool is not None and self._loop.time() < pool.stale_at:
            return pool  # whoever had the lock before has read the record
        stale_at = self._loop.time() + self._refresh
        try:
            credential = await self._tenants.get(name)
        except StoreError as error:
            if (pool := self._current.get(name)) is None:
                raise
            _logger.warning("the pool of %r keeps its credential: the store cannot be read: %s", name, error)
            credential = pool.credential
        pool = self._current.get(name)  # it may have been closed meanwhile
        if pool is not None and pool.credential == credential:
            pool.stale_at = stale_at
            return pool
        if pool is not None:
            del self._current[name]
            self._settle(pool)
        return await self._opened(name, credential or await self._required(name))

    async def _required(self, name: str) -> Credential:
        """Return the credential on record, or raise TenantNotFoundError or TenantUnavailableError if none is usable."""
        if isinstance(self._tenants, TenantRole):
            context = self._tenants._context  # pyright: ignore[reportPrivateUsage]
            return required(await context.record(check_tenant(name)), name, context.role)
        credential = await self._tenants.get(name)
        if credential is None:
            raise unusable(None, name, Role.OWNER)
        return credential

    async def _opened(self, name: str, credential: Credential) -> _Pool[PoolT]:
        """Open a pool in a free slot, which is free again if that fails."""
        has_waited = await self._take_slot()
        try:
            self._check_open()
            stale_at = self._loop.time() + self._refresh
            if has_waited:
                credential = await self._required(name)
            try:
                opened = await self._open_pool(credential)
            except Exception as error:  # noqa: BLE001  raised again, unless another credential is on record
                stale_at = self._loop.time() + self._refresh
                credential = await self._another(name, credential, error)
                opened = await self._open_pool(credential)
        except BaseException:
            self._give_slot_back()
            raise
        pool = _Pool(name, credential, opened, stale_at)
        self._every.add(pool)
        if not self._is_open:
            self._close_soon(pool)
            raise ConfigurationError("these pools were closed")
        self._current[name] = pool
        return pool

    async def _another(self, name: str, credential: Credential, error: Exception) -> Credential:
        """The credential on record after ``open`` failed with ``error``, which is raised if it is the same."""
        try:
            another = await self._required(name)
        except StoreError:
            raise error from None
        except TenantNotFoundError as ended:
            raise ended from error
        if another == credential:
            raise error
        return another

    async def _take_slot(self) -> bool:
        """Take a slot, and return whether it had to wait for a pool to be closed."""
        has_to_wait = self._slots.locked()
        self._waiting += has_to_wait
        self._make_room()
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= has_to_wait
        self._taken += 1
        return has_to_wait

    def _give_slot_back(self) -> None:
        self._taken -= 1
        self._slots.release()
        if not self._taken:
            self._all_closed.set()

    def _make_room(self) -> None:
        """Close one unused pool for each use that waits for a slot."""
        while self._unused and self._waiting > len(self._closing):
            self._close_soon(next(iter(self._unused)))

    def _close_soon(self, pool: _Pool[PoolT]) -> None:
        if pool not in self._every:
            return  # it is being closed
        self._every.remove(pool)
        self._stop_idle_timer(pool)
        if self._current.get(pool.name) is pool:
            del self._current[pool.name]
        task = self._loop.create_task(self._close_one(pool), name="aiodbclient-pools")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_one(self, pool: _Pool[PoolT]) -> None:
        try:
            await self._close_pool(pool.pool)
        except Exception as error:  # noqa: BLE001  the other pools are closed all the same
            _logger.warning("the pool of %r could not be closed: %s", pool.name, type(error).__name__)
            if not self._is_open:
                self._errors.append(error)
        finally:
            self._give_slot_back()

    async def _closed(self) -> None:
        """Wait until no pool is open, being opened or being closed."""
        while self._taken:
            self._all_closed.clear()
            await self._all_closed.wait()
