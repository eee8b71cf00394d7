"""The folder of one PostgreSQL: find the processes that run in it, stop them, and remove it."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_STOP_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01
_THREADS = 8


def clean(base: Path, *, keep: bool) -> None:
    """Stop the processes in ``base``, and remove it, or with ``keep`` all but the data. Safe to repeat."""
    server = int(_status(base, 0) or 0)
    if server in running_in(base, server):
        # Both signals end the server's processes at once. With SIGINT, it writes its data to disk first.
        _kill(server, signal.SIGINT if keep else signal.SIGQUIT)
        _wait_until_nothing_runs_in(base, server)
    for process in running_in(base, server):
        _kill(process, signal.SIGKILL)
    _wait_until_nothing_runs_in(base, server)
    if segment := _status(base, 6).split()[1:]:
        # A killed PostgreSQL leaves a segment of System V shared memory, of 56 bytes.
        ctypes.CDLL(None).shmctl(int(segment[0]), 0, None)  # 0 is IPC_RMID
    if not keep:
        _remove(base)
        return
    (base / "data" / "postmaster.pid").unlink(missing_ok=True)  # after a kill it still says "ready"
    for entry in base.iterdir():
        if entry.is_dir() and entry.name != "data":
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != "data":
            entry.unlink(missing_ok=True)


def _remove(base: Path) -> None:
    """Remove ``base``, several databases at a time, since removing a file is slow on some disks."""
    with ThreadPoolExecutor(_THREADS) as threads:
        for database in base.glob("data/base/*"):
            threads.submit(shutil.rmtree, database, ignore_errors=True)
    shutil.rmtree(base, ignore_errors=True)


def _status(base: Path, line: int) -> str:
    """A line of ``postmaster.pid``, or "". Line 0 is the server's process, line 6 its shared memory."""
    try:
        return (base / "data" / "postmaster.pid").read_text().splitlines()[line]
    except (FileNotFoundError, IndexError):
        return ""


def running_in(base: Path, server: int) -> list[int]:
    """The other processes with a working folder in ``base``. Without /proc: ``server``, if it is alive."""
    if not os.path.exists("/proc/self/cwd"):
        return [server] if server and _kill(server, 0) else []
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            try:
                folder = os.readlink(f"/proc/{entry}/cwd").removesuffix(" (deleted)")
            except OSError:  # the process belongs to another user, or has ended
                continue
            if folder == str(base) or folder.startswith(f"{base}/"):
                found.append(int(entry))
    return found


def _kill(process: int, number: int) -> bool:
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _wait_until_nothing_runs_in(base: Path, server: int) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while running_in(base, server) and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN_SECONDS)
