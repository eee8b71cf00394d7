"""``TenantJob``: the work of a run on tenants, given by name."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from attrs import evolve

from ..._bulk.outcomes import Done
from ..._bulk.run import Job, parse_name
from ..._http.call import RequestStats
from ...errors import ConfigurationError, DatabaseClientError
from .._clusters import AT_A_TIME, UNREACHABLE, Limits
from .._context import Context
from .._naming import Role, check_tenant
from .._outcomes import Reporter, TenantAction, TenantFailed
from .._records import TenantRecord, unusable
from ..errors import ClaimLostError, StoreError

DoneT = TypeVar("DoneT", bound=Done)

_NAMES_PER_SLOT = 4  # begun for each that is worked on. The others wait for a slot, or another process's claim


class TenantJob(Job[str, DoneT, TenantFailed]):
    """A job on tenants, given by name, with the work on one of them in ``do_one``."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = evolve(context, clusters=context.clusters.for_run(self.maintenance))

    def foreground(self, limits: Limits | None = None) -> None:
        """Work for a caller who waits for one name, so ``max_wait`` applies, with the ``limits`` of other calls."""
        self.context = evolve(self.context, clusters=self.context.clusters.for_run(None, limits))

    def parse(self, given: object) -> str:
        return parse_name(given)

    def failed(self, name: str, error: Exception, tries: int) -> TenantFailed:
        return TenantFailed(name=name, error=error, tries=tries)

    async def prepare(self) -> int:
        """Read a cluster that can be reached, or raise the first error, and return how many names to begin at once."""
        clusters, failures = self.context.clusters.clients, list[DatabaseClientError]()
        for cluster in clusters:
            try:
                await self.context.clusters.get(cluster, RequestStats())
                return _NAMES_PER_SLOT * AT_A_TIME * len(clusters)
            except UNREACHABLE as error:
                failures.append(error)
        raise failures[0]

    async def do(self, spec: str, stats: RequestStats) -> DoneT:
        """Do the work on one tenant, and report it to ``on_event``."""
        reporter = Reporter(stats, self.context.role, self.context.on_event)
        try:
            done = evolve(await self.do_one(check_tenant(spec), reporter), tries=stats.requests)
        except Exception as error:
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

    async def cluster_for(self, name: str, record: TenantRecord | None, reporter: Reporter) -> str:
        """The cluster of a tenant; the first one if it has none yet."""
        if record is None and self.context.role is not Role.OWNER:
            raise unusable(record, name, self.context.role)
        return next(iter(self.context.clusters.clients)) if record is None else record.cluster

    @abstractmethod
    async def do_one(self, name: str, reporter: Reporter) -> DoneT:
        """Do the work on one tenant, and return its outcome, without ``tries``."""
