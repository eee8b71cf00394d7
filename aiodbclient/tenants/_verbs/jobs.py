"""``ClaimingJob``: the loop of every verb that changes a tenant. Read the record, claim it, work under the claim."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress
from datetime import datetime, timedelta
from typing import ClassVar, TypeVar

from attrs import evolve
from backoff import full_jitter

from ..._bulk.outcomes import Done
from ..._bulk.run import Job, parse_name
from ..._http.call import RequestStats
from ..._http.waits import waits
from ...errors import ConfigurationError, InvalidArgumentError
from .._context import AT_A_TIME, Context
from .._credential import Credential
from .._naming import Role, check_tenant, names_of
from .._outcomes import TenantAction, TenantFailed, Timer
from .._record import OnRecord, State, no_database, no_roles
from ..errors import ClaimLostError, GrantError, StoreError
from .tenant import ClaimedTenant, Tenant, Waiting
from .unfinished import end_copying

DoneT = TypeVar("DoneT", bound=Done)

_BEGUN = 4  # names begun for each that is worked on. The others wait for a turn, or for a claim of another process
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # s between two looks at a record that another process has claimed
_LOSSES = 5  # lost claims of one name before it fails


class TenantJob(Job[str, DoneT, TenantFailed]):
    """A job on tenants, given by name. ``do_one`` is the work on one of them."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = evolve(context, sites=context.sites.for_job(self.maintenance))

    def parse(self, given: object) -> str:
        return parse_name(given)

    def failed(self, name: str, error: Exception, tries: int) -> TenantFailed:
        return TenantFailed(name=name, error=error, tries=tries)

    async def prepare(self) -> int:
        """Read a cluster, and return how many names to begin at a time."""
        self.context.placement.begin_run()
        await self.context.sites.any()
        return _BEGUN * AT_A_TIME * len(self.context.sites.clients)

    async def do(self, spec: str, stats: RequestStats) -> DoneT:
        """Do the work on one tenant, and report it to ``on_event``."""
        timer = Timer(stats)
        on_event, role = self.context.on_event, self.context.role
        try:
            done = evolve(await self.do_one(check_tenant(spec), timer), tries=stats.requests)
        except Exception as error:
            timer.report(on_event, spec, role, TenantAction.FAILED, type(error).__name__)
            raise
        timer.report(on_event, spec, role, TenantAction(done.action), None)
        return done

    def ends_run(self, error: Exception) -> bool:
        """Whether ``error`` ends the run. An error of the store does, because nothing could be stored."""
        if isinstance(error, StoreError):
            return not isinstance(error, ClaimLostError) and not error.damaged
        if isinstance(error, ConfigurationError) and len(self.context.sites.clients) > 1:
            return False  # it may be one cluster that is not online
        return super().ends_run(error)

    async def cluster_for(self, record: OnRecord, timer: Timer) -> str:
        """The cluster of a tenant; the first one if it has none yet."""
        context, cluster = self.context, record.cluster
        if cluster is None and context.role is not Role.OWNER:
            cluster = (await context.for_role(Role.OWNER).record(record.name)).cluster
            if cluster is None:
                raise no_roles(record.name, context.role)
        return cluster or next(iter(context.sites.clients))

    async def on(self, cluster: str, name: str, timer: Timer) -> Tenant:
        """The tenant on a cluster."""
        site = await self.context.sites.site(cluster, timer.stats)
        names = names_of(name, site.engine, self.context.prefix, self.context.role)
        return Tenant(context=self.context, site=site, names=names, timer=timer)

    @abstractmethod
    async def do_one(self, name: str, timer: Timer) -> DoneT:
        """Do the work on one tenant, and return its outcome, without ``tries``."""


