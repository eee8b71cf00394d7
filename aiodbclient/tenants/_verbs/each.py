"""Call the caller's own function with the credential of each tenant: migrations, reports, deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeVar

from ..._bulk.outcomes import Failed
from ..._checks import check_whole
from ...errors import DatabaseClientError
from .._context import Context
from .._credential import Credential
from .._outcomes import TenantResult, Timer
from ..errors import StoreError, SuspendedError, TenantNotFoundError
from .jobs import TenantJob

T = TypeVar("T")


class EachTenant(TenantJob[TenantResult[T]]):
    """Call ``work`` for each tenant. See ``Tenants.each``."""

    def __init__(
        self,
        context: Context,
        work: Callable[[Credential], Awaitable[T]],
        first: int = 0,
        most_failed: int | None = None,
    ) -> None:
        super().__init__(context)
        check_whole("first", first, least=0)
        if most_failed is not None:
            check_whole("most_failed", most_failed)
        self._work = work
        self._first, self._most_failed = first, most_failed
        self._begun = self._first_done = self._failed = 0
        self._others_may_begin = asyncio.Event()
        self._failed_first: Exception | None = None  # the last of them that failed
        self._lost: StoreError | None = None
        self._clusters: dict[str, str] = {}

    async def prepare(self) -> int:
        return 1  # the caller of the run gives the number

    async def do_one(self, name: str, timer: Timer) -> TenantResult[T]:
        self._begun += 1
        if self._begun > self._first:
            if self._first:
                await self._others_may_begin.wait()
            return await self._call(name, timer)
        try:
            return await self._call(name, timer)
        except Exception as error:
            self._failed_first = error
            raise
        finally:
            self._first_done += 1
            if self._first_done == self._first:
                self._others_may_begin.set()

    async def _call(self, name: str, timer: Timer) -> TenantResult[T]:
        try:
            record = await self.context.record(name, timer)
        except StoreError as error:
            self._lost = None if error.damaged else error
            raise
        credential = record.required()
        cluster = self._clusters[name] = credential.cluster or ""
        timer.meter.writes += 1  # ``Run.stop`` lets it finish
        return TenantResult(name=name, cluster=cluster, value=await timer.on("setup", self._work(credential)))

    def failed(self, name: str, error: Exception, tries: int) -> Failed:
        return Failed(name=name, error=error, tries=tries, cluster=self._clusters.get(name))

    def ends_run(self, error: Exception) -> bool:
        """Whether the store cannot be read, or too many failed. Otherwise an error of ``work`` ends no run."""
        if error is self._lost:
            return True
        if isinstance(error, SuspendedError | TenantNotFoundError):  # the work was not called
            return False
        self._failed += 1
        most = self._most_failed or (1 if error is self._failed_first else inf)
        if self._failed >= most:
            self.ending = DatabaseClientError(f"ended after {self._failed} failed: no other tenant was begun")
        return self.ending is not None
