"""Steps that several operations take, also to finish what a dead process left."""

from __future__ import annotations

from attrs import evolve

from .._naming import Role
from .._records import OperationKind
from .tenant import Tenant


async def revoke_previous(tenant: Tenant, role: Role) -> None:
    """End the previous login of a role, and try to drop it and all that were ended before."""
    previous = tenant.stored.previous(role)
    assert previous is not None
    await tenant.start(OperationKind.REVOKE, role=role)
    await tenant.steps.end_logins([previous.username])
    await tenant.drop_disabled(previous.username)
    await tenant.save(evolve(tenant.stored.without(previous), operation=None))


async def remove_role(tenant: Tenant, role: Role) -> None:
    """End and drop the logins of a tenant's readers or writers, then their role."""
    its = [each for each in tenant.stored.logins if each.role is role]
    await tenant.start(OperationKind.REMOVE, [each.username for each in its], role=role)
    logins = tenant.stored.new_logins
    await tenant.steps.end_logins(logins)
    await tenant.drop_disabled(*logins)
    await tenant.steps.drop_roles(role)
    await tenant.save(evolve(tenant.stored.without(*its), operation=None))
