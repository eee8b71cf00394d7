"""PostgreSQL itself: initialise its data, start it."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

SOCKET = ".s.PGSQL.5432"
"""The server's socket, in its data folder. It listens nowhere else."""

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


def initialise(binaries: Path, base: Path, superuser: str, password: str) -> None:
    """Initialise the server's data. Raises RuntimeError with the output of initdb."""
    secret = base / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    major = version(binaries)
    command = [f"{binaries}/initdb", "-D", f"{base}/data", "-U", superuser, f"--pwfile={secret}", "-A", "scram-sha-256"]
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


def start(binaries: Path, base: Path, *, durable: bool) -> subprocess.Popen[bytes]:
    """Start the server, and wait until it is ready. If it is ``durable``, what is committed survives its kill."""
    major = version(binaries)
    settings = {name: value for name, value in _SETTINGS.items() if major >= _SINCE.get(name, 0)}
    settings |= {"synchronous_commit": "on" if durable else "off"}
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
