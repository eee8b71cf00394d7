"""PostgreSQL itself, in one folder: initialise its data, start it, stop it, and remove its files."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

SOCKET = ".s.PGSQL.5432"
"""The server's socket, in its data folder. It listens nowhere else."""

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01
_THREADS = 8

# No fsync: nothing here must survive a crash of the machine. No statements in the log: they may contain passwords. Few
# rounds of hashing: the passwords are random, and more rounds would only slow down each login. A new database is a copy
# of a template's files; on Btrfs and XFS the copies share blocks until one is written.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "max_connections": "300",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_wal_size": "32MB",
    "file_copy_method": "clone",
    "dynamic_shared_memory_type": "mmap",
    "scram_iterations": "256",
    "log_min_error_statement": "panic",
    "client_connection_check_interval": "100ms",  # ends a statement soon after its client is cut off
}


_SINCE = {"client_connection_check_interval": 14, "scram_iterations": 16, "file_copy_method": 18}


def version(binaries: Path) -> int:
    """The major version of PostgreSQL in this folder."""
    command = [f"{binaries}/postgres", "--version"]
    printed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", printed)
    if found is None:
        raise RuntimeError(f"cannot read the version of {binaries}/postgres: {printed.strip()!r}")
    return int(found[1])


def initialise(binaries: Path, base: Path, superuser: str, password: str, method: str) -> None:
    """Initialise the server's data for this method of ``pg_hba.conf``, or raise RuntimeError with initdb's output."""
    secret = base / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    major = version(binaries)
    command = [f"{binaries}/initdb", "-D", f"{base}/data", "-U", superuser, f"--pwfile={secret}", "-A", method]
    command += ["-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions", "--wal-segsize=4"]
    if major >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if major >= 18:  # older versions have none by default
        command += ["--no-data-checksums"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=base)
    secret.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {done.stderr.strip()[-2000:]}")
    for aid in (*base.glob("data/base/*/*_fsm"), *base.glob("data/base/*/*_vm")):
        aid.unlink()  # every database would copy these maps; the server creates them again when it needs them


def start(binaries: Path, base: Path, chosen: dict[str, str], *, durable: bool) -> subprocess.Popen[bytes]:
    """Start the server, and wait until it is ready; if it is ``durable``, what is committed survives its kill."""
    major = version(binaries)
    settings = {name: value for name, value in _SETTINGS.items() if major >= _SINCE.get(name, 0)}
    settings |= {"synchronous_commit": "on" if durable else "off"} | chosen
    command = [f"{binaries}/postgres", "-D", f"{base}/data", *(f"--{name}={settings[name]}" for name in settings)]
    end_with_keeper = None
    if sys.platform == "linux":  # elsewhere a server whose keeper is killed runs until the next clean-up
        number = signal.SIGINT if durable else signal.SIGQUIT
        end_with_keeper = partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, number)
    with open(base / "log", "wb") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=base,
            process_group=0,
            preexec_fn=end_with_keeper,
        )
    while server.poll() is None:
        if _status(base, 7).strip() == "ready":
            return server
        time.sleep(0.005)
    raise RuntimeError(f"PostgreSQL does not start: {(base / 'log').read_text()[-2000:]}")


def clean(base: Path, *, keep: bool) -> None:
    """Stop the processes in ``base``, if there are any, and remove it, or with ``keep`` all but the data."""
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
    """A line of ``postmaster.pid``, or "": line 0 is the process, line 6 the shared memory, line 7 the state."""
    try:
        return (base / "data" / "postmaster.pid").read_text().splitlines()[line]
    except (FileNotFoundError, IndexError):
        return ""


def running_in(base: Path, server: int) -> list[int]:
    """The other processes with a working folder in ``base``; without /proc, ``server``, if it is alive."""
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
