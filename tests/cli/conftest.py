"""The installed command as a process, with a sandbox and a store."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from attrs import define, evolve, field, frozen

from aiodbclient._cli.app import run
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Operation, OperationKind, SQLiteStore

from ..proxy import Proxy, behind_proxy
from ..requirements import postgres_with_tls
from ..sweeping import sweep

COMMAND = shutil.which("aiodbclient", path=str(Path(sys.executable).parent)) or "aiodbclient"
_used = iter(range(10**6))
PATIENCE = 120.0  # seconds that a command may take on a busy machine


@frozen
class Done:
    """The output of a command, and its exit code."""

    code: int
    out: str
    err: str

    def objects(self) -> list[dict[str, Any]]:
        """The parsed JSON lines of standard output."""
        return [json.loads(line) for line in self.out.splitlines()]

    def fails(self, code: int, said: str, out: str = "") -> None:
        """Check the exit code, that the error says this, and the output."""
        assert (self.code, self.out, said in self.err) == (code, out, True), self


class Terminal:
    """A process in a terminal, with no other environment than this."""

    def __init__(self, arguments: list[str], environment: dict[str, str], columns: int = 100) -> None:
        self._screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            arguments, stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True
        )
        os.close(inner)
        self.seen = ""

    def expect(self, text: str) -> str:
        """Read until ``text`` is printed, or the process ends."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if not self._read():
                break
        return self.seen

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def close(self) -> None:
        """Close the terminal, as its window is closed."""
        os.close(self._screen)
        self.process.send_signal(signal.SIGHUP)

    def end(self) -> tuple[int, str]:
        """Return the exit code and all output."""
        deadline = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < deadline, self.seen
        code = self.process.wait(PATIENCE)
        os.close(self._screen)
        return code, self.seen

    def _read(self) -> bool:
        ready, _, _ = select.select([self._screen], [], [], 0.2)
        if not ready:
            return self.process.poll() is None
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # on Linux, this means that the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@define
class Command:
    """Runs the command with the sandbox's token, and collects the output of runs without ``--show``."""

    sandbox: Sandbox
    cluster: str
    folder: Path
    environment: dict[str, str]
    before: int
    printed: list[str] = field(factory=list)
    _exits: contextlib.ExitStack = field(factory=contextlib.ExitStack)
    _proxy: Proxy | None = None

    @property
    def cluster_id(self) -> str:
        [found] = [id for id, name in self.sandbox.clusters.items() if name == self.cluster]
        return found

    @property
    def proxy(self) -> Proxy:
        """A proxy in front of the cluster's database, from now on to the end of the test."""
        if self._proxy is None:
            self._proxy = self._exits.enter_context(behind_proxy(self.sandbox, self.cluster_id))
        return self._proxy

    def close(self) -> None:
        self._exits.close()

    def use(self, sandbox: Sandbox, cluster: str | None = None) -> None:
        """Lead the command to another sandbox, and to another cluster if that has another name."""
        self.sandbox, self.cluster, self.before = sandbox, cluster or self.cluster, len(sandbox.requests)
        self.environment |= {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}

    def in_memory(self, engine: str, name: str) -> Sandbox:
        """Lead the command to a cluster in memory, of another sandbox."""
        other = self._exits.enter_context(Sandbox(windows=[], token=self.sandbox.token))
        asyncio.run(other.add_cluster(engine, name, backend="memory"))
        self.use(other, name)
        return other

    @property
    def store(self) -> str:
        return str(self.folder / "tenants.db")

    @property
    def place(self) -> list[str]:
        """The options of ``tenants`` for the cluster and store. The server is shared; the prefix is the test's own."""
        return ["--cluster", self.cluster, "--store", self.store]

    @property
    def on(self) -> list[str]:
        """The option of ``users`` and ``dbs`` for the cluster."""
        return ["--cluster", self.cluster]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        piped = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([COMMAND, *arguments], env=self.environment, text=True, **piped | options)

    def end(self, process: subprocess.Popen[str], given: str | None = None, *, shows: bool = False) -> Done:
        out, err = process.communicate(given, timeout=PATIENCE)
        if not shows:
            self.printed += [out or "", err]
        assert "Traceback" not in err
        return Done(process.returncode, out, err)

    def interrupt_twice(self, process: subprocess.Popen[str], *, shows: bool = False) -> Done:
        """Interrupt it, and again when it has said that this stops it at once."""
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "again, to stop at once" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        return self.end(process, shows=shows)

    def __call__(self, *arguments: str, given: str | None = None, shows: bool = False) -> Done:
        """Run the command in this process, which is fast. ``start`` runs it as a process."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environment, clear=True),
            patch.object(sys, "argv", ["aiodbclient", *arguments]),
            patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO((given or "").encode()))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = contextvars.copy_context().run(run, list(arguments))
        done = Done(code, out.getvalue(), err.getvalue())
        if not shows and "--show" not in arguments:
            self.printed += [done.out, done.err]
        return done

    def process(self, *arguments: str, shows: bool = False) -> Done:
        """Run the installed command to its end."""
        return self.end(self.start(*arguments), shows=shows or "--show" in arguments)

    def terminal(self, *arguments: str, columns: int = 100, **environment: str) -> Terminal:
        return Terminal([COMMAND, *arguments], self.environment | {"TERM": "xterm-256color"} | environment, columns)

    def paste(self, text: str, code: int = 0, begins: str = "aiodbclient [a-z]+ ") -> str:
        """Run the command that ``text`` ends with in a shell on a terminal, answer yes, and return what it prints."""
        found = re.findall(rf"{begins}.*$", text, re.MULTILINE)
        [line] = {each for each in found if not each.startswith("aiodbclient: ")}
        terminal = Terminal(["sh", "-c", line.strip()], self.environment | {"TERM": "xterm"}, columns=300)
        answered = 0
        while terminal.process.poll() is None and terminal._read():
            while terminal.seen.count("[y/N]") > answered:
                terminal.type("y\n")
                answered += 1
        ended, seen = terminal.end()
        assert ended == code, seen
        return seen

    def provision(self, *names: str) -> None:
        assert self("tenants", "provision", *names, *self.place).code == 0

    def change(self, name: str, **changes: Any) -> None:
        """Change what is stored of a tenant."""

        async def save() -> None:
            async with SQLiteStore(self.store) as store:
                claim = await store.claim(name, 10.0)
                assert claim is not None
                assert claim.record is not None
                await store.save(claim, evolve(claim.record, **changes), release=True)

        asyncio.run(save())

    def leave(self, name: str, operation: OperationKind, target: str | None = None) -> None:
        """Leave a tenant as a process does that died right after it had stored what it was about to do."""
        self.change(name, operation=Operation(kind=operation, target=target))

    def sent(self) -> list[tuple[str | None, str | None]]:
        return [(request.operation, request.name) for request in self.sandbox.requests[self.before :]]


@pytest.fixture
def names() -> list[str]:
    """The test's own tenants on the shared server."""
    test = next(_used)
    return [f"t{os.environ.get('PYTEST_XDIST_WORKER', 'w')}-{test}-{n}" for n in range(12)]


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process try again at once."""
    monkeypatch.setattr("backoff.full_jitter", lambda _: 0.0)


@pytest.fixture(autouse=True)
def hangup() -> Iterator[None]:
    """Commands end when their terminal is closed, also where nohup runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def with_tenants(server: Path | None = None) -> Iterator[Sandbox]:
    with Sandbox(windows=[], token="t0ken-secret") as sandbox:
        asyncio.run(sandbox.add_cluster("pg", "tenants-prod", backend="postgres", server=server))
        yield sandbox


