"""Repair each tenant: finish what a process began, and mend what is wrong, in place."""

from __future__ import annotations

from ..._bulk.outcomes import Action
from .._context import Context
from .._credential import Credential
from .._outcomes import Problem, TenantRepaired
from .._record import State, unusable
from .._stores import Record
from .jobs import ClaimingJob
from .mend import examine, mend
from .moving import settle
from .provision import provision
from .remove import remove
from .suspend import resume, suspend
from .tenant import ClaimedTenant, refuse_role


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
        name, action, problem = tenant.names.tenant, Action.REPAIRED, Problem.UNFINISHED
        if await settle(tenant):
            return TenantRepaired(name=name, action=action, credential=tenant.current, problems=(problem,))
        match tenant.state:
            case State.ABSENT | State.MOVING:
                raise unusable(name, tenant.record, self.context.role)
            case State.REMOVING:
                credential = await _ended(tenant)
                await remove(tenant)
                action, problem = Action.DELETED, Problem.REMOVAL_UNFINISHED
            case State.PROVISIONING:
                await refuse_role(tenant)
                _, credential = await provision(tenant)
            case State.SUSPENDING:
                action, credential = Action.SUSPENDED, await suspend(tenant)
            case State.RESUMING:
                await refuse_role(tenant)
                action, credential = Action.RESUMED, await resume(tenant)
            case _:
                return await self._mend(tenant)
        return TenantRepaired(name=name, action=action, credential=credential, problems=(problem,))

    async def _mend(self, tenant: ClaimedTenant) -> TenantRepaired:
        name, action, credential = tenant.names.tenant, Action.KEPT, tenant.current
        if tenant.state is not State.SUSPENDED:
            await refuse_role(tenant)
        problems = await examine(tenant, tenant.record)
        if problems and tenant.state is State.SUSPENDED:
            action, credential = Action.SUSPENDED, await suspend(tenant)
        elif problems:
            action, credential = Action.REPAIRED, await mend(tenant, problems, recreate=self._recreate)
        return TenantRepaired(name=name, action=action, credential=credential, problems=problems)


async def _ended(tenant: ClaimedTenant) -> Credential:
    """What is reported of a tenant whose removal is finished."""
    if tenant.record.current is not None:
        return tenant.record.current
    return tenant.site.credential(tenant.names, tenant.names.logins[0], None, await tenant.now())
