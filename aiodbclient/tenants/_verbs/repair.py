"""Repair each tenant: finish what a dead process began, then repair what ``check`` finds."""

from __future__ import annotations

from .._credential import Credential
from .._naming import Role
from .._outcomes import Problem, ProblemKind, TenantAction, TenantRepaired
from .._record import OnRecord, State, Verb, no_database, with_credentials
from .check import examine
from .jobs import ClaimingJob
from .provision import provision
from .steps import remove, resume, settle, suspend
from .tenant import Tenant

_REFUSED = (ProblemKind.LOGIN_MISSING, ProblemKind.PASSWORD_REFUSED, ProblemKind.PREVIOUS_REFUSED)


class RepairTenants(ClaimingJob[TenantRepaired]):
    """Repair each tenant. See ``Tenants.repair``."""

    verb = Verb.REPAIR

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantRepaired | None:
        if not record.exists:
            raise record.unusable()
        return None

    async def settle(self, tenant: Tenant) -> bool:
        """``work`` does it, and says so."""
        return False

    async def work(self, tenant: Tenant) -> TenantRepaired:
        action, problems = TenantAction.REPAIRED, (Problem(ProblemKind.UNFINISHED),)
        match tenant.on_record.state:
            case State.ABSENT:
                raise tenant.on_record.unusable()
            case State.PROVISIONING:
                _, credential = await provision(tenant)
            case State.SUSPENDING:
                action, credential = TenantAction.SUSPENDED, await suspend(tenant)
            case State.RESUMING:
                action, credential = TenantAction.RESUMED, await resume(tenant)
            case State.REMOVING:
                action, problems = TenantAction.DELETED, (Problem(ProblemKind.REMOVAL_UNFINISHED),)
                nobody = tenant.home.credential(tenant.names, Role.OWNER, tenant.names.database, None)
                credential = tenant.on_record.current or nobody
                await remove(tenant)
            case _:
                return await _repair(tenant)
        return _repaired(tenant, action, credential, problems)


async def _repair(tenant: Tenant) -> TenantRepaired:
    """Repair a tenant that works or is suspended, or that is being moved."""
    on_record, unfinished = tenant.on_record, (Problem(ProblemKind.UNFINISHED),)
    begun = None if on_record.intent is None else on_record.intent.verb
    if begun in (Verb.PREPARE, Verb.MOVE, Verb.REMOVE) or on_record.left_behind is not None:
        await settle(tenant)
        return _repaired(tenant, TenantAction.REPAIRED, tenant.current, unfinished)
    problems = await examine(tenant.home, tenant.names, on_record)
    if not problems:
        return _repaired(tenant, TenantAction.KEPT, tenant.current, problems)
    if ProblemKind.DATABASE_MISSING in {each.kind for each in problems}:
        raise no_database(tenant.names.tenant, tenant.names.database)
    if on_record.state is State.SUSPENDED:
        return _repaired(tenant, TenantAction.SUSPENDED, await suspend(tenant), problems)
    await _repair_logins(tenant, {each.detail for each in problems if each.kind in _REFUSED})
    return _repaired(tenant, TenantAction.REPAIRED, tenant.current, problems)


async def _repair_logins(tenant: Tenant, refused: set[str]) -> None:
    """Replace logins that are refused, end those that nobody knows, and give the others the rights of their roles."""
    intent, record, existing = tenant.on_record.intent, tenant.record, {*tenant.found.logins, *tenant.found.ended}
    roles = [role for role in Role if tenant.of_role(role).current is not None]
    new = tenant.new_logins(len(roles))
    await tenant.end_new_logins()  # of an earlier process
    await tenant.begin(Verb.REPAIR, new)
    ended = {login for login in tenant.found.logins if login not in tenant.logins()}
    for role in roles:
        current, previous = tenant.of_role(role).pair
        assert current is not None
        is_revoked = intent is not None and (intent.verb, intent.role) == (Verb.REVOKE, role)
        if previous is not None and (is_revoked or previous.username in refused):
            ended.add(previous.username)
            previous = None
        if current.username in refused and current.username in existing:  # it has another password
            ended.add(current.username)
            current = await tenant.add_login(new.pop(), role)
        elif current.username in refused:
            current = await tenant.add_login(current.username, role, current.password)
        record = with_credentials(record, role, current, previous)
    logins = {each.username: each.role for each in OnRecord(name=record.name, record=record).every_credential}
    await tenant.session.end_logins(ended)
    await tenant.session.repair(logins)
    await tenant.drop_ended(*ended)
    await tenant.commit(record)


def _repaired(
    tenant: Tenant, action: TenantAction, credential: Credential, problems: tuple[Problem, ...]
) -> TenantRepaired:
    return TenantRepaired(name=tenant.names.tenant, action=action, credential=credential, problems=problems)
