"""Call a function of the caller for each tenant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from .._context import Context
from .._credential import Credential
from .._outcomes import Reporter, TenantFailed, TenantResult
from .._records import required
from ..errors import StoreError
from .job import TenantJob

T = TypeVar("T")


class EachTenant(TenantJob[TenantResult[T]]):
    """``Tenants.each``: call ``work`` with the credential of each tenant."""

    def __init__(self, context: Context, work: Callable[[Credential], Awaitable[T]]) -> None:
        super().__init__(context)
        self._work = work
        self._lost: StoreError | None = None
        self._clusters: dict[str, str] = {}

    async def prepare(self) -> int:
        return 1  # the caller of the run gives the number

    async def do_one(self, name: str, reporter: Reporter) -> TenantResult[T]:
        try:
            record = await self.context.record(name)
        except StoreError as error:
            self._lost = None if error.damaged else error
            raise
        credential = required(record, name, self.context.role)
        cluster = self._clusters[name] = credential.cluster
        reporter.stats.writes += 1  # ``Run.stop`` lets it finish
        return TenantResult(name=name, cluster=cluster, value=await self._work(credential))

    def failed(self, name: str, error: Exception, tries: int) -> TenantFailed:
        return TenantFailed(name=name, error=error, tries=tries, cluster=self._clusters.get(name))

    def ends_run(self, error: Exception) -> bool:
        """Whether the store cannot be read, since an error of ``work`` ends no run."""
        return error is self._lost
