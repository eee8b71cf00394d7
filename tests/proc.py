"""Run Python in another process, look at the processes of this machine, and find a port for one."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def python(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process. It is killed at the end."""
    command, pipe = [sys.executable, *map(str, arguments)], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def passed_in(folder: Path, *options: str) -> tuple[int, str]:
    """Run the tests of a project. Return how many passed, and what was printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [passed] = re.findall(r"(\d+) passed", done.stdout)
    return int(passed), done.stdout + done.stderr


def state_of(process: int) -> tuple[str, int]:
    """The state of a process and its parent: a zombie, such as one that has ended, is ``Z``."""
    try:
        state, parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends while it is read
        return "Z", 0
    return state, int(parent)


def is_alive(process: int) -> bool:
    return state_of(process)[0] != "Z"


def children(process: int) -> list[int]:
    """The live child processes of ``process``, the oldest first."""
    everybody = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [each for each in everybody if state_of(each)[1] == process and is_alive(each)]


def command_lines(*words: str) -> list[str]:
    """The command lines of the processes that have all these words in them."""
    found = list[str]()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            found.append(path.read_bytes().decode(errors="replace"))
    return [line for line in found if all(word in line for word in words)]


# A run of pytest that a test starts has a worker gw0 too: it inherits the ports of that test's worker.
_PORTS = "AIODBCLIENT_TEST_PORTS"
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault(_PORTS, f"{16384 + 2048 * (int(worker[2:]) % 8)}")
FIRST_PORT = int(os.environ.get(_PORTS, 16384))


def free_port() -> int:
    """A port that neither another worker nor a connection, whose ports begin at 32768, takes before the server."""
    while True:
        port = random.randrange(FIRST_PORT, FIRST_PORT + 2048)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
