"""Call the caller's own function with the credential of each tenant: migrations, reports, deliveries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ...errors import StoreError
from .._context import Context
from .._credential import Credential
from .._events import Timer
from .._outcomes import TenantResult
from .._record import required
from .jobs import TenantJob

T = TypeVar("T")


class EachTenant(TenantJob[TenantResult[T]]):
    """Call ``work`` for each tenant. See ``Tenants.each``."""

    def __init__(self, context: Context, work: Callable[[Credential], Awaitable[T]]) -> None:
        super().__init__(context)
        self._work = work
        self._lost: StoreError | None = None

    async def prepare(self) -> int:
        return 1  # the caller of the run gives the number

    async def do_one(self, name: str, timer: Timer) -> TenantResult[T]:
        try:
            record = await self.context.record(name, timer)
        except StoreError as error:
            self._lost = None if error.damaged else error
            raise
        credential = required(name, record, self.context.role)
        timer.meter.begun = True
        return TenantResult(name=name, value=await timer.on("setup", self._work(credential)))

    def ends_run(self, error: Exception) -> bool:
        """Whether the store cannot be read. An error of ``work`` ends no run, of whatever type it is."""
        return error is self._lost
