"""Compare the CPU cost of a call: this client, raw aiohttp, and the provider's own client, in one run.

IN_FLIGHT calls run at a time, as in real programs. With one call at a time, the cost of waking up for each answer would
hide the cost of the client. The server is another process, so this process measures only the client. The clients take
turns. Each figure is the least of ROUNDS rounds: what else the machine does, and the garbage collector, only add to it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any

import aiohttp

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.errors import NotFoundError
from aiodbclient.rate_limiter import Window

CLUSTER = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
# The last digit of the id selects the users that the server lists: of PostgreSQL, half with settings; or of one engine.
ENGINES = {"pg, mixed": "0", "pg": "1", "mysql": "2", "mongodb": "3", "kafka": "4", "opensearch": "5"}
ROUNDS = 15
IN_FLIGHT = 16
CREATES, LISTS, CLIENTS = 800, 16, 10_000

# Windows that are never full: the figures include the cost of pacing, but no waits.
UNBOUNDED = [Window(5_000_000, 60.0), Window(5_000_000, 3600.0)]

Call = Callable[[], Awaitable[Any]]
Costs = dict[str, list[float]]  # for each client: microseconds of CPU per call, in each round


@contextmanager
def local_server() -> Iterator[str]:
    """Run a server in another process, and yield its URL."""
    command = [sys.executable, str(Path(__file__).with_name("server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


async def cpu(call: Call, times: int, in_flight: int) -> float:
    """Microseconds of CPU per call."""

    async def caller() -> None:
        for _ in range(times // in_flight):
            await call()

    gc.collect()
    started = process_time()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return (process_time() - started) / times * 1e6


async def compare(title: str, calls: dict[str, Call], times: int, in_flight: int) -> Costs:
    costs: Costs = {name: [] for name in calls}
    for call in calls.values():
        await call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            costs[name].append(await cpu(call, times, in_flight))
    print(f"\n{title}, {in_flight} in flight")
    first = next(iter(calls))
    for name, rounds in costs.items():
        print(f"  {name:<14}{min(rounds):>9.0f} us CPU per call {ratio(costs, name, first):>8.2f} x {first}")
    return costs


def ratio(costs: Costs, name: str, to: str) -> float:
    return min(costs[name]) / min(costs[to])


async def measure_calls(url: str) -> None:
    from pydo.aio import Client

    headers = {"Authorization": "Bearer token"}
    users = f"{url}/v2/databases/{CLUSTER}/users"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        DatabaseClient("token", base_url=url, rate_limiter=RateLimiter(UNBOUNDED)) as ours,
    ):
        official = Client("token", endpoint=url)
        cluster = ours.cluster(CLUSTER, engine="pg")

        async def raw_create() -> Any:
            async with session.post(users, json={"name": "alice"}) as response:
                return await response.json()

        async def failing(call: Call) -> None:
            try:
                await call()
            except NotFoundError:
                return
            raise AssertionError("the server should answer 404")

        created = await compare(
            "create a user",
            {
                "raw aiohttp": raw_create,
                "aiodbclient": lambda: cluster.users.create("alice"),
                "pydo": lambda: official.databases.add_user(CLUSTER, {"name": "alice"}, enforce_https=False),
            },
            CREATES,
            IN_FLIGHT,
        )
        answered = await compare(
            "get a user",
            {
                "existing": lambda: cluster.users.get("alice"),
                "missing": lambda: failing(lambda: cluster.users.get("nobody")),
            },
            CREATES,
            IN_FLIGHT,
        )
        listed = {engine: await list_users(session, ours, official, url, engine) for engine in ENGINES}
        await official.close()
    print(f"\na create: {ratio(created, 'aiodbclient', 'raw aiohttp'):.2f} x raw (aim 1.25), ", end="")
    print(f"1/{ratio(created, 'pydo', 'aiodbclient'):.1f} of pydo (aim 1/6)")
    print(f"an error: {ratio(answered, 'missing', 'existing'):.2f} x a success (aim 2)")
    for engine, costs in listed.items():
        print(f"a list of {engine}: {ratio(costs, 'aiodbclient', 'pydo'):.2f} x pydo's dicts (aim 1), ", end="")
        print(f"{ratio(costs, 'aiodbclient', 'raw aiohttp'):.2f} x raw (aim 2.6)")


async def list_users(
    session: aiohttp.ClientSession, ours: DatabaseClient, official: Any, url: str, engine: str
) -> Costs:
    cluster_id = CLUSTER[:-1] + ENGINES[engine]
    cluster = ours.cluster(cluster_id, engine=engine.partition(",")[0])

    async def raw_list() -> Any:
        async with session.get(f"{url}/v2/databases/{cluster_id}/users") as response:
            return await response.json()

    return await compare(
        f"list 5,000 users of {engine}",
        {
            "raw aiohttp": raw_list,
            "aiodbclient": cluster.users.list,
            "pydo": lambda: official.databases.list_users(cluster_id, enforce_https=False),
        },
        LISTS,
        IN_FLIGHT,
    )


def import_time(modules: str) -> float:
    """Milliseconds of CPU to import in a fresh interpreter, with cached bytecode as for an installed package."""
    program = f"from time import process_time as t; a = t(); import {modules}; print(t() - a)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return float(run.stdout) * 1e3


def measure_import() -> None:
    costs: Costs = {"aiohttp, attrs, cattrs, backoff": [], "aiodbclient": [], "aiodbclient.client": []}
    for _ in range(ROUNDS):
        for modules, rounds in costs.items():
            rounds.append(import_time(modules))
    needs, package, client = costs
    print(f"\nimport: {min(costs[package]):.0f} ms (aim 60), ", end="")
    print(f"with DatabaseClient {min(costs[client]):.0f} ms, ", end="")
    print(f"{ratio(costs, client, needs):.2f} x import {needs} (aim 1.15)")


async def measure_clients(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        tasks = len(asyncio.all_tasks())
        tracemalloc.start()
        clients = [DatabaseClient("token", base_url=url, session=session) for _ in range(CLIENTS)]
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        started = len(asyncio.all_tasks()) - tasks
        for client in clients:
            await client.aclose()
    print(f"\n{CLIENTS:,} clients on one session: {size / CLIENTS / 1024:.1f} KiB each (aim 8), {started} tasks")


def main() -> None:
    with local_server() as url:
        asyncio.run(measure_calls(url))
        measure_import()
        asyncio.run(measure_clients(url))


if __name__ == "__main__":
    main()
