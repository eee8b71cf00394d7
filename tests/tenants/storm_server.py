"""A sandbox in its own process: ``storm_server.py``. It prints one line of JSON with its address, and reads stdin."""

from __future__ import annotations

import asyncio
import json
import sys

from aiodbclient.sandbox import Sandbox


async def main(engine: str) -> None:
    async with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster(engine, backend="postgres")
        # Requests take a while, so that processes die in the middle of one and some answers are lost.
        sandbox.faults.add("*", delay=0.02)
        sandbox.faults.add("clusters.get", cut=True, after=True, probability=0.02)
        print(json.dumps({"url": sandbox.url, "token": sandbox.token, "cluster": cluster}), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps({}), flush=True)


asyncio.run(main(sys.argv[1]))
