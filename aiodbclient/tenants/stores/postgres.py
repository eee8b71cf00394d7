"""Credentials in a table of PostgreSQL, for the processes of any number of machines."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, LiteralString, Self

from attrs import evolve

from ...errors import ClaimLostError, ConfigurationError, StoreError
from ..credential import Credential
from . import Claim, Record
from .sealing import Key, Seal, check_name

if TYPE_CHECKING:
    from .postgres_session import Session, Value

_AT_ONCE = 500  # records that ``records`` reads at once

_GET = "SELECT record FROM {table} WHERE name = %(name)s"
_PAGE = "SELECT name, record FROM {table} WHERE name > %(after)s ORDER BY name LIMIT %(limit)s"
# The session of a living store holds a shared advisory lock under the store's number, its ``owner``. Its absence tells
# nothing of a claim that was made before the server was started last: that one's lease decides.
_CLAIM = """
INSERT INTO {table} AS known (name, record, token, owner, started, expires)
VALUES (%(name)s, %(record)s, %(token)s, %(owner)s, pg_postmaster_start_time(),
    clock_timestamp() + make_interval(secs => %(lease)s))
ON CONFLICT (name) DO UPDATE SET
    token = excluded.token, owner = excluded.owner, started = excluded.started, expires = excluded.expires
WHERE known.token IS NULL
    OR known.expires <= clock_timestamp()
    OR known.started = pg_postmaster_start_time() AND NOT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND classid::bigint << 32 | objid::bigint = known.owner
    )
RETURNING record
"""
_RENEW = (
    "UPDATE {table} SET started = pg_postmaster_start_time(),"
    " expires = clock_timestamp() + make_interval(secs => %(lease)s)"
    " WHERE name = %(name)s AND token = %(token)s RETURNING name"
)
_INTEND = "UPDATE {table} SET record = %(record)s WHERE name = %(name)s AND token = %(token)s RETURNING name"
_KEEP = (
    "UPDATE {table} SET record = %(record)s, token = NULL WHERE name = %(name)s AND token = %(token)s RETURNING name"
)
_RELEASE = "UPDATE {table} SET token = NULL WHERE name = %(name)s AND token = %(token)s RETURNING name"
_FORGET = "DELETE FROM {table} WHERE name = %(name)s AND token = %(token)s RETURNING name"
_SOME = "SELECT name, record FROM {table} LIMIT 10"


class PostgresStore:
    """Credentials in a table of a PostgreSQL (14 or newer), which the processes of any number of machines may use.

    It is an async context manager, and is opened by entering it, which makes the table where there is none. It holds
    one connection, by which changes that are made at the same time are committed together. The connection is made
    again when it is lost: calls fail with StoreError while the server is away, and work again when it is back.

    The claims of a process that died, or of one that the server lost the connection of, are free at once; after a
    restart of the server they are free when their lease has run out. Times are those of the server's clock. Connect to
    the server itself: a pool that gives each transaction another connection (PgBouncer's mode ``transaction``) makes
    living processes seem dead.

    Args:
        dsn: A connection string of libpq; with ``sslmode=verify-full`` and ``sslrootcert=`` in it the server is
            verified. Its role needs SELECT, INSERT, UPDATE and DELETE on the table, and CREATE on
            its schema as long as there is no table.
        table: The table, by its name or as ``schema.name``.
        key: Encrypts the credentials: one of ``cryptography.fernet.Fernet.generate_key()``, or several, of which the
            first encrypts and each decrypts. None: they are readable for who can read the table.

    Raises:
        InvalidArgumentError: A key is none of Fernet's.
        ConfigurationError: There is a key, and ``cryptography`` is not installed.
    """

    def __init__(self, dsn: str, table: str = "aiodbclient_credentials", key: Key = None) -> None:
        self._dsn = dsn
        self._table = table
        self._seal = Seal(key)
        self._owner = secrets.randbits(63)
        self._session: Session | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}('********', {self._table!r})"

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            StoreError: The server cannot be reached or used, or the table was written with another key.
            InvalidArgumentError: ``dsn`` is no connection string.
            ConfigurationError: It is open already, or psycopg is not installed.
        """
        if self._session is not None:
            raise ConfigurationError(f"{self!r} is open already")
        try:
            from .postgres_session import Session
        except ImportError:
            raise ConfigurationError("PostgresStore needs the extra: pip install 'aiodbclient[tenants]'") from None
        self._session = Session(self._dsn, self._table, self._owner)
        try:
            self._seal.check_key((str(name), str(record)) for name, record in await self._run(_SOME))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Disconnect. What was begun is finished first; claims that are still held are free then."""
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()

    async def get(self, name: str) -> Record | None:
        """The record of ``name``, or None."""
        rows = await self._run(_GET, name=check_name(name))
        return self._seal.open(name, str(rows[0][0])) if rows else None

    async def records(self) -> AsyncIterator[Record]:
        """All records by name, a few at a time in memory. What is put on record meanwhile may be missing."""
        after = ""
        while rows := await self._run(_PAGE, after=after, limit=_AT_ONCE):
            for name, text in rows:
                after = str(name)
                yield self._seal.open(after, str(text))

    async def claim(self, name: str, lease: float) -> Claim | None:
        """Claim ``name`` for ``lease`` seconds, and make its record if there is none. Cancelled: it is not claimed.

        Returns:
            The claim, or None if a living process holds the name.
        """
        token = secrets.token_hex(16)
        new = self._seal.seal(Record(name=check_name(name)))
        try:
            rows = await self._run(_CLAIM, name=name, record=new, token=token, owner=self._owner, lease=lease)
            return Claim(name=name, token=token, record=self._seal.open(name, str(rows[0][0]))) if rows else None
        except (asyncio.CancelledError, StoreError):  # a StoreError: the record cannot be read
            if self._session is not None:
                self._session.submit(_RELEASE, name=name, token=token).add_done_callback(_heed_not)
            raise

    async def intend(self, claim: Claim, username: str | None) -> None:
        """Put on record that ``username`` is about to be made or to get a new password; None: that none is."""
        await self._change(claim, _INTEND, record=self._seal.seal(evolve(claim.record, intended=username)))

    async def renew(self, claim: Claim, lease: float) -> None:
        """Hold ``claim`` for ``lease`` seconds from now."""
        await self._change(claim, _RENEW, lease=lease)

    async def keep(self, claim: Claim, current: Credential | None, previous: Credential | None = None) -> None:
        """Put the credentials on record, in the place of those there, and end the intent and the claim."""
        record = Record(name=claim.name, current=current, previous=previous)
        await self._change(claim, _KEEP, record=self._seal.seal(record))

    async def release(self, claim: Claim) -> None:
        """End the claim and leave the record as it is, with its intent. Nothing happens where the claim was lost."""
        await self._run(_RELEASE, name=claim.name, token=claim.token)

    async def forget(self, claim: Claim) -> None:
        """Remove the record, its intent and the claim."""
        await self._change(claim, _FORGET)

    async def _change(self, claim: Claim, statement: LiteralString, **values: Value) -> None:
        if not await self._run(statement, name=claim.name, token=claim.token, **values):
            raise ClaimLostError(f"the claim on {claim.name!r} has ended, or somebody else took it over")

    async def _run(self, statement: LiteralString, **values: Value) -> list[tuple[object, ...]]:
        if self._session is None:
            raise StoreError(f"{self!r} is not open: use it in 'async with'")
        return await self._session.submit(statement, **values)


def _heed_not(done: asyncio.Future[list[tuple[object, ...]]]) -> None:
    """Nobody waits for it; where it failed, the lease ends the claim."""
    if not done.cancelled():
        done.exception()
