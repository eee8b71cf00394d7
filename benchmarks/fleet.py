"""Run worker processes with one token and a shared rate budget, against a sandbox with scaled windows.

On each server of budgets, PostgreSQL and Valkey, there are three runs: undisturbed, with two workers killed in the
middle, and with the server away for a while in the middle (Valkey also loses its memory). Other workers get the names
that a killed worker has not reported, so some names are requested twice. The optimum is therefore computed from the
requests that the API accepted. Then one process measures what a slot costs. ``--limits`` adds a run with a budget built
on the moving window of the ``limits`` package, which must be installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from attrs import define, field

from aiodbclient import DatabaseClient, RateLimiter, Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.shared_budget import SharedRateBudget
from budget_servers import SERVERS, BudgetServer

HERE = Path(__file__).parent


@define(eq=False)
class Worker:
    process: asyncio.subprocess.Process
    names: set[str] = field(factory=set)  # assigned but not reported
    done: int = 0
    killed: bool = False

    def give(self, name: str) -> None:
        assert self.process.stdin is not None
        self.names.add(name)
        self.process.stdin.write(f"{name}\n".encode())

    def kill(self) -> None:
        self.killed = True
        self.process.kill()


@define(eq=False)
class Fleet:
    """Hands out names, a few at a time, and collects the results."""

    todo: deque[str]
    workers: list[Worker]
    at_a_time: int
    total: int
    passwords: dict[str, str] = field(factory=dict)
    over: asyncio.Event = field(factory=asyncio.Event)
    changes: int = 0  # of the state in the server, by workers that were not killed

    def feed(self) -> None:
        # One name to each in turn, so that only the budget decides how much a worker gets done.
        while self.todo:
            free = [worker for worker in self.workers if not worker.killed and len(worker.names) < self.at_a_time]
            if not free:
                break
            min(free, key=lambda worker: len(worker.names)).give(self.todo.popleft())

    async def follow(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        async for line in worker.process.stdout:
            report = json.loads(line)
            if "changes" in report:
                self.changes += report["changes"]
                continue
            worker.names.discard(report["name"])
            worker.done += 1
            self.passwords[report["name"]] = report["password"]
            if len(self.passwords) == self.total:
                self.over.set()
            self.feed()
        if worker.names:
            self.todo.extend(worker.names)
            worker.names.clear()
            self.feed()


@define
class Figures:
    """The result of one run. ``optimum``: the least seconds for the accepted requests, if the last burst is free."""

    seconds: float
    optimum: float
    requests: int
    throttled: int
    lost: int
    shares: list[int]
    changes: float  # of the state in the server, per request

    @property
    def ratio(self) -> float:
        return self.seconds / self.optimum

    @property
    def throttled_share(self) -> float:
        return self.throttled / self.requests

    @property
    def fairness(self) -> float:
        return max(self.shares) / max(min(self.shares), 1)


async def run_fleet(
    *,
    total: int,
    workers: int,
    window: Window,
    kill: int = 0,
    away: float = 0.0,
    limits: bool = False,
    server: str = "valkey",
    patience: float = 1.0,
) -> Figures:
    """Create ``total`` users with ``workers`` processes. ``shares`` has only the workers that survived."""
    with SERVERS[server]() as budgets:
        async with Sandbox(windows=[window]) as sandbox:
            cluster = await sandbox.add_cluster("pg", backend="memory")
            plan = {
                "url": sandbox.url,
                "cluster": cluster,
                "budget": budgets.url,
                "workers": workers,
                "window": {"limit": window.limit, "seconds": window.seconds},
                "limits": limits,
                "timeout": patience,
            }
            fleet = Fleet(
                deque(f"tenant-{n:04}" for n in range(total)),
                await asyncio.gather(*(_start(plan, sandbox.token) for _ in range(workers))),
                math.ceil(1.5 * window.limit / workers),
                total,
            )
            try:
                return await _measure(fleet, budgets, sandbox, cluster, window, kill, away)
            finally:
                for worker in fleet.workers:
                    if worker.process.returncode is None:
                        worker.process.kill()
                    await worker.process.wait()


async def _start(plan: dict[str, Any], token: str) -> Worker:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "fleet_worker.py"),
        json.dumps(plan),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "DIGITALOCEAN_TOKEN": token},
    )
    assert process.stdout is not None
    if not await process.stdout.readline():
        raise RuntimeError("a worker did not start; its output is above")
    return Worker(process)


async def _measure(
    fleet: Fleet, budgets: BudgetServer, sandbox: Sandbox, cluster: str, window: Window, kill: int, away: float
) -> Figures:
    middle = fleet.total / window.limit * window.seconds / 2
    started = time.perf_counter()
    fleet.feed()
    async with asyncio.TaskGroup() as group:
        for worker in fleet.workers:
            group.create_task(fleet.follow(worker))
        group.create_task(_disturb(fleet, budgets, middle, kill, away))
        async with asyncio.timeout(20 * middle + 30):
            await fleet.over.wait()
        seconds = time.perf_counter() - started
        for worker in fleet.workers:
            assert worker.process.stdin is not None
            if not worker.killed:
                worker.process.stdin.close()
    counts = sandbox.counts
    # Reading the final users is not part of the run.
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=RateLimiter([])) as client:
        current = {user.name: user.password for user in await client.cluster(cluster, engine="pg").users.list()}
    requests = sum(counts.values())
    throttled = sum(number for (_, status), number in counts.items() if status == 429)
    return Figures(
        seconds=seconds,
        # The k-th request may be sent once the (k - limit)-th is one window old.
        optimum=(math.ceil((requests - throttled) / window.limit) - 1) * window.seconds,
        requests=requests,
        throttled=throttled,
        lost=sum(current.get(f"tenant-{n:04}") != fleet.passwords[f"tenant-{n:04}"] for n in range(fleet.total)),
        shares=[worker.done for worker in fleet.workers if not worker.killed],
        changes=fleet.changes / requests,
    )


async def _disturb(fleet: Fleet, budgets: BudgetServer, after: float, kill: int, away: float) -> None:
    await asyncio.sleep(after)
    for worker in fleet.workers[:kill]:
        worker.kill()
    if away:
        await asyncio.to_thread(budgets.stop)
        await asyncio.sleep(away)
        await asyncio.to_thread(budgets.start)


async def cost(server: str, history: int = 2500, grants: int = 200) -> tuple[float, float, int]:
    """Return the milliseconds of this process, and of the clock, for each slot; and the length of the state.

    The budget has the documented windows, and was used evenly in the last hour. One call follows another.
    """
    windows = [Window(250, 60.0), Window(5000, 3600.0)]
    with SERVERS[server]() as budgets:
        async with SharedRateBudget(budgets.url, windows, timeout=10.0) as budget:
            ledger, now = budget._ledger, time.monotonic()
            ledger.allowance = math.inf
            for n in range(history):
                ledger.take(now, bulk=False)
                ledger.end(now - 3500.0 * (1 - n / history) - 65.0, sent=True)
            ledger.allowance = 0
            await budget.acquire()
            budget.release()
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(grants):
                budget._asked = -math.inf  # without the pause between two asks
                await budget.acquire()
                budget.observe({"ratelimit-limit": "5000", "ratelimit-remaining": "2600"})
                budget.release()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            fleet = budget._process.fleet
            assert fleet is not None
            return 1000 * cpu / grants, 1000 * wall / grants, len(fleet.dump(0.0, 0.0))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--creates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--limit", type=int, default=250, help="requests in each window")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the window, scaled from a minute")
    parser.add_argument("--limits", action="store_true", help="also run with the limits package (whole seconds only)")
    parser.add_argument("--only", help="run only this: undisturbed, killed, away, limits or cost")
    parser.add_argument("--server", choices=SERVERS, help="only this server")
    parser.add_argument("--away", type=float, default=0.3, help="for how many seconds the server is away")
    options = parser.parse_args()
    runs: dict[str, dict[str, Any]] = {"undisturbed": {}, "killed": {"kill": 2}, "away": {"away": options.away}}
    if options.limits:
        runs["limits"] = {"limits": True}
    print(
        f"{options.creates} creates by {options.workers} processes, {options.limit} requests in any "
        f"{options.seconds:g} s"
    )
    print(
        f"{'server':9} {'run':12} {'s':>7} {'optimum':>8} {'ratio':>6} {'requests':>9} {'429':>5} {'429 share':>10} "
        f"{'lost':>5} {'changes/request':>16} {'max/min':>8}  done by each surviving worker"
    )
    servers = [options.server] if options.server else [*SERVERS]
    for name, how in runs.items():
        for server in servers:
            if options.only not in (None, name) or (how.get("limits") and server != "valkey"):
                continue
            window = Window(options.limit, options.seconds)
            figures = await run_fleet(
                total=options.creates, workers=options.workers, window=window, server=server, **how
            )
            print(
                f"{server:9} {name:12} {figures.seconds:7.2f} {figures.optimum:8.2f} {figures.ratio:6.3f} "
                f"{figures.requests:9} {figures.throttled:5} {figures.throttled_share:10.4f} {figures.lost:5} "
                f"{figures.changes:16.2f} {figures.fairness:8.2f}  {' '.join(map(str, figures.shares))}",
                flush=True,
            )
    for server in servers:
        if options.only in (None, "cost"):
            cpu, wall, length = await cost(server)
            print(
                f"{server:9} {cpu:.2f} ms of this process and {wall:.2f} ms for a slot; the state has {length:,} bytes"
            )


if __name__ == "__main__":
    asyncio.run(main())
