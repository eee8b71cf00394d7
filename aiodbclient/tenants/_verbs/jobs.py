"""``TenantJob``: the work of a run on tenants, given by name. ``EachTenant`` calls a function of the caller."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

from attrs import evolve

from ..._bulk.outcomes import Done
from ..._bulk.run import Job, parse_name
from ..._http.call import RequestStats
from ...errors import ConfigurationError, DatabaseClientError
from .._context import AT_A_TIME, AWAY, Context, Turns
from .._credential import Credential
from .._naming import Role, check_tenant
from .._outcomes import Reporter, TenantAction, TenantFailed, TenantResult
from .._record import OnRecord
from ..errors import ClaimLostError, StoreError

T = TypeVar("T")
DoneT = TypeVar("DoneT", bound=Done)

_NAMES_PER_TURN = 4  # begun for each that is worked on. The others wait for a turn, or another process's claim


class TenantJob(Job[str, DoneT, TenantFailed]):
    """A job on tenants, given by name, with the work on one of them in ``do_one``."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = evolve(context, servers=context.servers.for_job(self.maintenance))

    def serve_caller(self, turns: Turns | None = None) -> None:
        """Work for a caller who waits for one name, so that ``max_wait`` applies, in the ``turns`` of other calls."""
        self.context = evolve(self.context, servers=self.context.servers.for_job(None, turns))

    def parse(self, given: object) -> str:
        return parse_name(given)

    def failed(self, name: str, error: Exception, tries: int) -> TenantFailed:
        return TenantFailed(name=name, error=error, tries=tries)

    async def prepare(self) -> int:
        """Read a cluster that can be reached, or raise the first error, and return how many names to begin at once."""
        clusters, failures = self.context.servers.clients, list[DatabaseClientError]()
        for cluster in clusters:
            try:
                await self.context.servers.server(cluster, RequestStats())
                return _NAMES_PER_TURN * AT_A_TIME * len(clusters)
            except AWAY as error:
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
        if isinstance(error, ConfigurationError) and len(self.context.servers.clients) > 1:
            return False  # it may be one cluster that is not online
        return super().ends_run(error)

    async def cluster_for(self, on_record: OnRecord, reporter: Reporter) -> str:
        """The cluster of a tenant; the first one if it has none yet."""
        if on_record.cluster is None and self.context.role is not Role.OWNER:
            raise on_record.unusable()
        return on_record.cluster or next(iter(self.context.servers.clients))

    @abstractmethod
    async def do_one(self, name: str, reporter: Reporter) -> DoneT:
        """Do the work on one tenant, and return its outcome, without ``tries``."""


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
            on_record = await self.context.record(name)
        except StoreError as error:
            self._lost = None if error.damaged else error
            raise
        credential = on_record.required()
        cluster = self._clusters[name] = credential.cluster or ""
        reporter.stats.writes += 1  # ``Run.stop`` lets it finish
        return TenantResult(name=name, cluster=cluster, value=await self._work(credential))

    def failed(self, name: str, error: Exception, tries: int) -> TenantFailed:
        return TenantFailed(name=name, error=error, tries=tries, cluster=self._clusters.get(name))

    def ends_run(self, error: Exception) -> bool:
        """Whether the store cannot be read, since an error of ``work`` ends no run."""
        return error is self._lost
