"""One worker of ``fleet.py``: reads names, one per line, creates a user for each, and prints its password as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import Any

from aiodbclient import DatabaseClient, RetryPolicy, Window, errors
from aiodbclient.shared_budget import SharedRateBudget, token_key


async def main(plan: dict[str, Any]) -> None:
    token = os.environ["DIGITALOCEAN_TOKEN"]
    window = Window(**plan["window"])
    if plan["limits"]:
        from limits_budget import LimitsBudget

        budget: Any = LimitsBudget(plan["budget"], window)
    else:
        budget = SharedRateBudget(
            plan["budget"],
            [window],
            key=token_key(token),
            fallback_share=1 / plan["workers"],
            timeout=plan["timeout"],
        )
    changes = 0

    def counting(change: Any) -> Any:
        async def count(step: Any) -> Any:
            nonlocal changes
            changes += 1
            return await change(step)

        return count

    if not plan["limits"]:
        budget._cell.change = counting(budget._cell.change)
    async with (
        budget,
        DatabaseClient(token, base_url=plan["url"], budget=budget, retry=RetryPolicy(max_tries=20)) as client,
    ):
        users = client.cluster(plan["cluster"], engine="pg").users

        async def provide(name: str) -> None:
            try:
                user = await users.create(name)
            except errors.NameTakenError:
                # A worker that had this name before was killed, perhaps between the answer and the report.
                user = await users.reset_auth(name)
            print(json.dumps({"name": name, "password": user.password}), flush=True)

        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        print(json.dumps({"ready": True}), flush=True)
        async with asyncio.TaskGroup() as group:
            async for line in lines:
                group.create_task(provide(line.decode().strip()))
    print(json.dumps({"changes": changes}), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {os.getpid()} %(message)s")
    asyncio.run(main(json.loads(sys.argv[1])))
