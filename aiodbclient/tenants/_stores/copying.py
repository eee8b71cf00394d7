"""Rewrite all records of a store with another key, or copy them to another store. Both work with every ``Store``.

Both are safe to kill and to repeat. They leave out records that cannot be read, and raise StoreError after the others.
Stop the processes that use the store first: both refuse a claimed name, and later writes of these processes would use
the old key or the old store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

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
            await store.begin(claim, claim.record.intended)  # this encrypts the whole record again
        return True

    return await _for_each(store, rewrite)


async def copy_records(source: Store, target: Store) -> int:
    """Copy each record of ``source`` to ``target``, with its intent. ``source`` keeps its records.

    Args:
        source: An open store.
        target: Another open store. Records that it already has must be equal.

    Returns:
        The number of records that it wrote, without those that ``target`` already had.

    Raises:
        StoreError: A store failed, a process has claimed a name, or ``target`` has another record of a name.
            Copied records stay there. Run it again to continue. Or some records cannot be read: the others are copied.
    """

    async def copy(name: str) -> bool:
        async with _claimed(source, name) as original, _claimed(target, name) as claim:
            if claim.record == original.record:
                return False
            if claim.record != Record(name=name):  # a killed run leaves an empty one
                raise StoreError(
                    f"the target already has another record of {name!r}: remove it there, or copy to an empty store"
                )
            await target.commit(claim, original.record)
        return True

    return await _for_each(source, copy)


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
