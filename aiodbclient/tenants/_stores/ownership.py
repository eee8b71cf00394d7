"""A store's file must belong to the user of this process: its owner can read the credentials, with any mode."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ...errors import StoreError

# The files that SQLite uses beside the store. It would replay a planted journal, or write data into it.
_BESIDE = ("-journal", "-wal", "-shm")


def refuse_files_of_others(path: Path) -> None:
    """Raise StoreError if somebody else owns the store's file, or one that SQLite uses beside it.

    Args:
        path: The store's file, without links.
    """
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
                f"the store {path} cannot be used: {part} is a link that belongs to user {part.lstat().st_uid}, who "
                "decides where it leads: pass the path of the file itself"
            )


def _refuse(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise StoreError(f"the store cannot be used: {path} is a link: find out who put it there, and remove it")
    if status.st_uid not in _trusted():
        raise StoreError(
            f"the store cannot be used: {path} belongs to user {status.st_uid}, who could read the credentials: run "
            "this as that user or, if you know the file, take it over with chown"
        )


def _trusted() -> tuple[int, int]:
    return 0, os.geteuid()
