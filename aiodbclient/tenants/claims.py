"""``HeldClaim``: a claim while this process works on its name.

Its lease is renewed in the background. Once the lease may have run out, no request is sent any more.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from attrs import frozen

from ..clusters import ClusterClient
from ..errors import ClaimLostError, DatabaseClientError, StoreError
from .credential import Credential
from .events import Spent
from .naming import Names
from .site import Site
from .stores import Claim, Record, Store


def _now() -> float:
    """The time in seconds, by a clock that goes on while the process is stopped or the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class HeldClaim:
    """A claim that this process holds.

    It is an async context manager: entering it begins to renew the lease, and leaving it releases the claim unless
    ``keep`` or ``forget`` has ended it.

    Args:
        store: The store that gave the claim.
        claim: The claim.
        lease: The seconds that it was claimed for. Each renewal is for as long.
        since: ``HeldClaim.now()`` just before it was claimed.
        spent: Counts the time in the store.

    Attributes:
        wrote: The logins whose passwords a request that was sent under this claim may have changed.
    """

    now = staticmethod(_now)

    def __init__(self, store: Store, claim: Claim, lease: float, since: float, spent: Spent) -> None:
        self.store = store
        self.claim = claim
        self.wrote = set[str]()
        self._lease = lease
        self._until = since + lease
        self._spent = spent
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
        """Release the claim.

        Raises:
            ClaimLostError: An error ends the work, a password may have been changed, and the claim was lost meanwhile.
        """
        assert self._renewing is not None
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        if self._ended:
            return
        try:
            if self.wrote and isinstance(exc, DatabaseClientError) and not isinstance(exc, StoreError):
                await self.renew()
            await self._spent.on_store(self.store.release(self.claim))
        except ClaimLostError:
            raise
        except StoreError:
            if exc is None:
                raise  # otherwise ``exc`` says why the work ended, and the lease ends the claim

    def check_lease(self) -> None:
        """Make sure that the lease has not run out, by the clock alone. Called right before each request.

        Raises:
            ClaimLostError: It has run out, as it does if the process was stopped for too long.
        """
        if _now() >= self._until:
            raise ClaimLostError(
                f"the lease on {self.claim.name!r} ran out before the request was sent (was the process stopped?); "
                "it was not sent, and whoever claims the name goes on"
            )

    async def renew(self) -> None:
        """Hold the claim for another lease.

        Raises:
            ClaimLostError: Somebody else has taken it over.
            StoreError: The store cannot be used.
        """
        since = _now()
        await self._spent.on_store(self.store.renew(self.claim, self._lease))
        self._until = since + self._lease

    async def may_write(self, login: str) -> None:
        """Renew the claim right before a request that changes the password of ``login``. Raises as ``renew``."""
        await self.renew()
        self.wrote.add(login)

    async def intend(self, username: str | None) -> None:
        """Put on record that ``username`` is about to be made or to get a new password; None ends that intent."""
        await self._spent.on_store(self.store.intend(self.claim, username))

    async def keep(self, current: Credential | None, previous: Credential | None = None) -> None:
        """Put the credentials on record, and end the intent and the claim."""
        await self._spent.on_store(self.store.keep(self.claim, current, previous))
        self._ended = True

    async def forget(self) -> None:
        """Remove the record, and end the claim."""
        await self._spent.on_store(self.store.forget(self.claim))
        self._ended = True

    async def _renew(self) -> None:
        """Renew the lease again and again. If that fails, the next ``check_lease`` or ``may_write`` raises."""
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                await self.renew()
            except ClaimLostError:
                self._until = 0.0
                return
            except StoreError:
                continue  # it may be back before the lease has run out


@frozen(kw_only=True)
class Tenant:
    """One tenant, with what is needed to look at it.

    Attributes:
        site: What is known of the cluster.
        cluster: Makes the calls.
        names: The tenant's names.
        spent: Counts the time in SQL.
    """

    site: Site
    cluster: ClusterClient
    names: Names
    spent: Spent


@frozen(kw_only=True)
class ClaimedTenant(Tenant):
    """One tenant under its claim, with what the steps of each verb need.

    The calls of ``cluster`` raise ClaimLostError once the lease has run out, and are not sent.

    Attributes:
        held: The claim.
    """

    held: HeldClaim
