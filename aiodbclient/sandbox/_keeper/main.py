"""``main``: the keeper. It runs PostgreSQL and its front until the process that started it closes stdin or ends."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from . import postgres
from .faults import SqlFaults
from .front import Front, server_context
from .identity import become_nobody, packed, unpack

_PREFIX = "aiodbclient-sandbox-"
_LOOK_AGAIN_SECONDS = 0.5
_LONGEST_ORDER = 2**24
_LOOPBACK = "127.0.0.1"


def main() -> None:
    """Run until stdin ends. The arguments are the folder of PostgreSQL's programs and the superuser's name.

    The first line on stdin is a JSON object:

    - ``folder``: the data folder; null for a temporary folder that is removed at the end;
    - ``temporary``: where to create the temporary folder; null for the system's default;
    - ``new``: whether to begin with an empty server;
    - ``host`` and ``port``: the address and port to listen on; any port if this one is taken, or for 0;
    - ``password``: the superuser's password;
    - ``settings``: those of the server that differ from ``postgres.py``'s;
    - ``certificate``: the server's key and chain as PEM; null for a server without TLS.

    The answers on stdout are JSON objects, one a line. The first one has the ``folder``, the second one ``port`` and
    ``inner`` (a port for the sandbox itself, which is never shut, without TLS). Either can have an ``error`` instead.

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
        archive = packed(binaries)
        become_nobody()
        if settings["folder"] is None:
            base = _temporary_folder(settings["temporary"])
        else:
            # The keeper of a killed sandbox may still be cleaning up. It holds this lock too.
            fcntl.flock(os.open(settings["folder"], os.O_RDONLY), fcntl.LOCK_EX)
            base, keep = Path(settings["folder"]), True
            postgres.clean(base, keep=True)  # if it was killed too, it left files and a server
            if settings["new"]:
                shutil.rmtree(base / "data", ignore_errors=True)
        _report(folder=f"{base}")
        if archive is not None:
            binaries = unpack(archive, binaries, base / "install")
        asyncio.run(_serve(binaries, superuser, settings, base, starter))
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        _report(error=f"{error}")
    finally:
        if base is not None:
            postgres.clean(base, keep=keep)


def _temporary_folder(parent: str | None) -> Path:
    """Create a folder that is locked until this process ends, and remove those of killed keepers."""
    base = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    fcntl.flock(os.open(base, os.O_RDONLY), fcntl.LOCK_EX)
    for other in base.parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # a link, or its keeper lives
            lock = os.open(other, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_own = os.fstat(lock).st_uid == os.geteuid()  # another user's may have links to our files
                if is_own and any(other.iterdir()):  # an empty one is new, and its keeper about to lock it
                    postgres.clean(other, keep=False)
            finally:
                os.close(lock)
    return base


def sweep() -> None:
    """Clean up after a keeper that was killed; the arguments are its folder, and ``keep`` if the data stays."""
    become_nobody()
    postgres.clean(Path(sys.argv[1]), keep=sys.argv[2:] == ["keep"])


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(1)


def _report(**fields: object) -> None:
    with suppress(BrokenPipeError):  # the process that started this one has ended
        print(json.dumps(fields), flush=True)


async def _serve(binaries: Path, superuser: str, settings: dict[str, Any], base: Path, starter: int) -> None:
    """Run PostgreSQL and its front, until stdin ends or one of the two other processes does."""
    context = server_context(settings["certificate"], base)
    if not (base / "data").exists():
        method = settings["settings"].get("password_encryption", "scram-sha-256")
        postgres.initialise(binaries, base, superuser, settings["password"], method)
    server = postgres.start(binaries, base, settings["settings"], durable=settings["folder"] is not None)
    os.chdir(base / "data")  # for PostgreSQL's socket: its absolute path may be too long
    faults = SqlFaults()
    front = Front(context, postgres.SOCKET, settings["host"], settings["port"], faults)
    inner = Front(None, postgres.SOCKET, _LOOPBACK)
    await front.open()
    await inner.open()
    _report(port=front.port, inner=inner.port)
    following = asyncio.create_task(_follow_orders(faults, front))
    # A child of the starting process may hold the pipe open after its death.
    while not following.done() and server.poll() is None and os.getppid() == starter:
        await asyncio.wait([following], timeout=_LOOK_AGAIN_SECONDS)
    following.cancel()
    await asyncio.gather(front.close(), inner.close())


async def _follow_orders(faults: SqlFaults, front: Front) -> None:
    """Follow the orders of the sandbox, until stdin ends."""
    orders = asyncio.StreamReader(_LONGEST_ORDER)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        order = json.loads(line)
        if "faults" in order:
            faults.set(order["faults"])
        if order.get("open") is True:
            await front.open()
        elif order.get("open") is False:
            front.shut(sessions=order["sessions"])
        _report(counts=faults.counts())
