"""A process that claims a name, reports it, and waits until it is ended: ``claimer.py STORE NAME LEASE [fork]``."""

from __future__ import annotations

import asyncio
import os
import sys

from aiodbclient.tenants import PostgresStore, SQLiteStore
from aiodbclient.tenants.errors import StoreError

from .store_contract import a_credential


async def main() -> None:
    place, name, lease = sys.argv[1:4]
    async with PostgresStore(place) if place.startswith("postgresql") else SQLiteStore(place) as store:
        claim = await store.claim(name, float(lease))
        begun, begins = os.pipe()
        if sys.argv[4:] == ["fork"] and (child := os.fork()):
            os.read(begun, 1)  # until the child has closed what it inherited, and said that it may not use the store
            print("claimed" if claim else "taken", child, flush=True)
        elif sys.argv[4:] == ["fork"]:
            try:
                await store.get(name)
            except StoreError as error:
                os.write(2, str(error).encode())
            os.write(begins, b".")
            await asyncio.sleep(60)
        else:
            print("claimed" if claim else "taken", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if claim is not None:
            try:
                await store.keep(claim, a_credential(name, "of the other process"))
                print("kept", flush=True)
            except StoreError as error:
                print(type(error).__name__, flush=True)


asyncio.run(main())
