"""``Store``: it holds the credentials, and which process works on which name.

A store has one record for each name. A process that wants to work on a name claims it, and only the process that holds
the claim can change the record. To provision a tenant, the methods are called in this order::

    claim(name)                 puts the name on record, before anything is sent for it
    intend(claim, username)     before the first request that makes the login ``username`` or changes its password
    renew(claim)                right before each such request; it raises if the claim was lost
    keep(claim, current, ...)   stores the credential before the caller gets it, and ends the intent and the claim
    release(claim)              instead of ``keep``, after an error or a cancellation; the intent stays on record
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, Self, runtime_checkable

from attrs import frozen

from ..credential import Credential


@frozen(kw_only=True)
class Record:
    """What a store holds for one name.

    Attributes:
        name: The name of the tenant.
        current: The credential to use; None if none was kept yet.
        previous: The credential from before the last ``rotate``, which works until it is retired; None if there is
            none.
        intended: The intent: the login that a process was about to make, or to give a new password. Its credential is
            not on record yet. None if there is no intent. ``keep`` and ``forget`` end it. ``intend`` with None ends it
            too, for a login that turned out to be somebody else's. No error ends it.
    """

    name: str
    current: Credential | None = None
    previous: Credential | None = None
    intended: str | None = None


@frozen(kw_only=True)
class Claim:
    """The right to change one record.

    Attributes:
        name: The name of the record.
        token: A random text that no other claim has.
        record: The record as it was when it was claimed.
    """

    name: str
    token: str
    record: Record


@runtime_checkable
class Store(Protocol):
    """What ``Tenants`` needs of a store. ``aiodbclient.tenants.testing`` has the tests that each must pass.

    A store is an async context manager; entering it opens it. When a method returns, its change is durable: fsynced, or
    committed. A method that is cancelled has made its whole change or none of it.

    A store may also have ``async def now(self) -> datetime``, the time in UTC by its own clock. ``Tenants`` then dates
    credentials by it, and otherwise by the machine's clock.

    Raises:
        StoreError: By every method: the store is not open, or cannot be read or written.
        ClaimLostError: By a method that takes a claim, but for ``release``: the claim has ended, or somebody else took
            it over. Nothing was changed.
    """

    async def __aenter__(self) -> Self:
        """Open the store."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the store. Claims that it still holds are free then."""

    async def get(self, name: str) -> Record | None:
        """Return the record of ``name``, or None."""

    def records(self) -> AsyncIterator[Record]:
        """Yield all records, in the order of their names, without holding all of them in memory."""
        ...

    async def claim(self, name: str, lease: float) -> Claim | None:
        """Claim ``name``, and make its record if there is none.

        A name is free if its claim was released or ended, if the process that holds it is known to be dead, or if its
        lease has run out. A cancelled call holds no claim.

        Args:
            name: The name of the tenant.
            lease: Seconds for which the claim holds, unless it is renewed.

        Returns:
            The claim, with the record as it is; None if another process, or this one, holds the name.
        """

    async def intend(self, claim: Claim, username: str | None) -> None:
        """Put the intent on record: ``username`` is about to be made or to get a new password.

        Args:
            claim: The claim.
            username: The login. It replaces an earlier intent. None ends that one.
        """

    async def renew(self, claim: Claim, lease: float) -> None:
        """Make ``claim`` hold for ``lease`` seconds from now."""

    async def keep(self, claim: Claim, current: Credential | None, previous: Credential | None = None) -> None:
        """Put the credentials on record, and end the intent and the claim.

        Args:
            claim: The claim.
            current: The credential to use from now on.
            previous: The one from before. Both replace what is on record, also if they are None.
        """

    async def release(self, claim: Claim) -> None:
        """End the claim, and leave the record as it is, with its intent. Does nothing if the claim was lost."""

    async def forget(self, claim: Claim) -> None:
        """Remove the record, with its intent, and end the claim."""
