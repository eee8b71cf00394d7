"""A process that works on one tenant, and is killed before a change of the store, a statement or a program's start."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy
from aiodbclient.tenants import SQLiteStore, Tenants

from .conftest import Place, only
from .dying import stepping
from .moves import Two
from .own_stores import expire

# They are forked from one that has imported what they need.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.tenants.mortal"])

WORK: dict[str, Callable[[Tenants, str], Awaitable[Any]]] = {
    "ensure": lambda tenants, name: tenants.ensure(name),
    "adopt": lambda tenants, name: tenants.ensure(name, if_exists="adopt"),
    "copy": lambda tenants, name: tenants.ensure(name),
    "reader": lambda tenants, name: tenants.role("reader").ensure(name),
    "rotate": lambda tenants, name: only(tenants.rotate([name], force=True)),
    "revoke-previous": lambda tenants, name: only(tenants.revoke_previous([name])),
    "repair": lambda tenants, name: only(tenants.repair([name])),
    "suspend": lambda tenants, name: only(tenants.suspend([name])),
    "resume": lambda tenants, name: only(tenants.resume([name])),
    "remove": lambda tenants, name: only(tenants.remove([name])),
}
OPTIONS: dict[str, dict[str, Any]] = {"copy": {"template": "golden"}}  # of the ``Tenants``
MOVE: dict[str, Callable[[Tenants, str], Awaitable[Any]]] = {"move": lambda tenants, name: only(tenants.move([name]))}


async def _work(plan: dict[str, Any]) -> None:
    limiter, retry = RateLimiter([]), RetryPolicy(base_delay=0.01)
    async with (
        DatabaseClient(plan["token"], base_url=plan["url"], rate_limiter=limiter, retry=retry) as client,
        SQLiteStore(plan["store"]) as store,
    ):
        options = OPTIONS.get(plan["operation"], {})
        tenants = Tenants([client.cluster(each) for each in plan["clusters"]], store, prefix=plan["prefix"], **options)
        done = await (WORK | MOVE)[plan["operation"]](tenants, plan["name"])
        assert getattr(done, "error", None) is None, done.error


def work(plan: dict[str, Any], step: int, seen: Any) -> None:
    """Do the work of ``plan`` in this process, which dies at its step. Count the steps in ``seen``."""
    tempfile.tempdir = str(Path(plan["store"]).parent)  # with what it leaves

    def die_or_go_on() -> None:
        seen.value += 1
        if seen.value == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with stepping(die_or_go_on):
        asyncio.run(_work(plan))


async def killed(place: Place | Two, clusters: list[str], operation: str, name: str, step: int) -> tuple[bool, int]:
    """Work in another process that is killed at a step. Return whether it was, and how many steps it began."""
    plan = {"token": place.sandbox.token, "url": place.sandbox.url, "clusters": clusters}
    plan |= {"store": f"{place.path}", "prefix": place.prefix, "operation": operation, "name": name}
    seen = PROCESSES.Value("i")
    process = PROCESSES.Process(target=work, args=[plan, step, seen])
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode in (0, -signal.SIGKILL)
    expire(place.path)
    return process.exitcode != 0, seen.value
