"""Remove each tenant."""

from __future__ import annotations

from .._naming import Role
from .._outcomes import TenantAction, TenantRemoved
from .._records import OperationKind, TenantRecord, TenantState, operation_on, state_of, unusable
from .loop import ChangeTenants
from .recover import drop_leftover
from .tenant import Tenant


class RemoveTenants(ChangeTenants[TenantRemoved]):
    """``Tenants.remove``: remove each tenant, with its readers and writers."""

    continues = OperationKind.REMOVE
    ends_logins = True

    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> TenantRemoved | None:
        role = self.context.role
        state = state_of(record, role)
        if record is None or (state is TenantState.ABSENT and role is not Role.OWNER):
            return TenantRemoved(name=name, action=TenantAction.ABSENT)
        # Of a role: not while its whole tenant is being suspended, resumed or removed, which comes first.
        operation = operation_on(record, role)
        of_the_tenant = role is not Role.OWNER and operation is not None and operation.role is None
        if state is TenantState.MOVING or (of_the_tenant and state is not TenantState.USABLE):
            raise unusable(record, name, role)
        if self.age is None or state is TenantState.REMOVING:
            return None
        if state is not TenantState.SUSPENDED or record.suspended is None or self.is_too_young(record.suspended):
            return TenantRemoved(name=name, action=TenantAction.KEPT)
        return None

    async def change(self, tenant: Tenant) -> TenantRemoved:
        tenant.check_database()
        left: tuple[str, ...] = ()
        if tenant.role is Role.OWNER:
            left = await remove(tenant)
        else:
            await tenant.remove_role(tenant.role)
        return TenantRemoved(name=tenant.names.tenant, action=TenantAction.DELETED, leftover=left)


async def remove(tenant: Tenant) -> tuple[str, ...]:
    """Remove a tenant: end its logins, so that nothing of it works, drop its database, its logins, and its record.

    Return the other databases that have objects of it.
    """
    left: tuple[str, ...] = ()
    await drop_leftover(tenant)  # nobody would know of it later
    logins = tenant.every_login()
    is_anothers = not tenant.has_login and tenant.found.not_ours  # made after a process died
    await tenant.start(OperationKind.REMOVE)  # from now on ``get`` returns None, and no role can be made
    await tenant.steps.end_logins(logins)
    if not is_anothers:
        await tenant.steps.drop_database()
    await tenant.drop_disabled(*logins)
    if not is_anothers:
        left = await tenant.steps.drop_roles()
    await tenant.save(None)
    return left
