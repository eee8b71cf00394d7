"""A sandbox in its own process: ``storm_server.py ENGINE``.

It prints one line of JSON with its address. It answers each line on stdin with a line of JSON: what it did so far.
"""

from __future__ import annotations

import asyncio
import json
import sys

from aiodbclient.engines import Engine
from aiodbclient.sandbox import Sandbox

from ..bulk.truth import Truth


async def main(engine: str) -> None:
    async with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster(engine)
        truth = Truth(sandbox, cluster) if engine == Engine.MONGODB else None
        # Requests take a while, so that processes die in the middle of one and some answers are lost.
        sandbox.faults.add("*", delay=0.02)
        sandbox.faults.add(["users.create", "users.reset_auth", "dbs.create"], cut=True, after=True, probability=0.02)
        print(json.dumps({"url": sandbox.url, "token": sandbox.token, "cluster": cluster}), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            if sandbox.counts.total() > len(sandbox.requests):
                raise RuntimeError("the sandbox no longer keeps every request")
            writes = [
                (each.operation, each.name, each.at, each.status)
                for each in sandbox.requests
                if each.operation in ("users.create", "users.reset_auth", "users.delete")
            ]
            done = {"writes": writes, "passwords": None if truth is None else truth.passwords}
            print(json.dumps(done), flush=True)


asyncio.run(main(sys.argv[1]))
