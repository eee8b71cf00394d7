"""``Store``: it saves and returns the records of tenants, and decides which process may change one.

A process claims a name to work on it, and only the holder of the claim can change the record. To provision a tenant,
the methods are called in this order::

    claim(name)          stores the name, before anything is done for it
    save(claim, record)  the operation in progress, before the first statement that changes the server
    renew(claim)         while the statements run; it raises if the claim was lost
    save(claim, record)  the login, without the operation, before the caller gets it
    release(claim)       in the end, also after an error or a cancellation; the record stays as it was saved
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol, Self, TypeVar, runtime_checkable

from attrs import frozen

from .._records import TenantRecord
from ..errors import StoreError

T = TypeVar("T")

_LEASE = 10.0  # s, of a claim that ends as soon as one record is written. Shorter than operations wait for one


@frozen(kw_only=True)
class Claim:
    """The right to change one record.

    Attributes:
        name: The name of the record.
        token: A random text, unique to this claim.
        record: The record at the time of the claim; None if there is none.
    """

    name: str
    token: str
    record: TenantRecord | None


@runtime_checkable
class Store(Protocol):
    """The methods that ``Tenants`` needs of a store. Its guide has the tests that each must pass.

    A store is an async context manager; entering it opens it. When a method returns, its change is durable: fsynced, or
    committed. A cancelled method makes its whole change or none of it.

    A store may also have ``def entries(self) -> AsyncIterator[TenantRecord | StoreError]``: as ``records``, but with
    the error of each unreadable record in its place, so that a damaged record does not block the others. And
    ``async def discard(self, name: str) -> None``, which removes a record without reading it.

    Raises:
        StoreError: By every method: the store is not open, or cannot be read or written.
        ClaimLostError: By every method with a claim except ``release``: the claim has ended, or another process took
            it over. Nothing was changed.
    """

    async def __aenter__(self) -> Self:
        """Open the store."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the store."""

    async def get(self, name: str) -> TenantRecord | None:
        """Return the record of ``name``, or None, also if the name is only claimed."""

    def records(self) -> AsyncIterator[TenantRecord]:
        """Yield all records, in the order of their names, without loading all of them into memory."""
        ...

    async def claim(self, name: str, lease: float) -> Claim | None:
        """Claim ``name``, whether it has a record or not.

        A name is free if its claim was released or has ended, or if its lease has expired. A cancelled call holds no
        claim.

        Args:
            name: The name of the tenant. ``Tenants.each`` with a version appends ``:each``.
            lease: Seconds for which the claim holds, unless it is renewed.

        Returns:
            The claim, with the record; None if another process, or this one, holds the name.
        """

    async def renew(self, claim: Claim, lease: float) -> None:
        """Extend ``claim`` to ``lease`` seconds from now."""

    async def save(self, claim: Claim, record: TenantRecord | None, *, release: bool = False) -> None:
        """Store the record, or delete it.

        Args:
            claim: The claim. It stays, unless ``release`` is true.
            record: It replaces the stored one. None: the name has no record any more.
            release: Whether to end the claim in the same write.
        """

    async def release(self, claim: Claim) -> None:
        """End the claim. The record stays. Does nothing if the claim was lost."""

    async def now(self) -> datetime:
        """Return the time in UTC, by the clock that decides when a lease expires."""
        ...


def entries_of(store: Store) -> AsyncIterator[TenantRecord | StoreError]:
    """Yield all records of ``store``, with the error of each unreadable one in its place if it has ``entries``."""
    entries: Callable[[], AsyncIterator[TenantRecord | StoreError]] = getattr(store, "entries", store.records)
    return entries()


async def readable(entries: AsyncIterator[T | StoreError]) -> AsyncIterator[T]:
    """Yield the ``entries`` that are no errors, then raise StoreError if some could not be read."""
    damaged: list[StoreError] = []
    async for entry in entries:
        if isinstance(entry, StoreError):
            damaged.append(entry)
        else:
            yield entry
    if damaged:
        names = tuple(name for error in damaged for name in error.damaged)
        others = ", ".join(map(repr, names[1:]))
        error = StoreError(f"{damaged[0]}; nor can the records of {others} be read" if others else str(damaged[0]))
        error.damaged = names
        raise error


# These two are safe to kill and to repeat. Stop the processes that use the store first: both refuse a claimed name, and
# later writes of these processes would use the old key or the old store.


async def rewrite_records(store: Store) -> int:
    """Write each record of ``store`` again, so that it is encrypted with the first of the store's keys.

    Example:
        Change the key, then drop the old one::

            async with SQLiteStore(path, key=[new, old]) as store:
                await rewrite_records(store)

    Args:
        store: The store, opened with the new key first and the old one second.

    Returns:
        The number of records that it wrote.

    Raises:
        StoreError: The store failed, or a process has claimed a name. Run it again when that process is done.
            Or some records cannot be read: the others are written.
    """
    written = 0
    async for record in readable(entries_of(store)):
        async with _claim(store, record.name) as claim:
            await store.save(claim, claim.record)  # this encrypts it again
        written += 1
    return written


async def copy_records(source: Store, target: Store) -> int:
    """Copy each record of ``source`` to ``target``. ``source`` keeps its records.

    Args:
        source: An open store.
        target: Another open store. Records that it already has must be equal.

    Returns:
        The number of records that it wrote, without those that ``target`` already had.

    Raises:
        StoreError: A store failed, a process has claimed a name, or ``target`` has another record of a name.
            Copied records stay there. Run it again to continue. Or some records cannot be read: the others are copied.
    """
    written = 0
    async for record in readable(entries_of(source)):
        name = record.name
        async with _claim(source, name) as original, _claim(target, name) as claim:
            if claim.record == original.record:
                continue
            if claim.record is not None:
                raise StoreError(
                    f"the target already has another record of {name!r}: remove it there, or copy to an empty store"
                )
            await target.save(claim, original.record)
            written += 1
    return written


async def is_claimed(store: Store, name: str) -> bool:
    """Whether a process works on the name."""
    async with try_claim(store, name) as claim:
        return claim is None


@asynccontextmanager
async def _claim(store: Store, name: str) -> AsyncGenerator[Claim]:
    """Claim a name while the block runs, or raise StoreError if a process has claimed it."""
    async with try_claim(store, name) as claim:
        if claim is None:
            raise StoreError(f"a process works on {name!r}: run this again when it is done")
        yield claim


@asynccontextmanager
async def try_claim(store: Store, name: str, lease: float = _LEASE) -> AsyncGenerator[Claim | None]:
    """Claim a name while the block runs, or yield None if a process has claimed it."""
    claim = await store.claim(name, lease)
    try:
        yield claim
    finally:
        if claim is not None:  # also if this is cancelled: otherwise the claim stays until its lease ends
            release = asyncio.ensure_future(store.release(claim))
            try:
                await asyncio.shield(release)
            except asyncio.CancelledError:
                await asyncio.wait([release])
                raise
