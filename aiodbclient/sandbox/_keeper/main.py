"""``main``: the keeper. It runs PostgreSQL until the process that started it closes stdin or ends.

A keeper of root becomes the user ``nobody``: PostgreSQL refuses to run as root, and root must not write files here.
Where ``nobody`` may not run the wheel's PostgreSQL, root packs it into an unnamed file, and ``nobody`` unpacks it.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from . import postgres

_PREFIX = "aiodbclient-sandbox-"
_LOOK_AGAIN_SECONDS = 0.5


def main() -> None:
    """Run PostgreSQL by the orders of ``EmbeddedPostgres``, which are lines of JSON on stdin, until stdin ends."""
    binaries, superuser = Path(sys.argv[1]), sys.argv[2]
    starter = os.getppid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    order = json.loads(sys.stdin.buffer.readline())
    base = None
    try:
        archive = _packed(binaries)
        _become_nobody()
        base = _temporary_folder(order["parent"])
        _report(folder=f"{base}")
        if archive is not None:
            binaries = _unpack(archive, binaries, base / "install")
        postgres.initialise(binaries, base, superuser, order)
        server = postgres.Server(binaries, base, order)
        _follow_orders(server, starter)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        _report(error=f"{error}")
    finally:
        if base is not None:
            postgres.clean(base)


def _follow_orders(server: postgres.Server, starter: int) -> None:
    """Follow the orders on stdin until it ends, or PostgreSQL or the process that started this one does."""
    # A child of the starting process may hold the pipe open after its death.
    while not server.has_failed() and os.getppid() == starter:
        if not select.select([sys.stdin], [], [], _LOOK_AGAIN_SECONDS)[0]:
            continue
        line = sys.stdin.buffer.readline()
        if not line:
            return
        order = json.loads(line)
        if order["run"]:
            server.start()
        else:
            server.stop(signal.SIGINT if order["graceful"] else signal.SIGQUIT)
        _report(port=server.port)


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
                    postgres.clean(other)
            finally:
                os.close(lock)
    return base


def sweep() -> None:
    """Clean up after a keeper that was killed; the argument is its folder."""
    _become_nobody()
    postgres.clean(Path(sys.argv[1]))


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
    with suppress(PermissionError):
        command, nothing = [f"{binaries}/postgres", "--version"], subprocess.DEVNULL
        tried = subprocess.run(
            command, user="nobody", group=nobody.pw_gid, extra_groups=[], stdin=nothing, stdout=nothing, stderr=nothing
        )
        if tried.returncode == 0:
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
    with file, tarfile.open(fileobj=file) as members:
        # Pythons from 3.11.4 on know filters, and some of them warn if none is named.
        members.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        members.extractall(target)
    return target / binaries.relative_to(binaries.parents[2])


def _report(**fields: object) -> None:
    with suppress(BrokenPipeError):  # the process that started this one has ended
        print(json.dumps(fields), flush=True)