@pytest.fixture(scope="session")
def sandbox_without_tls() -> Iterator[Sandbox]:
    """Commands on a cluster named ``tenants-prod`` with a real PostgreSQL, for tenants."""
    yield from with_tenants()


@pytest.fixture(scope="session")
def sandbox(sandbox_without_tls: Sandbox) -> Sandbox:
    return sandbox_without_tls


@pytest.fixture(scope="session")
def sandbox_with_tls() -> Iterator[Sandbox]:
    """The same with TLS, for the files that are about it: they call this their ``sandbox``."""
    yield from with_tenants(postgres_with_tls())


@pytest.fixture(scope="session")
def fleet() -> Iterator[Sandbox]:
    """Two clusters, east and west."""
    with Sandbox(windows=[], token="t0ken-secret") as fleet:
        for name in ("east", "west"):
            asyncio.run(fleet.add_cluster("pg", name, backend="postgres"))
        yield fleet


def leaks(sandbox: Sandbox, text: str) -> list[str]:
    """The secrets in a text: the beginnings of the sandbox's passwords and of the tenants', and the token."""
    return [secret for secret in ("AVNS_", "Aa1-", sandbox.token, "hunter2") if secret in text]


@pytest.fixture
def command(sandbox: Sandbox, tmp_path: Path) -> Iterator[Command]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME", "LANG", "PYTHONPATH") or name.startswith("COVERAGE_")  # which `make coverage` needs
    }
    kept["PATH"] = f"{Path(COMMAND).parent}:{kept['PATH']}"
    environment = kept | {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
    command = Command(sandbox, "tenants-prod", tmp_path, environment, before=len(sandbox.requests))
    yield command
    command.close()
    sandbox.faults.clear()
    sweep(command.sandbox)
    assert leaks(sandbox, "".join(command.printed)) == []


@pytest.fixture
def secure(command: Command, sandbox_with_tls: Sandbox) -> Command:
    """The command, on a cluster with TLS."""
    command.use(sandbox_with_tls)
    return command


@pytest.fixture
def embedded(command: Command, sandbox_without_tls: Sandbox) -> Command:
    """The command, on a cluster without TLS, which can be behind a proxy."""
    command.use(sandbox_without_tls)
    return command
