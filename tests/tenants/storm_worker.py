"""A process that works on tenants until it is killed. The environment names the tenants, the place and the work.

It works on the names in the file ``names``, and reads them again for each round. It appends each outcome as a line to
the file ``outcomes`` before it takes the next. If there is a file ``enough``, it ends after its round.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiodbclient import Action, DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.errors import StoreError
from aiodbclient.tenants import PostgresStore, SQLiteStore, TenantDone, TenantOutcome, Tenants

# So that clients can read the new credential before the next rotation.
PAUSES = {"provision": 0.05, "rotate": 0.3, "day": 0.05}
VERBS = {"provision": ["provision"], "rotate": ["rotate"], "day": ["repair", "check", "rotate", "retire"]}


def do(tenants: Tenants, verb: str, names: list[str]) -> AsyncIterator[Any]:
    """A run of one verb. A rotation does not wait until the previous one is retired."""
    return tenants.rotate(names, force=True) if verb == "rotate" else getattr(tenants, verb)(names)


def report(log: int, outcome: TenantOutcome) -> None:
    if isinstance(outcome, TenantDone):
        line = [outcome.name, outcome.credential.username, outcome.credential.password, time.time(), outcome.action]
        os.write(log, (json.dumps(line) + "\n").encode())
    elif outcome.action is Action.FAILED:
        os.write(2, f"{outcome.name}: {outcome.error!r}\n".encode())


async def main() -> None:
    plan = json.loads(os.environ["STORM"])
    folder = Path(plan["folder"])
    log = os.open(folder / "outcomes", os.O_WRONLY | os.O_APPEND)
    store = PostgresStore(plan["store"]) if "://" in plan["store"] else SQLiteStore(plan["store"])
    async with (
        DatabaseClient(
            plan["token"], base_url=plan["url"], budget=RateBudget([]), retry=RetryPolicy(base_delay=0.02)
        ) as client,
        store,
    ):
        tenants = Tenants(client.cluster(plan["cluster"]), store, lease=plan["lease"])
        verbs = VERBS[plan["do"]]
        print("begun", flush=True)
        while True:
            names = (folder / "names").read_text().split()
            random.shuffle(names)
            for verb in verbs if plan["once"] else random.sample(verbs, len(verbs)):
                async for outcome in do(tenants, verb, names):
                    report(log, outcome)
            if plan["once"] or (folder / "enough").exists():
                return
            await asyncio.sleep(PAUSES[plan["do"]])


try:
    asyncio.run(main())
except StoreError as error:
    sys.exit(f"{error}")
