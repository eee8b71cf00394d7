"""The processes of this machine, as /proc shows them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


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
