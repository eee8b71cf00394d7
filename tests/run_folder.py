"""The folder of a run of the tests: a process removes it when the run ends, also one that is killed, with its programs.

Run as a program, this file is that process.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_PREFIX = "aiodbclient-run-"
_STOP_SECONDS = 5.0
_waiting = list[subprocess.Popen[bytes]]()  # until their stdin ends, with this process


def temporary_folder(parent: str) -> str:
    """Make the folder of this run, for every temporary file; in a worker, or in a run inside of a test, return it."""
    around = os.environ.get("TMPDIR", "")
    if Path(around).name.startswith(_PREFIX):
        return around
    folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent)
    Path(folder).chmod(0o1777)  # the servers of root are nobody's
    command = [sys.executable, "-I", __file__, folder, str(os.getpid())]
    # Ctrl-C does not reach it.
    _waiting.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd="/"))
    os.environ["TMPDIR"] = folder
    return folder


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process of this run makes, for all of them."""
    folder = Path(tempfile.gettempdir()) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            new = Path(tempfile.mkdtemp())
            make(new)
            new.rename(folder)
    return folder


def programs_of(folder: Path) -> Iterator[int]:
    """The processes that work in ``folder``, or were started with it as TMPDIR."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            works_in = os.readlink(process / "cwd").removesuffix(" (deleted)")
            if (
                f"{works_in}/".startswith(f"{folder}/")
                or f"TMPDIR={folder}".encode() in (process / "environ").read_bytes()
            ):
                yield int(process.name)


def _end(process: int, *, at_once: bool) -> None:
    with suppress(OSError):
        is_postgres = Path(f"/proc/{process}/comm").read_text() == "postgres\n"  # SIGTERM makes it wait for its clients
        os.kill(process, signal.SIGKILL if at_once else signal.SIGQUIT if is_postgres else signal.SIGTERM)


def main() -> None:
    folder, run = Path(sys.argv[1]), int(sys.argv[2])
    for other in folder.parent.glob(f"{_PREFIX}*-*"):
        if not Path("/proc", other.name.split("-")[2]).exists():  # that run was killed together with this process of it
            _remove(other)
    while os.getppid() == run and not select.select([sys.stdin], [], [], 0.5)[0]:
        pass
    _remove(folder)


def _remove(folder: Path) -> None:
    """End the programs of a run, and remove its folder."""
    deadline, told = time.monotonic() + _STOP_SECONDS, set[int]()
    while found := set(programs_of(folder)):
        is_late = time.monotonic() > deadline
        for process in found if is_late else found - told:
            _end(process, at_once=is_late)
        told |= found
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
