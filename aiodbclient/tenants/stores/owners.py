"""Who is alive on this machine: one locked file for each open store, which the system unlocks when its process dies.

The lock is ``flock``'s: it belongs to the open file, so that nothing else that this process opens or closes drops it.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from glob import escape, glob
from pathlib import Path

try:
    import fcntl
except ImportError as error:  # Windows
    raise ImportError("SQLiteStore needs a POSIX system; PostgresStore works everywhere") from error

_held: set[int] = set()


def _let_go() -> None:
    """A forked child closes what it inherited, or its parent would seem to live for as long as it does."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


class Owner:
    """One that holds claims on the store at ``path`` and lives until it is closed, or its process is dead.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.name = secrets.token_hex(8)
        self._file = _file(path, self.name)
        made = f"{self._file}.new"
        self._lock = os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o600)
        _held.add(self._lock)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(made, self._file)  # locked before anybody can find it

    def close(self) -> None:
        if self._lock in _held:
            os.unlink(self._file)
            _held.remove(self._lock)
            os.close(self._lock)


def is_alive(path: Path, name: str) -> bool:
    """Whether the owner ``name`` of claims on the store at ``path`` lives, in this process or another."""
    return _is_locked(_file(path, name))


def sweep(path: Path) -> None:
    """Remove the files of owners that died."""
    for file in glob(f"{escape(str(path))}-owner-{'[0-9a-f]' * 16}"):
        if not _is_locked(file):
            with suppress(OSError):  # another does it, or may
                os.unlink(file)


def _file(path: Path, name: str) -> str:
    return f"{path}-owner-{name}"


def _is_locked(file: str) -> bool:
    try:
        opened = os.open(file, os.O_RDONLY)
    except (FileNotFoundError, ValueError):  # ValueError: a damaged name
        return False
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False
