"""Suspend each tenant, and resume it."""

from __future__ import annotations

from attrs import evolve

from .._outcomes import TenantAction, TenantDone, done
from .._records import OperationKind, TenantRecord, TenantState, roles_of, state_of, unusable
from .loop import ChangeTenants
from .tenant import Tenant

_SUSPENDED = (TenantState.SUSPENDING, TenantState.SUSPENDED, TenantState.RESUMING)


class SuspendTenants(ChangeTenants[TenantDone]):
    """``Tenants.suspend``: suspend each tenant, with its readers and writers."""

    ends_logins = True

    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> TenantDone | None:
        state = state_of(record, self.context.role)
        if record is None or state in (TenantState.ABSENT, TenantState.PROVISIONING, TenantState.REMOVING):
            raise unusable(record, name, self.context.role)
        return done(TenantAction.KEPT, record, self.context.role) if state is TenantState.SUSPENDED else None

    async def change(self, tenant: Tenant) -> TenantDone:
        await suspend(tenant)
        return done(TenantAction.SUSPENDED, tenant.stored, tenant.role)


async def suspend(tenant: Tenant) -> None:
    """End all logins of a tenant and of its roles, and lock its database."""
    logins = tenant.every_login()
    await tenant.start(OperationKind.SUSPEND)  # from now on ``get`` returns None, and no role can be made
    await tenant.steps.end_logins(logins)
    tenant.check_database("its logins are disabled, but its database was not locked")
    await tenant.drop_disabled(*logins)
    await tenant.steps.lock_out()
    record = tenant.stored
    kept = tuple(each for each in record.logins if each.replaced is None)
    since = record.suspended or await tenant.context.store.now()
    await tenant.save(evolve(record, operation=None, logins=kept, suspended=since))


class ResumeTenants(ChangeTenants[TenantDone]):
    """``Tenants.resume``: give each suspended tenant, with its readers and writers, new logins."""

    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> TenantDone | None:
        state = state_of(record, self.context.role)
        if record is not None and state is TenantState.USABLE:
            return done(TenantAction.KEPT, record, self.context.role)
        if record is None or state not in _SUSPENDED:
            raise unusable(record, name, self.context.role)
        return None

    async def change(self, tenant: Tenant) -> TenantDone:
        if tenant.state is TenantState.SUSPENDING:
            await suspend(tenant)
        await resume(tenant)
        return done(TenantAction.RESUMED, tenant.stored, tenant.role)


async def resume(tenant: Tenant) -> None:
    """Give a suspended tenant, and its roles, a new login each."""
    await tenant.drop_unfinished_logins()  # of an earlier process
    roles = roles_of(tenant.stored)
    logins = dict(zip(roles, tenant.next_logins(len(roles)), strict=True))
    await tenant.start(OperationKind.RESUME, logins.values())
    new = await tenant.add_logins(logins)
    await tenant.save(evolve(tenant.stored, operation=None, logins=new, suspended=None))
