"""Repair each tenant: finish what a dead process began, then repair what ``check`` finds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from .._context import Context
from .._credential import Credential
from .._naming import Role
from .._outcomes import Problem, ProblemKind, TenantAction, TenantRepaired
from .._record import OnRecord, State, Verb, with_credentials
from ..errors import MoveError
from .check import examine
from .jobs import ClaimingJob
from .provision import provision
from .steps import finish_or_undo, remove, resume, suspend
from .tenant import Tenant

_REFUSED = (ProblemKind.LOGIN_MISSING, ProblemKind.PASSWORD_REFUSED, ProblemKind.PREVIOUS_REFUSED)


class RepairTenants(ClaimingJob[TenantRepaired]):
    """Repair each tenant. See ``Tenants.repair``."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._finished = defaultdict[str, list[Problem]](list)  # what was finished of each tenant

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantRepaired | None:
        if not record.exists:
            raise record.unusable()
        return None

    async def work(self, tenant: Tenant) -> TenantRepaired | None:
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
                unfinished, finished = _unfinished(tenant.on_record), self._finished[tenant.names.tenant]
                try:
                    if await finish_or_undo(tenant):
                        finished.append(unfinished)
                        return None
                except MoveError:  # the cluster with what is left behind is away
                    await _repair(tenant, finished)
                    raise
                return await _repair(tenant, finished)
        return _repaired(tenant, action, credential, problems)


def _unfinished(on_record: OnRecord) -> Problem:
    """What ``finish_or_undo`` finishes, as a problem."""
    if on_record.intent is not None:
        return Problem(ProblemKind.UNFINISHED, str(on_record.intent.verb))
    return Problem(ProblemKind.LEFT_BEHIND, on_record.left_behind or "")


async def _repair(tenant: Tenant, finished: Sequence[Problem]) -> TenantRepaired:
    """Repair a tenant that works or is suspended. ``finished`` are problems that were solved before."""
    examined = await examine(tenant.home, tenant.names, tenant.on_record)
    found = [each for each in examined if each.kind is not ProblemKind.LEFT_BEHIND]  # ``finish_or_undo`` drops it
    problems, kinds = (*finished, *found), {each.kind for each in found}
    if ProblemKind.DATABASE_MISSING in kinds:
        raise await tenant.no_database()
    if found and tenant.on_record.state is State.SUSPENDED:
        await tenant.begin(Verb.SUSPEND)  # the repair opens the database to the tenant, which has no login that works
        await tenant.session.repair({})
        return _repaired(tenant, TenantAction.SUSPENDED, await suspend(tenant), problems)
    if found:
        await _repair_logins(tenant, {each.detail for each in found if each.kind in _REFUSED})
    return _repaired(tenant, TenantAction.REPAIRED if problems else TenantAction.KEPT, tenant.current, problems)


async def _repair_logins(tenant: Tenant, refused: set[str]) -> None:
    """Replace logins that are refused, end those that nobody knows, and give the others the rights of their roles."""
    record, existing = tenant.record, {*tenant.found.logins, *tenant.found.ended}
    roles = [role for role in Role if tenant.on_record.of_role(role).current is not None]
    new = tenant.new_logins(len(roles))
    await tenant.begin(Verb.REPAIR, new)
    ended = {login for login in tenant.found.logins if login not in tenant.logins()}
    for role in roles:
        current, previous = tenant.on_record.of_role(role).pair
        assert current is not None
        if previous is not None and previous.username in refused:
            ended.add(previous.username)
            previous = None
        if current.username in refused and role is not Role.OWNER:
            await tenant.session.create_role(role)
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
