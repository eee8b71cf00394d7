"""Rewrite all records of a store with another key, or copy them to another store. Both work with every ``Store``.

Both are safe to kill and to repeat. They leave out records that cannot be read, and raise StoreError after the others.
Stop the processes that use the store first: both refuse a claimed name, and later writes of these processes would use
the old key or the old store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ..errors import StoreError
from . import Claim, Record, Store, entries_of, readable

_LEASE = 60.0  # s, of a claim that ends as soon as one record is written
_LOOK_LEASE = 10.0  # s, of a claim that ends at once


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
        async with _claimed(store, record.name) as claim:
            await store.begin(claim, claim.record.intended)  # this encrypts the whole record again
        written += 1
    return written


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
    written = 0
    async for record in readable(entries_of(source)):
        name = record.name
        async with _claimed(source, name) as original, _claimed(target, name) as claim:
            if claim.record == original.record:
                continue
            if claim.record != Record(name=name):  # a killed run leaves an empty one
                raise StoreError(
                    f"the target already has another record of {name!r}: remove it there, or copy to an empty store"
                )
            await target.commit(claim, original.record)
            written += 1
    return written


async def is_claimed(store: Store, name: str) -> bool:
    """Whether a process works on the name."""
    claim = await store.claim(name, _LOOK_LEASE)
    if claim is not None:
        await _release(store, claim)
    return claim is None


@asynccontextmanager
async def _claimed(store: Store, name: str) -> AsyncGenerator[Claim]:
    claim = await store.claim(name, _LEASE)
    if claim is None:
        raise StoreError(f"a process works on {name!r}: run this again when it is done")
    try:
        yield claim
    finally:
        await _release(store, claim)


async def _release(store: Store, claim: Claim) -> None:
    """Release a claim. If cancelled, finish that first: otherwise the claim stays until its lease ends."""
    release = asyncio.ensure_future(store.release(claim))
    try:
        await asyncio.shield(release)
    except asyncio.CancelledError:
        await asyncio.wait([release])
        raise
