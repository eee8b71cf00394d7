"""Four processes with one token: each uses a quarter of the rate limit, and none gets a 429.

It starts the sandbox, and four processes that create their part of the users. Then it prints what the API answered.
It needs: pip install 'aiodbclient[sandbox]'
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox

WINDOW = Window(limit=40, seconds=1.0)  # leave ``windows`` out for the provider's
PROCESSES = 4


async def work(url: str, token: str, cluster_id: str, part: int, count: int) -> None:
    """Create the users of one process."""
    limiter = RateLimiter([WINDOW], share=1 / PROCESSES)
    async with DatabaseClient(token, base_url=url, rate_limiter=limiter) as client:
        users = client.cluster(cluster_id).users
        async for outcome in users.provision(f"user{number}" for number in range(part, count, PROCESSES)):
            if outcome.error is not None:
                raise outcome.error


async def main(count: int) -> bool:
    async with Sandbox(windows=[WINDOW]) as sandbox:
        cluster_id = await sandbox.add_cluster("pg", backend="memory")
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--users", str(count)),
                *("--work", sandbox.url, sandbox.token, cluster_id, str(part)),
            )
            for part in range(PROCESSES)
        ]
        codes = [await process.wait() for process in processes]
        for (operation, status), number in sorted(sandbox.counts.items()):
            print(f"{operation} {status}: {number}")
        return codes == [0] * PROCESSES and not any(status == 429 for _, status in sandbox.counts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=160)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        url, token, cluster_id, part = options.work
        asyncio.run(work(url, token, cluster_id, int(part), options.users))
    else:
        sys.exit(0 if asyncio.run(main(options.users)) else 1)
