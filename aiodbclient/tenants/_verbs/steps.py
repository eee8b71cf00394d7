"""The verbs: what each intends, its steps, and what it keeps. ``finish`` ends what a dead process began.

- **provision** intends the first login. Create the database, set the login, call ``setup``. Keeps its credential.
- **adopt** intends a new login. Adopt the database, set the login. Keeps both: the one that was there is the previous.
- **rotate** intends the other login. Set it. Keeps both.
- **retire** intends the other login. End and drop it. Keeps the current credential alone.
- **suspend** intends the current login. The roles first, then end all logins, shut the database. Keeps the date.
- **resume** intends the current login. Set it, then those of the roles. Keeps the new credential.
- **remove** intends the first login. End all logins, remove the roles, drop the database and the logins. Keeps nothing.
- **repair** intends the current login. Mend what ``examine`` finds. End and drop the other login of an unfinished
  rotation or retirement.

``move`` has steps of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Literal

from attrs import evolve

from ..._bulk.outcomes import Action
from ...errors import ConflictError, InvalidArgumentError, NameTakenError
from .._clusters import AWAY
from .._credential import Credential
from .._naming import Role
from .._outcomes import Problem, TenantRepaired
from .._record import State, Verb, left_behind, no_database, unusable
from .._servers.server import Found
from .check import examine
from .tenant import ClaimedTenant, Tenant, on_roles, refuse_role
from .unfinished import end_copying

IfExists = Literal["error", "adopt"]

_SHUT = (State.SUSPENDING, State.SUSPENDED, State.RESUMING)
_LOST = "lost"  # in an intent: the database is lost, and another one is being made


async def provision(tenant: ClaimedTenant, if_exists: IfExists = "error") -> tuple[Action, Credential]:
    """Make the database and the login, set it up, and store the credential."""
    intent = tenant.intent
    if intent is None or intent.cluster != tenant.site.cluster:  # its cluster is away: it is placed again
        verb, login = await _choose(tenant, if_exists)
    else:  # a process found nothing there and began to make it, so what exists is ours
        verb, login = intent.verb, intent.login
    if verb is Verb.ADOPT:
        return Action.ADOPTED, await _adopt(tenant, login)
    await tenant.intend(Verb.PROVISION, login)
    try:
        is_new = await tenant.server.create(tenant.work)
    except InvalidArgumentError:  # the server takes no such name
        await tenant.held.intend(None)
        raise
    if intent is None and not is_new and tenant.names.role is Role.OWNER:  # somebody made it a moment ago
        await tenant.held.intend(None)
        raise conflict(tenant, Found(database=True, logins=()))
    try:
        made = await tenant.set_login(login, may_exist=intent is not None)
    except ConflictError:  # somebody made it a moment ago
        await _withdraw(tenant)
        raise conflict(tenant, Found(database=False, logins=(login,))) from None
    credential = await tenant.set_up(made)
    await tenant.held.keep(credential)
    return Action.CREATED, credential


async def _withdraw(tenant: ClaimedTenant) -> None:
    """Drop the new database of a tenant. Its intent ends first, so that no login of others counts as ours."""
    await tenant.held.intend(None)
    if tenant.names.role is Role.OWNER:
        await tenant.server.drop_database(tenant.work)


async def _choose(tenant: ClaimedTenant, if_exists: IfExists) -> tuple[Verb, str]:
    """Choose how a new tenant gets its login, and the login."""
    if tenant.intent is None and (taken := await find_elsewhere(tenant)) is not None:
        raise taken
    names, found = tenant.names, await find(tenant)
    if not found:
        return Verb.PROVISION, names.logins[0]
    if if_exists == "error":
        raise conflict(tenant, found)
    if len(found.logins) > 1:
        first, second = found.logins
        raise ConflictError(
            f"the logins {first!r} and {second!r} exist and are not on record, and a tenant has only these two; "
            "nothing was changed",
            status=409,
            advice="drop the one that no program uses, and run this again",
        )
    return Verb.ADOPT, names.other(found.logins[0]) if found.logins else names.logins[0]


async def _adopt(tenant: ClaimedTenant, login: str) -> Credential:
    """Take over what others made, with a new ``login``. The one that was there goes on working until ``retire``."""
    names, server = tenant.names, tenant.server
    await tenant.intend(Verb.ADOPT, login)
    found = await server.find(names)
    old = names.other(login) if names.other(login) in found.logins else None
    try:
        if not found.database:
            await server.create(tenant.work)
        if names.role is Role.OWNER:
            await server.adopt(tenant.work, old)
    except (ConflictError, InvalidArgumentError):  # it is not the tenant's to take, or the server takes no such name
        await tenant.held.intend(None)
        raise
    credential = await tenant.set_up(await tenant.set_login(login))
    previous = None if old is None else tenant.site.credential(names, old, None, await tenant.now())
    await tenant.held.keep(credential, previous)
    return credential


async def find(tenant: Tenant) -> Found:
    """What exists that a new tenant, or a new role of one, would make."""
    found = await tenant.server.find(tenant.names)
    return found if tenant.names.role is Role.OWNER else evolve(found, database=False)


async def find_elsewhere(tenant: Tenant) -> NameTakenError | None:
    """The error for a new tenant whose names another of the clusters has, as after a store was lost."""
    if tenant.names.role is not Role.OWNER:
        return None
    for cluster in tenant.context.sites.clients:
        if cluster != tenant.site.cluster:
            with suppress(*AWAY):
                there = evolve(tenant, site=await tenant.context.sites.site(cluster, tenant.timer.meter))
                if found := await find(there):
                    return conflict(there, found)
    return None


def conflict(tenant: Tenant, found: Found) -> NameTakenError:
    what = [f"the login {login!r}" for login in (*found.logins, *found.ended)]
    if found.database:
        what.append(f"the database {tenant.names.database!r}")
    exist = "exists and is" if len(what) == 1 else "exist and are"
    several = len(tenant.context.sites.clients) > 1
    where = f" on the cluster {tenant.site.cluster}" if several else ""
    alone = " and that cluster alone" if several else ""
    return NameTakenError(
        f"{' and '.join(what)} {exist} not on record, so somebody else created this{where}; nothing was changed",
        status=409,
        advice=f'choose another name, or take over what exists with if_exists="adopt"{alone}',
    )


async def rotate(tenant: ClaimedTenant) -> Credential:
    """Make the tenant's other login, and store its credential as the current one."""
    other = tenant.names.other(tenant.current.username)
    await tenant.intend(Verb.ROTATE, other)
    credential = await tenant.set_login(other)
    await tenant.held.keep(credential, tenant.current)
    return credential


