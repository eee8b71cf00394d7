"""Working under a claim: it is renewed meanwhile, and nothing is sent once it may have been taken over."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from attrs import frozen

from ..clusters import ClusterClient
from ..errors import ClaimLostError, StoreError
from .credential import Credential
from .naming import Names
from .site import Site
from .stores import Claim, Record, Store


def _now() -> float:
    """Seconds of a clock that goes on while the process, or the machine, is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Held:
    """A claim that this process holds. An async context manager: leaving it releases the claim, unless it has ended.

    Args:
        store: Where it was claimed.
        claim: The claim.
        lease: The seconds that it was claimed for, and is renewed for.
        since: ``Held.now()`` just before it was claimed.
    """

    now = staticmethod(_now)

    def __init__(self, store: Store, claim: Claim, lease: float, since: float) -> None:
        self.store = store
        self.claim = claim
        self.wrote = False  # whether a password may have been changed since the claim was last known to be ours
        self._lease = lease
        self._until = since + lease
        self._ended = False
        self._renewing: asyncio.Task[None] | None = None

    @property
    def record(self) -> Record:
        """The record as it stood when claimed."""
        return self.claim.record

    async def __aenter__(self) -> Self:
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._renewing is not None
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        if not self._ended:
            await self.store.release(self.claim)

    def check(self) -> None:
        """Raise ClaimLostError where the lease has run out, as it does when the process was stopped for too long.

        Asks no other process, and is called right before each request.
        """
        if _now() >= self._until:
            raise ClaimLostError(
                f"the lease on {self.claim.name!r} ran out before the request was sent (was the process stopped?); "
                "it was not sent, and whoever claims the name goes on"
            )

    async def renew(self) -> None:
        """Hold the claim for another lease. Raises ClaimLostError where somebody else has taken it over."""
        since = _now()
        await self.store.renew(self.claim, self._lease)
        self._until = since + self._lease

    async def may_write(self) -> None:
        """Make sure of the claim right before a request that changes a password."""
        await self.renew()
        self.wrote = True

    async def intend(self, username: str | None) -> None:
        """Put on record that ``username`` is about to be made or to get a new password; None: that none is."""
        await self.store.intend(self.claim, username)

    async def keep(self, current: Credential | None, previous: Credential | None = None) -> None:
        """Put the credentials on record; the intent and the claim end."""
        await self.store.keep(self.claim, current, previous)
        self._ended = True

    async def forget(self) -> None:
        """Remove the record; the claim ends."""
        await self.store.forget(self.claim)
        self._ended = True

    async def _renew(self) -> None:
        """Renew as long as somebody works, who meets what fails here in ``check`` and ``may_write``."""
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                await self.renew()
            except ClaimLostError:
                self._until = 0.0
                return
            except StoreError:
                continue  # it may be back before the lease has run out


@frozen
class ClaimedTenant:
    """One tenant under its claim, and what the work on it needs.

    Attributes:
        site: The cluster.
        cluster: The calls, which are refused once the lease has run out.
        names: The tenant's names.
        held: The claim.
    """

    site: Site
    cluster: ClusterClient
    names: Names
    held: Held
