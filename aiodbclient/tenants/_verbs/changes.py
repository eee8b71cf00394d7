"""The jobs of the verbs on one cluster: when there is nothing to do, and what each outcome says."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import get_args

from ..._bulk.outcomes import Action
from ...errors import InvalidArgumentError, RotationPendingError
from .._clusters import AWAY
from .._context import Context
from .._credential import Credential
from .._events import Timer
from .._naming import Role
from .._outcomes import TenantDone, TenantRemoved, TenantRepaired, done
from .._record import State, Verb, cluster_of, is_empty, required, state_of, suspended, unusable, usable
from .._rooms import Seat
from .._stores import Record
from .jobs import AgedJob, ClaimingJob
from .steps import IfExists, finish, provision, remove, resume, retire, rotate, suspend
from .tenant import ClaimedTenant, refuse_role
from .unfinished import end_copying_here


class ProvisionTenants(ClaimingJob[TenantDone]):
    """Give each tenant a database and a login of its own. See ``Tenants.provision``."""

    def __init__(self, context: Context, if_exists: IfExists = "error") -> None:
        super().__init__(context)
        if if_exists not in get_args(IfExists):
            raise InvalidArgumentError(f'if_exists must be "error" or "adopt", not {if_exists!r}')
        self._if_exists: IfExists = if_exists
        self._seats: dict[str, Seat] = {}  # of new tenants, by name

    async def do_one(self, name: str, timer: Timer) -> TenantDone:
        """Make a new tenant on the cluster that is chosen. If that is away, and has nothing of it: on another one."""
        while True:
            try:
                return await super().do_one(name, timer)
            except AWAY as error:
                seat = self._seats.get(name)
                if seat is None or seat.on_record or not self._may_choose:
                    raise
                self.context.sites.note_away(seat.cluster, error)
            finally:
                if (seat := self._seats.pop(name, None)) is not None:
                    self.context.rooms.give_back(seat)

    @property
    def _may_choose(self) -> bool:
        """Whether a tenant may go to another cluster than the one that was chosen first."""
        return len(self.context.sites.clients) > 1 and self.context.rooms.place is None

    async def cluster_for(self, name: str, record: Record | None, timer: Timer) -> str:
        """The cluster of the tenant. A new one gets a seat; also one that got nothing but a cluster, which is away."""
        sites, rooms, role = self.context.sites, self.context.rooms, self.context.role
        if role is not Role.OWNER or cluster_of(record) is not None:
            cluster = await super().cluster_for(name, record, timer)
            if role is not Role.OWNER or state_of(record) is not State.PROVISIONING or not self._may_choose:
                return cluster
            with suppress(*AWAY):
                return (await sites.site(cluster, timer.meter)).cluster
        if name not in self._seats:
            _, self._seats[name] = await sites.choose(name, rooms, timer.meter)
        return self._seats[name].cluster

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        if state_of(record).is_shut:
            raise unusable(name, record, self.context.role)
        credential = usable(record)
        if credential is None or self._lacks_setup(credential):
            return None
        return done(Action.KEPT, credential)

    def _lacks_setup(self, credential: Credential) -> bool:
        context = self.context
        return context.setup is not None and context.role is Role.OWNER and not credential.is_set_up

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        try:
            return await self._work(tenant)
        finally:
            if (seat := self._seats.get(tenant.names.tenant)) is not None:
                seat.on_record = not is_empty(tenant.held.record)

    async def _work(self, tenant: ClaimedTenant) -> TenantDone | None:
        state = tenant.state
        if state in (State.REMOVING, State.RESETTING) or (state is State.USABLE and tenant.intent is not None):
            await finish(tenant)
            return None
        await refuse_role(tenant)
        if state is State.USABLE:  # the command made it, for example, which has no setup
            action, credential = Action.KEPT, await tenant.set_up(tenant.current)
            await tenant.held.keep(credential, tenant.record.previous)
        else:
            action, credential = await provision(tenant, self._if_exists)
        return done(action, credential)


class RotateTenants(AgedJob[TenantDone]):
    """Give each tenant a credential with its other login. See ``Tenants.rotate``."""

    def __init__(self, context: Context, older_than: timedelta | None, *, force: bool) -> None:
        super().__init__(context, older_than, what="older_than")
        self._force = force

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = suspended(record) or required(name, record, self.context.role)
        if credential.suspended or _was_rotated(before, credential) or self.is_young(credential.since):
            return done(Action.KEPT, credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        await refuse_role(tenant)
        may_be_ended = tenant.intent is not None and tenant.intent.ends_other
        if tenant.record.previous is not None and not may_be_ended and not self._force:
            raise RotationPendingError(
                f"the tenant {tenant.names.tenant!r} was rotated and the previous credential is not retired: rotating "
                "again would revoke it while programs may still use it",
                advice="retire it first, or pass force=True",
            )
        return done(Action.ROTATED, await rotate(tenant))


class RetireTenants(AgedJob[TenantDone]):
    """End the previous credential of each tenant. See ``Tenants.retire``."""

    def __init__(self, context: Context, after: timedelta | None) -> None:
        super().__init__(context, after, what="after")

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = suspended(record) or required(name, record, self.context.role)
        nothing_to_end = record is not None and record.previous is None and record.intended is None
        # After a rotation by another process, programs still use the previous credential: leave it for a later run.
        rotated = _was_rotated(before, credential)
        if credential.suspended or nothing_to_end or rotated or self.is_young(credential.since):
            return done(Action.KEPT, credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        await retire(tenant)
        return done(Action.KEPT if tenant.record.previous is None else Action.RETIRED, tenant.current)


def _was_rotated(before: Credential | None, credential: Credential) -> bool:
    """Whether another process has rotated the tenant since this work began."""
    return before is not None and credential.username != before.username


class SuspendTenants(ClaimingJob[TenantDone]):
    """Suspend each tenant, with its readers and writers. See ``Tenants.suspend``."""

    ends_copying = True

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        if state_of(record) in (State.ABSENT, State.PROVISIONING, State.REMOVING, State.MOVING):
            raise unusable(name, record, self.context.role)
        credential = suspended(record)
        return None if credential is None else done(Action.KEPT, credential)

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        if await end_copying_here(tenant):
            return None
        return done(Action.SUSPENDED, await suspend(tenant))


class ResumeTenants(ClaimingJob[TenantDone]):
    """Give each suspended tenant, with its readers and writers, a new password. See ``Tenants.resume``."""

    ends_copying = True

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = usable(record)
        if credential is not None:
            return done(Action.KEPT, credential)
        if state_of(record) not in (State.SUSPENDING, State.SUSPENDED, State.RESUMING):
            raise unusable(name, record, self.context.role)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        if await end_copying_here(tenant):
            return None
        await refuse_role(tenant)
        if tenant.state is State.SUSPENDING:
            await suspend(tenant)
            return None
        return done(Action.RESUMED, await resume(tenant))


class RemoveTenants(AgedJob[TenantRemoved]):
    """Remove each tenant, with its readers and writers. See ``Tenants.remove``."""

    def __init__(
        self, context: Context, *, keep_database: bool = False, suspended_for: timedelta | None = None
    ) -> None:
        super().__init__(context, suspended_for, what="suspended_for")
        self._verb = Verb.RELEASE if keep_database else Verb.REMOVE

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantRemoved | None:
        state = state_of(record)
        if record is None:
            return TenantRemoved(name=name, action=Action.ABSENT)
        if state is State.MOVING:
            raise unusable(name, record, self.context.role)
        if self.age is None or state is State.REMOVING:
            return None
        credential = suspended(record)
        if credential is None or self.is_young(credential.suspended):
            return TenantRemoved(name=name, action=Action.KEPT)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantRemoved:
        name = tenant.names.tenant
        if is_empty(tenant.record):
            return TenantRemoved(name=name, action=Action.ABSENT)
        await remove(tenant, self._verb)
        return TenantRemoved(name=name, action=Action.DELETED)


class RepairTenants(ClaimingJob[TenantRepaired]):
    """Repair each tenant. See ``Tenants.repair``."""

    ends_copying = True

    def __init__(self, context: Context, *, recreate: bool = False) -> None:
        super().__init__(context)
        self._recreate = recreate

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantRepaired | None:
        if record is None:
            raise unusable(name, record, self.context.role)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantRepaired:
        return await finish(tenant, recreate=self._recreate)
