"""Run a sandbox with a PostgreSQL, no rate limit, and answers that take LATENCY seconds: ``web_sandbox.py LATENCY``.

It prints the environment for an app, and serves until standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys

from aiodbclient.sandbox import Sandbox


async def main(latency: float) -> None:
    async with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster("pg", backend="postgres")
        if latency:
            sandbox.faults.add(delay=latency)
        environment = {
            "DIGITALOCEAN_API_URL": sandbox.url,
            "DIGITALOCEAN_TOKEN": sandbox.token,
            "DIGITALOCEAN_CLUSTER_ID": cluster,
        }
        print(json.dumps(environment), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
