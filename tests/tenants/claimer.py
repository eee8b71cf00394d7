"""A process that claims a name, reports it, and saves when it is told to: ``claimer.py STORE NAME LEASE``."""

from __future__ import annotations

import asyncio
import sys

from aiodbclient.tenants import PostgresStore, SQLiteStore
from aiodbclient.tenants.errors import StoreError


async def main(place: str, name: str, lease: str) -> None:
    async with PostgresStore(*place.split()) if place.startswith("postgresql") else SQLiteStore(place) as store:
        claim = await store.claim(name, float(lease))
        assert claim is not None
        print("claimed", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            await store.save(claim, None)
            print("saved", flush=True)
        except StoreError as error:
            print(type(error).__name__, flush=True)


asyncio.run(main(*sys.argv[1:]))
