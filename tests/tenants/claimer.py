"""A process that claims a name, reports it, and commits when it is told to: ``claimer.py STORE NAME LEASE``."""

from __future__ import annotations

import asyncio
import sys

from aiodbclient.tenants import PostgresStore, Record, SQLiteStore
from aiodbclient.tenants.errors import StoreError


async def main(place: str, name: str, lease: str) -> None:
    async with PostgresStore(*place.split()) if place.startswith("postgresql") else SQLiteStore(place) as store:
        claim = await store.claim(name, float(lease))
        assert claim is not None
        print("claimed", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            await store.commit(claim, Record(name=name))
            print("committed", flush=True)
        except StoreError as error:
            print(type(error).__name__, flush=True)


asyncio.run(main(*sys.argv[1:]))
