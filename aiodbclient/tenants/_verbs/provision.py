"""Make a tenant, or make it whole again: provision and adopt it, repair it, finish what a dead process began.

- **provision** intends the first login. Create the database, set the login, call ``setup``. Keeps its credential.
- **adopt** intends a new login. Adopt the database, set the login. Keeps both: the one that was there is the previous.
- **repair** intends the current login. Mend what ``examine`` finds. End and drop the other login of an unfinished
  rotation or revocation.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Literal, get_args

from attrs import evolve

from ..._http.call import RequestStats
from ...errors import ConflictError, InvalidArgumentError, NameTakenError
from .._context import AWAY, Context
from .._credential import Credential
from .._naming import Role
from .._outcomes import Problem, ProblemKind, TenantAction, TenantDone, TenantRepaired, Timer, done
from .._record import OnRecord, State, Verb, no_database
from .._servers.server import Found
from .._stores import entries_of
from .changes import remove, resume, suspend
from .check import examine
from .jobs import ClaimingJob
from .tenant import ClaimedTenant, Tenant, refuse_role
from .unfinished import end_copying

IfExists = Literal["error", "adopt"]


class ProvisionTenants(ClaimingJob[TenantDone]):
    """Give each tenant a database and a login of its own. See ``Tenants.provision``."""

    def __init__(self, context: Context, if_exists: IfExists = "error", wanted: object = None) -> None:
        super().__init__(context)
        if if_exists not in get_args(IfExists):
            raise InvalidArgumentError(f'if_exists must be "error" or "adopt", not {if_exists!r}')
        self._if_exists: IfExists = if_exists
        self._wanted = wanted
        self._chosen: dict[str, str] = {}  # the clusters of new tenants of which nothing is on record, by name

    async def prepare(self) -> int:
        concurrency = await super().prepare()
        if self._if_exists == "error" and self.context.role is Role.OWNER and isinstance(self._wanted, Collection):
            await self._refuse_wrong_store(self._wanted)
        return concurrency

    async def _refuse_wrong_store(self, wanted: Collection[object]) -> None:
        """Raise NameTakenError if the store is empty, and the clusters have tenants of these names."""
        async for _ in entries_of(self.context.store):
            return
        prefix, sites = self.context.prefix, self.context.sites
        databases = set[str]()
        for cluster in sites.clients:
            with suppress(*AWAY):
                databases.update(await (await sites.site(cluster, RequestStats())).server.tenants())
        taken = [name for name in wanted if isinstance(name, str) and prefix + name in databases]
        if taken:
            raise NameTakenError(
                f"the store is empty, and {len(taken)} of the {len(wanted)} names have a database already, such as "
                f"{taken[0]!r}: is it the right store? Nothing was created",
                status=409,
                advice='open the store that has them, or take over what exists with if_exists="adopt"',
            )

    async def do_one(self, name: str, timer: Timer) -> TenantDone:
        """Make a new tenant on the cluster that is chosen. If that is away, and has nothing of it: on another one."""
        while True:
            try:
                return await super().do_one(name, timer)
            except AWAY as error:
                if name not in self._chosen or not self._may_choose:
                    raise
                self.context.sites.note_away(self._chosen[name], error)
            finally:
                if name in self._chosen:
                    self.context.placement.leave(self._chosen.pop(name))

    @property
    def _may_choose(self) -> bool:
        """Whether a tenant may go to another cluster than the one that was chosen first."""
        return len(self.context.sites.clients) > 1 and self.context.placement.choose_cluster is None

    async def cluster_for(self, record: OnRecord, timer: Timer) -> str:
        """The cluster of the tenant. That of a new one is chosen, again if it has nothing there and is unreachable."""
        sites, role = self.context.sites, self.context.role
        if role is not Role.OWNER or record.cluster is not None:
            cluster = await super().cluster_for(record, timer)
            if role is not Role.OWNER or record.state is not State.PROVISIONING or not self._may_choose:
                return cluster
            with suppress(*AWAY):
                return (await sites.site(cluster, timer.stats)).cluster
        if record.name not in self._chosen:
            site = await sites.choose(record.name, self.context.placement, timer.stats)
            self._chosen[record.name] = site.cluster
        return self._chosen[record.name]

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        if record.state.is_shut:
            raise record.unusable()
        lacks_setup = self.context.setup is not None and self.context.role is Role.OWNER
        if record.usable is None or (lacks_setup and not record.usable.is_set_up):
            return None
        return done(TenantAction.KEPT, record.usable)

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        try:
            return await self._work(tenant)
        finally:
            if not tenant.record.is_empty:
                self._chosen.pop(tenant.names.tenant, None)  # it stays counted

    async def _work(self, tenant: ClaimedTenant) -> TenantDone | None:
        state = tenant.record.state
        if state in (State.REMOVING, State.RESETTING) or (state is State.USABLE and tenant.record.intent is not None):
            await finish(tenant)
            return None
        await refuse_role(tenant)
        if state is State.USABLE:  # the command made it, for example, which has no setup
            action, credential = TenantAction.KEPT, await tenant.set_up(tenant.current)
            await tenant.held.commit(credential, tenant.record.previous)
        else:
            action, credential = await provision(tenant, self._if_exists)
        return done(action, credential)


async def provision(tenant: ClaimedTenant, if_exists: IfExists = "error") -> tuple[TenantAction, Credential]:
    """Make the database and the login, set it up, and store the credential."""
    intent = tenant.record.intent
    if intent is None or intent.cluster != tenant.site.cluster:  # its cluster is away: it is placed again
        verb, login = await _choose(tenant, if_exists)
    else:  # a process found nothing there and began to make it, so what exists is ours
        verb, login = intent.verb, intent.login
    if verb is Verb.ADOPT:
        return TenantAction.ADOPTED, await _adopt(tenant, login)
    await tenant.begin(Verb.PROVISION, login)
    try:
        is_new = await tenant.server.create(tenant.work)
    except InvalidArgumentError:  # the server takes no such name
        await tenant.held.begin(None)
        raise
    if intent is None and not is_new and tenant.names.role is Role.OWNER:  # somebody made it a moment ago
        await tenant.held.begin(None)
        raise conflict(tenant, Found(database=True, logins=()))
    try:
        made = await tenant.set_login(login, may_exist=intent is not None)
    except ConflictError:  # somebody made it a moment ago
        await _withdraw(tenant)
        raise conflict(tenant, Found(database=False, logins=(login,))) from None
    credential = await tenant.set_up(made)
    await tenant.held.commit(credential, None)
    return TenantAction.CREATED, credential


async def _withdraw(tenant: ClaimedTenant) -> None:
    """Drop the new database of a tenant. Its intent ends first, so that no login of others counts as ours."""
    await tenant.held.begin(None)
    if tenant.names.role is Role.OWNER:
        await tenant.server.drop_database(tenant.work)


async def _choose(tenant: ClaimedTenant, if_exists: IfExists) -> tuple[Verb, str]:
    """Choose how a new tenant gets its login, and the login."""
    if tenant.record.intent is None and (taken := await find_elsewhere(tenant)) is not None:
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
    """Take over what others made, with a new ``login``.

    The login that was there works until ``revoke_previous``.
    """
    names, server = tenant.names, tenant.server
    await tenant.begin(Verb.ADOPT, login)
    found = await server.find(names)
    old = names.other(login) if names.other(login) in found.logins else None
    try:
        if not found.database:
            await server.create(tenant.work)
        if names.role is Role.OWNER:
            await server.adopt(tenant.work, old)
    except (ConflictError, InvalidArgumentError):  # it is not the tenant's to take, or the server takes no such name
        await tenant.held.begin(None)
        raise
    credential = await tenant.set_up(await tenant.set_login(login))
    previous = None if old is None else tenant.site.credential(names, old, None, await tenant.now())
    await tenant.held.commit(credential, previous)
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
                there = evolve(tenant, site=await tenant.context.sites.site(cluster, tenant.timer.stats))
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


class RepairTenants(ClaimingJob[TenantRepaired]):
    """Repair each tenant. See ``Tenants.repair``."""

    ends_copying = True

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantRepaired | None:
        if not record.exists:
            raise record.unusable()
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantRepaired:
        return await finish(tenant)


async def finish(tenant: ClaimedTenant) -> TenantRepaired:
    """Finish the verb on record. If there is none, or it is a rotation or revocation, repair what ``examine`` finds."""
    action, problems = TenantAction.REPAIRED, (Problem(ProblemKind.UNFINISHED),)
    if await end_copying(tenant):
        return _repaired(tenant, action, tenant.current, problems)
    match tenant.record.state:
        case State.ABSENT | State.MOVING:
            raise tenant.record.unusable()
        case State.PROVISIONING:
            await refuse_role(tenant)
            _, credential = await provision(tenant)
        case State.SUSPENDING:
            action, credential = TenantAction.SUSPENDED, await suspend(tenant)
        case State.RESUMING:
            await refuse_role(tenant)
            action, credential = TenantAction.RESUMED, await resume(tenant)
        case State.REMOVING:
            none = tenant.site.credential(tenant.names, tenant.names.logins[0], None, await tenant.now())
            action, credential = TenantAction.DELETED, tenant.record.current or none
            problems = (Problem(ProblemKind.REMOVAL_UNFINISHED),)
            await remove(tenant)
        case _:
            return await _mend_what_is_found(tenant)
    return _repaired(tenant, action, credential, problems)


async def _mend_what_is_found(tenant: ClaimedTenant) -> TenantRepaired:
    if tenant.record.state is not State.SUSPENDED:
        await refuse_role(tenant)
    problems = await examine(tenant, tenant.record)
    if not problems:
        return _repaired(tenant, TenantAction.KEPT, tenant.current, problems)
    if ProblemKind.DATABASE_MISSING in {each.kind for each in problems}:
        raise no_database(tenant.names.tenant, tenant.names.database, tenant.names.role)
    if tenant.record.state is State.SUSPENDED:
        return _repaired(tenant, TenantAction.SUSPENDED, await suspend(tenant), problems)
    return _repaired(
        tenant, TenantAction.REPAIRED, await repair_found(tenant, [each.kind for each in problems]), problems
    )


def _repaired(
    tenant: ClaimedTenant, action: TenantAction, credential: Credential, problems: tuple[Problem, ...]
) -> TenantRepaired:
    return TenantRepaired(name=tenant.names.tenant, action=action, credential=credential, problems=problems)


async def repair_found(tenant: ClaimedTenant, problems: Collection[ProblemKind]) -> Credential:
    """Mend a tenant that is not shut, and end what a process began. Return its credential."""
    current, previous, intent = tenant.current, tenant.record.previous, tenant.record.intent
    names, server, work = tenant.names, tenant.server, tenant.work
    other = names.other(current.username)
    is_refused = not {ProblemKind.LOGIN_MISSING, ProblemKind.PASSWORD_REFUSED}.isdisjoint(problems)
    is_unknown = tenant.record.state is State.RESETTING
    ends_other = intent is not None and intent.ends_other
    ends_other |= not {ProblemKind.PREVIOUS_REFUSED, ProblemKind.UNKNOWN_LOGIN}.isdisjoint(problems)
    verb = Verb.RESET if is_refused or is_unknown else Verb.REPAIR
    await tenant.begin(verb, current.username)
    if ends_other:
        await server.end_logins(work, [other])
        await tenant.drop_login(other)
        previous = None
    if is_refused or (is_unknown and not await tenant.works(current)):
        current = await tenant.set_login(current.username)
    kept = [current.username, *([] if previous is None else [previous.username])]
    await server.repair(work, kept)
    for login in (await server.find(names)).ended:
        if login not in kept:  # others held it when it was revoked
            await tenant.drop_login(login)
    await tenant.held.commit(current, previous)
    return current
