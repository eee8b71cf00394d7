"""Call a function of the caller for each tenant, with a ``version`` once for each.

``work`` may run for hours, so it holds a claim of its own, and other operations go on meanwhile. If one of them takes
the tenant over, such as a suspension, ``work`` is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from attrs import evolve
from backoff import full_jitter

from ...errors import DatabaseClientError
from .._context import Context
from .._credential import Credential
from .._outcomes import Reporter, TenantFailed, TenantResult, TenantSkipped
from .._records import TenantRecord, known_logins, required, unusable
from .._stores import Claim, try_claim
from ..errors import ClaimLostError, StoreError
from .loop import TenantJob
from .tenant import LEASE, clock

T = TypeVar("T")

_POLL_SECONDS = 1.0  # s between two reads of a tenant of which ``work`` runs, here or in another process


class EachTenant(TenantJob[TenantResult[T] | TenantSkipped]):
    """``Tenants.each``: call ``work`` with the credential of each tenant."""

    def __init__(self, context: Context, work: Callable[[Credential], Awaitable[T]], version: str | None) -> None:
        super().__init__(context)
        self._work = work
        self._version = version
        self._of_work = set[StoreError]()  # errors that ``work`` raised
        self._clusters: dict[str, str] = {}

    async def prepare(self) -> int:
        return 1  # the caller of the run gives the number

    async def do_one(self, name: str, reporter: Reporter) -> TenantResult[T] | TenantSkipped:
        credential = await self._todo(name)
        if credential is not None and self._version is None:
            return self._result(credential, await self._call(credential, reporter))
        while credential is not None:
            # No tenant has such a name. Nothing is stored under it.
            claim = await self.context.store.claim(f"{name}:each", LEASE)
            if claim is None:
                await asyncio.sleep(full_jitter(_POLL_SECONDS))
            try:
                credential = await self._todo(name)  # another process may have done it meanwhile
                if claim is not None and credential is not None:
                    value = await self._call_claimed(claim, credential, reporter)
                    await self._save_version(credential)
                    return self._result(credential, value)
            finally:
                if claim is not None:
                    with suppress(StoreError):  # it ends with its lease
                        await self.context.store.save(claim, None, release=True)
        return TenantSkipped(name=name, cluster=self._clusters[name])

    async def _todo(self, name: str) -> Credential | None:
        """Return the credential for ``work``; None if the tenant has the version."""
        record = await self.context.record(name)
        credential = required(record, name, self.context.role)
        self._clusters[name] = credential.cluster
        has_version = self._version is not None and record is not None and record.version == self._version
        return None if has_version else credential

    def _result(self, credential: Credential, value: T) -> TenantResult[T]:
        return TenantResult(name=credential.name, cluster=credential.cluster, value=value)

    async def _call(self, credential: Credential, reporter: Reporter) -> T:
        reporter.stats.writes += 1  # ``Run.stop`` lets it finish
        try:
            return await self._work(credential)
        except StoreError as error:
            self._of_work.add(error)
            raise

    async def _call_claimed(self, claim: Claim, credential: Credential, reporter: Reporter) -> T:
        """Call ``work`` while the claim is renewed, and cancel it if the claim is lost or the tenant taken over."""
        limit = asyncio.timeout(None)
        watching = asyncio.create_task(self._watch(claim, credential, limit))
        try:
            async with limit:
                return await self._call(credential, reporter)
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        raise watching.result()

    async def _watch(self, claim: Claim, credential: Credential, limit: asyncio.Timeout) -> DatabaseClientError:
        """Renew the claim until ``work`` must not go on: then let its ``limit`` expire, and return why."""
        until = clock() + LEASE
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            since = clock()
            try:
                await self.context.store.renew(claim, LEASE)
                until = since + LEASE
                self._unchanged(await self.context.record(credential.name), credential)
            except DatabaseClientError as error:
                is_lost = isinstance(error, ClaimLostError) or not isinstance(error, StoreError)
                if is_lost or clock() >= until:  # otherwise the store may be back before the lease expires
                    limit.reschedule(0)
                    return error

    async def _save_version(self, credential: Credential) -> None:
        """Store the version, unless the tenant was taken over since ``work`` began."""
        while True:
            async with try_claim(self.context.store, credential.name, LEASE) as claim:
                record = await self.context.record(credential.name) if claim is None else claim.record
                record = self._unchanged(record, credential)
                if claim is not None:
                    await self.context.store.save(claim, evolve(record, version=self._version))
                    return
            await asyncio.sleep(full_jitter(_POLL_SECONDS))

    def _unchanged(self, record: TenantRecord | None, credential: Credential) -> TenantRecord:
        """Return the record if the login of ``work`` is still on it, or raise why it is not."""
        name, role = credential.name, self.context.role
        if record is None or record.credential(role) is None:
            raise unusable(record, name, role)
        if credential.username not in known_logins(record):
            raise ClaimLostError(
                f"the tenant {name!r} lost the login of its `work` meanwhile, as by a suspension or a move: its "
                "version was not stored"
            )
        return record

    def failed(self, name: str, error: Exception, requests: int) -> TenantFailed:
        return TenantFailed(name=name, error=error, requests=requests, cluster=self._clusters.get(name))

    def ends_run(self, error: Exception) -> bool:
        """Whether the store cannot be used, since an error of ``work`` ends no run."""
        return isinstance(error, StoreError) and error not in self._of_work and super().ends_run(error)
