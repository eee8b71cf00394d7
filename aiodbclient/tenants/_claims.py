"""``HeldClaim``: a claim while this process works on its name.

A background task renews the lease. Once the lease may have expired, no more statements are sent.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from attrs import evolve

from ..errors import ClaimLostError, StoreError
from ._credential import Credential
from ._events import Timer
from ._record import Intent, is_empty
from ._stores import Claim, Record, Store


def clock() -> float:
    """The time in seconds, by a clock that runs while the process is stopped or the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class HeldClaim:
    """A claim that this process holds: entering it starts to renew the lease, and leaving it ends the claim."""

    def __init__(self, store: Store, claim: Claim, lease: float, since: float, timer: Timer) -> None:
        self.store = store
        self.claim = claim
        self.record = claim.record  # as this claim has changed it
        self._lease = lease
        self._until = since + lease
        self._timer = timer
        self._ended = False
        self._renewing: asyncio.Task[None] | None = None

    @property
    def leaves_nothing(self) -> bool:
        """Whether nothing is on record for the name, as far as this claim changed it."""
        return is_empty(self.record)

    async def __aenter__(self) -> Self:
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the claim, unless ``keep`` or ``forget`` has."""
        assert self._renewing is not None
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        if self._ended:
            return
        try:
            # A name for which no work began need not stay on record.
            end = self.store.forget if self.leaves_nothing else self.store.release
            await self._timer.on("store", end(self.claim))
        except StoreError as error:
            if exc is None or isinstance(error, ClaimLostError):
                raise  # otherwise ``exc`` has the reason, and the claim ends with its lease

    def check_lease(self) -> None:
        """Check that the lease has not expired, by the clock alone. Called right before each statement."""
        if clock() >= self._until:
            raise ClaimLostError(
                f"the lease on {self.claim.name!r} ran out (was the process stopped?): the next statement was not "
                "sent, and the next process that claims the name continues"
            )

    async def renew(self) -> None:
        """Extend the claim by another lease."""
        since = clock()
        await self._timer.on("store", self.store.renew(self.claim, self._lease))
        self._until = since + self._lease

    async def intend(self, intent: Intent | None) -> None:
        """Store the intent; None ends it."""
        intended = None if intent is None else str(intent)
        await self._timer.on("store", self.store.intend(self.claim, intended))
        self.record = evolve(self.record, intended=intended)

    async def keep(self, current: Credential | None, previous: Credential | None = None) -> None:
        """Store the credentials, and end the intent and the claim."""
        await self._timer.on("store", self.store.keep(self.claim, current, previous))
        self._ended, self.record = True, evolve(self.record, current=current, previous=previous, intended=None)

    async def forget(self) -> None:
        """Remove the record, and end the claim."""
        await self._timer.on("store", self.store.forget(self.claim))
        self._ended, self.record = True, Record(name=self.record.name)

    async def _renew(self) -> None:
        """Renew the lease repeatedly. If that fails, the next ``check_lease`` raises."""
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                await self.renew()
            except ClaimLostError:
                self._until = 0.0
                return
            except StoreError:
                continue  # the store may be back before the lease expires
