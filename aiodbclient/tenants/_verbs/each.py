"""Call the caller's own function with the credential of each tenant: migrations, reports, deliveries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from .._context import Context
from .._credential import Credential
from .._outcomes import TenantFailed, TenantResult, Timer
from ..errors import StoreError
from .jobs import TenantJob

T = TypeVar("T")


class EachTenant(TenantJob[TenantResult[T]]):
    """Call ``work`` for each tenant. See ``Tenants.each``."""

    def __init__(self, context: Context, work: Callable[[Credential], Awaitable[T]]) -> None:
        super().__init__(context)
        self._work = work
        self._lost: StoreError | None = None
        self._clusters: dict[str, str] = {}

    async def prepare(self) -> int:
        return 1  # the caller of the run gives the number

    async def do_one(self, name: str, timer: Timer) -> TenantResult[T]:
        try:
            record = await self.context.record(name)
        except StoreError as error:
            self._lost = None if error.damaged else error
            raise
        credential = record.required()
        cluster = self._clusters[name] = credential.cluster or ""
        timer.stats.writes += 1  # ``Run.stop`` lets it finish
        return TenantResult(name=name, cluster=cluster, value=await self._work(credential))

    def failed(self, name: str, error: Exception, tries: int) -> TenantFailed:
        return TenantFailed(name=name, error=error, tries=tries, cluster=self._clusters.get(name))

    def ends_run(self, error: Exception) -> bool:
        """Whether the store cannot be read. An error of ``work`` ends no run."""
        return error is self._lost
