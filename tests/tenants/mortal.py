"""A process that works on one tenant, and dies before one of its SQL statements."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import psycopg

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy
from aiodbclient.tenants import SQLiteStore, Tenants
from aiodbclient.tenants._servers.mysql.session import Session as MySQLSession

from .conftest import only

DIED = 9
WORK: dict[str, Callable[[Tenants, str], Awaitable[Any]]] = {
    "ensure": lambda tenants, name: tenants.ensure(name),
    "adopt": lambda tenants, name: tenants.ensure(name, "adopt"),
    "reader": lambda tenants, name: tenants.role("reader").ensure(name),
    "rotate": lambda tenants, name: only(tenants.rotate([name], force=True)),
    "revoke-previous": lambda tenants, name: only(tenants.revoke_previous([name])),
    "repair": lambda tenants, name: only(tenants.repair([name])),
    "suspend": lambda tenants, name: only(tenants.suspend([name])),
    "resume": lambda tenants, name: only(tenants.resume([name])),
    "remove": lambda tenants, name: only(tenants.remove([name])),
}


def die_at(statement: int) -> None:
    """Let this process die before its statement of this number, in whichever session."""
    numbers = count(1)

    def mortal(run: Callable[..., Any]) -> Callable[..., Any]:
        def run_or_die(*args: Any, **options: Any) -> Any:
            if next(numbers) == statement:
                os._exit(DIED)
            return run(*args, **options)

        return run_or_die

    setattr(psycopg.AsyncConnection, "execute", mortal(psycopg.AsyncConnection.execute))  # noqa: B010
    setattr(MySQLSession, "rows", mortal(MySQLSession.rows))  # noqa: B010


async def _work(plan: dict[str, Any]) -> None:
    limiter, retry = RateLimiter([]), RetryPolicy(base_delay=0.01)
    async with (
        DatabaseClient(plan["token"], base_url=plan["url"], rate_limiter=limiter, retry=retry) as client,
        SQLiteStore(plan["store"]) as store,
    ):
        await WORK[plan["verb"]](Tenants(client.cluster(plan["cluster"]), store, prefix=plan["prefix"]), plan["name"])


def work(plan: dict[str, Any]) -> None:
    """Do the work of ``plan`` in this process, which dies at its statement."""
    die_at(plan["statement"])
    asyncio.run(_work(plan))
