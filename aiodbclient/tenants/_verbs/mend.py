"""Find the problems of a tenant, and mend them in place. No data is dropped."""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve

from .._credential import Credential, Secret
from .._naming import Role
from .._outcomes import Problem
from .._record import State, Verb, intent_of, left_behind, no_database, state_of
from .._stores import Record
from .tenant import ClaimedTenant, Tenant, on_roles

_LOST = "lost"  # in an intent: the database is lost, and another one is being made


async def examine(tenant: Tenant, record: Record) -> tuple[Problem, ...]:
    """Compare the tenant's ``record`` with the server."""
    state = state_of(record)
    if state is State.REMOVING:
        return (Problem.REMOVAL_UNFINISHED,)
    if record.current is None or state in (State.SUSPENDING, State.RESUMING, State.MOVING):
        return (Problem.UNFINISHED,)
    async with tenant.server.shared():
        found = await _problems(tenant, record, record.current)
    return tuple(problem for problem in Problem if problem in found)


async def _problems(tenant: Tenant, record: Record, current: Credential) -> set[Problem]:
    names, server, state = tenant.names, tenant.server, state_of(record)
    found, intent = await server.find(names), intent_of(record)
    problems = set[Problem]() if intent is None else {Problem.UNFINISHED}
    if left_behind(record) is not None:
        problems.add(Problem.LEFT_BEHIND)
        record = evolve(record, previous=None)
    if not found.database:
        problems.add(Problem.DATABASE_MISSING)
    if state is State.SUSPENDED:
        return problems | ({Problem.LOGIN_BACK} if found.logins else set[Problem]())
    existing = {*found.logins, *found.ended}
    changing = None if intent is None or intent.verb is Verb.REPAIR else intent.login
    kept = list[str]()
    for credential in (current, record.previous):
        if credential is None or credential.username == changing:
            continue
        is_current = credential is current
        if credential.username not in existing:
            problems.add(Problem.LOGIN_MISSING if is_current else Problem.PREVIOUS_REFUSED)
            continue
        kept.append(credential.username)
        if found.database and not await works(tenant, credential, found.logins):
            problems.add(Problem.PASSWORD_REFUSED if is_current else Problem.PREVIOUS_REFUSED)
    if found.database:
        problems |= await server.problems(names, kept)
    if state is State.USABLE and changing is not None:
        problems.discard(Problem.LOGIN_BACK)  # it is the login of the verb that was not finished
    return problems


async def works(tenant: Tenant, credential: Credential, working: Collection[str] = ()) -> bool:
    """Whether the login can log in with the password on record. That of an adopted one is unknown."""
    if credential.password is None:
        return credential.username in working
    login, password = credential.username, Secret(credential.password)
    return await tenant.server.log_in(tenant.names, login, password) is None


async def mend(tenant: ClaimedTenant, problems: Collection[Problem] = (), *, recreate: bool = False) -> Credential:
    """Mend a tenant that is not shut, and finish what a process began. Return its credential."""
    current, previous, intent = tenant.current, tenant.previous, tenant.intent
    names, server, work = tenant.names, tenant.server, tenant.work
    other = names.other(current.username)
    if Problem.DATABASE_MISSING in problems and (tenant.names.role is not Role.OWNER or not recreate):
        raise no_database(tenant.names.tenant, tenant.names.database, tenant.names.role)
    is_lost = Problem.DATABASE_MISSING in problems or (intent is not None and intent.more == _LOST)
    is_refused = not {Problem.LOGIN_MISSING, Problem.PASSWORD_REFUSED}.isdisjoint(problems)
    is_unknown = tenant.state is State.RESETTING
    ends_other = intent is not None and intent.verb in (Verb.ROTATE, Verb.RETIRE)
    ends_other |= not {Problem.PREVIOUS_REFUSED, Problem.LOGIN_BACK}.isdisjoint(problems)
    verb = Verb.RESET if is_lost or is_refused or is_unknown else Verb.REPAIR
    await tenant.intend(verb, current.username, _LOST if is_lost else "")
    if is_lost:
        await server.create(work)
    if ends_other:
        await tenant.server.end_login(tenant.work, other)
        await tenant.drop_login(other)
        previous = None
    if is_refused or (is_unknown and not await works(tenant, current)):
        current = await tenant.set_login(current.username)
    kept = [current.username, *([] if previous is None else [previous.username])]
    await server.mend(work, kept)
    for login in (await server.find(names)).ended:
        if login not in kept:  # others held it when it was retired
            await tenant.drop_login(login)
    if is_lost:
        await on_roles(tenant, _give_role)
        current = await tenant.set_up(evolve(current, is_set_up=False))
    await tenant.held.keep(current, previous)
    return current


async def _give_role(role: ClaimedTenant) -> None:
    """Give a reader or writer its rights on a new database."""
    if role.state is not State.USABLE:
        return
    await role.intend(Verb.REPAIR, role.current.username)
    await role.server.create(role.work)
    kept = [each.username for each in (role.current, role.previous) if each is not None]
    await role.server.mend(role.work, kept)
    await role.held.keep(role.current, role.previous)
