"""Whose the files beside a SQLite store are: which stores with claims are still open, and what a stranger put there.

Each open store with claims has its own locked file. The system drops the lock when the process dies. ``flock`` locks
belong to the open file, so other files that this process opens or closes do not matter.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from contextlib import suppress
from glob import escape, glob
from pathlib import Path

from ..errors import StoreError

_held: set[int] = set()


def _close_inherited() -> None:
    """Close the inherited files in a forked child. Otherwise the parent would seem alive as long as the child lives."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_inherited)


class Owner:
    """An open store that holds claims, which have its random ``name``: alive until closed, or its process dies."""

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
    """Whether an owner holds ``file``. It opens neither a link nor a pipe, and a stranger's lock holds nothing."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:  # of root, who uses our store too: the lease decides
        with suppress(OSError):
            return os.lstat(file).st_uid in _trusted()
        return False
    except (OSError, ValueError):  # it is gone, a link or a socket; ValueError: a damaged name
        return False
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in _trusted():
            return False
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False


# The files that SQLite uses beside the store. It would replay a planted journal, or write data into it.
_BESIDE = ("-journal", "-wal", "-shm")


def refuse_files_of_others(path: Path) -> None:
    """Raise StoreError if somebody else owns the store's file, without links, or a file that SQLite uses beside it."""
    _refuse(path, os.stat(path, follow_symlinks=False))
    for ending in _BESIDE:
        beside = Path(f"{path}{ending}")
        if os.path.lexists(beside):
            _refuse(beside, os.stat(beside, follow_symlinks=False))


def refuse_links_of_others(path: Path) -> None:
    """Raise StoreError if ``path``, absolute and as it was given, leads through a link of another user."""
    for part in (path, *path.parents):
        if part.is_symlink() and part.lstat().st_uid not in _trusted():
            raise StoreError(
                f"cannot use the store {path}: {part} is a link that belongs to user {part.lstat().st_uid}, who "
                "decides where it leads: pass the path of the file itself"
            )


def _refuse(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise StoreError(f"cannot use the store: {path} is a link: find out who put it there, and remove it")
    if status.st_uid not in _trusted():
        raise StoreError(
            f"cannot use the store: {path} belongs to user {status.st_uid}, who could read the credentials: run "
            "this as that user or, if you know the file, take it over with chown"
        )


def _trusted() -> tuple[int, int]:
    return 0, os.geteuid()
