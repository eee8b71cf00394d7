"""A fleet on this machine that provisions from a queue: two workers, and one is killed in the middle.

It starts the sandbox with a PostgreSQL, a valkey-server and two workers, and queues the tenants. When a third of the
credentials is stored, it kills a worker. Then it waits for the rest and prints a summary. It exits with 1 unless each
tenant has one stored credential that can log in. It needs valkey-server, and:
pip install 'aiodbclient[sandbox,tenants,valkey]' taskiq-redis
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg

from aiodbclient import DatabaseClient, RateLimiter, Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, PostgresStore

HERE = Path(__file__).parent
WINDOW = Window(limit=60, seconds=1.0)
LEASE = 1.5  # seconds; short, so that the demonstration is quick


@asynccontextmanager
async def running(*command: str, **environment: str) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """Run a program in its own process group, and kill it at the end."""
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
        cluster = await sandbox.add_cluster("pg", backend="postgres")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        # The queue must survive a restart, so this Valkey writes it to disk.
        valkey = ("valkey-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder))
        await stack.enter_async_context(running(*valkey, "--appendonly", "yes", "--save", ""))
        environment = {
            "VALKEY_URL": f"valkey://127.0.0.1:{port}/0",
            "STORE": await _store_dsn(sandbox, cluster),
            "DIGITALOCEAN_TOKEN": sandbox.token,
            "DIGITALOCEAN_API_URL": sandbox.url,
            "CLUSTER_ID": cluster,
            "RATE_LIMIT": f"{WINDOW.limit}/{WINDOW.seconds:g}",
            "LEASE": str(LEASE),
        }
        worker = (sys.executable, "-m", "taskiq", "worker", "jobs:broker", "--workers", "1", "--max-async-tasks", "8")
        workers = [await stack.enter_async_context(running(*worker, **environment)) for _ in range(2)]
        store = await stack.enter_async_context(PostgresStore(environment["STORE"]))

        os.environ |= environment
        from jobs import broker, ensure_tenant, tick

        await _until(lambda: _listens(port))
        await broker.startup()
        stack.push_async_callback(broker.shutdown)
        for tenant in tenants:
            await ensure_tenant.kiq(tenant)
        print(f"queued {count} tenants")

        async with asyncio.timeout(30 + count):
            while len(await _stored(store)) < count // 3:  # noqa: ASYNC110 - other processes store them
                await asyncio.sleep(0.05)
            os.killpg(workers[0].pid, signal.SIGKILL)
            print(f"killed a worker when {len(await _stored(store))} credentials were stored")
            while len(await _stored(store)) < count:
                await tick.kiq()
                await asyncio.sleep(0.5)
        return await _summary(sandbox, await _stored(store), count)


async def _store_dsn(sandbox: Sandbox, cluster_id: str) -> str:
    """The cluster's default database. That is enough for a demonstration; use a separate server in production."""
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=RateLimiter([])) as client:
        cluster = client.cluster(cluster_id)
        return (await cluster.info()).connection.uri_for(await cluster.users.get("doadmin"))


async def _stored(store: PostgresStore) -> list[Credential]:
    return [record.current async for record in store.records() if record.current is not None]


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


async def _summary(sandbox: Sandbox, credentials: list[Credential], count: int) -> bool:
    working = 0
    for credential in credentials:
        async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
            await connection.execute("CREATE TABLE mine (x int)")
            working += 1
    print(f"{len(credentials)} of {count} credentials stored; {working} of them can log in and create a table")
    counts = sandbox.counts
    print("requests:", ", ".join(f"{what} {status}: {number}" for (what, status), number in sorted(counts.items())))
    return len(credentials) == working == count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=100)
    sys.exit(0 if asyncio.run(main(parser.parse_args().tenants)) else 1)
