"""``ClaimingJob``: the loop of all work that changes a tenant. Read the record, claim it, work under the claim."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import uniform
from typing import Any, ClassVar, TypeVar

from attrs import define, evolve, field

from .._bulk.job import Job
from .._bulk.outcomes import Action, Done
from .._bulk.specs import name_spec
from .._request.call import Meter
from .._request.waits import waits
from ..engines import CAPABILITIES, Capabilities
from ..errors import ClaimLostError, ConfigurationError, GrantError, InvalidArgumentError, StoreError
from ._claims import HeldClaim
from ._clusters import JobClusters
from ._credential import Credential
from ._events import Timer
from ._intent import Verb, cluster_of, intended_login, is_empty
from ._logins import end_login, working_credential, works
from ._naming import ROLES, Role, check_tenant, names_of
from ._rooms import Seat
from ._stores import Record
from ._tenancy import ClaimedTenant, Tenancy, Tenant, now_of, turns_of, usable

DoneT = TypeVar("DoneT", bound=Done)

_BEGUN = 4  # names begun for each that is worked on. The others wait for a turn, or for a claim of another process
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # s between two looks at a record that another process has claimed
_LOSSES = 5  # lost claims of one name before it fails, unless a request of ours may change a password (``LateWrites``)


@define
class LateWrites:
    """What a process that lost its claim may still do, by requests that the server has not performed yet."""

    logins: set[str] = field(factory=set[str])  # whose passwords they may change after the next claimant
    replacing: bool = False  # it may have left an intent of ``_verify_credential`` on record


class TenantJob(Job[str, DoneT]):
    """A job on tenants, given by name. ``do_one`` is the work on one of them."""

    resumable = True  # what it changes is on record

    def __init__(self, tenancy: Tenancy) -> None:
        super().__init__()
        self.tenancy = tenancy
        self.clusters = JobClusters(tenancy.sites, self.pause)
        self.turns = turns_of(tenancy.sites, Capabilities().concurrent_user_writes)

    def check(self, given: object) -> str:
        return name_spec(given)

    async def prepare(self) -> int:
        """Read a cluster, and return how many names to begin at a time."""
        self.tenancy.rooms.reread()
        at_a_time = CAPABILITIES[(await self.clusters.any_site()).engine].concurrent_user_writes
        self.turns = turns_of(self.tenancy.sites, at_a_time)
        return _BEGUN * at_a_time * len(self.turns)

    async def do(self, spec: str, meter: Meter) -> DoneT:
        """Do the work on one tenant, and report it to ``on_event``."""
        timer = Timer(meter)
        on_event, role = self.tenancy.on_event, self.tenancy.role
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
        if isinstance(error, ConfigurationError) and self.clusters.are_many:
            return False  # it may be one cluster that is not online
        return super().ends_run(error)

    @abstractmethod
    async def do_one(self, name: str, timer: Timer) -> DoneT:
        """Do the work on one tenant, and return its outcome, without ``tries``."""


class ClaimingJob(TenantJob[DoneT]):
    """A job that changes tenants. Each verb is a subclass with the methods ``done_already`` and ``work``."""

    creates: ClassVar[bool] = False  # whether it gives a new tenant its cluster

    async def do_one(self, name: str, timer: Timer) -> DoneT:
        """Claim the tenant and do the work, unless its record shows that there is nothing to do."""
        record = await self.tenancy.record(name, timer)
        before = usable(record)
        losses, late = 0, LateWrites()
        looks = waits(first=_FIRST_LOOK, longest=_LONGEST_LOOK)
        next(looks)
        while True:
            if not late.logins and (done := self.done_already(name, record, before)) is not None:
                return done
            tenant: ClaimedTenant | None = None
            try:
                async with self._claimed(name, record, timer) as tenant:
                    if tenant is None or tenant.is_elsewhere:  # another process works on it, or chose another cluster
                        pass
                    elif late.logins:
                        await _verify_credential(tenant, late)
                        late = LateWrites()
                    else:
                        record = evolve(tenant.held.record, name=name)
                        self.tenancy.check_record(record)
                        done = self.done_already(name, record, before) or await self.work(tenant)
                        if done is not None:
                            return done
            except ClaimLostError:
                losses += 1
                late.logins |= set() if tenant is None else tenant.held.wrote
                if losses >= _LOSSES and not late.logins:
                    raise
                tenant = None
            if tenant is None:
                await timer.on("claim", asyncio.sleep(uniform(0.0, next(looks))))
            record = await self.tenancy.record(name, timer)

    @asynccontextmanager
    async def _claimed(self, name: str, record: Record | None, timer: Timer) -> AsyncGenerator[ClaimedTenant | None]:
        """Wait for a turn of the tenant's cluster, and claim the tenant; None if another process works on it."""
        tenancy, clusters = self.tenancy, self.clusters
        home = await tenancy.home(name, record, timer)
        site, seat = await clusters.locate(name, home, timer, tenancy.rooms if self.creates else None)
        id, held = site.cluster_id, None
        try:
            names = names_of(name, site.engine, tenancy.prefix, tenancy.role)
            async with timer.in_turn(self.turns[id]):
                site = await clusters.site(id, timer.meter)  # it may have failed, or was read again, while we waited
                held = await tenancy.claim(names, timer)
                if held is None:
                    yield None
                    return
                calls = clusters.calls(id, timer.meter, name, held.check_lease)
                tenant = ClaimedTenant(
                    tenancy=tenancy, clusters=clusters, site=site, cluster=calls, names=names, timer=timer, held=held
                )
                with clusters.watched(id, name):
                    async with held:
                        yield tenant
        except GrantError:
            tenancy.sites[id].reread()
            raise
        finally:
            self._count(name, id, seat, held)

    def _count(self, name: str, cluster: str, seat: Seat | None, held: HeldClaim | None) -> None:
        """Count the tenants of the cluster after the work on one."""
        rooms, is_ours = self.tenancy.rooms, held is not None and cluster_of(held.record) in (None, cluster)
        if seat is not None:
            rooms.give_back(seat, on_record=held is not None and is_ours and not held.leaves_nothing)
        elif held is not None and held.leaves_nothing and not is_empty(held.record) and self.tenancy.role is Role.OWNER:
            rooms.removed(name, cluster)

    @abstractmethod
    def done_already(self, name: str, record: Record | None, before: Credential | None) -> DoneT | None:
        """The outcome, if the record shows that there is nothing to do. ``before``: what was usable when work began."""

    @abstractmethod
    async def work(self, tenant: ClaimedTenant) -> DoneT | None:
        """Do the work on one tenant, under its claim, and return its outcome, without ``tries``.

        None: it finished a removal that another process had begun, which ended the claim. Then the work begins again.
        """


