"""Where credentials are on record, and who works on which name.

A store keeps one Record for each name. To work on a name one claims it; only who holds the claim may change its record.
The order of one provision is::

    claim(name)                 the name is on record before anything is sent for it
    intend(claim, username)     just before a request that makes the login ``username`` or changes its password
    renew(claim)                right before each such request: it raises where the claim was lost
    keep(claim, current, ...)   the credential is on record; only then is anybody told. The intent and the claim end
    release(claim)              in the place of ``keep`` after an error or a cancellation: the intent stays open
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, Self

from attrs import frozen

from ..credential import Credential


@frozen(kw_only=True)
class Record:
    """What a store holds of one name.

    Attributes:
        name: The name of the tenant.
        current: The credential to use; None where none was kept yet.
        previous: The credential from before the last ``rotate``, which works until it is retired; None where there is
            none.
        intended: The login that somebody was about to make, or to give a new password, and whose credential is not on
            record; None where there is none. Only ``keep`` and ``forget`` end it, whatever error comes in between,
            and ``intend`` with None where the login turned out to be somebody else's.
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
        token: What tells this claim from every other one.
        record: The record as it stood when it was claimed.
    """

    name: str
    token: str
    record: Record


class Store(Protocol):
    """What Tenants needs of a store. ``aiodbclient.tenants.testing`` has the tests that each must pass.

    Every method is durable before it returns (fsynced, or committed), raises StoreError where the store cannot do it,
    and may be cancelled: the change is then made whole or not at all. A method that takes a claim raises ClaimLostError
    where somebody else took the claim over, and changes nothing then.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def get(self, name: str) -> Record | None:
        """The record of ``name``, or None."""

    def records(self) -> AsyncIterator[Record]:
        """All records by name, a few at a time in memory."""
        ...

    async def claim(self, name: str, lease: float) -> Claim | None:
        """Claim ``name`` for ``lease`` seconds, and make its record where there is none.

        None where a living process holds it. A claim is free when it was released, at once when the process that holds
        it is known to be dead, and else when its lease has run out.
        """

    async def intend(self, claim: Claim, username: str | None) -> None:
        """Put on record that ``username`` is about to be made or to get a new password; None: that none is."""

    async def renew(self, claim: Claim, lease: float) -> None:
        """Hold ``claim`` for ``lease`` seconds from now."""

    async def keep(self, claim: Claim, current: Credential | None, previous: Credential | None = None) -> None:
        """Put the credentials on record, in the place of those there, and end the intent and the claim."""

    async def release(self, claim: Claim) -> None:
        """End the claim and leave the record as it is, with its intent. Nothing happens where the claim was lost."""

    async def forget(self, claim: Claim) -> None:
        """Remove the record, its intent and the claim."""