async def retire(tenant: ClaimedTenant) -> None:
    """End the previous login, or what an unfinished rotation left of it."""
    other = tenant.names.other(tenant.current.username)
    await tenant.intend(Verb.RETIRE, other)
    await tenant.server.end_login(tenant.work, other)
    await tenant.drop_login(other)  # or the next rotation, or ``repair``
    await tenant.held.keep(tenant.current)


async def suspend(tenant: ClaimedTenant) -> Credential:
    """End all logins of a tenant and of its roles, and store since when it is suspended. Return its credential."""
    current, other = tenant.current, tenant.names.other(tenant.current.username)
    await tenant.intend(Verb.SUSPEND, current.username)  # from now on ``get`` returns None, and no role can be made
    await on_roles(tenant, _suspend_role)
    await tenant.server.end_login(tenant.work, current.username)
    await tenant.server.end_login(tenant.work, other)
    if tenant.was_adopted(other):
        await tenant.drop_login(other)
    await tenant.server.shut(tenant.work)
    credential = evolve(current, suspended=current.suspended or await tenant.now())
    await tenant.held.keep(credential, left_behind(tenant.record))
    return credential


async def _suspend_role(role: ClaimedTenant) -> None:
    if role.state in (State.PROVISIONING, State.REMOVING):
        await remove(role)
    elif role.state not in (State.ABSENT, State.SUSPENDED):
        await suspend(role)


async def resume(tenant: ClaimedTenant) -> Credential:
    """Give a suspended tenant its login back, then its roles theirs. Return its credential."""
    login = tenant.current.username
    await tenant.intend(Verb.RESUME, login)
    credential = await tenant.set_login(login)
    await on_roles(tenant, _resume_role)  # before its own: until they have theirs, it counts as suspended
    await tenant.held.keep(credential, left_behind(tenant.record))
    return credential


async def _resume_role(role: ClaimedTenant) -> None:
    if role.state in _SHUT:
        await resume(role)


async def remove(tenant: ClaimedTenant, verb: Verb | None = None) -> None:
    """Remove a tenant, or its reader or writer. ``Verb.RELEASE`` keeps the database. None: as an unfinished removal.

    Its logins end first, so that nothing of it works on. They are dropped after the database, with what they owned.
    """
    names, server, work = tenant.names, tenant.server, tenant.work
    is_whole, logins = names.role is Role.OWNER, names.logins
    if verb is None:
        verb = tenant.intent.verb if tenant.intent is not None and tenant.state is State.REMOVING else Verb.REMOVE
    await tenant.intend(verb, logins[0])  # from now on ``get`` returns None, and no role can be made
    for login in logins:
        await server.end_login(work, login)
    await on_roles(tenant, remove)
    if is_whole and verb is Verb.REMOVE:
        await server.drop_database(work)
    for login in logins:
        await tenant.drop_login(login)
    if is_whole and verb is Verb.RELEASE:
        await server.release(work)
    else:
        await server.forget(work)
    await tenant.held.forget()
    if is_whole:
        tenant.context.rooms.removed(names.tenant, tenant.site.cluster)