class ClaimingJob(TenantJob[DoneT]):
    """A job that changes tenants. Each verb is a subclass with the methods ``done_already`` and ``work``.

    With an ``age`` it leaves tenants alone for which something is not so long ago. ``what`` the caller calls it.
    """

    ends_copying: ClassVar[bool] = False  # whether ``work`` ends an unfinished move itself

    def __init__(self, context: Context, age: timedelta | None = None, *, what: str = "") -> None:
        super().__init__(context)
        if age is not None and (not isinstance(age, timedelta) or age < timedelta(0)):
            raise InvalidArgumentError(f"{what} must be a timedelta of 0 or more, not {age!r}")
        self.age = age
        self._now: datetime | None = None

    async def prepare(self) -> int:
        if self.age is not None:
            self._now = await self.context.store.now()  # so what another process does during the run is young
        return await super().prepare()

    def is_young(self, since: datetime | None) -> bool:
        """Whether ``since`` is less than the age ago."""
        if self.age is None or self._now is None or since is None:
            return False
        return self._now - since < self.age

    async def do_one(self, name: str, timer: Timer) -> DoneT:
        """Claim the tenant and do the work, unless its record shows that there is nothing to do."""
        waiting, losses, looks = Waiting(name), 0, waits(first=_FIRST_LOOK, longest=_LONGEST_LOOK)
        next(looks)
        record = await self.context.record(name)
        before = record.usable
        while (done := self.done_already(record, before)) is None:
            cluster = await self.cluster_for(record, timer)
            turns = self.context.sites.turns[cluster]
            await turns.acquire()
            try:
                tenant = await (await self.on(cluster, name, timer)).claim()
                if tenant is None:
                    waiting.go_on()
                else:
                    async with tenant.held:
                        timer.stats.writes += 1  # ``Run.stop`` lets it finish
                        done = await self._work_alone(tenant, record, before)
            except ClaimLostError:
                losses += 1
                if losses >= _LOSSES:
                    raise
            finally:
                turns.release()
            if done is not None:
                return done
            await asyncio.sleep(full_jitter(next(looks)))
            record = await self.context.record(name)
        return done

    async def _work_alone(self, tenant: ClaimedTenant, seen: OnRecord, before: Credential | None) -> DoneT | None:
        """Do the work under the claim. None: look again. ``seen``: the record from before the claim."""
        done, cluster = self.done_already(tenant.record, before), tenant.site.cluster
        if done is not None or tenant.record.cluster not in (None, seen.cluster, cluster):
            return done  # meanwhile another process has done it, or has chosen another cluster
        try:
            with self.context.sites.watched(cluster, tenant.names.tenant):
                async with tenant.server.sessions.shared():
                    if tenant.record.intent is not None:
                        await tenant.server.end_work(tenant.work)
                    if not self.ends_copying and await end_copying(tenant):
                        return None
                    return await self.work(tenant)
        except GrantError as error:
            error.on_record = error.on_record or _on_record(tenant)
            names, record, is_there = tenant.names, tenant.record, True
            has_database = record.current is not None and record.state is not State.REMOVING
            with suppress(GrantError):  # such as that the server is away
                is_there = not has_database or (await tenant.server.find(names)).database
            if not is_there:
                raise no_database(names.tenant, names.database, names.role) from error
            raise

    @abstractmethod
    def done_already(self, record: OnRecord, before: Credential | None) -> DoneT | None:
        """The outcome, if the record shows that there is nothing to do. ``before``: what was usable when work began."""

    @abstractmethod
    async def work(self, tenant: ClaimedTenant) -> DoneT | None:
        """Do the work on one tenant, under its claim, and return its outcome, without ``tries``.

        None: it finished what another process had begun, which ended the claim. Then the work begins again.
        """


def _on_record(tenant: ClaimedTenant) -> str:
    """What the store holds for a tenant after a verb failed."""
    record = tenant.record
    if record.is_empty:
        return "nothing is on record for the name"
    if record.current is None:
        return f"the name is on record for the cluster {tenant.site.cluster}, without a credential"
    if record.state is State.USABLE:
        return "the credential in use was not touched"
    return f"its state on record is {record.state.name.lower()}"
