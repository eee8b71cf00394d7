"""``Store``: it holds the credentials, and records which process works on which name.

A store has one record for each name. A process claims a name to work on it, and only the holder of the claim can change
the record. To provision a tenant, the methods are called in this order::

    claim(name)             stores the name, before anything is done for it
    begin(claim, intent)    before the first statement that changes something on the server
    renew(claim)            while the statements run; it raises if the claim was lost
    commit(claim, record)   stores the credential before the caller gets it, and ends the claim
    release(claim)          instead of ``commit``, after an error or a cancellation; the intent stays on record
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Protocol, Self, TypeVar, runtime_checkable

from attrs import field, frozen

from .._credential import Credential
from .._naming import Role
from ..errors import StoreError

T = TypeVar("T")


@frozen(kw_only=True)
class RoleCredentials:
    """The credentials of a tenant's readers, or of its writers.

    Attributes:
        current: The credential to use.
        previous: The credential before the last ``rotate``. It works until it is revoked. None if there is none.
    """

    current: Credential
    previous: Credential | None = None


@frozen(kw_only=True)
class Record:
    """The record of one tenant.

    Attributes:
        name: The name of the tenant.
        current: The credential to use; None if none is stored yet.
        previous: The credential before the last ``rotate``. It works until it is revoked. None if there is none.
        roles: The credentials of its readers and writers, as far as it has them.
        intended: The intent: what a process was about to do to the tenant. None if there is no intent. No error ends
            it. To a store it is one opaque text.
    """

    name: str
    current: Credential | None = None
    previous: Credential | None = None
    roles: Mapping[Role, RoleCredentials] = field(factory=dict[Role, RoleCredentials])
    intended: str | None = None


@frozen(kw_only=True)
class Claim:
    """The right to change one record.

    Attributes:
        name: The name of the record.
        token: A random text, unique to this claim.
        record: The record at the time of the claim.
    """

    name: str
    token: str
    record: Record


@runtime_checkable
class Store(Protocol):
    """The methods that ``Tenants`` needs of a store. Its guide has the tests that each must pass.

    A store is an async context manager; entering it opens it. When a method returns, its change is durable: fsynced, or
    committed. A cancelled method makes its whole change or none of it.

    A store may also have ``def entries(self) -> AsyncIterator[Record | StoreError]``: as ``records``, but with the
    error of each unreadable record in its place, so that a damaged record does not block the others. And ``async def
    discard(self, name: str) -> None``, which removes a record without reading it.

    Raises:
        StoreError: By every method: the store is not open, or cannot be read or written.
        ClaimLostError: By every method with a claim except ``release``: the claim has ended, or another process took
            it over. Nothing was changed.
    """

    async def __aenter__(self) -> Self:
        """Open the store."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the store."""

    async def get(self, name: str) -> Record | None:
        """Return the record of ``name``, or None."""

    def records(self) -> AsyncIterator[Record]:
        """Yield all records, in the order of their names, without loading all of them into memory."""
        ...

    async def claim(self, name: str, lease: float) -> Claim | None:
        """Claim ``name``, and create its record if there is none.

        A name is free if its claim was released or has ended, or if its lease has expired. A cancelled call holds no
        claim.

        Args:
            name: The name of the tenant.
            lease: Seconds for which the claim holds, unless it is renewed.

        Returns:
            The claim, with the record; None if another process, or this one, holds the name.
        """

    async def begin(self, claim: Claim, intent: str | None) -> None:
        """Store the intent: what is about to happen to the tenant.

        Args:
            claim: The claim.
            intent: The intent, one opaque text. It replaces an earlier one. None ends it.
        """

    async def renew(self, claim: Claim, lease: float) -> None:
        """Extend ``claim`` to ``lease`` seconds from now."""

    async def commit(self, claim: Claim, record: Record | None) -> None:
        """Store the record as it is now, or delete it, and end the claim.

        Args:
            claim: The claim.
            record: It replaces the one on record. None: the name is not on record any more.
        """

    async def release(self, claim: Claim) -> None:
        """End the claim. The record stays, with its intent. Does nothing if the claim was lost."""

    async def now(self) -> datetime:
        """Return the time in UTC, by the clock that decides when a lease expires."""
        ...


def entries_of(store: Store) -> AsyncIterator[Record | StoreError]:
    """All records of ``store``. If it has ``entries``, with the error of each unreadable record in its place."""
    entries: Callable[[], AsyncIterator[Record | StoreError]] = getattr(store, "entries", store.records)
    return entries()


async def readable(entries: AsyncIterator[T | StoreError]) -> AsyncIterator[T]:
    """Yield the ``entries`` that are no errors. Raises StoreError afterwards, if some could not be read."""
    damaged: list[StoreError] = []
    async for entry in entries:
        if isinstance(entry, StoreError):
            damaged.append(entry)
        else:
            yield entry
    if damaged:
        names = tuple(name for error in damaged for name in error.damaged)
        others = ", ".join(map(repr, names[1:]))
        error = StoreError(f"{damaged[0]}; nor can the records of {others} be read" if others else str(damaged[0]))
        error.damaged = names
        raise error
