"""``TenantJob``: the work of a run on tenants, given by name. ``ChangeTenants``: the loop of those that change them.

One claim is one block: recover what a dead process left, then do the operation.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from datetime import datetime, timedelta
from typing import ClassVar, TypeVar

from attrs import evolve
from backoff import full_jitter

from ..._bulk.outcomes import Done
from ..._bulk.run import Job, parse_name
from ..._http.call import RequestStats
from ..._http.events import logger
from ...errors import ConfigurationError, DatabaseClientError
from .._clusters import AT_A_TIME, UNREACHABLE, Limits
from .._context import Context
from .._naming import check_tenant
from .._outcomes import Reporter, TenantAction, TenantFailed
from .._records import OperationKind, TenantRecord, TenantState
from ..errors import ClaimLostError, GrantError, StoreError, TenantBusyError
from .recover import recover
from .tenant import LEASE, AlreadyClaimedError, Tenant, claim_tenant, clock

DoneT = TypeVar("DoneT", bound=Done)

_HANGS = 2.0  # s for which a cluster may be read until another one is read too
_NAMES_PER_SLOT = 4  # in progress for each slot. Most wait for a slot, or for another process's claim
_FIRST_POLL, _LONGEST_POLL = 0.05, 1.0  # s between two reads of a record that another process has claimed
_MOST_LOST_CLAIMS = 5  # of one name before it fails


class TenantJob(Job[str, DoneT, TenantFailed]):
    """A job on tenants, given by name, with the work on one of them in ``do_one``."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = evolve(context, clusters=context.clusters.for_job(self.maintenance))

    def foreground(self, limits: Limits | None = None) -> None:
        """Work for a caller who waits for one name, so ``max_wait`` applies, with the ``limits`` of other calls."""
        self.context = evolve(self.context, clusters=self.context.clusters.for_job(None, limits))

    def parse(self, given: object) -> str:
        return parse_name(given)

    def failed(self, name: str, error: Exception, requests: int) -> TenantFailed:
        return TenantFailed(name=name, error=error, requests=requests)

    async def prepare(self) -> int:
        """Read a cluster that can be reached, or raise the first error, and return how many names to begin at once."""
        clusters, failures = self.context.clusters.clients, list[DatabaseClientError]()
        reading, left = set[asyncio.Task[object]](), list(clusters)
        try:
            while left or reading:
                if left:
                    reading.add(asyncio.create_task(self.context.clusters.get(left.pop(0), RequestStats())))
                wait = _HANGS if left else None  # a cluster that hangs holds up no other
                done, reading = await asyncio.wait(reading, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                for error in [*map(asyncio.Task.exception, done)]:
                    if error is None:
                        return _NAMES_PER_SLOT * AT_A_TIME * len(clusters)
                    if not isinstance(error, UNREACHABLE):
                        raise error
                    failures.append(error)
        finally:
            for each in reading:
                each.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        raise failures[0]

    async def do(self, spec: str, stats: RequestStats) -> DoneT:
        """Do the work on one tenant, and report it to ``on_event``."""
        reporter = Reporter(stats, self.context.role, self.context.on_event)
        try:
            done = evolve(await self.do_one(check_tenant(spec), reporter), requests=stats.requests)
        except Exception as error:
            if isinstance(error, GrantError):
                error.__class__ = GrantError  # the steps alone know its subclasses
            reporter.report(spec, TenantAction.FAILED, error)
            raise
        reporter.report(spec, TenantAction(done.action))
        return done

    def ends_run(self, error: Exception) -> bool:
        """Whether ``error`` ends the run, as one of the store does, because nothing could be stored."""
        if isinstance(error, StoreError):
            return not isinstance(error, ClaimLostError) and not error.damaged
        if isinstance(error, ConfigurationError) and len(self.context.clusters.clients) > 1:
            return False  # it may be one cluster that is not online
        return super().ends_run(error)

    @abstractmethod
    async def do_one(self, name: str, reporter: Reporter) -> DoneT:
        """Do the work on one tenant, and return its outcome, without ``requests``."""


class ChangeTenants(TenantJob[DoneT]):
    """A job that changes tenants; each operation is a subclass with ``precheck`` and ``change``."""

    continues: ClassVar[OperationKind | None] = None  # what ``change`` continues itself, also of one role
    ends_logins: ClassVar[bool] = False  # whether it ends all logins of the tenant

    def __init__(self, context: Context, age: timedelta | None = None) -> None:
        super().__init__(context)
        self.age = age
        self._now: datetime | None = None

    async def prepare(self) -> int:
        await self.read_clock()
        return await super().prepare()

    async def read_clock(self) -> None:
        """Let ages end now, so that what another process does during the run is young."""
        if self.age is not None:
            self._now = await self.context.store.now()

    def is_too_young(self, since: datetime) -> bool:
        """Whether ``since`` is less than the age ago."""
        return self.age is not None and self._now is not None and self._now - since < self.age

    async def do_one(self, name: str, reporter: Reporter) -> DoneT:
        """Claim the tenant and do the work, unless its record shows that there is nothing to do."""
        lost_claims, busy_since, wait = 0, None, _FIRST_POLL
        record = at_start = await self.context.record(name)
        while (outcome := self.precheck(name, record, at_start)) is None:
            cluster = await self.cluster_for(name, record, reporter)
            try:
                async with (
                    self.context.clusters.limits[cluster],
                    claim_tenant(self.context, cluster, name, reporter) as tenant,
                ):
                    busy_since = None
                    reporter.stats.writes += 1  # ``Run.stop`` lets it finish
                    record = tenant.record
                    if record is None or cluster == await self.cluster_for(name, record, reporter):
                        return await self._do_claimed(tenant, at_start)
                    # Another process has put it on another cluster meanwhile.
            except AlreadyClaimedError:
                busy_since = _check_patience(name, busy_since)
            except ClaimLostError:
                lost_claims += 1
                if lost_claims >= _MOST_LOST_CLAIMS:
                    raise
            await asyncio.sleep(full_jitter(wait))
            wait = min(2 * wait, _LONGEST_POLL)
            record = await self.context.record(name)
        return outcome

    async def cluster_for(self, name: str, record: TenantRecord | None, reporter: Reporter) -> str:
        """The cluster of a tenant."""
        assert record is not None  # without one, there is nothing to do but to provision
        return record.cluster

    async def _do_claimed(self, tenant: Tenant, at_start: TenantRecord | None) -> DoneT:
        """Recover what a dead process left, then do the work, unless there is nothing to do any more."""
        name, cluster, record = tenant.names.tenant, tenant.cluster, tenant.record
        is_unfinished = record is not None and (record.operation is not None or record.leftover is not None)
        try:
            with self.context.clusters.track_failures(cluster.id, name):
                async with cluster.server.session(tenant, was_interrupted=is_unfinished) as tenant.steps:
                    await tenant.inspect(ends_logins=self.ends_logins)
                    if is_unfinished and await recover(tenant, self.continues):
                        await tenant.inspect(ends_logins=self.ends_logins)
                    outcome = self.precheck(name, tenant.record, at_start)
                    return await self.change(tenant) if outcome is None else outcome
        except GrantError as error:
            error.on_record = error.on_record or _describe(tenant)
            if await _lost_its_database(tenant):
                raise await tenant.no_database() from error
            raise

    @abstractmethod
    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> DoneT | None:
        """Return the outcome if there is nothing to do, None if there is, or raise why the operation is refused.

        Called with the record now, and with the one when the call began: another process may have changed it.
        """

    @abstractmethod
    async def change(self, tenant: Tenant) -> DoneT:
        """Work on a claimed tenant, and return the outcome."""


def _check_patience(name: str, busy_since: float | None) -> float:
    """Return since when another process has the claim, or raise TenantBusyError after one lease."""
    if busy_since is None:
        logger.info("another process works on the tenant %r: waiting up to %.0f s", name, LEASE)
        return clock()
    if clock() - busy_since < LEASE:
        return busy_since
    raise TenantBusyError(
        f"another process works on the tenant {name!r} for over {LEASE:.0f} s; nothing was changed",
        retry_after=LEASE,
    )


async def _lost_its_database(tenant: Tenant) -> bool:
    if not tenant.has_login or tenant.stored.state() is TenantState.REMOVING:
        return False
    try:
        return not (await tenant.cluster.server.inspect(tenant.names)).database
    except GrantError:  # such as that the server is unreachable
        return False


def _describe(tenant: Tenant) -> str:
    """What the store holds for a tenant after an operation failed."""
    if tenant.record is None:
        return "nothing is on record for the name"
    if tenant.record.current(tenant.role) is None:
        where = f"the name is on record for the cluster {tenant.cluster.id}, without a credential"
        return f"{where}: repeat the call, or remove the tenant"
    if tenant.state is TenantState.USABLE:
        return "the credential in use was not touched"
    return f"its state on record is {tenant.state}"
