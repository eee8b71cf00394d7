"""Repair each tenant: finish what a dead process left, then make the server fit the record."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from .._naming import Role
from .._outcomes import Problem, ProblemKind, TenantAction, TenantRepaired
from .._records import OperationKind, TenantRecord, TenantState, credential_of, roles_of, unusable
from .check import examine
from .loop import ChangeTenants
from .provision import provision
from .recover import drop_leftover
from .remove import remove
from .suspend import resume, suspend
from .tenant import Tenant

_REFUSED = (ProblemKind.LOGIN_MISSING, ProblemKind.PASSWORD_REFUSED, ProblemKind.PREVIOUS_REFUSED)


class RepairTenants(ChangeTenants[TenantRepaired]):
    """``Tenants.repair``: repair each tenant."""

    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> None:
        if record is None:
            raise unusable(record, name, Role.OWNER)

    async def change(self, tenant: Tenant) -> TenantRepaired:
        name, action = tenant.names.tenant, TenantAction.REPAIRED
        problems: tuple[Problem, ...] = (Problem(ProblemKind.UNFINISHED),)
        match tenant.stored.state():
            case TenantState.ABSENT:
                raise unusable(tenant.record, name, Role.OWNER)
            case TenantState.PROVISIONING:
                await provision(tenant)
            case TenantState.SUSPENDING:
                action = TenantAction.SUSPENDED
                await suspend(tenant)
            case TenantState.RESUMING:
                action = TenantAction.RESUMED
                await resume(tenant)
            case TenantState.REMOVING:
                action, problems = TenantAction.DELETED, (Problem(ProblemKind.REMOVAL_UNFINISHED),)
                await remove(tenant)
            case _:
                action, problems = await _repair(tenant)
                await drop_leftover(tenant)  # again: an unreachable cluster is an error, after the rest is repaired
        record = tenant.record
        credential = None if record is None else credential_of(record)
        return TenantRepaired(name=name, action=action, credential=credential, record=record, problems=problems)


async def _repair(tenant: Tenant) -> tuple[TenantAction, tuple[Problem, ...]]:
    """Repair a tenant that works or is suspended, and return also the problems that its recovery has solved."""
    examined = await examine(tenant.cluster, tenant.names, tenant.stored)
    found = [each for each in examined if each.kind is not ProblemKind.LEFTOVER]
    problems = (*_recovered(tenant), *found)
    if ProblemKind.DATABASE_MISSING in [each.kind for each in found]:
        raise await tenant.no_database()
    action = TenantAction.REPAIRED if problems else TenantAction.KEPT
    if found and tenant.state is TenantState.SUSPENDED:
        await tenant.start(OperationKind.SUSPEND)
        await tenant.steps.repair({})  # this opens the database to the tenant, which has no login that works
        await suspend(tenant)
        action = TenantAction.SUSPENDED
    elif found:
        await _repair_logins(tenant, {each.detail for each in found if each.kind in _REFUSED})
        await tenant.steps.restore_extensions(is_new=False)  # last, since it may be refused
    return action, problems


def _recovered(tenant: Tenant) -> Iterator[Problem]:
    """The problems that ``recover`` has solved."""
    before, now = tenant.claim.record, tenant.stored
    if before is not None and before.operation is not None:
        yield Problem(ProblemKind.UNFINISHED, str(before.operation.kind))
    if before is not None and before.leftover is not None and now.leftover is None:
        yield Problem(ProblemKind.LEFTOVER, before.leftover)


async def _repair_logins(tenant: Tenant, refused: set[str]) -> None:
    """Replace logins that are refused, end those that nobody knows, and give the others the rights of their roles."""
    existing, logins = {*tenant.found.logins, *tenant.found.disabled}, tenant.stored.logins
    new = tenant.next_logins(len(roles_of(tenant.stored)))
    await tenant.start(OperationKind.REPAIR, new)
    ended = {login for login in tenant.found.logins if login not in [each.username for each in logins]}
    ended |= {each.username for each in logins if each.username in refused and each.replaced is not None}
    kept = [each for each in logins if each.username not in ended]
    for at, each in enumerate(kept):
        if each.username not in refused:
            continue
        if each.username in existing:  # it has another password
            ended.add(each.username)
            kept[at] = await tenant.add_login(new.pop(), each.role)
        else:
            kept[at] = await tenant.add_login(each.username, each.role, each.password)
    await tenant.steps.end_logins(ended)
    await tenant.steps.repair({each.username: each.role for each in kept})
    await tenant.drop_disabled(*ended)
    await tenant.save(evolve(tenant.stored, operation=None, logins=tuple(kept)))
