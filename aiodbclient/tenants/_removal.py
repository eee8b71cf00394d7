"""Remove a tenant: its logins, its database with all data, and last its record."""

from __future__ import annotations

from functools import partial

from .._bulk.outcomes import Action
from ..errors import ConflictError
from ._claims import ClaimedTenant
from ._credential import Credential
from ._endings import Deletion, end_login, if_there
from ._loop import ClaimingJob
from ._outcomes import TenantRemoved
from ._prefixes import delete_leftovers
from ._roles import Role
from ._stores import Record
from ._tenancy import Tenancy


class RemoveTenants(ClaimingJob[TenantRemoved]):
    """Remove each tenant, with its readers and writers. See ``Tenants.remove``."""

    def __init__(self, tenancy: Tenancy, *, keep_database: bool = False) -> None:
        super().__init__(tenancy)
        self._keep_database = keep_database

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantRemoved | None:
        return TenantRemoved(name=name, action=Action.ABSENT) if record is None else None

    async def work(self, tenant: ClaimedTenant) -> TenantRemoved:
        record, name = tenant.held.record, tenant.names.tenant
        if record.current is None and record.intended is None:
            await tenant.held.forget()  # nothing was ever created for it
            return TenantRemoved(name=name, action=Action.ABSENT)
        current = record.current.username if record.current else record.intended or tenant.names.logins[0]
        await tenant.held.intend(current)  # from now on ``get`` returns None, and no role can be created
        if self.tenancy.role is Role.OWNER:
            for role in (Role.WRITER, Role.READER):
                await RemoveTenants(self.tenancy.for_role(role)).do_one(name, tenant.spent)
        await remove(tenant, keep_database=self._keep_database)
        return TenantRemoved(name=name, action=Action.DELETED)


async def remove(tenant: ClaimedTenant, *, keep_database: bool) -> None:
    """Remove the logins of one role and, if it is the owner, the database; then the record.

    Args:
        tenant: The tenant, with a stored intent.
        keep_database: Whether the database stays, closed to all but the administrator.
    """
    record, names, sql = tenant.held.record, tenant.names, tenant.site.sql
    kept = [each for each in (record.current, record.previous) if each is not None]
    known = {record.intended, *(each.username for each in kept)}
    for login in names.logins:
        password = next((each.password for each in kept if each.username == login != record.intended), None)
        await _delete_login(tenant, login, password, certain=login in known)
    if names.role is Role.OWNER:
        if keep_database:
            if sql is not None:
                await tenant.spent.on_sql(sql.release(names))
        elif names.database is None:
            await _delete_objects(tenant)
        else:
            if sql is not None:
                await tenant.spent.on_sql(sql.before_removal(names))
            await tenant.held.renew()
            await if_there(partial(tenant.cluster.dbs.delete, names.database), certain=True)
    if sql is not None and not (keep_database and names.role is Role.OWNER):
        await tenant.spent.on_sql(sql.forget(names))
    await tenant.held.forget()


async def _delete_objects(tenant: ClaimedTenant) -> None:
    """Delete the tenant's topics or indexes. Otherwise the next tenant of this name could read them."""
    left = await delete_leftovers(tenant.cluster, tenant.site.engine, tenant.names)
    if left:
        raise ConflictError(
            f"{len(left)} of the topics or indexes of the tenant {tenant.names.tenant!r} are still there, such as "
            f"{left[0]!r}: remove the tenant again",
            status=409,
            may_have_applied=True,
        )


async def _delete_login(tenant: ClaimedTenant, login: str, password: str | None, *, certain: bool) -> None:
    """End the sessions of ``login``, and delete it. This uses the stored password if it still works."""
    deletion = Deletion(tenant, login, certain=certain)
    if tenant.site.sql is not None:
        await end_login(tenant, login, certain=certain, password=password, deletion=deletion)
    if not deletion.done:
        await deletion.run()
