"""A process that moves a tenant and kills itself: ``mover URL TOKEN STORE PREFIX OLD NEW STEP``.

Each change of the store, each statement and each start of a program is a step. It dies at the given one, and prints
"done" if there are fewer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import psycopg

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.tenants import SQLiteStore, Tenants, _copy
from aiodbclient.tenants._servers.mysql.session import Cursor

from .conftest import only


class Steps:
    """Kills this process at step ``last``."""

    def __init__(self, last: int) -> None:
        self.last, self.seen = last, 0

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def stepping(*args: Any, **options: Any) -> Any:
            self.seen += 1
            if self.seen == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
            return await call(*args, **options)

        return stepping


async def main(url: str, token: str, store_path: str, prefix: str, old: str, new: str, last: str) -> None:
    steps = Steps(int(last))
    for owner, names in (
        (SQLiteStore, ("claim", "begin", "commit")),
        (psycopg.AsyncConnection, ("execute",)),
        (Cursor, ("execute",)),  # of MySQL
        (_copy, ("create_subprocess_exec",)),
    ):
        for name in names:
            setattr(owner, name, steps.before(getattr(owner, name)))
    async with (
        DatabaseClient(token, base_url=url, rate_limiter=RateLimiter([])) as client,
        SQLiteStore(store_path) as store,
    ):
        tenants = Tenants([client.cluster(old), client.cluster(new)], store, prefix=prefix)
        outcome = await only(tenants.move(["alpha"], to=new))
        print("done" if outcome.error is None else outcome.error, steps.seen)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
