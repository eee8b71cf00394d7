"""Processes that work on tenants are killed, or stopped past their leases, at random: nothing may be lost.

``python -m tests.tenants.storm`` runs every storm of ``STORMS`` with 25 blows, and prints what it did.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from attrs import define, field, frozen

from aiodbclient.tenants import Credential, PostgresStore, SQLiteStore

from .servers import RestartablePostgres

ROOT = Path(__file__).parents[2]


@frozen
class Storm:
    """``blow`` is what befalls the workers: they are killed, or stopped for longer than their leases."""

    name: str
    engine: str
    do: str
    workers: int
    on: str
    blow: str = "kill"

    def __str__(self) -> str:
        return self.name


STORMS = [
    Storm("provision PostgreSQL, a file", "pg", "provision", 3, "sqlite"),
    Storm("provision PostgreSQL, a table", "pg", "provision", 4, "postgres"),
    Storm("rotate PostgreSQL, a file", "pg", "rotate", 1, "sqlite"),
    Storm("rotate PostgreSQL, a table", "pg", "rotate", 1, "postgres"),
    Storm("provision MongoDB, a file", "mongodb", "provision", 3, "sqlite"),
    Storm("provision MongoDB, a table", "mongodb", "provision", 4, "postgres"),
    Storm("rotate MongoDB, a file", "mongodb", "rotate", 1, "sqlite"),
    Storm("stop while provisioning, a file", "pg", "provision", 3, "sqlite", "stop"),
    Storm("stop while provisioning, a table", "mongodb", "provision", 4, "postgres", "stop"),
    Storm("stop while rotating, a file", "pg", "rotate", 2, "sqlite", "stop"),
]


@define
class Seen:
    """What a client of the tenants saw, who uses the credentials on record all the time."""

    queries: int = 0
    failures: list[str] = field(factory=list)
    enough: bool = False  # set when the clients shall end


class Weather:
    """A sandbox, a store and a log for one storm; ``rng`` decides what happens."""

    def __init__(self, storm: Storm, seed: int, folder: Path, place: str, sandbox: subprocess.Popen[str]) -> None:
        self.storm = storm
        self.rng = random.Random(seed)
        self.lease = 1.0 if storm.blow == "stop" else 60.0
        self.place = place
        self.log = folder / "told"
        self.log.touch()
        self.errors = folder / "errors"
        self.sandbox = sandbox
        self.server = self._told()
        self.workers: list[subprocess.Popen[str]] = []
        self.begun: set[subprocess.Popen[str]] = set()

    def _told(self) -> Any:
        assert self.sandbox.stdout is not None
        return json.loads(self.sandbox.stdout.readline())

    def report(self) -> Any:
        assert self.sandbox.stdin is not None
        self.sandbox.stdin.write("\n")
        self.sandbox.stdin.flush()
        return self._told()

    def start(self, names: list[str], do: str, *, once: bool = False) -> subprocess.Popen[str]:
        plan = {
            **self.server,
            "store": self.place,
            "names": names,
            "do": do,
            "once": once,
            "lease": self.lease,
            "log": str(self.log),
        }
        with open(self.errors, "a") as errors:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.tenants.storm_worker"],
                cwd=ROOT,
                env={**os.environ, "STORM": json.dumps(plan)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.workers.append(worker)
        return worker

    def finish(self, names: list[str], do: str) -> None:
        """One process does what is left, undisturbed."""
        worker = self.start(names, do, once=True)
        told, _ = worker.communicate(timeout=300)
        assert (worker.returncode, told.strip()) == (0, "begun"), self.errors.read_text()

    def blow(self, worker: subprocess.Popen[str]) -> None:
        """Kill, or stop for longer than the lease and wake, within the first moments of its work."""
        if worker not in self.begun:
            assert worker.stdout is not None
            assert worker.stdout.readline().strip() == "begun", self.errors.read_text()
            self.begun.add(worker)
        time.sleep(self.rng.uniform(0, 0.7))
        if self.storm.blow == "kill":
            worker.kill()
            worker.communicate()
        else:
            worker.send_signal(signal.SIGSTOP)
            time.sleep(self.lease * self.rng.uniform(1.2, 2))
            worker.send_signal(signal.SIGCONT)

    def told(self) -> dict[str, list[tuple[str, str, float, str]]]:
        """What was told of each tenant: login, password, when, and as what."""
        told: dict[str, list[tuple[str, str, float, str]]] = {}
        for line in self.log.read_text().splitlines():
            name, *rest = json.loads(line)
            told.setdefault(name, []).append((rest[0], rest[1], rest[2], rest[3]))
        return told

    def store(self) -> PostgresStore | SQLiteStore:
        return PostgresStore(self.place) if "://" in self.place else SQLiteStore(self.place)


@contextmanager
def weather(storm: Storm, seed: int) -> Iterator[Weather]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = str(folder / "tenants.db")
        if storm.on == "postgres":
            server = RestartablePostgres()
            stack.callback(server.close)
            place = server.dsn
        sandbox = subprocess.Popen(
            [sys.executable, "-m", "tests.tenants.storm_server", storm.engine],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(sandbox.communicate)
        here = Weather(storm, seed, folder, place, sandbox)
        stack.callback(_end, here.workers)
        yield here


def run(storm: Storm, blows: int, seed: int) -> str:
    """Run ``storm``. Returns what it did; an AssertionError tells what was lost."""
    with weather(storm, seed) as here:
        if storm.do == "provision":
            return _provision(here, blows)
        return asyncio.run(_rotate(here, blows))


def _provision(here: Weather, blows: int) -> str:
    names = [f"{here.storm.engine}-{number}" for number in range(6 * here.storm.workers + 6 * blows)]
    known = 6 * here.storm.workers  # each blow brings new names, so that there is always something to do
    workers = [here.start(names[:known], "provision") for _ in range(here.storm.workers)]
    for _ in range(blows):
        known += 6
        worker = workers.pop(0)
        here.blow(worker)
        if here.storm.blow == "kill":
            worker = here.start(names[:known], "provision")
        workers.append(worker)
    _end(workers)
    here.finish(names, "provision")
    asyncio.run(_all_is_on_record(here, names))
    report, told = here.report(), here.told()
    created = Counter(name for operation, name, _, status in report["writes"] if (operation, status) == CREATED)
    assert set(told) == set(names)
    assert max(created.values()) == 1, f"made twice: {created.most_common(3)}"
    assert "users.delete" not in {operation for operation, *_ in report["writes"]}
    if here.storm.blow == "kill":
        for name, tellings in told.items():
            assert len({(login, password) for login, password, *_ in tellings}) == 1, f"{name} was told two credentials"
        first = {login: at for tellings in told.values() for login, _, at, _ in reversed(tellings)}
        late = [(name, at) for operation, name, at, _ in report["writes"] if operation == RESET and at > first[name]]
        assert not late, f"reset after it was told: {late}"
    resets = sum(operation == RESET for operation, *_ in report["writes"])
    return f"{len(names)} tenants, {sum(map(len, told.values()))} outcomes told, {resets} passwords reset"


CREATED, RESET = ("users.create", 201), "users.reset_auth"


async def _rotate(here: Weather, blows: int) -> str:
    names = [f"tenant-{number}" for number in range(4)]
    await asyncio.to_thread(here.finish, names, "provision")
    seen = Seen()
    async with here.store() as store, asyncio.TaskGroup() as group:
        if here.storm.engine == "pg":
            for name in names:
                group.create_task(_query(store, name, seen))
        workers = [here.start(names, "rotate") for _ in range(here.storm.workers)]
        for _ in range(blows):
            worker = workers.pop(0)
            await asyncio.to_thread(here.blow, worker)
            workers.append(here.start(names, "rotate") if here.storm.blow == "kill" else worker)
        await asyncio.to_thread(_end, workers)
        await asyncio.to_thread(here.finish, names, "rotate")
        seen.enough = True
    await _all_is_on_record(here, names)
    told = here.told()
    if here.storm.blow == "kill":
        assert not seen.failures, f"of {seen.queries} queries failed: {seen.failures[:5]}"
    rotations = sum(action == "rotated" for tellings in told.values() for *_, action in tellings)
    assert rotations >= len(names)
    return f"{rotations} rotations told, {seen.queries} queries, {len(seen.failures)} failed"


async def _query(store: PostgresStore | SQLiteStore, name: str, seen: Seen) -> None:
    """A program of the tenant: it reads the credential, connects, and asks, over and over."""
    while not seen.enough:
        record = await store.get(name)
        assert record is not None
        assert record.current is not None
        seen.queries += 1
        try:
            async with await psycopg.AsyncConnection.connect(record.current.uri) as connection:
                await connection.execute("SELECT 1")
        except psycopg.Error as error:
            seen.failures.append(f"{name} as {record.current.username}: {error}")
        await asyncio.sleep(0.02)


def _end(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        if worker.returncode is None:
            worker.kill()
            worker.communicate()


async def _all_is_on_record(here: Weather, names: list[str]) -> None:
    """Every name is on record once, nothing is left open, and each credential works; so does the last one told."""
    async with here.store() as store:
        records = [record async for record in store.records()]
    assert sorted(record.name for record in records) == sorted(names)
    passwords = here.report()["passwords"]
    told = here.told()
    for record in records:
        assert record.current is not None, here.errors.read_text()[-3000:]
        assert record.intended is None, here.errors.read_text()[-3000:]
        await _works(record.current, passwords)
        if record.previous is not None:
            await _works(record.previous, passwords)
        if here.storm.blow == "kill":
            last = max(told[record.name], key=lambda telling: telling[2])
            assert last[:2] == (record.current.username, record.current.password), f"{record.name}: not the one told"


async def _works(credential: Credential, passwords: dict[str, str] | None) -> None:
    if passwords is not None:
        assert credential.password == passwords[credential.username], f"{credential.username}: another password"
        return
    async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
        await connection.execute("SELECT 1")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tenants.storm")
    parser.add_argument("--blows", type=int, default=25)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", default="", help="the storms with this in their names")
    options = parser.parse_args()
    for storm in STORMS:
        if options.only in storm.name:
            began = time.monotonic()
            did = run(storm, options.blows, options.seed)
            how = f"{options.blows} {'kills' if storm.blow == 'kill' else 'stops'} of {storm.workers} processes"
            print(f"{storm.name}: {how}, {did}: nothing lost ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
