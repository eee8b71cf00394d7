"""PostgreSQL itself, in one folder: initialise its data, start it, stop it, and remove its files."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 5.0
_PORT_TRIES = 5
_LOOK_AGAIN_SECONDS = 0.01

# No fsync: nothing here must survive a crash of the machine. No statements in the log: they may contain passwords. Few
# rounds of hashing: the passwords are random, and more rounds would only slow down each login. A new database is a copy
# of a template's files; on Btrfs and XFS the copies share blocks until one is written.
_SETTINGS = {
    "unix_socket_directories": "",
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


_SINCE = {"scram_iterations": 16, "file_copy_method": 18}


def major_version(binaries: Path) -> int:
    printed = subprocess.check_output([f"{binaries}/postgres", "--version"], stdin=subprocess.DEVNULL, text=True)
    return int(re.findall(r"\d+", printed)[0])


def initialise(binaries: Path, base: Path, superuser: str, order: dict[str, Any]) -> None:
    """Initialise the server's data as ``order`` says, or raise RuntimeError with initdb's output."""
    secret = base / "password"
    secret.touch(mode=0o600)
    secret.write_text(order["password"])
    major = major_version(binaries)
    method = order["settings"].get("password_encryption", "scram-sha-256")
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
    kind = "host"
    if order["certificate"] is not None:
        kind = "hostssl"
        key = base / "data" / "server.pem"
        key.touch(mode=0o600)
        key.write_text(order["certificate"])
    rules = [f"{kind} {database} all 0.0.0.0/0 {method}\n" for database in ("all", "replication")]
    (base / "data" / "pg_hba.conf").write_text("".join(rules))


class Server:
    """A server that keeps its port while it is stopped."""

    def __init__(self, binaries: Path, base: Path, order: dict[str, Any]) -> None:
        major = int((base / "data" / "PG_VERSION").read_text())
        settings = {name: value for name, value in _SETTINGS.items() if major >= _SINCE.get(name, 0)}
        settings |= {"listen_addresses": order["bind"], **order["settings"]}
        if order["certificate"] is not None:
            settings |= {"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.pem"}
        self._base = base
        self._command = [f"{binaries}/postgres", "-D", f"{base}/data"]
        self._command += [f"--{name}={value}" for name, value in settings.items()]
        self._bind: str = order["bind"]
        self._server: subprocess.Popen[bytes] | None = None
        for tries_left in reversed(range(_PORT_TRIES)):
            self._held = _bound(self._bind, 0)
            self.port: int = self._held.getsockname()[1]
            try:
                self.start()
                return
            except RuntimeError as error:
                if "could not bind" not in str(error) or not tries_left:  # another program took the port
                    raise

    def start(self) -> None:
        """Start it, unless it runs, and wait until it is ready."""
        if self._server is not None:
            return
        end_with_keeper = None
        if sys.platform == "linux":  # elsewhere a server whose keeper is killed runs until the next clean-up
            end_with_keeper = partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGQUIT)
        self._held.close()
        with open(self._base / "log", "wb") as log:
            server = subprocess.Popen(
                [*self._command, f"--port={self.port}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._base,
                process_group=0,
                preexec_fn=end_with_keeper,
            )
        while server.poll() is None:
            if _status(self._base, 7).strip() == "ready":
                self._server = server
                return
            time.sleep(0.005)
        raise RuntimeError(f"PostgreSQL does not start: {(self._base / 'log').read_text()[-2000:]}")

    def stop(self, how: signal.Signals) -> None:
        """Stop it, unless it is stopped."""
        if self._server is None:
            return
        self._server.send_signal(how)
        try:
            self._server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None
        self._held = _bound(self._bind, self.port)

    def has_failed(self) -> bool:
        """Whether it has ended, and nobody stopped it."""
        return self._server is not None and self._server.poll() is not None


def _bound(host: str, port: int) -> socket.socket:
    """A socket that holds the port but does not listen: connections are refused, and no other process gets the port."""
    bound = socket.socket()
    try:
        if port:  # connections of the server may linger
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def clean(base: Path) -> None:
    """Stop the processes in ``base``, if there are any, and remove it."""
    server = int(_status(base, 0) or 0)
    if server in running_in(base, server):
        _kill(server, signal.SIGQUIT)
        _wait_until_nothing_runs_in(base, server)
    for process in running_in(base, server):
        _kill(process, signal.SIGKILL)
    _wait_until_nothing_runs_in(base, server)
    if segment := _status(base, 6).split()[1:]:
        # A killed PostgreSQL leaves a segment of System V shared memory, of 56 bytes.
        ctypes.CDLL(None).shmctl(int(segment[0]), 0, None)  # 0 is IPC_RMID
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
            except (PermissionError, FileNotFoundError, ProcessLookupError):  # another user's process, or it has ended
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