class AgedJob(ClaimingJob[DoneT]):
    """A job that skips tenants for which something is not ``age`` long ago."""

    def __init__(self, tenancy: Tenancy, age: timedelta | None, *, what: str) -> None:
        super().__init__(tenancy)
        if age is not None and (not isinstance(age, timedelta) or age < timedelta(0)):
            raise InvalidArgumentError(f"{what} must be a timedelta of 0 or more, not {age!r}")
        self.age = age
        self._now: datetime | None = None

    async def prepare(self) -> int:
        if self.age is not None:
            self._now = await now_of(self.tenancy.store)  # so what another process does during the run is young
        return await super().prepare()

    def is_young(self, since: datetime | None) -> bool:
        """Whether ``since`` is less than the age ago. A credential of version 0.1 has no date, and is old."""
        if self.age is None or self._now is None or since is None:
            return False
        return self._now - since < self.age


async def on_roles(job: Callable[[Tenancy], ClaimingJob[Any]], tenant: Tenant) -> None:
    """Do the work of another job on the readers and writers that the tenant has on record."""
    if tenant.names.role is not Role.OWNER:
        return
    for role in ROLES:
        tenancy = tenant.tenancy.for_role(role)
        if await tenancy.record(tenant.names.tenant, tenant.timer) is not None:
            of_role = job(tenancy)
            of_role.clusters = tenant.clusters
            await of_role.do_one(tenant.names.tenant, tenant.timer)


async def _verify_credential(tenant: ClaimedTenant, late: LateWrites) -> None:
    """Make sure that the credential on record works, after a claim under which a password may have changed was lost."""
    # The server may have performed our request after those of the next claimant.
    record = tenant.held.record
    current = record.current
    if current is not None and current.suspended is not None:
        for login in late.logins:
            await tenant.intend(Verb.SUSPEND, login)
            await end_login(tenant, login, certain=False)
        await tenant.held.keep(current)
        return
    if current is None or current.username not in late.logins:  # None: it was removed, or is not made yet
        return
    # By us, or by another process that began other work.
    is_intended = intended_login(record) == current.username
    leave = not late.replacing if is_intended else await works(tenant, current)
    if leave:
        return
    await tenant.intend(Verb.RESET, current.username)
    late.replacing = True
    await tenant.held.keep(await working_credential(tenant, current.username, exists=True), record.previous)
