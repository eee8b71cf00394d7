"""Check a tenant: compare its record with the cluster. Repair what is wrong, in place. No data is dropped."""

from __future__ import annotations

from contextlib import nullcontext

from attrs import evolve

from .._bulk.outcomes import Action
from ..errors import GrantError, NotFoundError, ServerError, TransportError
from ..models import User
from ._credential import Credential
from ._events import Timer
from ._intent import State, Verb, intended_login, state_of
from ._listing import read_user
from ._logins import credential_of, end_login, grant, has_other_settings, refused_login, working_credential, works
from ._loop import ClaimingJob, TenantJob
from ._naming import ROLES, Role, names_of
from ._outcomes import Problem, TenantChecked, TenantRepaired
from ._provisioning import ensure_database, provision, refuse_role, run_setup
from ._removal import remove
from ._stores import Record
from ._suspension import resume, suspend
from ._tenancy import ClaimedTenant, Tenancy, Tenant, suspended, tenant_on, unusable, usable

_LOOKS = 3  # how often to check a tenant whose record changes meanwhile
_OF_STRANGERS = frozenset({Problem.OPEN_TO_OTHERS, Problem.OWNED_BY_OTHERS, Problem.TOO_MANY_RIGHTS})


class CheckTenants(TenantJob[TenantChecked]):
    """Find the problems of each tenant. See ``Tenants.check``."""

    async def prepare(self) -> int:
        """Read a cluster. If none can be reached, no tenant can be checked, and each fails with that error."""
        try:
            return await super().prepare()
        except (GrantError, TransportError, ServerError):
            return 1

    async def do_one(self, name: str, timer: Timer) -> TenantChecked:
        record = await self.tenancy.record(name, timer)
        site, _ = await self.clusters.locate(name, await self.tenancy.home(name, record, timer), timer)
        tenant = tenant_on(site, name, timer, self.tenancy, self.clusters)
        problems: tuple[Problem, ...] = ()
        with self.clusters.watched(site.cluster_id, name):
            for _ in range(_LOOKS):
                if record is None:
                    raise unusable(name, record, self.tenancy.role)
                problems = await examine(tenant, record)
                if not problems:
                    break
                before, record = record, await self.tenancy.record(name, timer)
                if record == before:
                    break
        return TenantChecked(name=name, credential=usable(record) or suspended(record), problems=problems)


async def examine(tenant: Tenant, record: Record) -> tuple[Problem, ...]:
    """Compare the tenant's ``record`` with the cluster."""
    state, sql = state_of(record), tenant.site.sql
    if state is State.REMOVING:
        return (Problem.REMOVAL_UNFINISHED,)
    if state in (State.ABSENT, State.BEGUN):
        return (Problem.UNFINISHED,)
    if state is State.SUSPENDED:
        return ()
    async with nullcontext() if sql is None else sql.shared():
        return await _problems(tenant, record)


async def _problems(tenant: Tenant, record: Record) -> tuple[Problem, ...]:
    names, sql, cluster, listing = tenant.names, tenant.site.sql, tenant.cluster, tenant.listing
    found, intended = set[Problem](), intended_login(record)
    if intended is not None:
        found.add(Problem.UNFINISHED)
    database = names.database is None or await listing.has_database(cluster, names.database)
    if not database:
        found.add(Problem.DATABASE_MISSING)
    existing = list[str]()
    for credential in (record.current, record.previous):
        if credential is None or credential.username == intended:
            continue
        is_current = credential is record.current
        user = await listing.user(cluster, credential.username)
        if user is None:
            found.add(Problem.LOGIN_MISSING if is_current else Problem.PREVIOUS_REFUSED)
            continue
        existing.append(user.name)
        if database and not await _is_accepted(tenant, credential, user):
            found.add(Problem.PASSWORD_REFUSED if is_current else Problem.PREVIOUS_REFUSED)
        if is_current and await _are_settings_known(tenant, user) and has_other_settings(tenant, user):
            found.add(Problem.SETTINGS_DIFFER)
    if sql is not None and database and existing:
        found |= await tenant.timer.on_sql(sql.problems(names, existing))
    return tuple(problem for problem in Problem if problem in found)


async def _is_accepted(tenant: Tenant, credential: Credential, user: User) -> bool:
    """Whether the credential logs in. Without SQL: whether its password equals the API's, if the API returns one."""
    if tenant.site.sql is not None:
        return await works(tenant, credential)
    if not user.password or user.password == credential.password:
        return True
    fresh = await read_user(tenant.cluster, user.name)  # the list may be from before a rotation
    return fresh is not None and fresh.password == credential.password


async def _are_settings_known(tenant: Tenant, user: User) -> bool:
    """Whether the API returns settings: those of this login, or of any other one in the list."""
    users = await tenant.listing.users(tenant.cluster) or {}
    return user.settings is not None or any(each.settings is not None for each in users.values())


