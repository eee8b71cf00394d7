"""``main``: the guard. It starts the worker and waits until one of them has to stop."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from . import postgres
from .door import Door
from .faults import SqlFaults
from .folder import clean
from .front import Front, server_context
from .identity import become_nobody

PREFIX = "aiodbclient-postgres-"
_LOOK_AGAIN_SECONDS = 0.5
_CHUNK = 65536
_LOOPBACK = "127.0.0.1"


def main() -> None:
    """Run until stdin ends. The arguments are the folder of PostgreSQL's programs and the superuser's name.

    The first line on stdin is a JSON object:

    - ``folder``: the data folder; null for a temporary folder that is removed at the end;
    - ``temporary``: where to create the temporary folder; null for the system's default;
    - ``new``: whether to begin with an empty server;
    - ``host`` and ``port``: the address and port to listen on; any port if this one is taken, or for 0;
    - ``password``: the superuser's password;
    - ``certificate`` and ``ca``: the server's key and chain, and the authority, as PEM; null for a server without TLS.

    The answer on stdout is one line, a JSON object with ``port``, ``inner`` (a port for the sandbox itself, which is
    never shut) and ``folder``, or with ``error``.

    Each further line on stdin is a JSON object too. Its answer is a JSON object with the ``counts`` of the faults:

    - ``faults``: the SQL faults from now on;
    - ``open``: whether to let clients in; with ``sessions`` false, existing sessions may stay.
    """
    binaries, superuser = Path(sys.argv[1]), sys.argv[2]
    starter = os.getppid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _exit)
    settings = json.loads(sys.stdin.buffer.readline())
    base, keep = None, False
    try:
        archive = become_nobody(binaries)
        if settings["folder"] is None:
            base = Path(tempfile.mkdtemp(prefix=PREFIX, dir=settings["temporary"]))
        else:
            # The guard or worker of a killed sandbox may still be cleaning up. The worker holds this lock too.
            fcntl.flock(os.open(settings["folder"], os.O_RDONLY), fcntl.LOCK_EX)
            base, keep = Path(settings["folder"]), True
            clean(base, keep=True)  # if both were killed, they left files and a server
            if settings["new"]:
                shutil.rmtree(base / "data", ignore_errors=True)
        if archive is not None:
            binaries = archive.unpack(base / "install")
        os.chdir("/")
        guards_end, workers_end = socket.socketpair()
        worker = os.fork()
        if worker == 0:
            guards_end.close()
            _work(binaries, superuser, settings, base, workers_end)
        workers_end.close()
        _wait_for_the_end(sys.stdin.buffer, guards_end, starter)
        guards_end.close()  # now the worker stops and removes the folder; wait until it has
        os.waitpid(worker, 0)
    except OSError as error:
        _report(error=f"{error}")
    finally:
        if base is not None:
            clean(base, keep=keep)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(1)


def _report(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def _wait_for_the_end(stdin: BinaryIO, worker: socket.socket, starter: int) -> None:
    """Forward ``stdin`` to the worker, until the starting process closes ``stdin`` or dies, or the worker dies."""
    while os.getppid() == starter:  # a child of the starting process may hold the pipe open after its death
        ready = select.select([stdin.fileno(), worker.fileno()], [], [], _LOOK_AGAIN_SECONDS)[0]
        asked = os.read(stdin.fileno(), _CHUNK) if ready == [stdin.fileno()] else b""
        if ready and not asked:
            return
        worker.sendall(asked)


def _work(binaries: Path, superuser: str, settings: dict[str, Any], base: Path, guard: socket.socket) -> None:
    """Run the worker: PostgreSQL and its front, until the guard closes its end of ``guard``. Never returns."""
    code = 1
    try:
        asyncio.run(_serve(binaries, superuser, settings, base, guard))
        code = 0
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        _report(error=f"{error}")
    finally:
        clean(base, keep=settings["folder"] is not None)
        os._exit(code)


async def _serve(binaries: Path, superuser: str, settings: dict[str, Any], base: Path, guard: socket.socket) -> None:
    context = server_context(settings["certificate"], base)
    (base / "ca.pem").write_text(settings["ca"] or "")
    if not (base / "data").exists():
        postgres.initialise(binaries, base, superuser, settings["password"])
    server = postgres.start(binaries, base, durable=settings["folder"] is not None)
    os.chdir(base / "data")  # for PostgreSQL's socket: its absolute path may be too long
    faults = SqlFaults(lambda seconds: door.shut(seconds))
    door = Door(Front(context, postgres.SOCKET, faults), settings["host"], settings["port"])
    inner = Door(Front(context, postgres.SOCKET), _LOOPBACK, 0)
    door.open()
    inner.open()
    orders = Orders(guard, faults, door)
    _report(port=door.port, inner=inner.port, folder=f"{base}")
    while not (orders.over.is_set()) and server.poll() is None:
        with suppress(TimeoutError):
            await asyncio.wait_for(orders.over.wait(), _LOOK_AGAIN_SECONDS)
    await asyncio.gather(door.close(), inner.close())


class Orders:
    """Follows the orders of the sandbox, which the guard forwards one a line, until the guard ends."""

    def __init__(self, guard: socket.socket, faults: SqlFaults, door: Door) -> None:
        self.over = asyncio.Event()
        self._guard = guard
        self._faults = faults
        self._door = door
        self._held = b""
        asyncio.get_running_loop().add_reader(guard, self._read)

    def _read(self) -> None:
        data = self._guard.recv(_CHUNK)
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self._follow(json.loads(line))
        if not data:
            asyncio.get_running_loop().remove_reader(self._guard)
            self.over.set()

    def _follow(self, order: dict[str, Any]) -> None:
        if "faults" in order:
            self._faults.set(order["faults"])
        if order.get("open") is True:
            self._door.open()
        elif order.get("open") is False:
            self._door.shut(sessions=order["sessions"])
        _report(counts=self._faults.counts())
