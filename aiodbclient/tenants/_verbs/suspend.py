"""Suspend a tenant: end all its logins, and keep its database. Resume it: give it its login back."""

from __future__ import annotations

from attrs import evolve

from ..._bulk.outcomes import Action
from .._credential import Credential
from .._outcomes import TenantDone, done
from .._record import State, Verb, left_behind, state_of, suspended, unusable, usable
from .._stores import Record
from .jobs import ClaimingJob
from .moving import settle_here
from .remove import remove
from .tenant import ClaimedTenant, on_roles, refuse_role


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


async def suspend(tenant: ClaimedTenant) -> Credential:
    """End all logins of a tenant and of its roles, and store since when it is suspended. Return its credential."""
    current, other = tenant.current, tenant.names.other(tenant.current.username)
    await tenant.intend(Verb.SUSPEND, current.username)  # from now on ``get`` returns None, and no role can be made
    await on_roles(tenant, _suspend_role)
    await tenant.server.end_login(tenant.work, current.username)
    await tenant.server.end_login(tenant.work, other)
    if tenant.was_adopted(other):
        await tenant.drop_login(other)
    await tenant.server.shut(tenant.work)
    credential = evolve(current, suspended=current.suspended or await tenant.now())
    await tenant.held.keep(credential, left_behind(tenant.record))
    return credential


async def _suspend_role(role: ClaimedTenant) -> None:
    if role.state in (State.PROVISIONING, State.REMOVING):
        await remove(role)
    elif role.state not in (State.ABSENT, State.SUSPENDED):
        await suspend(role)


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


async def resume(tenant: ClaimedTenant) -> Credential:
    """Give a suspended tenant its login back, then its roles theirs. Return its credential."""
    login = tenant.current.username
    await tenant.intend(Verb.RESUME, login)
    credential = await tenant.set_login(login)
    await on_roles(tenant, _resume_role)  # before its own: until they have theirs, it counts as suspended
    await tenant.held.keep(credential, left_behind(tenant.record))
    return credential


async def _resume_role(role: ClaimedTenant) -> None:
    if role.state in (State.SUSPENDING, State.SUSPENDED, State.RESUMING):
        await resume(role)
