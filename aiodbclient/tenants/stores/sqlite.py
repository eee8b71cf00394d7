"""Credentials in a file, for the processes of one machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from attrs import evolve, field, frozen

from ...errors import ClaimLostError, ConfigurationError, StoreError
from ..credential import Credential
from . import Claim, Record
from .sealing import Key, Seal, check_name, unwrap

if TYPE_CHECKING:
    from .owners import Owner

T = TypeVar("T")

_PATIENCE = 10.0  # s that another process may keep the file locked
_AT_ONCE = 500  # records that ``records`` reads at once
_SCHEMA = """
CREATE TABLE IF NOT EXISTS credentials (
    name TEXT PRIMARY KEY,
    record TEXT NOT NULL,
    token TEXT,
    owner TEXT,
    expires REAL
) WITHOUT ROWID
"""
_ADVICE = {
    sqlite3.SQLITE_BUSY: f"another process kept it locked for {_PATIENCE:.0f} s",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup",
    sqlite3.SQLITE_FULL: "make room on the disk, and go on",
    sqlite3.SQLITE_NOTADB: "the file is damaged, or is no store: restore it from a backup",
    sqlite3.SQLITE_READONLY: "the file cannot be written",
}
# Closing a file drops all locks that this process has on it (POSIX). So a file is made, and that descriptor closed,
# before another store of this process can have SQLite lock it.
_making = Lock()


def _text(value: bytes) -> str:
    """SQLite's own exception for damaged UTF-8 would quote it."""
    return value.decode(errors="surrogateescape")


@frozen
class _Change(Generic[T]):
    make: Callable[[sqlite3.Connection], T]
    made: Future[T] = field(factory=Future)


