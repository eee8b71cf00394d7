"""``ClaimingJob``: the loop of every verb that changes a tenant. Read the record, claim it, work under the claim."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import uniform
from typing import ClassVar, TypeVar

from attrs import evolve

from ..._bulk.job import Job
from ..._bulk.outcomes import Action, Done
from ..._bulk.specs import name_spec
from ..._request.call import Meter
from ..._request.waits import waits
from ...errors import ClaimLostError, ConfigurationError, GrantError, InvalidArgumentError, StoreError
from .._claims import HeldClaim
from .._clusters import AWAY, JobSites, Site, Sites
from .._context import Context
from .._credential import Credential
from .._events import Timer
from .._naming import ROLES, Names, Role, check_tenant, names_of
from .._record import State, cluster_of, is_empty, no_roles, state_of, usable
from .._rooms import Seat
from .._servers.server import Work
from .._stores import Record
from .moving import settle
from .tenant import ClaimedTenant

DoneT = TypeVar("DoneT", bound=Done)

AT_A_TIME = 16  # tenants of one cluster that a job works on. Their server takes fewer connections
_BEGUN = 4  # names begun for each that is worked on. The others wait for a turn, or for a claim of another process
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # s between two looks at a record that another process has claimed
_LOSSES = 5  # lost claims of one name before it fails


class TenantJob(Job[str, DoneT]):
    """A job on tenants, given by name. ``do_one`` is the work on one of them."""

    resumable = True  # what it changes is on record

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.sites = JobSites(context.sites, self.pause)
        self.turns = turns_of(context.sites)

    def check(self, given: object) -> str:
        return name_spec(given)

    async def prepare(self) -> int:
        """Read a cluster, and return how many names to begin at a time."""
        self.context.rooms.reread()
        await self.sites.any()
        return _BEGUN * AT_A_TIME * len(self.turns)

    async def do(self, spec: str, meter: Meter) -> DoneT:
        """Do the work on one tenant, and report it to ``on_event``."""
        timer = Timer(meter)
        on_event, role = self.context.on_event, self.context.role
        try:
            done = evolve(await self.do_one(check_tenant(spec), timer), tries=meter.requests)
        except Exception as error:
            timer.report(on_event, spec, role, Action.FAILED, type(error).__name__)
            raise
        timer.report(on_event, spec, role, done.action, None)
        return done

    def ends_run(self, error: Exception) -> bool:
        """Whether ``error`` ends the run. An error of the store does, because nothing could be stored."""
        if isinstance(error, StoreError):
            return not isinstance(error, ClaimLostError) and not error.damaged
        if isinstance(error, ConfigurationError) and self.sites.are_many:
            return False  # it may be one cluster that is not online
        return super().ends_run(error)

    async def home(self, name: str, record: Record | None, timer: Timer) -> str | None:
        """The cluster of a tenant with this ``record``; None if it has none yet."""
        context, cluster = self.context, cluster_of(record)
        if cluster is None and context.role is not Role.OWNER:
            cluster = cluster_of(await context.for_role(Role.OWNER).record(name, timer))
            if cluster is None and len(context.sites) > 1:
                raise no_roles(name, context.role)
        return cluster

    async def site(self, name: str, record: Record | None, timer: Timer) -> Site:
        """The site of a tenant with this ``record``; the first one if it has none yet."""
        home = await self.home(name, record, timer)
        return await self.sites.site(home or next(iter(self.context.sites)), timer.meter)

    @abstractmethod
    async def do_one(self, name: str, timer: Timer) -> DoneT:
        """Do the work on one tenant, and return its outcome, without ``tries``."""


class ClaimingJob(TenantJob[DoneT]):
    """A job that changes tenants. Each verb is a subclass with the methods ``done_already`` and ``work``."""

    creates: ClassVar[bool] = False  # whether it gives a new tenant its cluster
    settles: ClassVar[bool] = False  # whether ``work`` calls ``settle``

    async def do_one(self, name: str, timer: Timer) -> DoneT:
        """Claim the tenant and do the work, unless its record shows that there is nothing to do."""
        losses, looks = 0, waits(first=_FIRST_LOOK, longest=_LONGEST_LOOK)
        next(looks)
        record = await self.context.record(name, timer)
        before = usable(record)
        while (done := self.done_already(name, record, before)) is None:
            try:
                async with self._claimed(name, record, timer) as tenant:
                    if tenant is not None:
                        done = self.done_already(name, tenant.record, before) or await self._work_alone(tenant)
            except ClaimLostError:
                losses += 1
                if losses >= _LOSSES:
                    raise
            except _PlaceAgain:
                pass
            if done is not None:
                return done
            await timer.on("claim", asyncio.sleep(uniform(0.0, next(looks))))
            record = await self.context.record(name, timer)
        return done

    async def _work_alone(self, tenant: ClaimedTenant) -> DoneT | None:
        """Do the work, after what a process that lost its claim may still have running was ended."""
        async with tenant.server.shared():
            if tenant.intent is not None:
                await tenant.sql(tenant.server.end_work(tenant.work))
            if not self.settles and await settle(tenant):
                return None
            return await self.work(tenant)

    @asynccontextmanager
    async def _claimed(self, name: str, record: Record | None, timer: Timer) -> AsyncGenerator[ClaimedTenant | None]:
        """Wait for a turn of the tenant's cluster, and claim the tenant; None if another process works on it."""
        home = await self.home(name, record, timer)
        site, seat = await self._locate(name, home, record, timer)
        id, held = site.cluster, None
        try:
            async with timer.in_turn(self.turns[id]):
                site = await self.sites.site(id, timer.meter)  # it may have failed, or was read again, while we waited
                names = names_of(name, site.engine, self.context.prefix, self.context.role)
                held = await self.context.claim(names, timer)
                if held is None:
                    yield None
                    return
                with self.sites.watched(id, name):
                    async with held:
                        tenant = self._tenant(site, names, timer, held)
                        # Meanwhile another process may have chosen another cluster for it.
                        is_ours = cluster_of(held.record) in (None, home, id)
                        yield tenant if is_ours else None
        except AWAY as error:
            if isinstance(error, GrantError) and held is not None:
                error.on_record = error.on_record or _on_record(held.record, id)
            nothing_made = seat is not None and held is not None and held.leaves_nothing
            if nothing_made and self.sites.are_many and self.context.rooms.place is None:
                self.sites.note_away(id, error)
                raise _PlaceAgain from None
            raise
        finally:
            self._count(name, id, seat, held)

    async def _locate(
        self, name: str, home: str | None, record: Record | None, timer: Timer
    ) -> tuple[Site, Seat | None]:
        """The site of a tenant. A new one gets a seat; also one that got nothing but a cluster, which is away now."""
        rooms = self.context.rooms
        if home is None and self.creates:
            return await self.sites.choose(name, rooms, timer.meter)
        try:
            return await self.sites.site(home or next(iter(self.context.sites)), timer.meter), None
        except AWAY:
            is_begun = state_of(record) is State.PROVISIONING and self.context.role is Role.OWNER
            if not (self.creates and is_begun and self.sites.are_many and rooms.place is None):
                raise
            return await self.sites.choose(name, rooms, timer.meter)

    def _tenant(self, site: Site, names: Names, timer: Timer, held: HeldClaim) -> ClaimedTenant:
        record = evolve(held.record, name=names.tenant)
        self.context.check_record(record)
        return ClaimedTenant(
            context=self.context,
            sites=self.sites,
            site=site,
            names=names,
            timer=timer,
            held=held,
            record=record,
            work=Work(names, held.check_lease, timer.ended),
        )

    def _count(self, name: str, cluster: str, seat: Seat | None, held: HeldClaim | None) -> None:
        """Count the tenants of the cluster after the work on one."""
        rooms, is_ours = self.context.rooms, held is not None and cluster_of(held.record) in (None, cluster)
        if seat is not None:
            rooms.give_back(seat, on_record=held is not None and is_ours and not held.leaves_nothing)
        elif held is not None and held.leaves_nothing and not is_empty(held.record) and self.context.role is Role.OWNER:
            rooms.removed(name, cluster)

    @abstractmethod
    def done_already(self, name: str, record: Record | None, before: Credential | None) -> DoneT | None:
        """The outcome, if the record shows that there is nothing to do. ``before``: what was usable when work began."""

    @abstractmethod
    async def work(self, tenant: ClaimedTenant) -> DoneT | None:
        """Do the work on one tenant, under its claim, and return its outcome, without ``tries``.

        None: it finished what another process had begun, which ended the claim. Then the work begins again.
        """