class RepairTenants(ClaimingJob[TenantRepaired]):
    """Repair each tenant. See ``Tenants.repair``."""

    creates = True

    def __init__(self, tenancy: Tenancy, *, recreate: bool = False) -> None:
        super().__init__(tenancy)
        self._recreate = recreate

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantRepaired | None:
        if record is None:
            raise unusable(name, record, self.tenancy.role)
        credential = suspended(record)
        return None if credential is None else TenantRepaired(name=name, action=Action.KEPT, credential=credential)

    async def work(self, tenant: ClaimedTenant) -> TenantRepaired:
        done = await _finish(tenant)
        if done is not None:
            return done
        await refuse_role(tenant)
        name, record = tenant.names.tenant, tenant.held.record
        if record.current is None:  # its creation was not finished
            _, credential = await provision(tenant, "error")
            return TenantRepaired(
                name=name, action=Action.REPAIRED, credential=credential, problems=(Problem.UNFINISHED,)
            )
        problems = await examine(tenant, record)
        if not problems:
            return TenantRepaired(name=name, action=Action.KEPT, credential=record.current)
        # A process may have died between creating the database and setting it up. Then the intent is on this login.
        new = intended_login(record) == record.current.username
        if Problem.DATABASE_MISSING in problems:
            _refuse_loss(tenant, recreate=self._recreate)
            await tenant.intend(Verb.RESET, record.current.username)
            new = await ensure_database(tenant, may_exist=True)
        credential, previous = await repair(tenant, record.current, problems)
        if tenant.site.sql is not None and _OF_STRANGERS.intersection(problems):
            await tenant.timer.on_sql(tenant.site.sql.reclaim(tenant.names))
        if new:
            await _give_roles(tenant)
            await run_setup(tenant, credential)
        if (credential, previous) != (record.current, record.previous) or record.intended is not None or new:
            await tenant.held.keep(credential, previous)
        return TenantRepaired(name=name, action=Action.REPAIRED, credential=credential, problems=problems)


async def _finish(tenant: ClaimedTenant) -> TenantRepaired | None:
    """Finish a removal, a suspension or a resumption that another process began; None if none began."""
    name, intent = tenant.names.tenant, tenant.held.intent
    state, problem = state_of(tenant.held.record), Problem.UNFINISHED
    if intent is not None and intent.removes:
        await remove(tenant, intent.verb)
        action, problem = Action.DELETED, Problem.REMOVAL_UNFINISHED
        credential = await credential_of(tenant, User(intent.login, password=""))
    elif state is State.SUSPENDING:
        action, credential = Action.SUSPENDED, await suspend(tenant)
    elif state is State.RESUMING:
        await refuse_role(tenant)
        action, credential = Action.RESUMED, await resume(tenant)
    else:
        return None
    return TenantRepaired(name=name, action=action, credential=credential, problems=(problem,))


async def _give_roles(tenant: ClaimedTenant) -> None:
    """Give the readers and writers their rights on a new database."""
    if tenant.site.sql is None:
        return
    for role in ROLES:
        tenancy = tenant.tenancy.for_role(role)
        record = await tenancy.record(tenant.names.tenant, tenant.timer)
        names = names_of(tenant.names.tenant, tenant.site.engine, tenancy.prefix, tenancy.role)
        for credential in (record.current, record.previous) if record else ():
            if credential is not None and await read_user(tenant.cluster, credential.username) is not None:
                await tenant.timer.on_sql(tenant.site.sql.give(names, credential.username))


async def repair(
    tenant: ClaimedTenant, current: Credential, problems: tuple[Problem, ...]
) -> tuple[Credential, Credential | None]:
    """Repair the logins of a tenant and their rights, and return the current and the previous credential to store."""
    # The other login comes first: an intent names one login at a time, and the last intent must name the login in use
    # if its password is unknown.
    record = tenant.held.record
    previous, other, intended = record.previous, tenant.names.other(current.username), intended_login(record)
    if Problem.PREVIOUS_REFUSED in problems or intended == other:
        if intended != current.username:  # otherwise the login in use has an unknown password
            await tenant.intend(Verb.END, other)
        await end_login(tenant, other, certain=False)
        current = evolve(current, spare=True)
        previous = None
    elif previous is not None and tenant.site.sql is not None:
        await _give_rights(tenant, previous)
    missing = Problem.LOGIN_MISSING in problems
    if missing or Problem.PASSWORD_REFUSED in problems or intended == current.username:
        await tenant.intend(Verb.MAKE if missing else Verb.RESET, current.username)
        credential = await working_credential(tenant, current.username, exists=not missing)
        return evolve(credential, spare=current.spare), previous
    await _give_rights(tenant, current)
    return current, previous


async def _give_rights(tenant: ClaimedTenant, credential: Credential) -> None:
    """Give a working login its rights again. Its password stays."""
    user = None if tenant.site.sql is not None else await read_user(tenant.cluster, credential.username)
    user = evolve(user or User(credential.username), password=credential.password)
    refused = await grant(tenant, user, is_new=False)
    if refused is not None:
        raise refused_login(tenant, credential.username, refused)


def _refuse_loss(tenant: ClaimedTenant, *, recreate: bool) -> None:
    database = tenant.names.database
    if tenant.names.role is not Role.OWNER:
        raise NotFoundError(
            f"the database {database!r} does not exist: repair the tenant {tenant.names.tenant!r} itself first",
            status=404,
        )
    if not recreate:
        raise NotFoundError(
            f"the database {database!r} does not exist, and what was in it is lost",
            status=404,
            advice="restore it from a backup of the cluster, or make an empty one with repair(recreate=True)",
        )
