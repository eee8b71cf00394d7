"""The data that a sandbox keeps across restarts: a SQLite file, and a folder for each embedded PostgreSQL."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections import UserDict
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any


class Data:
    """The folder of one running sandbox, whose writes survive a kill of the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        try:
            _refuse_detours(Path(os.path.abspath(folder)))
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_detours(self.folder)  # another user may have created it meanwhile
            file = self.folder / "sandbox.db"
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))  # it will hold passwords
            self.database = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise RuntimeError(f"cannot store data in {self.folder}: {error}") from None
        try:
            # The lock lasts until close, or until the process ends.
            self.database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.database.execute("PRAGMA journal_mode = WAL")
            self.database.execute(
                "CREATE TABLE IF NOT EXISTS kept"
                " (kind TEXT, name TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, name)) STRICT"
            )
        except sqlite3.Error as error:
            self.database.close()
            in_use = "another sandbox uses it" if "locked" in str(error) else str(error)
            raise RuntimeError(f"cannot store data in {self.folder}: {in_use}") from None

    def close(self) -> None:
        self.database.close()


def _refuse_detours(path: Path) -> None:
    """Stop root from using a path on which another user can put a symbolic link."""
    # Root gives a folder on this path to the user ``nobody``. With a link, another user could choose which folder.
    if os.geteuid() != 0:
        return
    for part in (*reversed(path.parents), path):
        try:
            found = part.lstat()
        except FileNotFoundError:
            return
        is_link = stat.S_ISLNK(found.st_mode)
        others_write = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
        if found.st_uid != 0 or (others_write and not found.st_mode & stat.S_ISVTX and not is_link):
            raise RuntimeError(
                f"{path} is not safe for root: another user owns {part}, or can write there; "
                "choose a folder that root owns, or start the sandbox as the folder's owner"
            )
        if is_link:
            _refuse_detours(part.parent / part.readlink())


def mapping(data: Data | None, kind: str) -> MutableMapping[str, Any]:
    """The stored values of this kind, in the order in which they were first set; without ``data``, in memory."""
    return {} if data is None else Kept(data.database, kind)


class Kept(UserDict[str, Any]):
    """A dictionary of JSON values that writes each value to the file when it is set: to change one, set it again."""

    def __init__(self, database: sqlite3.Connection, kind: str) -> None:
        super().__init__()
        rows = database.execute("SELECT name, value FROM kept WHERE kind = ? ORDER BY rowid", [kind])
        self.data = {name: json.loads(value) for name, value in rows}
        self._database = database
        self._kind = kind

    def __setitem__(self, name: str, value: Any) -> None:
        self._database.execute(
            "INSERT INTO kept VALUES (?, ?, ?) ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value",
            [self._kind, name, json.dumps(value)],
        )
        self.data[name] = value

    def __delitem__(self, name: str) -> None:
        del self.data[name]
        self._database.execute("DELETE FROM kept WHERE kind = ? AND name = ?", [self._kind, name])
