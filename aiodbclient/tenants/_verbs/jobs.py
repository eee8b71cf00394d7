"""``ClaimingJob``: the loop of every verb that changes a tenant. Read the record, claim it, work under the claim."""

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
from ..._http.waits import waits
from ...errors import ConfigurationError, InvalidArgumentError
from .._context import AT_A_TIME, Context, TenantServer, Turns
from .._credential import Credential
from .._naming import Names, Role, check_tenant, names_of
from .._outcomes import TenantAction, TenantFailed, Timer
from .._record import OnRecord, State, Verb, no_roles
from ..errors import ClaimLostError, GrantError, MoveError, StoreError, TenantBusyError
from .steps import finish_or_undo
from .tenant import LEASE, Tenant, claim_tenant, clock

DoneT = TypeVar("DoneT", bound=Done)

_NAMES_PER_TURN = 4  # begun for each that is worked on. The others wait for a turn, or another process's claim
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # s between two looks at a record that another process has claimed
_LOSSES = 5  # lost claims of one name before it fails


class TenantJob(Job[str, DoneT, TenantFailed]):
    """A job on tenants, given by name. ``do_one`` is the work on one of them."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = evolve(context, servers=context.servers.for_job(self.maintenance))

    def serve_caller(self, turns: Turns | None = None) -> None:
        """Work for somebody who waits for one name: ``max_wait`` applies. ``turns`` are those of other calls."""
        self.context = evolve(self.context, servers=self.context.servers.for_job(None, turns))

    def parse(self, given: object) -> str:
        return parse_name(given)

    def failed(self, name: str, error: Exception, tries: int) -> TenantFailed:
        return TenantFailed(name=name, error=error, tries=tries)

    async def prepare(self) -> int:
        """Read a cluster, and return how many names to begin at a time."""
        self.context.placement.begin_run()
        await self.context.servers.any()
        return _NAMES_PER_TURN * AT_A_TIME * len(self.context.servers.clients)

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
        if isinstance(error, ConfigurationError) and len(self.context.servers.clients) > 1:
            return False  # it may be one cluster that is not online
        return super().ends_run(error)

    async def cluster_for(self, record: OnRecord, timer: Timer) -> str:
        """The cluster of a tenant; the first one if it has none yet."""
        if record.cluster is None and self.context.role is not Role.OWNER:
            raise no_roles(record.name, self.context.role)
        return record.cluster or next(iter(self.context.servers.clients))

    async def home(self, cluster: str, name: str, timer: Timer) -> tuple[TenantServer, Names]:
        """The server of a cluster, and the names of the tenant there."""
        home = await self.context.servers.server(cluster, timer.stats)
        return home, names_of(name, home.engine, self.context.prefix)

    @abstractmethod
    async def do_one(self, name: str, timer: Timer) -> DoneT:
        """Do the work on one tenant, and return its outcome, without ``tries``."""


class ClaimingJob(TenantJob[DoneT]):
    """A job that changes tenants. Each verb is a subclass with the methods ``done_already`` and ``work``.

    With an ``age`` it leaves tenants alone for which something is not so long ago. ``what`` the caller calls it.
    """

    verb: ClassVar[Verb | None] = None  # ``work`` continues an unfinished one itself; None: it finishes them all
    shuts: ClassVar[bool] = False  # whether it ends all logins of the tenant

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
        waits_until: float | None = None  # for another process that works on the tenant
        losses, looks = 0, waits(first=_FIRST_LOOK, longest=_LONGEST_LOOK)
        next(looks)
        record = await self.context.record(name)
        before = record.usable
        while (done := self.done_already(record, before)) is None:
            cluster = await self.cluster_for(record, timer)
            async with self.context.servers.turns[cluster]:
                try:
                    tenant = await claim_tenant(self.context, *await self.home(cluster, name, timer), timer)
                    if tenant is None:
                        waits_until = _wait_for_claim(name, waits_until)
                    else:
                        waits_until = None
                        async with tenant:
                            timer.stats.writes += 1  # ``Run.stop`` lets it finish
                            done = await self._work_alone(tenant, record, before)
                except ClaimLostError:
                    losses += 1
                    if losses >= _LOSSES:
                        raise
            if done is not None:
                return done
            await asyncio.sleep(full_jitter(next(looks)))
            record = await self.context.record(name)
        return done

    async def _work_alone(self, tenant: Tenant, seen: OnRecord, before: Credential | None) -> DoneT | None:
        """Do the work under the claim. None: look again. ``seen``: the record from before the claim."""
        home, on_record = tenant.home, tenant.on_record
        done = self.done_already(on_record, before)
        if done is not None or on_record.cluster not in (None, seen.cluster, home.cluster):
            return done  # meanwhile another process has done it, or has chosen another cluster
        try:
            with self.context.servers.watched(home.cluster, tenant.names.tenant):
                async with home.server.session(tenant.work, was_interrupted=on_record.intent is not None) as session:
                    tenant.session = session
                    await tenant.look(shuts=self.shuts)
                    return None if await self._finish_others_work(tenant) else await self.work(tenant)
        except GrantError as error:
            error.on_record = error.on_record or _describe(tenant)
            if await _lost_its_database(tenant):
                raise await tenant.no_database() from error
            raise

    async def _finish_others_work(self, tenant: Tenant) -> bool:
        """Finish or undo what a dead process left. Return whether something changed, so that the work begins again."""
        if self.verb is None:
            return False
        intent = tenant.on_record.intent
        if intent is not None and (intent.verb, intent.role) == (self.verb, tenant.role):
            return False
        try:
            return await finish_or_undo(tenant)
        except MoveError:  # the cluster with what is left behind is away
            if self.verb is Verb.REMOVE and tenant.role is Role.OWNER:
                raise
            return False

    @abstractmethod
    def done_already(self, record: OnRecord, before: Credential | None) -> DoneT | None:
        """The outcome, if the record shows that there is nothing to do. ``before``: what was usable when work began."""

    @abstractmethod
    async def work(self, tenant: Tenant) -> DoneT | None:
        """Do the work on one tenant, under its claim, and return its outcome, without ``tries``.

        None: the work begins again, with another claim.
        """


def _wait_for_claim(name: str, until: float | None) -> float:
    """Until when to wait for another process that has claimed the tenant: one lease. Then raises TenantBusyError."""
    if until is None:
        logger.info("another process works on the tenant %r: waiting up to %.0f s", name, LEASE)
        return clock() + LEASE
    if clock() < until:
        return until
    raise TenantBusyError(
        f"another process works on the tenant {name!r} for over {LEASE:.0f} s; nothing was changed", retry_after=LEASE
    )


async def _lost_its_database(tenant: Tenant) -> bool:
    if tenant.record.current is None or tenant.on_record.of_role(Role.OWNER).state is State.REMOVING:
        return False
    try:
        return not (await tenant.home.server.find(tenant.names)).database
    except GrantError:  # such as that the server is away
        return False


def _describe(tenant: Tenant) -> str:
    """What the store holds for a tenant after a verb failed."""
    on_record = tenant.on_record
    if on_record.is_empty:
        return "nothing is on record for the name"
    if on_record.current is None:
        return f"the name is on record for the cluster {tenant.home.cluster}, without a credential"
    if on_record.state is State.USABLE:
        return "the credential in use was not touched"
    return f"its state on record is {on_record.state.name.lower()}"