class _PlaceAgain(Exception):
    """Nothing was made for a new tenant on its cluster, which is away: it may go to another one."""


class AgedJob(ClaimingJob[DoneT]):
    """A job that skips tenants for which something is not ``age`` long ago."""

    def __init__(self, context: Context, age: timedelta | None, *, what: str) -> None:
        super().__init__(context)
        if age is not None and (not isinstance(age, timedelta) or age < timedelta(0)):
            raise InvalidArgumentError(f"{what} must be a timedelta of 0 or more, not {age!r}")
        self.age = age
        self._now: datetime | None = None

    async def prepare(self) -> int:
        if self.age is not None:
            self._now = await self.context.now()  # so what another process does during the run is young
        return await super().prepare()

    def is_young(self, since: datetime | None) -> bool:
        """Whether ``since`` is less than the age ago."""
        if self.age is None or self._now is None or since is None:
            return False
        return self._now - since < self.age


class _RoleJob(ClaimingJob[Done]):
    """What a verb does to one reader or writer of its tenant."""

    def __init__(self, context: Context, work: Callable[[ClaimedTenant], Awaitable[None]]) -> None:
        super().__init__(context)
        self._work = work

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> Done | None:
        return Done(name=name, action=Action.ABSENT) if record is None else None

    async def work(self, tenant: ClaimedTenant) -> Done:
        await self._work(tenant)
        return Done(name=tenant.names.tenant, action=Action.DONE)


async def on_roles(tenant: ClaimedTenant, work: Callable[[ClaimedTenant], Awaitable[None]]) -> None:
    """Claim the reader and the writer that the tenant has on record, and call ``work`` with each."""
    if tenant.names.role is not Role.OWNER:
        return
    for role in ROLES:
        context = tenant.context.for_role(role)
        if await context.record(tenant.names.tenant, tenant.timer) is not None:
            job = _RoleJob(context, work)
            job.sites = tenant.sites
            await job.do_one(tenant.names.tenant, tenant.timer)


def turns_of(sites: Sites) -> dict[str, asyncio.Semaphore]:
    """How many tenants of each cluster to work on at a time."""
    return {id: asyncio.Semaphore(AT_A_TIME) for id in sites}


def _on_record(record: Record, cluster: str) -> str:
    """What the store holds for a tenant after a verb failed that was begun with ``record``."""
    state = state_of(record)
    if record.current is None:
        return f"the name is on record for the cluster {cluster}, without a credential"
    if state is State.USABLE:
        return "the credential on record was not touched"
    return f"the tenant is {state.name.lower()} on record"
