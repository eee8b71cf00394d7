"""A fleet that provisions from a queue, on this machine: two workers, one of which is killed in the middle.

Starts the sandbox, a valkey-server and two workers, queues the tenants, kills a worker when both have put credentials
on record, waits for the rest, and tells what happened. Exits with 1 unless each tenant has one credential on record
which works. Needs valkey-server, and: pip install 'aiodbclient[valkey]' taskiq-redis
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from store import CredentialStore

from aiodbclient import DatabaseClient, RateBudget, Window
from aiodbclient.sandbox import Sandbox

HERE = Path(__file__).parent
TENANTS_A_JOB = 5
WINDOW = Window(limit=25, seconds=1.0)
LEASE = 1.5  # s, so that a demonstration need not wait for long


@asynccontextmanager
async def running(*command: str, **environment: str) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """A program in a process group of its own, which is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=HERE,
        env=os.environ | environment,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def main(count: int) -> bool:
    tenants = [f"tenant-{n:03}" for n in range(count)]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sandbox = await stack.enter_async_context(Sandbox(windows=[WINDOW]))
        cluster = await sandbox.add_cluster("pg", backend="memory")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        # The queue has to survive a restart, so this Valkey writes it to disk.
        valkey = ("valkey-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder))
        await stack.enter_async_context(running(*valkey, "--appendonly", "yes", "--save", ""))
        environment = {
            "VALKEY_URL": f"valkey://127.0.0.1:{port}/0",
            "CREDENTIALS": str(folder / "credentials.sqlite"),
            "DIGITALOCEAN_TOKEN": sandbox.token,
            "DIGITALOCEAN_API_URL": sandbox.url,
            "CLUSTER_ID": cluster,
            "RATE_LIMIT": f"{WINDOW.limit}/{WINDOW.seconds:g}",
            "LEASE": str(LEASE),
        }
        worker = (sys.executable, "-m", "taskiq", "worker", "jobs:broker", "--workers", "1", "--max-async-tasks", "2")
        workers = [await stack.enter_async_context(running(*worker, **environment)) for _ in range(2)]
        store = CredentialStore(Path(environment["CREDENTIALS"]))

        os.environ |= environment
        from jobs import broker, provision_tenants, tick

        await _until(lambda: _listens(port))
        await broker.startup()
        stack.push_async_callback(broker.shutdown)
        for start in range(0, count, TENANTS_A_JOB):
            await provision_tenants.kiq(tenants[start : start + TENANTS_A_JOB])
        print(f"queued {count} tenants in jobs of {TENANTS_A_JOB}")

        async with asyncio.timeout(30 + count):
            await _until(lambda: len({worker for _, _, worker in store.all()}) == 2 or not store.missing(tenants))
            os.killpg(workers[0].pid, signal.SIGKILL)
            print(f"killed a worker when {len(store.all())} credentials were on record")
            while store.missing(tenants):
                await tick.kiq()
                await asyncio.sleep(0.5)
        return await _summary(sandbox, cluster, store, count)


async def _until(done: Callable[[], bool]) -> None:
    while True:
        if done():
            return
        await asyncio.sleep(0.05)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


async def _summary(sandbox: Sandbox, cluster: str, store: CredentialStore, count: int) -> bool:
    counts = sandbox.counts
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=RateBudget([])) as client:
        current = {user.name: user.password for user in await client.cluster(cluster).users.list()}
    records = store.all()
    working = sum(current.get(tenant) == password for tenant, password, _ in records)
    print(f"{len(records)} of {count} credentials on record, {working} of them work")
    print("by worker:", ", ".join(f"{done}" for done in Counter(worker for _, _, worker in records).values()))
    print("requests:", ", ".join(f"{what} {status}: {number}" for (what, status), number in sorted(counts.items())))
    return len(records) == working == count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=100)
    sys.exit(0 if asyncio.run(main(parser.parse_args().tenants)) else 1)
