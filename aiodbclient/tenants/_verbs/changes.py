"""The jobs of the verbs that change a tenant in place: when there is nothing to do, and what each outcome says."""

from __future__ import annotations

from datetime import timedelta

from ..._bulk.outcomes import Action
from ...errors import RotationPendingError
from .._context import Context
from .._credential import Credential
from .._outcomes import TenantDone, TenantRemoved, TenantRepaired, done
from .._record import State, Verb, is_empty, required, state_of, suspended, unusable, usable
from .._stores import Record
from .jobs import AgedJob, ClaimingJob
from .moving import settle_here
from .steps import finish, remove, resume, retire, rotate, suspend
from .tenant import ClaimedTenant, refuse_role


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
        ended_already = tenant.intent is not None and tenant.intent.verb in (Verb.ROTATE, Verb.RETIRE)
        if tenant.previous is not None and not ended_already and not self._force:
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
        return done(Action.KEPT if tenant.previous is None else Action.RETIRED, tenant.current)


def _was_rotated(before: Credential | None, credential: Credential) -> bool:
    """Whether another process has rotated the tenant since this work began."""
    return before is not None and credential.username != before.username


class SuspendTenants(ClaimingJob[TenantDone]):
    """Suspend each tenant, with its readers and writers. See ``Tenants.suspend``."""

    settles = True

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        if state_of(record) in (State.ABSENT, State.PROVISIONING, State.REMOVING, State.MOVING):
            raise unusable(name, record, self.context.role)
        credential = suspended(record)
        return None if credential is None else done(Action.KEPT, credential)

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        if await settle_here(tenant):
            return None
        return done(Action.SUSPENDED, await suspend(tenant))


class ResumeTenants(ClaimingJob[TenantDone]):
    """Give each suspended tenant, with its readers and writers, a new password. See ``Tenants.resume``."""

    settles = True

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = usable(record)
        if credential is not None:
            return done(Action.KEPT, credential)
        if state_of(record) not in (State.SUSPENDING, State.SUSPENDED, State.RESUMING):
            raise unusable(name, record, self.context.role)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        if await settle_here(tenant):
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

    settles = True

    def __init__(self, context: Context, *, recreate: bool = False) -> None:
        super().__init__(context)
        self._recreate = recreate

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantRepaired | None:
        if record is None:
            raise unusable(name, record, self.context.role)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantRepaired:
        return await finish(tenant, recreate=self._recreate)