async def mend(tenant: ClaimedTenant, problems: Collection[Problem], *, recreate: bool) -> Credential:
    """Mend a tenant that is not shut, and end what a process began. Return its credential."""
    current, previous, intent = tenant.current, tenant.record.previous, tenant.intent
    names, server, work = tenant.names, tenant.server, tenant.work
    other = names.other(current.username)
    is_lost = intent is not None and intent.more == _LOST
    if Problem.DATABASE_MISSING in problems and not is_lost:
        if names.role is not Role.OWNER or not recreate:
            raise no_database(names.tenant, names.database, names.role)
        is_lost = True
    is_refused = not {Problem.LOGIN_MISSING, Problem.PASSWORD_REFUSED}.isdisjoint(problems)
    is_unknown = tenant.state is State.RESETTING
    ends_other = intent is not None and intent.ends_other
    ends_other |= not {Problem.PREVIOUS_REFUSED, Problem.LOGIN_BACK}.isdisjoint(problems)
    verb = Verb.RESET if is_lost or is_refused or is_unknown else Verb.REPAIR
    await tenant.intend(verb, current.username, _LOST if is_lost else "")
    if is_lost:
        await server.create(work)
    if ends_other:
        await server.end_login(work, other)
        await tenant.drop_login(other)
        previous = None
    if is_refused or (is_unknown and not await tenant.works(current)):
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
    if role.state in _SHUT:  # its login is made when the tenant is resumed
        await role.server.create(role.work)
    if role.state is not State.USABLE:
        return
    await role.intend(Verb.REPAIR, role.current.username)
    await role.server.create(role.work)
    kept = [each.username for each in (role.current, role.record.previous) if each is not None]
    await role.server.mend(role.work, kept)
    await role.held.keep(role.current, role.record.previous)


async def finish(tenant: ClaimedTenant, *, recreate: bool = False) -> TenantRepaired:
    """Finish the verb on record. If there is none, or it is a rotation or retirement, mend what ``examine`` finds."""
    action, problems = Action.REPAIRED, (Problem.UNFINISHED,)
    if await end_copying(tenant):
        return _repaired(tenant, action, tenant.current, problems)
    if recreate and tenant.state in _SHUT and not (await tenant.server.find(tenant.names)).database:
        tenant, problems = await _recreate_shut(tenant), (Problem.DATABASE_MISSING,)
    match tenant.state:
        case State.ABSENT | State.MOVING:
            raise unusable(tenant.names.tenant, tenant.record, tenant.names.role)
        case State.PROVISIONING:
            await refuse_role(tenant)
            _, credential = await provision(tenant)
        case State.SUSPENDING:
            action, credential = Action.SUSPENDED, await suspend(tenant)
        case State.RESUMING:
            await refuse_role(tenant)
            action, credential = Action.RESUMED, await resume(tenant)
        case State.REMOVING:
            none = tenant.site.credential(tenant.names, tenant.names.logins[0], None, await tenant.now())
            action, credential, problems = Action.DELETED, tenant.record.current or none, (Problem.REMOVAL_UNFINISHED,)
            await remove(tenant)
        case _:
            return await _mend_what_is_found(tenant, recreate=recreate)
    return _repaired(tenant, action, credential, problems)


async def _recreate_shut(tenant: ClaimedTenant) -> ClaimedTenant:
    """Make the lost database of a suspended tenant again, empty. What was begun, or its suspension, goes on."""
    if tenant.names.role is not Role.OWNER:
        raise no_database(tenant.names.tenant, tenant.names.database, tenant.names.role)
    verb = Verb.RESUME if tenant.state is State.RESUMING else Verb.SUSPEND
    await tenant.intend(verb, tenant.current.username)
    await tenant.server.create(tenant.work)
    await on_roles(tenant, _give_role)
    return evolve(tenant, record=evolve(tenant.held.record, current=evolve(tenant.current, is_set_up=False)))


async def _mend_what_is_found(tenant: ClaimedTenant, *, recreate: bool) -> TenantRepaired:
    if tenant.state is not State.SUSPENDED:
        await refuse_role(tenant)
    problems = await examine(tenant, tenant.record)
    if not problems:
        return _repaired(tenant, Action.KEPT, tenant.current, problems)
    if tenant.state is State.SUSPENDED and Problem.DATABASE_MISSING not in problems:
        return _repaired(tenant, Action.SUSPENDED, await suspend(tenant), problems)
    return _repaired(tenant, Action.REPAIRED, await mend(tenant, problems, recreate=recreate), problems)


def _repaired(
    tenant: ClaimedTenant, action: Action, credential: Credential, problems: tuple[Problem, ...]
) -> TenantRepaired:
    return TenantRepaired(name=tenant.names.tenant, action=action, credential=credential, problems=problems)
