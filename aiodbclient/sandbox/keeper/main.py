"""``main``: the guard, which starts the worker and waits for the end."""

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

    - ``folder``: null for a temporary one, which is removed at the end;
    - ``temporary``: the folder for the temporary one; null for the system's;
    - ``new``: whether to begin with an empty server;
    - ``host`` and ``port``: the address to listen on, and the port, if it is free, else any; 0 for any;
    - ``password``: the superuser's;
    - ``certificate`` and ``ca``: the server's key and chain, and the authority, as PEM; null for a server without TLS.

    One line is written to stdout, a JSON object with ``port``, ``inner`` (a port for the sandbox itself, which is never
    shut) and ``folder``, or with ``error``.

    Each further line on stdin is a JSON object too, and is answered by one, with ``counts`` of the faults:

    - ``faults``: those of SQL that are to happen from now on;
    - ``open``: whether clients are let in; with ``sessions`` false those that are there may stay.
    """
    binaries, superuser = Path(sys.argv[1]), sys.argv[2]
    starter = os.getppid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _exit)
    settings = json.loads(sys.stdin.buffer.readline())
    base, keep = None, False
    try:
        reachable = become_nobody(binaries)
        if settings["folder"] is None:
            base = Path(tempfile.mkdtemp(prefix=PREFIX, dir=settings["temporary"]))
        else:
            # Guard or worker of an earlier one that was killed may still be cleaning up. The worker has this lock too.
            fcntl.flock(os.open(settings["folder"], os.O_RDONLY), fcntl.LOCK_EX)
            base, keep = Path(settings["folder"]), True
            clean(base, keep=True)  # if both were killed, they have left files and a server
            if settings["new"]:
                shutil.rmtree(base / "data", ignore_errors=True)
        if not reachable:
            binaries = postgres.copied(binaries, base / "install")
        os.chdir("/")
        guards_end, workers_end = socket.socketpair()
        worker = os.fork()
        if worker == 0:
            guards_end.close()
            _work(binaries, superuser, settings, base, workers_end)
        workers_end.close()
        _wait_for_the_end(sys.stdin.buffer, guards_end, starter)
        guards_end.close()  # the worker stops and removes the folder; this waits however long that takes
        os.waitpid(worker, 0)
    except OSError as error:
        _tell(error=f"{error}")
    finally:
        if base is not None:
            clean(base, keep=keep)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(1)


def _tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


def _wait_for_the_end(stdin: BinaryIO, worker: socket.socket, starter: int) -> None:
    """Return when the process that started this one has closed ``stdin`` or died, or when the worker has died.

    Until then, what comes on ``stdin`` goes to the worker.

    A child of that process may hold the pipe open after its death. So this also looks whether it is still the parent.
    """
    while os.getppid() == starter:
        ready = select.select([stdin.fileno(), worker.fileno()], [], [], _LOOK_AGAIN_SECONDS)[0]
        asked = os.read(stdin.fileno(), _CHUNK) if ready == [stdin.fileno()] else b""
        if ready and not asked:
            return
        worker.sendall(asked)


def _work(binaries: Path, superuser: str, settings: dict[str, Any], base: Path, guard: socket.socket) -> None:
    """Be the worker: run PostgreSQL and its front until the guard closes its end of ``guard``. Never returns."""
    code = 1
    try:
        asyncio.run(_serve(binaries, superuser, settings, base, guard))
        code = 0
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        _tell(error=f"{error}")
    finally:
        clean(base, keep=settings["folder"] is not None)
        os._exit(code)


async def _serve(binaries: Path, superuser: str, settings: dict[str, Any], base: Path, guard: socket.socket) -> None:
    context = server_context(settings["certificate"], base)
    (base / "ca.pem").write_text(settings["ca"] or "")
    if not (base / "data").exists():
        postgres.initialise(binaries, base, superuser, settings["password"])
    server = postgres.start(binaries, base, durable=settings["folder"] is not None)
    os.chdir(base / "data")  # PostgreSQL's socket is there, and a whole path may be too long for a socket
    faults = SqlFaults(lambda seconds: door.shut(seconds))
    door = Door(Front(context, postgres.SOCKET, faults), settings["host"], settings["port"])
    inner = Door(Front(context, postgres.SOCKET), _LOOPBACK, 0)
    door.open()
    inner.open()
    orders = Orders(guard, faults, door)
    _tell(port=door.port, inner=inner.port, folder=f"{base}")
    while not (orders.over.is_set()) and server.poll() is None:
        with suppress(TimeoutError):
            await asyncio.wait_for(orders.over.wait(), _LOOK_AGAIN_SECONDS)
    await asyncio.gather(door.close(), inner.close())


class Orders:
    """What the sandbox asks of the worker while it runs.

    Args:
        guard: Where the guard passes them on, one a line. When it closes this, all is over.
        faults: The faults of SQL.
        door: What clients come in by.
    """

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
        _tell(counts=self._faults.counts())
