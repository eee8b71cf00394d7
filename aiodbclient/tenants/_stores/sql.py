"""``SQLStore``: a ``Store`` in a table, by SQL. ``SQLiteStore`` and ``PostgresStore`` add a connection."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, LiteralString, Protocol, Self, TypeAlias

from ..._masking import Secret
from ...errors import ConfigurationError
from .._records import TenantRecord
from ..errors import ClaimLostError, StoreError
from . import Claim, Store, readable
from .codec import Key, RecordCodec, check_storable

Value: TypeAlias = str | int | float
Rows: TypeAlias = list[tuple[Any, ...]]

_PER_PAGE = 500  # records that are read at once. Decoding them takes some ms of the event loop
_SOME = 10  # records of which one shows whether the key opens the store

# Each store gives the table, ``now`` in seconds, and the form of these parameters. A statement that changes something
# returns a row if it did.
PARAMETERS: Final = ("name", "record", "token", "lease", "after", "limit")

# A name that is only claimed has no record.
_GET: Final = "SELECT name, record FROM {table} WHERE name = {name} AND record IS NOT NULL"
_PAGE: Final = (
    "SELECT name, record FROM {table} WHERE name > {after} AND record IS NOT NULL ORDER BY name LIMIT {limit}"
)
# Claims the name if it is free.
_CLAIM: Final = """
INSERT INTO {table} AS known (name, token, expires) VALUES ({name}, {token}, {now} + {lease})
ON CONFLICT (name) DO UPDATE SET token = excluded.token, expires = excluded.expires
WHERE known.token IS NULL OR known.expires <= {now}
RETURNING name, coalesce(record, '')
"""
_OWN: Final = " WHERE name = {name} AND token = {token} RETURNING name"
_RELEASE: Final = "UPDATE {table} SET token = NULL" + _OWN
_DELETE_UNCLAIMED: Final = (
    "DELETE FROM {table} WHERE name = {name} AND (token IS NULL OR expires <= {now}) RETURNING name"
)


class StoreConnection(Protocol):
    """The connection of an open store, which the first statement opens."""

    def submit(self, statement: LiteralString, values: Mapping[str, Value]) -> asyncio.Future[Rows]:
        """Begin to run a statement, which is committed also if nobody waits for its rows, or raise StoreError."""
        ...

    async def aclose(self) -> None:
        """Finish what was submitted, and disconnect."""


class SQLStore(Store):
    """A store in one table, with one connection while it is open. ``Store`` says what each method does."""

    def __init__(self, key: Key, connect: Callable[[], StoreConnection]) -> None:
        self._codec = RecordCodec(key)
        self._connect = connect  # later, or raise what entering the store raises
        self._connection: StoreConnection | None = None

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            raise ConfigurationError(f"{self!r} is open already")
        self._connection = self._connect()
        try:
            self._codec.check_key(await self._read(_PAGE, after="", limit=_SOME))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Finish pending changes and close the store. Its claims end with their leases."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def get(self, name: str) -> TenantRecord | None:
        rows = await self._read(_GET, name=check_storable(name))
        return self._codec.decode(*rows[0]) if rows else None

    def records(self) -> AsyncIterator[TenantRecord]:
        return readable(self.entries())

    async def entries(self) -> AsyncIterator[TenantRecord | StoreError]:
        """Yield what ``records`` does, and the error of each unreadable record in its place."""
        after = ""
        while page := await self._read(_PAGE, after=after, limit=_PER_PAGE):
            for name, text in page:
                try:
                    entry: TenantRecord | StoreError = self._codec.decode(name, text)
                except StoreError as error:
                    entry = error
                yield entry
            after = page[-1][0]

    async def now(self) -> datetime:
        ((seconds,),) = await self._run("SELECT {now}")
        return datetime.fromtimestamp(seconds, UTC)

    async def claim(self, name: str, lease: float) -> Claim | None:
        token = secrets.token_hex(16)
        check_storable(name)
        try:
            for _, text in await self._read(_CLAIM, name=name, token=token, lease=lease):
                return Claim(name=name, token=token, record=self._codec.decode(name, text) if text else None)
            return None
        except (asyncio.CancelledError, StoreError):  # StoreError: the record cannot be decrypted
            if self._connection is not None:
                with suppress(StoreError):  # the end of the lease frees the claim
                    self._connection.submit(_RELEASE, {"name": name, "token": token})
            raise

    async def renew(self, claim: Claim, lease: float) -> None:
        await self._change(claim, "UPDATE {table} SET expires = {now} + {lease}", lease=lease)

    async def save(self, claim: Claim, record: TenantRecord | None, *, release: bool = False) -> None:
        if record is not None:
            statement, values = "UPDATE {table} SET record = {record}", {"record": Secret(self._codec.encode(record))}
            await self._change(claim, f"{statement}, token = NULL" if release else statement, **values)
        else:
            await self._change(claim, "DELETE FROM {table}" if release else "UPDATE {table} SET record = NULL")

    async def release(self, claim: Claim) -> None:
        await self._run(_RELEASE, name=claim.name, token=claim.token)

    async def discard(self, name: str) -> None:
        """Remove the record of ``name`` without reading it, because it is damaged.

        Raises:
            ClaimLostError: A process works on the name.
            StoreError: There is no record, or the store cannot be written.
        """
        if not await self._run(_GET, name=check_storable(name)):
            raise StoreError(f"{name!r} is not on record")
        if not await self._run(_DELETE_UNCLAIMED, name=name):
            raise ClaimLostError(f"a process works on {name!r}")

    async def _change(self, claim: Claim, statement: LiteralString, **values: Value) -> None:
        if not await self._run(statement + _OWN, name=claim.name, token=claim.token, **values):
            raise ClaimLostError(f"the claim on {claim.name!r} has ended, or another process took it over")

    async def _read(self, statement: LiteralString, **values: Value) -> list[tuple[str, Secret]]:
        """Run a statement, and return names and encoded records, which no traceback shows."""
        return [(name, Secret(text)) for name, text in await self._run(statement, **values)]

    async def _run(self, statement: LiteralString, **values: Value) -> Rows:
        """Run a statement, also if this is cancelled, and return its rows."""
        if self._connection is None:
            raise StoreError(f"{self!r} is not open: use it in 'async with'")
        running = self._connection.submit(statement, values)
        await asyncio.wait([running])
        return running.result()
