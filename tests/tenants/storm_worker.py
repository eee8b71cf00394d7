"""A process that works on tenants until it is killed. The environment says on which, where, and what to do.

It appends to a file what it was told, a line an outcome, before it takes the next.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time

from aiodbclient import Action, DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.errors import StoreError
from aiodbclient.tenants import PostgresStore, SQLiteStore, TenantDone, TenantOutcome, Tenants


def tell(log: int, outcome: TenantOutcome) -> None:
    if isinstance(outcome, TenantDone) and outcome.credential is not None:
        told = [outcome.name, outcome.credential.username, outcome.credential.password, time.time(), outcome.action]
        os.write(log, (json.dumps(told) + "\n").encode())
    elif outcome.action is Action.FAILED:
        os.write(2, f"{outcome.name}: {outcome.error!r}\n".encode())


async def main() -> None:
    plan = json.loads(os.environ["STORM"])
    log = os.open(plan["log"], os.O_WRONLY | os.O_APPEND)
    store = PostgresStore(plan["store"]) if "://" in plan["store"] else SQLiteStore(plan["store"])
    async with (
        DatabaseClient(
            plan["token"], base_url=plan["url"], budget=RateBudget([]), retry=RetryPolicy(base_delay=0.02)
        ) as client,
        store,
    ):
        tenants = Tenants(client.cluster(plan["cluster"]), store, lease=plan["lease"])
        names = plan["names"]
        random.shuffle(names)
        print("begun", flush=True)
        while True:
            run = tenants.provision(names) if plan["do"] == "provision" else tenants.rotate(names)
            async for outcome in run:
                tell(log, outcome)
            if plan["once"]:
                return
            await asyncio.sleep(0.3)


try:
    asyncio.run(main())
except StoreError as error:
    sys.exit(f"{error}")
