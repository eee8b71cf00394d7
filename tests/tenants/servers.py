"""A PostgreSQL that can be stopped and started again with its data."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from pwd import getpwnam
from typing import Any

import psycopg

from aiodbclient.sandbox._embedded import SUPERUSER, wheel_programs

from ..proc import free_port


@cache
def runnable(programs: Path) -> Path:
    """Return ``programs``, or a copy if only root can read them: root's server runs as ``nobody``."""
    if os.geteuid() != 0:
        return programs
    with contextlib.suppress(PermissionError):
        subprocess.run(
            [programs / "initdb", "--version"], user="nobody", extra_groups=[], capture_output=True, check=True
        )
        return programs
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    return copied(programs, folder)


def copied(programs: Path, target: Path) -> Path:
    """Copy the installation with these programs to ``target``, so that everybody may run it."""
    package = programs.parents[1]
    for folder in package.parent.glob(f"{package.name}*"):  # the wheel has a folder of libraries beside it
        subprocess.run(["cp", "-R", folder, target / folder.name], check=True)
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)
    return target / programs.relative_to(package.parent)


PASSWORD = secrets.token_hex(8)  # of the superuser
# Nothing must survive a crash of the machine, but of the server: the tests kill it. Many servers run at once.
SETTINGS = {
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_wal_size": "32MB",  # by default, CREATE DATABASE takes half as much again of the processor
    "autovacuum": "off",
    "max_prepared_transactions": "5",
}


@cache
def as_a_server() -> dict[str, Any]:
    """The options of ``subprocess`` for a server: a locale that exists, and an ordinary user, since root is refused."""
    options: dict[str, Any] = {"env": os.environ | {"LC_ALL": "C.UTF-8"}}
    if os.geteuid() == 0:
        options |= {"user": "nobody", "group": getpwnam("nobody").pw_gid, "extra_groups": []}
    return options


def for_a_server(path: Path) -> Path:
    """Give a file or folder to the user that root's servers run as."""
    if os.geteuid() == 0:
        shutil.chown(path, "nobody", getpwnam("nobody").pw_gid)
    return path


def new_folder() -> Path:
    return for_a_server(Path(tempfile.mkdtemp()))


@cache
def initialized(programs: Path) -> Path:
    """Return the data of a new server. ``initdb`` takes a second of CPU, and a copy a tenth."""
    base = new_folder()
    (base / "password").write_text(PASSWORD)
    for_a_server(base / "password")
    initdb = [f"{programs}/initdb", "-D", "data", "-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile=password"]
    if ") 15." not in subprocess.check_output([programs / "initdb", "--version"], text=True, **as_a_server()):
        initdb += ["--set=dynamic_shared_memory_type=mmap"]  # a killed initdb would leave segments in /dev/shm
    subprocess.run([*initdb, "--no-sync"], cwd=base, check=True, capture_output=True, **as_a_server())
    return base / "data"


def execute(dsn: str, statement: str, **more: str) -> None:
    """Run a statement as the login of ``dsn``."""
    with psycopg.connect(dsn, autocommit=True, **more) as connection:  # type: ignore[arg-type]
        connection.execute(statement.encode())


class RestartablePostgres:
    """A server with a fixed port: embedded, or of the programs in ``found``. ``dsn`` is the superuser's."""

    def __init__(self, found: Path | None = None) -> None:
        found = found or wheel_programs()
        assert found is not None
        self._binaries = found = runnable(found)
        self._base = new_folder()
        subprocess.run(["cp", "-a", initialized(found), self._base / "data"], check=True)
        self._port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self.dsn = f"postgresql://{SUPERUSER}:{PASSWORD}@127.0.0.1:{self._port}/postgres"
        self.start()

    @property
    def hba(self) -> Path:
        """The file that says how clients authenticate."""
        return self._base / "data" / "pg_hba.conf"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._server is not None
        return self._server

    def stop(self) -> None:
        """Break all connections at once, as a crash does."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()
            self._server = None

    def start(self) -> None:
        self._server = subprocess.Popen(
            [f"{self._binaries}/postgres", "-D", "data", "-p", f"{self._port}"]
            + [f"--{name}={value}" for name, value in SETTINGS.items()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._base,
            process_group=0,
            **as_a_server(),
        )
        while not self._ready():
            assert self._server.poll() is None
            time.sleep(0.01)

    def _ready(self) -> bool:
        try:
            return (self._base / "data" / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
        except (FileNotFoundError, IndexError):
            return False

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._base, ignore_errors=True)
