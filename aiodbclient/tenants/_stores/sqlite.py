"""``SQLiteStore``: credentials in a SQLite file, for the processes of one machine."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigurationError, InvalidArgumentError, StoreError
from .base import BaseStore, Statements
from .sealing import Key, unwrap

if TYPE_CHECKING:
    from .sqlite_connection import SQLiteConnection

_logger = logging.getLogger("aiodbclient.store")
_warned = set[Path]()
_OWN = "WHERE name = :name AND token = :token"


class SQLiteStore(BaseStore["SQLiteConnection"]):
    """Credentials in a SQLite file of mode 0600, for several processes of one machine.

    It is an async context manager: entering it opens the file, in its own thread. When a method returns, its change is
    on the disk (fsynced). Every method is safe to cancel: it makes its whole change or none of it.

    If a process dies, or closes its store, its claims are free at once. For this, each open store with claims has a
    small file ``PATH-owner-...`` beside the file: do not touch those files.

    The file must belong to the user of this process, or to root, because its owner can read the credentials.

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

    _sql = Statements(
        get="SELECT record FROM credentials WHERE name = :name",
        page="SELECT name, record FROM credentials WHERE name > :after ORDER BY name LIMIT :limit",
        intend=f"UPDATE credentials SET record = :record {_OWN}",
        renew=f"UPDATE credentials SET expires = :now + :lease {_OWN}",
        keep=f"UPDATE credentials SET record = :record, token = NULL {_OWN}",
        release=f"UPDATE credentials SET token = NULL {_OWN}",
        forget=f"DELETE FROM credentials {_OWN}",
    )

    def __init__(self, path: str | os.PathLike[str], key: Key = None) -> None:
        self._given = _checked(path)
        self._path = Path(os.path.realpath(self._given))
        super().__init__(key)
        self._is_plain = key is None
        self._verified = False  # only the connection's thread uses it

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    async def now(self) -> datetime:
        """Return the time by the machine's clock, in UTC."""
        return datetime.fromtimestamp(time.time(), UTC)

    def _make_connection(self) -> SQLiteConnection:
        try:
            from .sqlite_connection import SQLiteConnection
        except ImportError as error:
            raise ConfigurationError(str(error)) from None
        return SQLiteConnection(self._path, self._given)

    async def _open(self, connection: SQLiteConnection) -> None:
        await connection.open()
        if self._is_plain and self._path not in _warned:
            _warned.add(self._path)
            _logger.warning("the passwords in the store %s are in plain text: `key=` encrypts them", self._path)

    async def _claim(self, name: str, token: str, lease: float, new: str) -> str | None:
        connection = self._opened()
        claim = partial(self._make_claim, connection.owner, name, token, lease, new)
        return await asyncio.wrap_future(connection.submit(claim))

    # The methods below run in the connection's thread.

    def _make_claim(
        self, owner: Callable[[], str], name: str, token: str, lease: float, new: str, database: sqlite3.Connection
    ) -> str | None:
        from .owners import is_alive

        statement = "SELECT record, owner, token IS NOT NULL AND expires > ? FROM credentials WHERE name = ?"
        row = database.execute(statement, (time.time(), name)).fetchone()
        if row is None:
            self._verify(database)
        elif row[2] and is_alive(self._path, row[1]):
            return None
        values = {"name": name, "new": new, "token": token, "owner": owner(), "expires": time.time() + lease}
        if row is None:
            database.execute("INSERT INTO credentials VALUES (:name, :new, :token, :owner, :expires)", values)
            return new
        statement = "UPDATE credentials SET token = :token, owner = :owner, expires = :expires WHERE name = :name"
        database.execute(statement, values)
        text: str = row[0]
        return text

    def _verify(self, database: sqlite3.Connection) -> None:
        """Check the whole file once, before a name counts as new: its row may have a damaged name."""
        if self._verified:
            return
        if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise StoreError(f"the store {self._path} is damaged: restore it from a backup")
        for name, text in database.execute("SELECT name, record FROM credentials"):
            try:
                unwrap(name, text)
            except StoreError as error:  # of the whole store: no name is new until this row is mended
                raise StoreError(f"no new name can be stored while {error}") from None
        self._verified = True


def _checked(path: object) -> Path:
    """Return ``path``, absolute. Raises InvalidArgumentError if no file can have it, or it is SQLite's memory."""
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(given, str) or not given or "\0" in given:
        raise InvalidArgumentError(f"path must be the path of a file, not {path!r}")
    if given == ":memory:":
        raise InvalidArgumentError("credentials in memory end with the process: pass the path of a file")
    return Path(os.path.abspath(given))
