"""Repair the problems of a tenant that ``check`` finds, in place. No data is dropped."""

from __future__ import annotations

from attrs import evolve

from .._bulk.outcomes import Action
from ..errors import NotFoundError
from ..models import User
from ._checking import examine
from ._claims import ClaimedTenant
from ._credential import Credential
from ._intent import State, Verb, intended_login, state_of
from ._listing import read_user
from ._logins import credential_of, end_login, grant, refused_login, working_credential
from ._loop import ClaimingJob
from ._naming import ROLES, Role, names_of
from ._outcomes import Problem, TenantRepaired
from ._provisioning import ensure_database, provision, refuse_role, run_setup
from ._removal import remove
from ._stores import Record
from ._suspension import resume, suspend
from ._tenancy import Tenancy, suspended, unusable

_OF_STRANGERS = frozenset({Problem.OPEN_TO_OTHERS, Problem.OWNED_BY_OTHERS, Problem.TOO_MANY_RIGHTS})


class RepairTenants(ClaimingJob[TenantRepaired]):
    """Repair each tenant. See ``Tenants.repair``."""

    places = True

    def __init__(self, tenancy: Tenancy, *, recreate: bool = False) -> None:
        super().__init__(tenancy)
        self._recreate = recreate

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantRepaired | None:
        if record is None:
            raise unusable(name, record, self.tenancy.role)
        credential = suspended(record)
        return None if credential is None else TenantRepaired(name=name, action=Action.KEPT, credential=credential)

    async def work(self, tenant: ClaimedTenant) -> TenantRepaired:
        done = await self._finish(tenant)
        if done is not None:
            return done
        await refuse_role(self.tenancy, tenant)
        name, record, setup = tenant.names.tenant, tenant.held.record, self.tenancy.setup
        listing = self.clusters.listings[tenant.cluster.id]
        if record.current is None:  # its creation was not finished
            _, credential = await provision(tenant, "error", listing, setup)
            return TenantRepaired(
                name=name, action=Action.REPAIRED, credential=credential, problems=(Problem.UNFINISHED,)
            )
        problems = await examine(tenant, record, listing)
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
            await self._give_roles(tenant)
            await run_setup(tenant, setup, credential)
        if (credential, previous) != (record.current, record.previous) or record.intended is not None or new:
            await tenant.held.keep(credential, previous)
        return TenantRepaired(name=name, action=Action.REPAIRED, credential=credential, problems=problems)

    async def _finish(self, tenant: ClaimedTenant) -> TenantRepaired | None:
        """Finish a removal, a suspension or a resumption that another process began; None if none began."""
        name, intent = tenant.names.tenant, tenant.held.intent
        state, problem = state_of(tenant.held.record), Problem.UNFINISHED
        if intent is not None and intent.removes:
            await remove(self, tenant, intent.verb)
            action, problem = Action.DELETED, Problem.REMOVAL_UNFINISHED
            credential = await credential_of(tenant, User(intent.login, password=""))
        elif state is State.SUSPENDING:
            action, credential = Action.SUSPENDED, await suspend(self, tenant)
        elif state is State.RESUMING:
            await refuse_role(self.tenancy, tenant)
            action, credential = Action.RESUMED, await resume(self, tenant)
        else:
            return None
        return TenantRepaired(name=name, action=action, credential=credential, problems=(problem,))

    async def _give_roles(self, tenant: ClaimedTenant) -> None:
        """Give the readers and writers their rights on a new database."""
        if tenant.site.sql is None:
            return
        for role in ROLES:
            tenancy = self.tenancy.for_role(role)
            record = await tenancy.record(tenant.names.tenant, tenant.timer)
            names = names_of(tenant.names.tenant, tenant.site.engine, tenancy.prefix, tenancy.role)
            for credential in (record.current, record.previous) if record else ():
                if credential is not None and await read_user(tenant.cluster, credential.username) is not None:
                    await tenant.timer.on_sql(tenant.site.sql.give(names, credential.username))


async def repair(
    tenant: ClaimedTenant, current: Credential, problems: tuple[Problem, ...]
) -> tuple[Credential, Credential | None]:
    """Repair the logins of a tenant and their rights. The database exists.

    The other login comes first: an intent names one login at a time, and the last intent must name the login in use if
    its password is unknown. Returns the current and the previous credential, to be stored.
    """
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
