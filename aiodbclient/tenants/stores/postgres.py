"""``PostgresStore``: credentials in a table of PostgreSQL, for the processes of any number of machines."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, LiteralString

from attrs import evolve

from ...errors import ClaimLostError, ConfigurationError, InvalidArgumentError, StoreError
from ..credential import Credential
from . import Claim, Record
from .opening import SessionStore
from .sealing import Key, Seal, check_lease, check_storable

if TYPE_CHECKING:
    from .postgres_session import PostgresSession, Value

_PER_PAGE = 500  # records that ``records`` reads at once

_GET = "SELECT record FROM {table} WHERE name = %(name)s"
_PAGE = "SELECT name, record FROM {table} WHERE name > %(after)s ORDER BY name LIMIT %(limit)s"
# The session of a living store holds a shared advisory lock under a number of its own, which is the ``owner`` of its
# claims. After a restart of the server the locks are gone, and the stores live on: of claims from before it, only the
# lease tells whether they are free.
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


class PostgresStore(SessionStore["PostgresSession"]):
    """Credentials in a table of PostgreSQL 14 or newer, which processes of any number of machines may use at once.

    It is an async context manager: entering it connects, and makes the table if there is none. Every method is durable
    when it returns (committed); changes that are made at the same time are committed together, on one connection. Every
    method is safe to cancel: a change is made whole or not at all. While the server is away, methods raise StoreError;
    when it is back, they connect again by themselves.

    The claims of a process that died, or whose connection the server lost, are free at once. After a restart of the
    server they are free when their lease has run out, by the server's clock.

    Connect to the server itself. Behind a pool that gives each transaction another connection (PgBouncer in the mode
    ``transaction``), living processes would seem dead.

    Args:
        dsn: A connection string of libpq. With ``sslmode=verify-full`` and ``sslrootcert=`` in it the server is
            verified. Its role needs SELECT, INSERT, UPDATE and DELETE on the table, and to make the table CREATE on
            its schema.
        table: The table's name, or ``schema.name``.
        key: Encrypts the credentials: one of ``cryptography.fernet.Fernet.generate_key()``, or several, of which the
            first encrypts and each decrypts. None: whoever can read the table can read the credentials.

    Raises:
        InvalidArgumentError: ``dsn`` or ``table`` is no string, or ``key`` is not a key of Fernet; on entering it:
            ``dsn`` is no connection string.
        ConfigurationError: There is a key, and ``cryptography`` is not installed; on entering it: it is open already,
            or psycopg is not installed.
        StoreError: On entering it: the server cannot be reached or used, or the table was written with another key.
    """

    def __init__(self, dsn: str, table: str = "aiodbclient_credentials", key: Key = None) -> None:
        super().__init__()
        if not isinstance(dsn, str) or not isinstance(table, str):
            raise InvalidArgumentError("dsn and table must be strings")  # not quoted: dsn may hold a password
        self._dsn = dsn
        self._table = table
        self._seal = Seal(key)
        self._owner = secrets.randbits(63)

    def __repr__(self) -> str:
        return f"{type(self).__name__}('********', {self._table!r})"

    async def get(self, name: str) -> Record | None:
        """Return the record of ``name``, or None.

        Raises:
            StoreError: It cannot be read.
            InvalidArgumentError: No store can hold this name.
        """
        rows = await self._run(_GET, name=check_storable(name))
        return self._seal.open(name, str(rows[0][0])) if rows else None

    async def records(self) -> AsyncIterator[Record]:
        """Yield all records in the order of their names, reading 500 at a time.

        Names that are put on record meanwhile may be missing.

        Raises:
            StoreError: They cannot be read.
        """
        after = ""
        while rows := await self._run(_PAGE, after=after, limit=_PER_PAGE):
            for name, text in rows:
                after = str(name)
                yield self._seal.open(after, str(text))

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
        new = self._seal.seal(Record(name=check_storable(name)))
        check_lease(lease)
        try:
            rows = await self._run(_CLAIM, name=name, record=new, token=token, owner=self._owner, lease=lease)
            return Claim(name=name, token=token, record=self._seal.open(name, str(rows[0][0]))) if rows else None
        except (asyncio.CancelledError, StoreError):  # a StoreError: the record cannot be read
            if self._session is not None:
                self._session.submit(_RELEASE, name=name, token=token).add_done_callback(_ignore_result)
            raise

    async def intend(self, claim: Claim, username: str | None) -> None:
        """Put the intent on record, as ``Store.intend`` says. Raises ClaimLostError or StoreError."""
        await self._change(claim, _INTEND, record=self._seal.seal(evolve(claim.record, intended=username)))

    async def renew(self, claim: Claim, lease: float) -> None:
        """Make ``claim`` hold for ``lease`` seconds from now. Raises ClaimLostError or StoreError."""
        await self._change(claim, _RENEW, lease=check_lease(lease))

    async def keep(self, claim: Claim, current: Credential | None, previous: Credential | None = None) -> None:
        """Put the credentials on record, as ``Store.keep`` says. Raises ClaimLostError or StoreError."""
        record = Record(name=claim.name, current=current, previous=previous)
        await self._change(claim, _KEEP, record=self._seal.seal(record))

    async def release(self, claim: Claim) -> None:
        """End the claim, and leave the record as it is. Does nothing if it was lost. Raises StoreError."""
        await self._run(_RELEASE, name=claim.name, token=claim.token)

    async def forget(self, claim: Claim) -> None:
        """Remove the record, with its intent, and end the claim. Raises ClaimLostError or StoreError."""
        await self._change(claim, _FORGET)

    async def _change(self, claim: Claim, statement: LiteralString, **values: Value) -> None:
        if not await self._run(statement, name=claim.name, token=claim.token, **values):
            raise ClaimLostError(f"the claim on {claim.name!r} has ended, or somebody else took it over")

    async def _run(self, statement: LiteralString, **values: Value) -> list[tuple[object, ...]]:
        return await self._opened().submit(statement, **values)

    def _make_session(self) -> PostgresSession:
        try:
            from .postgres_session import PostgresSession
        except ImportError:
            raise ConfigurationError("PostgresStore needs the extra: pip install 'aiodbclient[tenants]'") from None
        return PostgresSession(self._dsn, self._table, self._owner)

    async def _open(self, session: PostgresSession) -> None:
        self._seal.check_key((str(name), str(record)) for name, record in await session.submit(_SOME))


def _ignore_result(done: asyncio.Future[list[tuple[object, ...]]]) -> None:
    """Look at the exception, so that asyncio does not log it. If the release failed, the lease ends the claim."""
    if not done.cancelled():
        done.exception()
