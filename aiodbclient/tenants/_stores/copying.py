"""Rewrite all records of a store with another key, or copy them to another store. Both work with every ``Store``.

Both are safe to kill and to repeat. They leave out records that cannot be read, and raise StoreError after the others.
Stop the processes that use the store first: both refuse a claimed name, and later writes of these processes would use
the old key or the old store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from attrs import evolve

from ..errors import StoreError
from . import SHORT_LEASE, Claim, Record, Store, entries_of, raise_first

_AT_ONCE = 100  # records at a time


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

    async def rewrite(name: str) -> bool:
        async with _claimed(store, name) as claim:
            await store.intend(claim, claim.record.intended)  # this encrypts the whole record again
        return True

    return await _for_each(store, rewrite)


async def copy_records(source: Store, target: Store, *, claim: bool = True) -> int:
    """Copy each record of ``source`` to ``target``, with its intent. ``source`` keeps its records.

    Args:
        source: An open store.
        target: Another open store. Records that it already has must be equal.
        claim: Whether to claim each record of ``source`` meanwhile. A store that refuses changes gives no claims.

    Returns:
        The number of records that it wrote, without those that ``target`` already had.

    Raises:
        StoreError: A store failed, a process has claimed a name, or ``target`` has another record of a name.
            Copied records stay there. Run it again to continue. Or some records cannot be read: the others are copied.
    """
    return await _copy_all(source, target, claim=claim, refresh=False)


async def refresh_records(source: Store, target: Store, *, claim: bool = True) -> int:
    """Copy each record as ``copy_records`` does, and replace what an earlier copy left, unless it is newer."""
    return await _copy_all(source, target, claim=claim, refresh=True)


async def _copy_all(source: Store, target: Store, *, claim: bool, refresh: bool) -> int:
    async def copy(name: str) -> bool:
        if not claim:
            record = await source.get(name)
            return record is not None and await _copy(record, target, refresh)
        async with _claimed(source, name) as claimed:
            return await _copy(claimed.record, target, refresh)

    return await _for_each(source, copy)


async def _copy(record: Record, target: Store, refresh: bool) -> bool:
    async with _claimed(target, record.name) as claim:
        if claim.record == record:
            return False
        if refresh and _is_newer(claim.record, record):
            raise StoreError(
                f"the target has a newer record of {record.name!r} than the source, so it is no backup of it: are they "
                "the wrong way round? Otherwise copy to another target"
            )
        # A killed run leaves an empty record, or one without its intent.
        if not refresh and claim.record not in (Record(name=record.name), evolve(record, intended=None)):
            raise StoreError(
                f"the target already has another record of {record.name!r}: remove it there, or copy to an empty store"
            )
        await target.keep(claim, record.current, record.previous)
    if record.intended is not None:
        async with _claimed(target, record.name) as claim:
            await target.intend(claim, record.intended)
    return True


def _is_newer(record: Record, than: Record) -> bool:
    """Whether the credential of a record is later than that of another one, or the other has none."""
    one, other = _date(record), _date(than)
    return one is not None and (other is None or one > other)


def _date(record: Record) -> datetime | None:
    """When the tenant got its credential, or was suspended."""
    dates = () if record.current is None else (record.current.since, record.current.suspended)
    return max((each for each in dates if each is not None), default=None)


async def _for_each(store: Store, work: Callable[[str], Coroutine[Any, Any, bool]]) -> int:
    """Do ``work`` for each name on record, return how often it returned True, and raise if records cannot be read."""
    done, names, damaged = 0, list[str](), list[StoreError]()
    async for entry in entries_of(store):
        if isinstance(entry, StoreError):
            damaged.append(entry)
        else:
            names.append(entry.name)
        if len(names) == _AT_ONCE:
            done += await _all(names, work)
            names = []
    done += await _all(names, work)
    raise_first(damaged)
    return done


async def _all(names: list[str], work: Callable[[str], Coroutine[Any, Any, bool]]) -> int:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(name)) for name in names]
    except* StoreError as errors:
        raise errors.exceptions[0] from None
    return sum(task.result() for task in tasks)


@asynccontextmanager
async def _claimed(store: Store, name: str) -> AsyncGenerator[Claim]:
    claim = await store.claim(name, SHORT_LEASE)
    if claim is None:
        raise StoreError(f"a process works on {name!r}: run this again when it is done")
    try:
        yield claim
    finally:
        release = asyncio.ensure_future(store.release(claim))
        try:
            await asyncio.shield(release)
        except asyncio.CancelledError:  # finish the release; a cancelled one would leave the claim
            await asyncio.wait([release])
            raise
