"""Measure web backends under load: 200 visitors at a time sign up, and a probe measures /health meanwhile.

    python benchmarks/web.py

Each signup creates a db and a user. There are five processes: the sandbox (without a rate limit), the server with its
app, the same server without signups (the bystander: it shows the cost of the busy machine alone), the probe, and this
process, the visitors. Then each server gets a SIGTERM in the middle of the signups, and in another run a SIGKILL, and
is started again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from attrs import astuple, frozen
from rich.console import Console
from rich.progress import track
from rich.table import Table

from aiodbclient import DatabaseClient, RateBudget
from web_servers import HERE, SERVERS, Tally, serving, sign_up, tally

VISITORS = 200
SIGNUPS = 800
LATENCIES = (0.05, 0.0)  # seconds until the API answers; 0 puts the most load on the process
IDLE = 4.0  # seconds


@frozen
class Api:
    """The sandbox: the environment for an app, and a client."""

    environment: dict[str, str]
    client: DatabaseClient
    cluster: str


@asynccontextmanager
async def sandbox(latency: float) -> AsyncGenerator[Api]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "web_sandbox.py"), f"{latency}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        environment = json.loads(await process.stdout.readline())
        url, token = environment["DIGITALOCEAN_API_URL"], environment["DIGITALOCEAN_TOKEN"]
        async with DatabaseClient(token, base_url=url, budget=RateBudget([])) as client:
            yield Api(environment, client, environment["DIGITALOCEAN_CLUSTER_ID"])
    finally:
        await process.communicate(b"")


@asynccontextmanager
async def probing(*urls: str) -> AsyncGenerator[dict[str, list[float]]]:
    """Probe /health of ``urls`` meanwhile. The yielded dictionary has the sorted latencies at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "web_probe.py"), *urls),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    latencies: dict[str, list[float]] = {}
    try:
        await process.stdout.readline()
        yield latencies
        printed, _ = await process.communicate(b"")
        latencies.update((url, sorted(values)) for url, values in json.loads(printed).items())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def percentile(latencies: list[float], percent: int) -> float:
    """A percentile, in milliseconds."""
    return latencies[len(latencies) * percent // 100] * 1000


async def measure(name: str, api: Api, where: Path) -> list[str]:
    """Measure /health, idle and under load. Returns a row of the first table."""
    answers = Counter[int | None]()
    async with (
        serving(name, api.environment, where / "busy.db") as server,
        serving(name, api.environment, where / "bystander.db") as bystander,
    ):
        async with probing(server.url, bystander.url) as idle:
            await asyncio.sleep(IDLE)
        async with probing(server.url, bystander.url) as busy:
            started = perf_counter()
            await sign_up(server.url, names("load", SIGNUPS), VISITORS, answers)
            took = perf_counter() - started
        made = server.made()
    if answers != {201: SIGNUPS}:
        raise RuntimeError(f"{name}: some signups failed: {answers}")
    if made != {"DatabaseClient": 1, "ClientSession": 1}:
        raise RuntimeError(f"{name}: more than one client and one session: {made}")
    loaded, unloaded, beside = (
        percentile(each, 99) for each in (busy[server.url], idle[server.url], busy[bystander.url])
    )
    return [
        f"{SIGNUPS / took:.0f}",
        *(f"{percentile(idle[server.url], percent):.1f}" for percent in (50, 99)),
        *(f"{percentile(busy[server.url], percent):.1f}" for percent in (50, 99)),
        f"{loaded / unloaded:.1f}",
        f"{beside:.1f}",
        f"{loaded / beside:.1f}",
        f"{len(busy[server.url])}",
        ", ".join(str(made[kind]) for kind in ("DatabaseClient", "ClientSession")),
    ]


async def end_in_the_middle(name: str, api: Api, where: Path, number: signal.Signals) -> tuple[int, Tally, Tally]:
    """End a server during signups. Returns the answered signups, and the tallies at the end and after a restart."""
    store = where / f"{number.name}.db"
    answers = Counter[int | None]()
    async with serving(name, api.environment, store) as server:
        load = asyncio.create_task(sign_up(server.url, names(number.name.lower(), SIGNUPS), VISITORS, answers))
        while answers[201] < SIGNUPS // 8:  # noqa: ASYNC110 - no event signals the progress of the load
            await asyncio.sleep(0.01)
        await server.end(number)
        await load
    left = await tally(api.client, api.cluster, store)
    async with serving(name, api.environment, store):
        settled = await tally(api.client, api.cluster, store)
    return answers[201], left, settled


def names(kind: str, count: int) -> Iterator[str]:
    return (f"{kind}{number}" for number in range(count))


async def main() -> int:
    load = Table(title=f"/health during {SIGNUPS} signups, {VISITORS} at a time (ms)")
    columns = ("signups/s", "idle p50", "p99", "load p50", "p99", "x idle", "bystander p99", "x", "samples")
    for column in ("server", "API takes", *columns, "clients, sessions"):
        load.add_column(column, justify="left" if column == "server" else "right")
    ends = Table(title="A server ends during signups: users and credentials at the end, and after the next start")
    for column in ("server", "signal", "answered", *("users", "stored", "pending", "lost") * 2):
        ends.add_column(column, justify="left" if column in ("server", "signal") else "right")
    progress = Console(stderr=True)
    lost = 0
    for latency in LATENCIES:
        for name in track(SERVERS, f"API takes {latency * 1000:.0f} ms", console=progress):
            async with sandbox(latency) as api:
                with TemporaryDirectory() as directory:
                    load.add_row(name, f"{latency * 1000:.0f}", *await measure(name, api, Path(directory)))
        load.add_section()
    for name in track(SERVERS, "ending", console=progress):
        for number in (signal.SIGTERM, signal.SIGKILL):
            async with sandbox(LATENCIES[0]) as api:
                with TemporaryDirectory() as directory:
                    answered, left, settled = await end_in_the_middle(name, api, Path(directory), number)
            ends.add_row(name, number.name, *map(str, (answered, *astuple(left), *astuple(settled))))
            lost += left.lost + settled.lost + settled.pending + (answered > settled.stored)
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(load, ends)
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; {lost} credentials lost")
    return 0 if lost == 0 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
