"""Runs a PostgreSQL, as a program of its own: ``main`` is started by ``EmbeddedPostgres``, and reads its requests.

It leaves nothing behind when it ends, or the process that started it is killed. If the supervisor itself is killed,
Linux ends PostgreSQL, and ``EmbeddedPostgres.end`` runs ``sweep``. If both are killed, the next supervisor removes the
files. This module imports only the standard library, so that it starts fast.

PostgreSQL refuses to run as root, and root must not write files here. So a supervisor of root becomes the user
``nobody`` before it writes anything. Where ``nobody`` may not run the wheel's PostgreSQL, root packs it into an unnamed
file, and ``nobody`` unpacks it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

_PREFIX = "aiodbclient-sandbox-"
_PR_SET_PDEATHSIG = 1
_REQUEST_POLL_SECONDS = 0.5
_PROCESS_POLL_SECONDS = 0.01
_STOP_SECONDS = 5.0
_PORT_TRIES = 5

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


def main(programs: Path, superuser: str) -> None:
    """Run PostgreSQL as the requests say, which are lines of JSON on stdin, until stdin ends.

    The first request has the options of the server, the others start and stop it.
    """
    starter = os.getppid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    options = json.loads(sys.stdin.buffer.readline())
    base = None
    try:
        archive = _packed(programs)
        _become_nobody()
        base = _temporary_folder(options["parent"])
        _reply(folder=f"{base}")
        if archive is not None:
            programs = _unpack(archive, programs, base / "install")
        _initialize(programs, base, superuser, options)
        _serve_requests(_Server(programs, base, options), starter)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        _reply(error=f"{error}")
    finally:
        if base is not None:
            _clean(base)


def sweep(base: Path) -> None:
    """Clean up the folder of a supervisor that was killed."""
    _become_nobody()
    _clean(base)


def _serve_requests(server: _Server, starter: int) -> None:
    """Serve the requests on stdin until it ends, or PostgreSQL or the process that started this one does."""
    # A child of the starting process may hold the pipe open after its death.
    while not server.has_failed() and os.getppid() == starter:
        if not select.select([sys.stdin], [], [], _REQUEST_POLL_SECONDS)[0]:
            continue
        line = sys.stdin.buffer.readline()
        if not line:
            return
        request = json.loads(line)
        if request["run"]:
            server.start()
        else:
            server.stop(signal.SIGINT if request["graceful"] else signal.SIGQUIT)
        _reply(port=server.port)


def _reply(**fields: object) -> None:
    with suppress(BrokenPipeError):  # the process that started this one has ended
        print(json.dumps(fields), flush=True)


def _temporary_folder(parent: str | None) -> Path:
    """Create a folder that is locked until this process ends, and remove those of killed supervisors."""
    base = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    fcntl.flock(os.open(base, os.O_RDONLY), fcntl.LOCK_EX)
    for other in base.parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # a link, or its supervisor lives
            lock = os.open(other, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_own = os.fstat(lock).st_uid == os.geteuid()  # another user's may have links to our files
                if is_own and any(other.iterdir()):  # an empty one is new, and its supervisor about to lock it
                    _clean(other)
            finally:
                os.close(lock)
    return base


def _become_nobody() -> None:
    """If this process is root, become ``nobody`` for good."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


