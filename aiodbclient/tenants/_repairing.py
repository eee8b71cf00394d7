"""Repair the problems of a tenant that ``check`` finds, in place. No data is dropped."""

from __future__ import annotations

from attrs import evolve

from .._bulk.outcomes import Action
from ..errors import InvalidArgumentError, NotFoundError
from ..models import User
from ._checking import examine
from ._claims import ClaimedTenant
from ._credential import Credential
from ._endings import end_login
from ._listing import Listing, read_user
from ._logins import grant, refused_login, working_credential
from ._loop import ClaimingJob
from ._naming import names_of, record_name
from ._outcomes import TenantRepaired
from ._problems import Problem
from ._provisioning import ensure_database, provision, refuse_role, run_setup
from ._roles import Role
from ._stores import Record
from ._tenancy import Tenancy


_OF_STRANGERS = frozenset({Problem.OPEN_TO_OTHERS, Problem.OWNED_BY_OTHERS, Problem.TOO_MANY_RIGHTS})


class RepairTenants(ClaimingJob[TenantRepaired]):
    """Repair each tenant. See ``Tenants.repair``."""

    def __init__(self, tenancy: Tenancy, *, recreate: bool = False) -> None:
        super().__init__(tenancy)
        self._recreate = recreate
        self._listing = Listing()

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantRepaired | None:
        if record is None:
            raise InvalidArgumentError(f"the tenant {name!r} is not on record: provision it first; nothing was sent")
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantRepaired:
        await refuse_role(self.tenancy, tenant)
        name, record, setup = tenant.names.tenant, tenant.held.record, self.tenancy.setup
        if record.current is None:  # its creation was not finished
            _, credential = await provision(tenant, "error", self._listing, setup)
            return TenantRepaired(
                name=name, action=Action.REPAIRED, credential=credential, problems=(Problem.UNFINISHED,)
            )
        problems = await examine(tenant, record, self._listing)
        if not problems:
            return TenantRepaired(name=name, action=Action.KEPT, credential=record.current)
        # A process may have died between creating the database and setting it up. Then the intent is on this login.
        new = record.intended == record.current.username
        if Problem.DATABASE_MISSING in problems:
            _refuse_loss(tenant, recreate=self._recreate)
            await tenant.held.intend(record.current.username)
            new = await ensure_database(tenant, ours=True)
        credential, previous = await repair(tenant, record.current, problems)
        if tenant.site.sql is not None and _OF_STRANGERS.intersection(problems):
            await tenant.spent.on_sql(tenant.site.sql.reclaim(tenant.names))
        if new:
            await self._give_roles(tenant)
            await run_setup(tenant, setup, credential)
        if (credential, previous) != (record.current, record.previous) or record.intended is not None or new:
            await tenant.held.keep(credential, previous)
        return TenantRepaired(name=name, action=Action.REPAIRED, credential=credential, problems=problems)

    async def _give_roles(self, tenant: ClaimedTenant) -> None:
        """Give the readers and writers their rights on a new database."""
        if tenant.site.sql is None:
            return
        for role in (Role.WRITER, Role.READER):
            key = record_name(tenant.names.tenant, role)
            record = await tenant.spent.on_store(self.tenancy.store.get(key))
            names = names_of(tenant.names.tenant, tenant.site.engine, self.tenancy.prefix, role)
            for credential in (record.current, record.previous) if record else ():
                if credential is not None and await read_user(tenant.cluster, credential.username) is not None:
                    await tenant.spent.on_sql(tenant.site.sql.give(names, credential.username))


async def repair(
    tenant: ClaimedTenant, current: Credential, problems: tuple[Problem, ...]
) -> tuple[Credential, Credential | None]:
    """Repair the logins of a tenant and their rights. The database exists.

    The other login comes first: an intent names one login at a time, and the last intent must name the login in use if
    its password is unknown.

    Args:
        tenant: The tenant, under its claim.
        current: The credential on record.
        problems: Its problems.

    Returns:
        The current and the previous credential, to be stored.
    """
    record = tenant.held.record
    previous, other = record.previous, tenant.names.other(current.username)
    if Problem.PREVIOUS_REFUSED in problems or record.intended == other:
        if record.intended != current.username:  # otherwise the login in use has an unknown password
            await tenant.held.intend(other)
        await end_login(tenant, other, certain=False)
        previous = None
    elif previous is not None and tenant.site.sql is not None:
        await _give_rights(tenant, previous)
    missing = Problem.LOGIN_MISSING in problems
    if missing or Problem.PASSWORD_REFUSED in problems or record.intended == current.username:
        await tenant.held.intend(current.username)
        return await working_credential(tenant, current.username, there=not missing), previous
    await _give_rights(tenant, current)
    return current, previous


async def _give_rights(tenant: ClaimedTenant, credential: Credential) -> None:
    """Give a working login its rights again. Its password stays."""
    user = await read_user(tenant.cluster, credential.username) or User(credential.username)
    refused = await grant(tenant, evolve(user, password=credential.password), made=False)
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
            f"the database {database!r} does not exist, and what was in it is lost: restore it from a backup of the "
            "cluster, or make an empty one with repair(recreate=True)",
            status=404,
        )
