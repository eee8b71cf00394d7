"""Detect which stores with claims in a SQLite file are still open. Each has its own locked file.

The system drops the lock when the process dies. ``flock`` locks belong to the open file, so other files that this
process opens or closes do not matter.
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


def _close_inherited() -> None:
    """Close the inherited files in a forked child. Otherwise the parent would seem alive as long as the child lives."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_inherited)


class Owner:
    """An open store that holds claims. It is alive until it is closed or its process dies.

    Args:
        path: The store's file.

    Attributes:
        name: A random name. Its claims have it.

    Raises:
        OSError: Its file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.name = secrets.token_hex(8)
        self._file = _file(path, self.name)
        made = f"{self._file}.new"
        self._lock = os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o600)
        _held.add(self._lock)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(made, self._file)  # the file is locked before another process can find it

    def close(self) -> None:
        """Remove its file. This frees its claims."""
        if self._lock in _held:
            with suppress(OSError):  # it is gone, or cannot be removed: without its lock it has no effect
                os.unlink(self._file)
            _held.remove(self._lock)
            os.close(self._lock)


def is_alive(path: Path, name: str) -> bool:
    """Whether the owner ``name``, in this process or another, is alive. ``path`` is the store's file."""
    return _is_locked(_file(path, name))


def sweep(path: Path) -> None:
    """Remove the files of dead owners. ``path`` is the store's file."""
    for file in glob(f"{escape(str(path))}-owner-{'[0-9a-f]' * 16}"):
        if not _is_locked(file):
            with suppress(OSError):  # another process removed it, or this one may not
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
