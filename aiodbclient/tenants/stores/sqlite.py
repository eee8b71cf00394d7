"""``SQLiteStore``: credentials in a SQLite file, for the processes of one machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attrs import evolve

from ...errors import ClaimLostError, ConfigurationError, InvalidArgumentError, StoreError
from ..credential import Credential
from . import Claim, Record
from .opening import SessionStore
from .sealing import Key, Seal, check_lease, check_storable, unwrap

if TYPE_CHECKING:
    from .sqlite_session import SQLiteSession

T = TypeVar("T")

_PER_PAGE = 500  # records that ``records`` reads at once


class SQLiteStore(SessionStore["SQLiteSession"]):
    """Credentials in a SQLite file of mode 0600, which several processes of one machine may use at once.

    It is an async context manager: entering it opens the file, in a thread of its own. Every method is durable when it
    returns (fsynced); changes that are made at the same time are committed together. Every method is safe to cancel: a
    change is made whole or not at all.

    The claims of a process that died, or of a store that was closed, are free at once. For that there is a small file
    ``PATH-owner-...`` beside the file for each open store that has made claims: leave those files alone.

    A network file system will not do, since SQLite cannot rely on its locks. After a fork the child must open a store
    of its own.

    Args:
        path: The file. It is made if it is not there; its folder must be there.
        key: Encrypts the credentials: one of ``cryptography.fernet.Fernet.generate_key()``, or several, of which the
            first encrypts and each decrypts. None: whoever can read the file can read the credentials.

    Raises:
        InvalidArgumentError: ``path`` can be no file's, or ``key`` is not a key of Fernet.
        ConfigurationError: There is a key, and ``cryptography`` is not installed; on entering it: it is open already,
            or the system is not POSIX.
        StoreError: On entering it: the file cannot be opened or made, is no store, or was written with another key.
    """

    def __init__(self, path: str | os.PathLike[str], key: Key = None) -> None:
        super().__init__()
        self._path = _checked(path)
        self._seal = Seal(key)
        self._verified = False  # only the session's thread uses it

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    async def get(self, name: str) -> Record | None:
        """Return the record of ``name``, or None.

        Raises:
            StoreError: It cannot be read.
            InvalidArgumentError: No store can hold this name.
        """
        return await self._opened().read(partial(self._read, check_storable(name)))

    async def records(self) -> AsyncIterator[Record]:
        """Yield all records in the order of their names, reading 500 at a time.

        Names that are put on record meanwhile may be missing.

        Raises:
            StoreError: They cannot be read.
        """
        after = ""
        while page := await self._opened().read(partial(self._page, after)):
            for record in page:
                yield record
            after = page[-1].name

    async def claim(self, name: str, lease: float) -> Claim | None:
        """Claim ``name``, and make its record if there is none. A cancelled call holds no claim.

        Args:
            name: The name of the tenant.
            lease: Seconds for which the claim holds, unless it is renewed.

        Returns:
            The claim; None if a living process holds the name.

        Raises:
            StoreError: The store cannot be read or written.
            InvalidArgumentError: No store can hold this name, or ``lease`` is no positive number.
        """
        token = secrets.token_hex(16)
        claim = partial(self._claim, self._opened().owner, check_storable(name), token, check_lease(lease))
        try:
            return await self._made(claim)
        except asyncio.CancelledError:
            if self._session is not None:
                self._session.submit(partial(_release, name, token))
            raise

    async def intend(self, claim: Claim, username: str | None) -> None:
        """Put the intent on record, as ``Store.intend`` says. Raises ClaimLostError or StoreError."""
        record = self._seal.seal(evolve(claim.record, intended=username))
        await self._change(claim, "UPDATE credentials SET record = ?", record)

    async def renew(self, claim: Claim, lease: float) -> None:
        """Make ``claim`` hold for ``lease`` seconds from now. Raises ClaimLostError or StoreError."""
        await self._change(claim, "UPDATE credentials SET expires = ?", time.time() + check_lease(lease))

    async def keep(self, claim: Claim, current: Credential | None, previous: Credential | None = None) -> None:
        """Put the credentials on record, as ``Store.keep`` says. Raises ClaimLostError or StoreError."""
        record = self._seal.seal(Record(name=claim.name, current=current, previous=previous))
        await self._change(claim, "UPDATE credentials SET token = NULL, record = ?", record)

    async def release(self, claim: Claim) -> None:
        """End the claim, and leave the record as it is. Does nothing if it was lost. Raises StoreError."""
        await self._made(partial(_release, claim.name, claim.token))

    async def forget(self, claim: Claim) -> None:
        """Remove the record, with its intent, and end the claim. Raises ClaimLostError or StoreError."""
        await self._change(claim, "DELETE FROM credentials")

    async def _change(self, claim: Claim, statement: str, *values: str | float) -> None:
        await self._made(partial(_change_own, claim, statement, values))

    async def _made(self, change: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._opened().submit(change))

    def _make_session(self) -> SQLiteSession:
        try:
            from .sqlite_session import SQLiteSession
        except ImportError as error:
            raise ConfigurationError(str(error)) from None
        return SQLiteSession(self._path)

    async def _open(self, session: SQLiteSession) -> None:
        await session.open()
        await session.read(self._check_key)

    # What follows runs in the session's thread.

    def _check_key(self, database: sqlite3.Connection) -> None:
        self._seal.check_key(database.execute("SELECT name, record FROM credentials LIMIT 10"))

    def _read(self, name: str, database: sqlite3.Connection) -> Record | None:
        row = database.execute("SELECT record FROM credentials WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._seal.open(name, row[0])

    def _page(self, after: str, database: sqlite3.Connection) -> list[Record]:
        statement = "SELECT name, record FROM credentials WHERE name > ? ORDER BY name LIMIT ?"
        return [self._seal.open(name, text) for name, text in database.execute(statement, (after, _PER_PAGE))]

    def _claim(
        self, owner: Callable[[], str], name: str, token: str, lease: float, database: sqlite3.Connection
    ) -> Claim | None:
        from .owners import is_alive

        statement = "SELECT record, owner, token IS NOT NULL AND expires > ? FROM credentials WHERE name = ?"
        row = database.execute(statement, (time.time(), name)).fetchone()
        if row is None:
            self._verify(database)
            record = Record(name=name)
        else:
            text, holder, leased = row
            if leased and is_alive(self._path, holder):
                return None
            record = self._seal.open(name, text)
        claimed = token, owner(), time.time() + lease
        if row is None:
            database.execute(
                "INSERT INTO credentials VALUES (?, ?, ?, ?, ?)", (name, self._seal.seal(record), *claimed)
            )
        else:
            statement = "UPDATE credentials SET token = ?, owner = ?, expires = ? WHERE name = ?"
            database.execute(statement, (*claimed, name))
        return Claim(name=name, token=token, record=record)

    def _verify(self, database: sqlite3.Connection) -> None:
        """Check the whole file once, before a name is taken for new: the damage may be in the name of its row."""
        if self._verified:
            return
        if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise StoreError(f"the store {self._path} is damaged: restore it from a backup")
        for name, text in database.execute("SELECT name, record FROM credentials"):
            unwrap(name, text)
        self._verified = True


def _checked(path: object) -> Path:
    """Return ``path`` without links. Raises InvalidArgumentError if no file can have it, or it is SQLite's memory."""
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(given, str) or not given or "\0" in given:
        raise InvalidArgumentError(f"path must be the path of a file, not {path!r}")
    if given == ":memory:":
        raise InvalidArgumentError("credentials in memory would end with the process: give the path of a file")
    return Path(os.path.realpath(given))


def _change_own(claim: Claim, statement: str, values: tuple[str | float, ...], database: sqlite3.Connection) -> None:
    own = f"{statement} WHERE name = ? AND token = ?"
    if not database.execute(own, (*values, claim.name, claim.token)).rowcount:
        raise ClaimLostError(f"the claim on {claim.name!r} has ended, or somebody else took it over")


def _release(name: str, token: str, database: sqlite3.Connection) -> None:
    database.execute("UPDATE credentials SET token = NULL WHERE name = ? AND token = ?", (name, token))
