"""``main``: the keeper. It runs PostgreSQL and its front until the process that started it closes stdin or ends.

A keeper of root becomes the user ``nobody``: PostgreSQL refuses to run as root, and root must not write files here.
Where ``nobody`` may not run the wheel's PostgreSQL, root packs it into an unnamed file, and ``nobody`` unpacks it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from . import postgres
from .faults import SqlFaults
from .front import Front, server_context

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
        archive = _packed(binaries)
        _become_nobody()
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
            binaries = _unpack(archive, binaries, base / "install")
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
    _become_nobody()
    postgres.clean(Path(sys.argv[1]), keep=sys.argv[2:] == ["keep"])


def _become_nobody() -> None:
    """If this process is root, become ``nobody`` for good."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


def _packed(binaries: Path) -> IO[bytes] | None:
    """If this process is root, and ``nobody`` may not run the programs in ``binaries``, an archive with them."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    readable = os.access(binaries / "postgres", os.R_OK | os.X_OK, effective_ids=True)
    os.seteuid(0)
    os.setegid(0)
    if readable:
        return None
    package = binaries.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # the programs load these by a relative path
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=file, mode="w") as archive:
        for folder in filter(Path.exists, (binaries.parent, libraries)):
            archive.add(folder, folder.relative_to(package.parent))
    file.seek(0)
    return file


def _unpack(file: IO[bytes], binaries: Path, target: Path) -> Path:
    """Write the files of ``_packed`` to the folder ``target``, and return the folder of programs in it."""
    try:
        with file, tarfile.open(fileobj=file) as members:
            # Pythons from 3.11.4 on know filters, and some of them warn if none is named.
            members.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            members.extractall(target)
    except tarfile.TarError as error:
        raise OSError(f"PostgreSQL cannot be copied to {target}: {error}") from None
    return target / binaries.relative_to(binaries.parents[2])


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
