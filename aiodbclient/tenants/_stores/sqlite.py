"""``SQLiteStore``: credentials in a SQLite file, for the processes of one machine."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import stat
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import LiteralString, Self

from ..._masking import hidden
from ...errors import ConfigurationError, InvalidArgumentError
from ..errors import StoreError
from .codec import Key
from .sql import PARAMETERS, Rows, SQLStore, Value

_logger = logging.getLogger("aiodbclient.store")
_warned = set[Path]()
_LOCK_TIMEOUT = 10.0  # s that another process may keep the file locked
_TRY = 0.25  # s of one try to lock it: closing the store ends no wait of SQLite
_PAGE = 16384  # bytes: a record fits into a quarter of it, so that it needs no page of its own
_COLUMNS = "name", "record", "token", "expires"
_SCHEMA = """
CREATE TABLE credentials (
    name TEXT PRIMARY KEY,
    record TEXT,
    token TEXT,
    expires REAL
) WITHOUT ROWID
"""
_SYNTAX = {name: f":{name}" for name in (*PARAMETERS, "now")} | {"table": "credentials"}
_ADVICE = {
    sqlite3.SQLITE_BUSY: f"another process kept it locked for {_LOCK_TIMEOUT:.0f} s",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup",
    sqlite3.SQLITE_FULL: "make room on the disk, and run it again",
    sqlite3.SQLITE_NOTADB: "the file is damaged, or is not a store: restore it from a backup",
    sqlite3.SQLITE_READONLY: "the file cannot be written",
}


class SQLiteStore(SQLStore):
    """Credentials in a SQLite file of mode 0600, for several processes of one machine.

    It is an async context manager: entering it opens the file, in its own thread. When a method returns, its change is
    on the disk (fsynced). Every method is safe to cancel: it makes its whole change or none of it.

    The claims of a process that dies are free when their leases expire, by the machine's clock.

    The file, and SQLite's journal beside it, must belong to the user of this process, or to root, because their owner
    can read the credentials.

    Do not put the file on a network file system, because SQLite cannot rely on its locks. After a fork the child must
    open its own store.

    Args:
        path: The file. It is created if it does not exist; its folder must exist.
        key: Encrypts the credentials: a key of ``cryptography.fernet.Fernet.generate_key()``, or several: the first
            encrypts, all decrypt. None: everybody who can read the file can read the credentials.

    Raises:
        InvalidArgumentError: ``path`` is not the path of a file, or ``key`` is not a key of Fernet.
        ConfigurationError: There is a key, and ``cryptography`` is not installed. On entering: it is open already, or
            the system is not POSIX.
        StoreError: On entering: the file cannot be opened or created, belongs to another user, is not a store, or was
            written with another key.
    """

    def __init__(self, path: str | os.PathLike[str], key: Key = None) -> None:
        key = hidden(key)
        given: object = os.fspath(path) if isinstance(path, str | os.PathLike) else path
        if not isinstance(given, str) or not given or "\0" in given:
            raise InvalidArgumentError(f"path must be the path of a file, not {path!r}")
        if given == ":memory:":
            raise InvalidArgumentError("credentials in memory end with the process: pass the path of a file")
        self._path = Path(os.path.abspath(given))
        super().__init__(key, partial(SQLiteConnection, self._path))
        self._is_plain = key is None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if self._is_plain and self._path not in _warned:
            _warned.add(self._path)
            _logger.warning("the passwords in the store %s are in plain text: `key=` encrypts them", self._path)
        return self


class SQLiteConnection:
    """Runs statements in its own thread, which alone waits for the disk and for the locks of other processes."""

    def __init__(self, path: Path) -> None:
        if sys.platform == "win32":
            raise ConfigurationError("SQLiteStore needs a POSIX system; PostgresStore works everywhere")
        self._path = path
        self._process = os.getpid()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aiodbclient-store")
        self._database: sqlite3.Connection | None = None  # only the thread uses it

    def submit(self, statement: LiteralString, values: Mapping[str, Value]) -> asyncio.Future[Rows]:
        """Begin to run a statement in the thread."""
        if self._process != os.getpid():
            raise StoreError(f"the store {self._path} was opened before a fork: open another in this process")
        running = asyncio.wrap_future(self._thread.submit(self._execute, statement.format_map(_SYNTAX), values))
        running.add_done_callback(asyncio.Future.exception)  # so that asyncio does not log it, if nobody waits
        return running

    async def aclose(self) -> None:
        """Finish what was submitted, except what still waits for a lock, and close the file."""
        self._closing = True
        closed = self._thread.submit(self._close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closed))

    # The methods below run in the thread.

    def _execute(self, statement: str, values: Mapping[str, Value]) -> Rows:
        """Run a statement, again and again while another process has locked the file."""
        until = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                if self._database is None:
                    self._database = _open(self._path)
                return self._database.execute(statement, {"now": time.time(), **values}).fetchall()
            except (UnicodeError, OSError, sqlite3.Error) as error:
                is_locked = isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_locked or self._closing or time.monotonic() >= until:
                    raise StoreError(f"cannot use the store {self._path}: {_reason(error)}") from None

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()


def _open(path: Path) -> sqlite3.Connection:
    """Open or create the file, or raise StoreError, before any change, if it is no store."""
    if not path.exists():
        _make_file(path)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"cannot use the store {path}: it is a folder or a device, not a file")
    journal = Path(f"{path.resolve()}-journal")  # it has replaced records, and SQLite undoes what it describes
    for file in (path, journal):
        with suppress(FileNotFoundError):  # there may be no journal
            if (owner := file.stat().st_uid) not in (0, os.geteuid()):
                raise StoreError(
                    f"cannot use the store: {file} belongs to user {owner}, who could read the credentials: run this "
                    "as that user or, if you know the file, take it over with chown"
                )
    if not status.st_size:
        raise StoreError(
            f"the store {path} is empty: it lost its records, or something else made the file: restore it "
            "from a backup or, if it never was a store, remove the file"
        )
    database = sqlite3.connect(path, timeout=min(_TRY, _LOCK_TIMEOUT), isolation_level=None)
    try:
        database.text_factory = _text
        columns = tuple(name for (name,) in database.execute("SELECT name FROM pragma_table_info('credentials')"))
        if columns != _COLUMNS:
            raise StoreError(f"{path} is not a store: it is the SQLite database of another program, or damaged")
        # SQLite reads zeros past the end of a file that was cut inside of its last page: rows would be missing. A lock
        # keeps other processes from changing both meanwhile.
        database.execute("BEGIN")
        [(size,)] = database.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        is_cut = os.stat(path).st_size < size
        database.execute("COMMIT")
        if is_cut:
            raise StoreError(f"the store {path} is cut off: restore it from a backup")
        if status.st_mode & 0o077:
            os.chmod(path, 0o600)
        # Not WAL: so the store is always one file, even while it is open and after a crash.
        database.execute("PRAGMA journal_mode = TRUNCATE")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA secure_delete = ON")  # overwrites replaced data
    except BaseException:
        database.close()
        raise
    return database


def _make_file(path: Path) -> None:
    """Make the file of a new store beside ``path``, and link it there if no other process was faster."""
    # So an empty file is never a store that is being made: it is one that lost its records.
    made = f"{path}.new-{secrets.token_hex(8)}"
    os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(made, isolation_level=None)) as database:
            database.execute(f"PRAGMA page_size = {_PAGE}")
            database.execute(_SCHEMA)
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        os.unlink(made)


def _reason(error: UnicodeError | OSError | sqlite3.Error) -> str:
    if isinstance(error, UnicodeError):  # a message of SQLite quotes a damaged schema, or the page after a damaged name
        return "it is damaged: restore it from a backup"
    if isinstance(error, OSError):
        return str(error.strerror)
    if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_DBMOVED:
        return "its file was moved, replaced or removed while it was open"
    advice = _ADVICE.get(error.sqlite_errorcode & 0xFF)
    return f"{error} ({advice})" if advice else str(error)


def _text(value: bytes) -> str:
    """Decode a text of SQLite, whose own exception for damaged UTF-8 would quote the text."""
    return value.decode(errors="surrogateescape")
