"""Processes that migrate the tenants of one store. A migration appends the tenant's name to a file."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from aiodbclient import DatabaseClient
from aiodbclient.engines import Engine
from aiodbclient.tenants import Credential, SQLiteStore, Tenants

from .mortal import PROCESSES
from .store_contract import a_record, put

NAMES = [f"t{number:03}" for number in range(100)]


async def fill(store: SQLiteStore, cluster: str, prefix: str) -> None:
    """Store a record for each of ``NAMES``; no server has them, and none is asked."""
    for name in NAMES:
        await put(store, a_record(name, cluster=cluster, database=prefix + name))


def note(path: Path, name: str) -> None:
    """Append a line in one write, as processes may do at once."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{name}\n".encode())


async def _migrate(plan: dict[str, Any]) -> None:
    async def work(credential: Credential) -> None:
        note(plan["ran"], credential.name)
        await asyncio.sleep(0.02)  # s, so that the processes meet

    async with DatabaseClient("token") as client, SQLiteStore(plan["store"]) as store:
        tenants = Tenants(client.cluster(plan["cluster"], Engine.PG), store, prefix=plan["prefix"])
        outcomes = await tenants.each(work, version=plan["version"], concurrency=4)
        outcomes.raise_for_errors()
        note(plan["done"], str(len(outcomes)))


def migrate(plan: dict[str, Any], begin: Any) -> None:
    """Migrate all tenants in this process, which dies where ``plan`` says so: before it stores the version of one."""
    save = SQLiteStore.save

    async def save_or_die(self: SQLiteStore, claim: Any, record: Any, **options: Any) -> None:
        if record is not None and record.name == plan.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        await save(self, claim, record, **options)

    SQLiteStore.save = save_or_die  # type: ignore[assignment,method-assign]
    begin.wait()
    asyncio.run(_migrate(plan))


async def in_processes(number: int, plan: dict[str, Any]) -> None:
    """Migrate in so many processes at once."""
    begin = PROCESSES.Barrier(number)
    processes = [PROCESSES.Process(target=migrate, args=[plan, begin]) for _ in range(number)]
    for each in processes:
        each.start()
    for each in processes:
        await asyncio.to_thread(each.join)