class SQLiteStore:
    """Credentials in a SQLite file of mode 0600, which several processes of one machine may use at once.

    It is an async context manager, and is opened by entering it. The claims of a process that died are free at once; so
    are those of a store that was closed. Changes that are made at the same time are committed together, and fsynced
    before any of them returns. Beside the file is a small one, ``PATH-owner-...``, for each open store that has made
    claims: leave those alone. Network file systems will not do, since SQLite cannot rely on their locks. After a fork
    the child opens a store of its own.

    Args:
        path: The file. It is made if it is not there; its folder must be.
        key: Encrypts the credentials: one of ``cryptography.fernet.Fernet.generate_key()``, or several, of which the
            first encrypts and each decrypts. None: they are readable for who can read the file.

    Raises:
        InvalidArgumentError: A key is none of Fernet's.
        ConfigurationError: There is a key, and ``cryptography`` is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], key: Key = None) -> None:
        self._path = Path(os.path.realpath(path))
        self._seal = Seal(key)
        self._thread: ThreadPoolExecutor | None = None
        self._process = 0
        self._pending: deque[_Change[Any]] = deque()
        # Used by the thread alone:
        self._database: sqlite3.Connection | None = None
        self._owner: Owner | None = None
        self._verified = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            StoreError: It cannot be opened or made, is no store, or was written with another key.
            ConfigurationError: It is open already.
        """
        if self._thread is not None:
            raise ConfigurationError(f"{self!r} is open already")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aiodbclient-store")
        self._process = os.getpid()
        try:
            await self._run(self._open)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close it. What was begun is finished first; claims that are still held are free then."""
        thread, self._thread = self._thread, None
        if thread is not None:
            closed = thread.submit(self._close)
            thread.shutdown(wait=False)
            await asyncio.shield(asyncio.wrap_future(closed))

    async def get(self, name: str) -> Record | None:
        """The record of ``name``, or None."""
        return await self._run(partial(self._read, check_name(name)))

    async def records(self) -> AsyncIterator[Record]:
        """All records by name, a few at a time in memory. What is put on record meanwhile may be missing."""
        page = await self._run(partial(self._page, ""))
        while page:
            for record in page:
                yield record
            page = await self._run(partial(self._page, page[-1].name))

    async def claim(self, name: str, lease: float) -> Claim | None:
        """Claim ``name`` for ``lease`` seconds, and make its record where there is none; None where a living process
        holds it. Cancelled: the name is not claimed.
        """
        token = secrets.token_hex(16)
        change = self._submit(partial(self._take, check_name(name), token, lease))
        try:
            return await asyncio.wrap_future(change)
        except asyncio.CancelledError:
            if self._thread is not None:
                self._submit(partial(self._let_go, name, token))
            raise

    async def intend(self, claim: Claim, username: str | None) -> None:
        """Put on record that ``username`` is about to be made or to get a new password; None: that none is."""
        record = self._seal.seal(evolve(claim.record, intended=username))
        await self._change(claim, "UPDATE credentials SET record = ?", record)

    async def renew(self, claim: Claim, lease: float) -> None:
        """Hold ``claim`` for ``lease`` seconds from now."""
        await self._change(claim, "UPDATE credentials SET expires = ?", time.time() + lease)

    async def keep(self, claim: Claim, current: Credential | None, previous: Credential | None = None) -> None:
        """Put the credentials on record, in the place of those there, and end the intent and the claim."""
        record = self._seal.seal(Record(name=claim.name, current=current, previous=previous))
        await self._change(claim, "UPDATE credentials SET token = NULL, record = ?", record)

    async def release(self, claim: Claim) -> None:
        """End the claim and leave the record as it is, with its intent. Nothing happens where the claim was lost."""
        await asyncio.wrap_future(self._submit(partial(self._let_go, claim.name, claim.token)))

    async def forget(self, claim: Claim) -> None:
        """Remove the record, its intent and the claim."""
        await self._change(claim, "DELETE FROM credentials")

    async def _change(self, claim: Claim, statement: str, *parameters: str | float) -> None:
        await asyncio.wrap_future(self._submit(partial(self._change_own, claim, statement, parameters)))

    def _submit(self, make: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Have the thread make a change, together with all that are pending when it comes to it."""
        change = _Change(make)
        self._pending.append(change)
        self._running().submit(self._commit)
        return change.made

    async def _run(self, read: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._running().submit(self._attempt, read))

    def _running(self) -> ThreadPoolExecutor:
        if self._thread is None:
            raise StoreError(f"{self!r} is not open: use it in 'async with'")
        if self._process != os.getpid():
            raise StoreError(f"{self!r} was opened before a fork: open another in this process")
        return self._thread

    # All below runs in the thread.

    def _open(self) -> None:
        from .owners import sweep

        with _making, suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        if os.stat(self._path).st_mode & 0o077:
            os.chmod(self._path, 0o600)
        self._database = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)
        # Not WAL: one file is then all of the store, also while it is open and after a crash.
        self._database.text_factory = _text
        self._database.execute("PRAGMA journal_mode = TRUNCATE")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("PRAGMA secure_delete = ON")  # what is replaced is overwritten
        self._database.execute(_SCHEMA)
        self._seal.check_key(self._database.execute("SELECT name, record FROM credentials LIMIT 10"))
        sweep(self._path)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError(f"{self!r} is closed")
        return self._database

    def _attempt(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except UnicodeDecodeError:  # of a message of SQLite that quotes a damaged schema
            raise StoreError(f"the store {self._path} is damaged: restore it from a backup") from None
        except (sqlite3.Error, OSError) as error:
            raise self._failure(error) from None

    def _commit(self) -> None:
        taken = [self._pending.popleft() for _ in range(len(self._pending))]
        batch = [change for change in taken if change.made.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            done = self._attempt(partial(self._make, batch))
        except StoreError as error:
            done = [StoreError(str(error)) for _ in batch]  # each caller gets an exception of its own
        except Exception as error:  # noqa: BLE001  nobody else would see it: this is a thread's
            done = [error for _ in batch]
        for change, answer in zip(batch, done, strict=True):
            if isinstance(answer, Exception):
                change.made.set_exception(answer)
            else:
                change.made.set_result(answer)

    def _make(self, batch: list[_Change[Any]]) -> list[Any]:
        """Commit all of ``batch`` together: what each answers, or the StoreError that made it change nothing."""
        database = self._opened()
        done: list[Any] = []
        database.execute("BEGIN IMMEDIATE")
        try:
            for change in batch:
                try:
                    done.append(change.make(database))
                except StoreError as error:
                    done.append(error)
            database.execute("COMMIT")
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
        return done

    def _read(self, name: str) -> Record | None:
        row = self._opened().execute("SELECT record FROM credentials WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._seal.open(name, row[0])

    def _page(self, after: str) -> list[Record]:
        statement = "SELECT name, record FROM credentials WHERE name > ? ORDER BY name LIMIT ?"
        return [self._seal.open(name, text) for name, text in self._opened().execute(statement, (after, _AT_ONCE))]

    def _take(self, name: str, token: str, lease: float, database: sqlite3.Connection) -> Claim | None:
        from .owners import Owner, is_alive

        statement = "SELECT record, owner, token IS NOT NULL AND expires > ? FROM credentials WHERE name = ?"
        row = database.execute(statement, (time.time(), name)).fetchone()
        if row is None:
            self._verify(database)
            record = Record(name=name)
        else:
            text, owner, leased = row
            if leased and is_alive(self._path, owner):
                return None
            record = self._seal.open(name, text)
        if self._owner is None:
            self._owner = Owner(self._path)
        claimed = token, self._owner.name, time.time() + lease
        if row is None:
            database.execute(
                "INSERT INTO credentials VALUES (?, ?, ?, ?, ?)", (name, self._seal.seal(record), *claimed)
            )
        else:
            statement = "UPDATE credentials SET token = ?, owner = ?, expires = ? WHERE name = ?"
            database.execute(statement, (*claimed, name))
        return Claim(name=name, token=token, record=record)

    def _verify(self, database: sqlite3.Connection) -> None:
        """Read the whole file once before a name is taken for new: the name of its row may be what is damaged."""
        if self._verified:
            return
        if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise StoreError(f"the store {self._path} is damaged: restore it from a backup")
        for name, text in database.execute("SELECT name, record FROM credentials"):
            unwrap(name, text)
        self._verified = True

    def _change_own(
        self, claim: Claim, statement: str, parameters: tuple[str | float, ...], database: sqlite3.Connection
    ) -> None:
        own = f"{statement} WHERE name = ? AND token = ?"
        if not database.execute(own, (*parameters, claim.name, claim.token)).rowcount:
            raise ClaimLostError(f"the claim on {claim.name!r} has ended, or somebody else took it over")

    def _let_go(self, name: str, token: str, database: sqlite3.Connection) -> None:
        database.execute("UPDATE credentials SET token = NULL WHERE name = ? AND token = ?", (name, token))

    def _failure(self, error: sqlite3.Error | OSError) -> StoreError:
        code = error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.Error) else 0
        told = error.strerror if isinstance(error, OSError) else str(error)
        advice = f" ({_ADVICE[code]})" if code in _ADVICE else ""
        return StoreError(f"the store {self._path} cannot be used: {told}{advice}")
