"""A process that claims a name, reports it, and waits until it is ended: ``claimer.py STORE NAME LEASE``."""

from __future__ import annotations

import asyncio
import sys

from aiodbclient.tenants import PostgresStore, SQLiteStore
from aiodbclient.tenants.errors import StoreError

from .store_contract import a_credential, put_on_record


async def main() -> None:
    place, name, lease = sys.argv[1:4]
    async with PostgresStore(place) if place.startswith("postgresql") else SQLiteStore(place) as store:
        claim = await store.claim(name, float(lease))
        print("claimed" if claim else "taken", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if claim is not None:
            try:
                await put_on_record(store, claim, a_credential(name, "of the other process"))
                print("kept", flush=True)
            except StoreError as error:
                print(type(error).__name__, flush=True)


asyncio.run(main())