def _packed(programs: Path) -> IO[bytes] | None:
    """If this process is root, and ``nobody`` may not run the programs, an archive with them."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    with suppress(PermissionError):
        command, nothing = [f"{programs}/postgres", "--version"], subprocess.DEVNULL
        tried = subprocess.run(
            command, user="nobody", group=nobody.pw_gid, extra_groups=[], stdin=nothing, stdout=nothing, stderr=nothing
        )
        if tried.returncode == 0:
            return None
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # the programs load these by a relative path
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=file, mode="w") as archive:
        for folder in filter(Path.exists, (programs.parent, libraries)):
            archive.add(folder, folder.relative_to(package.parent))
    file.seek(0)
    return file


def _unpack(file: IO[bytes], programs: Path, target: Path) -> Path:
    """Write the files of ``_packed`` to the folder ``target``, and return the folder of programs in it."""
    with file, tarfile.open(fileobj=file) as members:
        # Pythons from 3.11.4 on know filters, and some of them warn if none is named.
        members.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        members.extractall(target)
    return target / programs.relative_to(programs.parents[2])


def _major_version(programs: Path) -> int:
    printed = subprocess.check_output([f"{programs}/postgres", "--version"], stdin=subprocess.DEVNULL, text=True)
    return int(re.findall(r"\d+", printed)[0])


def _initialize(programs: Path, base: Path, superuser: str, options: dict[str, Any]) -> None:
    """Initialize the server's data, or raise RuntimeError with initdb's output."""
    secret = base / "password"
    secret.touch(mode=0o600)
    secret.write_text(options["password"])
    major = _major_version(programs)
    method = options["settings"].get("password_encryption", "scram-sha-256")
    command = [f"{programs}/initdb", "-D", f"{base}/data", "-U", superuser, f"--pwfile={secret}", "-A", method]
    command += ["-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions", "--wal-segsize=4"]
    if major >= 16:  # a killed initdb would leave segments in /dev/shm
        command += ["--set=dynamic_shared_memory_type=mmap"]
    if major >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if major >= 18:  # older versions have none by default
        command += ["--no-data-checksums"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=base)
    secret.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {done.stderr.strip()[-2000:]}")
    for part in (*base.glob("data/base/*/*_fsm"), *base.glob("data/base/*/*_vm")):
        part.unlink()  # every database would copy these maps; the server creates them again when it needs them
    kind = "host"
    if options["certificate"] is not None:
        kind = "hostssl"
        key = base / "data" / "server.pem"
        key.touch(mode=0o600)
        key.write_text(options["certificate"])
    rules = [f"{kind} {database} all 0.0.0.0/0 {method}\n" for database in ("all", "replication")]
    (base / "data" / "pg_hba.conf").write_text("".join(rules))


class _Server:
    """A server that keeps its port while it is stopped."""

    def __init__(self, programs: Path, base: Path, options: dict[str, Any]) -> None:
        major = int((base / "data" / "PG_VERSION").read_text())
        settings = {name: value for name, value in _SETTINGS.items() if major >= _SINCE.get(name, 0)}
        settings |= {"listen_addresses": options["bind"], **options["settings"]}
        if options["certificate"] is not None:
            settings |= {"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.pem"}
        self._base = base
        self._command = [f"{programs}/postgres", "-D", f"{base}/data"]
        self._command += [f"--{name}={value}" for name, value in settings.items()]
        self._bind: str = options["bind"]
        self._process: subprocess.Popen[bytes] | None = None
        for tries_left in reversed(range(_PORT_TRIES)):
            self._reserved = _bound(self._bind, 0)
            self.port: int = self._reserved.getsockname()[1]
            try:
                self.start()
                return
            except RuntimeError as error:
                if "could not bind" not in str(error) or not tries_left:  # another program took the port
                    raise

    def start(self) -> None:
        """Start it, unless it runs, and wait until it is ready."""
        if self._process is not None:
            return
        end_with_supervisor = None
        if sys.platform == "linux":  # elsewhere a server whose supervisor is killed runs until the next clean-up
            end_with_supervisor = partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGQUIT)
        self._reserved.close()
        with open(self._base / "log", "wb") as log:
            process = subprocess.Popen(
                [*self._command, f"--port={self.port}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._base,
                process_group=0,
                preexec_fn=end_with_supervisor,
            )
        while process.poll() is None:
            if _status(self._base, 7).strip() == "ready":
                self._process = process
                return
            time.sleep(0.005)
        raise RuntimeError(f"PostgreSQL does not start: {(self._base / 'log').read_text()[-2000:]}")

    def stop(self, how: signal.Signals) -> None:
        """Stop it, unless it is stopped."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._reserved = _bound(self._bind, self.port)

    def has_failed(self) -> bool:
        """Whether it has ended, and nobody stopped it."""
        return self._process is not None and self._process.poll() is not None


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


def _clean(base: Path) -> None:
    """Stop the processes in ``base``, if there are any, and remove it."""
    server = int(_status(base, 0) or 0)
    if server in _running_in(base, server):
        _kill(server, signal.SIGQUIT)
        _wait_until_nothing_runs_in(base, server)
    for process in _running_in(base, server):
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


def _running_in(base: Path, server: int) -> list[int]:
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
    while _running_in(base, server) and time.monotonic() < deadline:
        time.sleep(_PROCESS_POLL_SECONDS)


if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        sweep(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[2]), sys.argv[3])
