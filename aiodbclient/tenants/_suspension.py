"""Suspend a tenant: end all its logins, and keep its database. Resume it: give it its login back."""

from __future__ import annotations

from attrs import evolve

from .._bulk.outcomes import Action, Done
from ._credential import Credential
from ._intent import State, Verb, state_of
from ._logins import end_login, working_credential
from ._loop import ClaimingJob, on_roles
from ._outcomes import TenantDone
from ._provisioning import refuse_role
from ._removal import remove
from ._stores import Record
from ._tenancy import ClaimedTenant, now_of, suspended, unusable, usable


class SuspendTenants(ClaimingJob[TenantDone]):
    """Suspend each tenant, with its readers and writers. See ``Tenants.suspend``."""

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        if not state_of(record).has_logins:
            raise unusable(name, record, self.tenancy.role)
        credential = suspended(record)
        return None if credential is None else TenantDone(name=name, action=Action.KEPT, credential=credential)

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        credential = await suspend(tenant)
        return TenantDone(name=tenant.names.tenant, action=Action.SUSPENDED, credential=credential)


class ResumeTenants(ClaimingJob[TenantDone]):
    """Give each suspended tenant, with its readers and writers, a new password. See ``Tenants.resume``."""

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = usable(record)
        if credential is not None:
            return TenantDone(name=name, action=Action.KEPT, credential=credential)
        if not state_of(record).is_of_suspension:
            raise unusable(name, record, self.tenancy.role)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        await refuse_role(tenant)
        if state_of(tenant.held.record) is State.SUSPENDING:
            await suspend(tenant)
            return None
        credential = await resume(tenant)
        return TenantDone(name=tenant.names.tenant, action=Action.RESUMED, credential=credential)


class SuspendRole(ClaimingJob[Done]):
    """Suspend the reader or writer of a tenant that is being suspended. One that was never finished is removed."""

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> Done | None:
        return Done(name=name, action=Action.KEPT) if record is None or suspended(record) is not None else None

    async def work(self, tenant: ClaimedTenant) -> Done:
        if state_of(tenant.held.record).has_logins:
            await suspend(tenant)
        else:
            await remove(tenant, Verb.REMOVE)
        return Done(name=tenant.names.tenant, action=Action.SUSPENDED)


class ResumeRole(ClaimingJob[Done]):
    """Resume the reader or writer of a tenant that is being resumed."""

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> Done | None:
        return None if state_of(record).is_of_suspension else Done(name=name, action=Action.KEPT)

    async def work(self, tenant: ClaimedTenant) -> Done | None:
        if state_of(tenant.held.record) is State.SUSPENDING:
            await suspend(tenant)
            return None
        await resume(tenant)
        return Done(name=tenant.names.tenant, action=Action.RESUMED)


async def suspend(tenant: ClaimedTenant) -> Credential:
    """End all logins of a tenant and of its roles, and store since when it is suspended. Return its credential."""
    names, current, previous = tenant.names, tenant.held.record.current, tenant.held.record.previous
    assert current is not None
    # From now on ``get`` returns None, and no role can be created.
    await tenant.intend(Verb.SUSPEND, current.username)
    await on_roles(SuspendRole, tenant)
    await end_login(tenant, current.username, certain=False, stored=current)
    await end_login(tenant, names.other(current.username), certain=False, stored=previous)
    if tenant.site.sql is not None:
        await tenant.timer.on_sql(tenant.site.sql.shut(names))
    since = current.suspended or await tenant.timer.on("store", now_of(tenant.held.store))
    credential = evolve(current, suspended=since, spare=current.spare or previous is not None)
    await tenant.held.keep(credential)
    return credential


async def resume(tenant: ClaimedTenant) -> Credential:
    """Give a suspended tenant its login back, then its roles theirs. Return its credential."""
    current = tenant.held.record.current
    assert current is not None
    await tenant.intend(Verb.RESET, current.username)
    credential = await working_credential(tenant, current.username, exists=True, in_use=False)
    credential = evolve(credential, spare=current.spare)
    await on_roles(ResumeRole, tenant)  # before its own: until they have theirs, it counts as suspended
    await tenant.held.keep(credential)
    return credential
