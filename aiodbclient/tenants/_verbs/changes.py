"""The jobs that change a tenant that is there: rotate and revoke it, suspend and resume it, remove it.

Each says when there is nothing to do. ``steps`` has what they do.
"""

from __future__ import annotations

from datetime import timedelta

from .._context import Context
from .._credential import Credential
from .._naming import Role
from .._outcomes import TenantAction, TenantDone, TenantRemoved, done
from .._record import OnRecord, State, Verb
from ..errors import RotationPendingError
from .jobs import ClaimingJob
from .steps import refuse_role, remove, remove_role, resume, revoke_previous, suspend
from .tenant import Tenant


class RotateTenants(ClaimingJob[TenantDone]):
    """Give each tenant a credential with a new login. See ``Tenants.rotate``."""

    verb = Verb.ROTATE

    def __init__(self, context: Context, older_than: timedelta | None, *, force: bool) -> None:
        super().__init__(context, older_than, what="older_than")
        self._force = force

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        credential = record.suspended or record.required()
        is_young = self.is_young(credential.since) and record.begun is not Verb.ROTATE  # finish an unfinished one
        if credential.suspended or _was_rotated(before, credential) or is_young:
            return done(TenantAction.KEPT, credential)
        return None

    async def work(self, tenant: Tenant) -> TenantDone | None:
        refuse_role(tenant)
        await tenant.end_new_logins()  # of an earlier process
        if tenant.on_record.previous is not None:
            if not self._force:
                raise RotationPendingError(
                    f"the tenant {tenant.names.tenant!r} was rotated and the previous credential is not revoked: "
                    "rotating again would revoke it while programs may still use it",
                    advice="revoke it first, or pass force=True",
                )
            await revoke_previous(tenant, tenant.role)
            return None
        [login] = tenant.new_logins()
        await tenant.begin(Verb.ROTATE, [login], role=tenant.role)
        credential = await tenant.add_login(login, tenant.role)
        await tenant.commit_credentials(tenant.role, credential, tenant.on_record.current)
        return done(TenantAction.ROTATED, credential)


class RevokePrevious(ClaimingJob[TenantDone]):
    """End the previous credential of each tenant. See ``Tenants.revoke_previous``."""

    verb = Verb.REVOKE

    def __init__(self, context: Context, older_than: timedelta | None, *, unused: bool) -> None:
        super().__init__(context, older_than, what="older_than")
        self._unused = unused

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        credential = record.suspended or record.required()
        nothing_to_end = record.previous is None and record.intent is None
        # After a rotation by another process, programs still use the previous credential: leave it for a later run.
        rotated = _was_rotated(before, credential)
        if credential.suspended or nothing_to_end or rotated or self.is_young(credential.since):
            return done(TenantAction.KEPT, credential)
        return None

    async def work(self, tenant: Tenant) -> TenantDone | None:
        current, previous = tenant.current, tenant.on_record.previous
        assert previous is not None  # otherwise there was nothing to do, or ``finish_or_undo`` did it
        if self._unused and (open_ := await tenant.home.server.count_sessions(previous.username)):
            return TenantDone(name=current.name, action=TenantAction.KEPT, credential=current, sessions=open_)
        await revoke_previous(tenant, tenant.role)
        return done(TenantAction.REVOKED, current)


def _was_rotated(before: Credential | None, credential: Credential) -> bool:
    """Whether another process has rotated the tenant since this work began."""
    return before is not None and credential.username != before.username


class SuspendTenants(ClaimingJob[TenantDone]):
    """Suspend each tenant, with its readers and writers. See ``Tenants.suspend``."""

    verb = Verb.SUSPEND
    shuts = True

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        if record.state in (State.ABSENT, State.PROVISIONING, State.REMOVING):
            raise record.unusable()
        return None if record.suspended is None else done(TenantAction.KEPT, record.suspended)

    async def work(self, tenant: Tenant) -> TenantDone:
        return done(TenantAction.SUSPENDED, await suspend(tenant))


class ResumeTenants(ClaimingJob[TenantDone]):
    """Give each suspended tenant, with its readers and writers, new logins. See ``Tenants.resume``."""

    verb = Verb.RESUME

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        if record.usable is not None:
            return done(TenantAction.KEPT, record.usable)
        if record.state not in (State.SUSPENDING, State.SUSPENDED, State.RESUMING):
            raise record.unusable()
        return None

    async def work(self, tenant: Tenant) -> TenantDone | None:
        if tenant.on_record.state is State.SUSPENDING:
            await suspend(tenant)
            return None
        return done(TenantAction.RESUMED, await resume(tenant))


class RemoveTenants(ClaimingJob[TenantRemoved]):
    """Remove each tenant, with its readers and writers. See ``Tenants.remove``."""

    verb = Verb.REMOVE
    shuts = True

    def __init__(self, context: Context, *, suspended_for: timedelta | None = None) -> None:
        super().__init__(context, suspended_for, what="suspended_for")

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantRemoved | None:
        if not record.exists:
            return TenantRemoved(name=record.name, action=TenantAction.ABSENT)
        # Of a role: not while its whole tenant is being suspended, resumed or removed, which comes first.
        of_the_tenant = record.intent is not None and record.begun is not None and record.intent.role is not record.role
        if record.state is State.MOVING or of_the_tenant:
            raise record.unusable()
        if self.age is None or record.state is State.REMOVING:
            return None
        if record.suspended is None or self.is_young(record.suspended.suspended):
            return TenantRemoved(name=record.name, action=TenantAction.KEPT)
        return None

    async def work(self, tenant: Tenant) -> TenantRemoved:
        action = TenantAction.ABSENT if tenant.on_record.is_empty else TenantAction.DELETED
        if action is TenantAction.DELETED and tenant.role is Role.OWNER:
            await remove(tenant)
        elif action is TenantAction.DELETED:
            await remove_role(tenant, tenant.role)
        return TenantRemoved(name=tenant.names.tenant, action=action)
