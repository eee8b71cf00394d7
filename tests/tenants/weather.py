"""The parts of a storm: a sandbox, a store, processes that work on tenants, and blows that strike them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from aiodbclient.tenants import PostgresStore, SQLiteStore

from .servers import RestartablePostgres

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds without an outcome after which a storm fails
CHANGES = {"created", "adopted", "reset", "rotated", "retired", "repaired"}


@frozen
class Storm:
    """``blow`` strikes the workers: it kills them, or stops them for longer than their leases."""

    name: str
    engine: str
    do: str
    workers: int
    on: str
    blow: str = "kill"

    def __str__(self) -> str:
        return self.name


@frozen
class Reported:
    """An outcome that a worker got for a tenant, with its time."""

    name: str
    login: str
    password: str
    at: float
    action: str


class Weather:
    """A sandbox, a store and a log for one storm. ``rng`` decides what happens.

    ``pace`` is the time to the last awaited outcome on this machine, in seconds.
    """

    def __init__(self, storm: Storm, seed: int, folder: Path, place: str, sandbox: subprocess.Popen[str]) -> None:
        self.storm = storm
        self.rng = random.Random(seed)
        self.lease = 1.0 if storm.blow == "stop" else 60.0
        self.place = place
        self.folder = folder
        self.errors = folder / "errors"
        self.sandbox = sandbox
        self.server = self._answer()
        self.pace = 0.0
        self.workers: list[subprocess.Popen[str]] = []
        self._begun: set[subprocess.Popen[str]] = set()
        self._reported: list[Reported] = []
        self._log = folder / "outcomes"
        self._log.touch()
        self._read = 0  # bytes read of it

    def _answer(self) -> Any:
        assert self.sandbox.stdout is not None
        return json.loads(self.sandbox.stdout.readline())

    def report(self) -> Any:
        """What the sandbox has done so far."""
        assert self.sandbox.stdin is not None
        self.sandbox.stdin.write("\n")
        self.sandbox.stdin.flush()
        return self._answer()

    def name(self, names: list[str]) -> None:
        """Add ``names`` to the work of every worker, from its next round on."""
        with open(self.folder / "names", "a") as file:
            file.write("".join(f"{name}\n" for name in names))

    def start(self, do: str, *, once: bool = False) -> subprocess.Popen[str]:
        plan = {
            **self.server,
            "store": self.place,
            "folder": str(self.folder),
            "do": do,
            "once": once,
            "lease": self.lease,
        }
        with open(self.errors, "a") as errors:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.tenants.storm_worker"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "STORM": json.dumps(plan),
                    "TMPDIR": str(self.folder),
                },  # for the files of killed processes
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.workers.append(worker)
        return worker

    def finish(self, do: str) -> None:
        """Finish the work with one undisturbed process."""
        self._join(self.start(do, once=True))

    def calm(self) -> None:
        """End the workers. A worker that was stopped and woken may have to repair something first."""
        if self.storm.blow == "kill":
            self.end()
            return
        (self.folder / "enough").touch()
        for worker in self.workers:
            if worker.returncode is None:
                self._join(worker)

    def end(self) -> None:
        for worker in self.workers:
            if worker.returncode is None:
                worker.kill()
                worker.communicate()

    def blow(self, worker: subprocess.Popen[str], *, patient: bool) -> None:
        """Kill ``worker``, or stop it for longer than the lease and wake it, at a random time.

        The time is within the machine's pace for an outcome. It counts from now, or with ``patient`` from the next
        outcome, so that the storm progresses.
        """
        if worker not in self._begun:
            assert worker.stdout is not None
            assert worker.stdout.readline().strip() == "begun", self.errors.read_text()
            self._begun.add(worker)
        if patient:
            self._wait_for_an_outcome()
        time.sleep(self.rng.uniform(0, self.pace))
        if self.storm.blow == "kill":
            worker.kill()
            worker.communicate()
        else:
            worker.send_signal(signal.SIGSTOP)
            time.sleep(self.lease * self.rng.uniform(1.2, 2))
            worker.send_signal(signal.SIGCONT)

    def reported(self) -> list[Reported]:
        """All reported outcomes so far."""
        with open(self._log, "rb") as log:
            log.seek(self._read)
            whole, end, _ = log.read().rpartition(b"\n")
        for line in (whole + end).splitlines(keepends=True):
            self._reported.append(Reported(*json.loads(line)))
            self._read += len(line)
        return self._reported

    def progress(self) -> int:
        """The number of outcomes that changed something."""
        return sum(one.action in CHANGES for one in self.reported())

    def store(self) -> PostgresStore | SQLiteStore:
        return PostgresStore(self.place) if "://" in self.place else SQLiteStore(self.place)

    def _join(self, worker: subprocess.Popen[str]) -> None:
        worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0, self.errors.read_text()[-3000:]

    def _wait_for_an_outcome(self) -> None:
        before, began = self.progress(), time.monotonic()
        while self.progress() == before:
            assert time.monotonic() < began + PATIENCE, f"no outcome in {PATIENCE} s; {self.errors.read_text()[-3000:]}"
            time.sleep(0.005)
        self.pace = time.monotonic() - began


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
        stack.callback(here.end)
        yield here
