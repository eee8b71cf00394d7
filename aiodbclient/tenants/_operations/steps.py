"""Steps that several operations take, also to finish what a dead process left."""

from __future__ import annotations

from .._naming import Role
from .._records import OperationKind, TenantRecord
from .tenant import Tenant


async def revoke_previous(tenant: Tenant, role: Role) -> TenantRecord:
    """End the previous login of a role, try to drop all that are ended, and return the record to store."""
    previous = tenant.stored.previous(role)
    assert previous is not None
    await tenant.start(OperationKind.REVOKE, role=role)
    await tenant.steps.end_logins([previous.username])
    await tenant.drop_disabled(previous.username)
    return tenant.stored.without(previous)


async def remove_role(tenant: Tenant, role: Role) -> TenantRecord:
    """End and drop the logins of a tenant's readers or writers, then their role, and return the record to store."""
    its = [each for each in tenant.stored.logins if each.role is role]
    await tenant.start(OperationKind.REMOVE, [each.username for each in its], role=role)
    logins = tenant.stored.new_logins
    await tenant.steps.end_logins(logins)
    await tenant.drop_disabled(*logins)
    await tenant.steps.drop_roles(role)
    return tenant.stored.without(*its)
