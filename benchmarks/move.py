"""Measure moves under load: writes acknowledged, writes lost, and for how long the tenant is frozen per 100 MB.

A tenant of about 100 MB is moved between two servers of this machine, while four tasks write to it through
``TenantPools``. The servers are the sandbox's. Run it as ``python -m benchmarks.move`` (``make bench-move``).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from aiodbclient.sandbox import Sandbox
from tests.tenants.moves import opened, writing
from tests.tenants.programs import ask

MEGABYTES = 100

FILL = (
    "CREATE TABLE filling (id int PRIMARY KEY, text text)",
    f"INSERT INTO filling SELECT n, repeat(md5(n::text), 28) FROM generate_series(1, {MEGABYTES * 1000}) n",
    "CREATE TABLE t (n int PRIMARY KEY)",
)


async def measure(sandbox: Sandbox, ids: list[str]) -> bool:
    """Move a tenant, and print what happened. Returns whether no write was lost."""
    with tempfile.TemporaryDirectory() as folder:
        async with opened(sandbox, ids[0], ids[1], Path(folder, "store")) as two:
            tenants = two.tenants()
            home = await tenants.ensure("alpha")
            await ask(home, *FILL)
            async with writing(tenants, "alpha", before=500, after=1000) as writes:
                started = perf_counter()
                [moved] = [each async for each in tenants.move(["alpha"], to=two.new)]
                took, during = perf_counter() - started, len(writes.acknowledged)
            if moved.error is not None:
                raise moved.error
            lost = len(await writes.lost(moved.credential))
    megabytes, frozen, acknowledged = moved.bytes / 1e6, moved.frozen.total_seconds(), len(writes.acknowledged)
    print(
        f"{megabytes:5.0f} MB  acknowledged {acknowledged:6,} ({acknowledged - during:,} after)  "
        f"lost {lost}  frozen {frozen:5.2f} s = {frozen / megabytes * 100:5.2f} s per 100 MB  in all {took:5.2f} s"
    )
    return lost == 0


async def main() -> None:
    with Sandbox(windows=[]) as sandbox:
        ids = [await sandbox.add_cluster("pg", backend="postgres") for _ in range(2)]
        sys.exit(not await measure(sandbox, ids))


if __name__ == "__main__":
    asyncio.run(main())
