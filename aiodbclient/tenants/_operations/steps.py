"""Steps that several operations take, also to finish what a dead process left."""

from __future__ import annotations

from attrs import evolve

from .._naming import Role
from .._records import Login, OperationKind, TenantRecord, new_logins
from .tenant import Tenant


async def revoke_previous(tenant: Tenant, role: Role) -> TenantRecord:
    """End the previous login of a role, try to drop all that are ended, and return the record to store."""
    previous = tenant.stored.previous(role)
    assert previous is not None
    await tenant.start(OperationKind.REVOKE, role=role)
    await tenant.steps.end_logins([previous.username])
    await tenant.drop_disabled(previous.username)
    return _without(tenant.stored, previous)


async def remove_role(tenant: Tenant, role: Role) -> TenantRecord:
    """End and drop the logins of a tenant's readers or writers, then their role, and return the record to store."""
    its = [each for each in tenant.stored.logins if each.role is role]
    await tenant.start(OperationKind.REMOVE, [each.username for each in its], role=role)
    logins = new_logins(tenant.stored)
    await tenant.steps.end_logins(logins)
    await tenant.drop_disabled(*logins)
    await tenant.steps.drop_roles(role)
    return _without(tenant.stored, *its)


def _without(record: TenantRecord, *logins: Login) -> TenantRecord:
    return evolve(record, logins=tuple(each for each in record.logins if each not in logins))
