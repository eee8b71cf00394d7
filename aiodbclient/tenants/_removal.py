"""Remove a tenant: its logins, its database with all data, and last its record."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import timedelta
from functools import partial

from .._bulk.outcomes import Action
from ..errors import ConflictError, GrantError
from ._credential import Credential
from ._intent import State, Verb, intended_login, is_empty, state_of
from ._logins import delete_login, end_login, if_there
from ._loop import AgedJob, on_roles
from ._naming import Role
from ._outcomes import TenantRemoved
from ._prefixes import delete_leftovers
from ._stores import Record
from ._tenancy import ClaimedTenant, Tenancy, suspended


class RemoveTenants(AgedJob[TenantRemoved]):
    """Remove each tenant, with its readers and writers. See ``Tenants.remove``."""

    def __init__(
        self, tenancy: Tenancy, *, keep_database: bool = False, suspended_for: timedelta | None = None
    ) -> None:
        super().__init__(tenancy, suspended_for, what="suspended_for")
        self._verb = Verb.RELEASE if keep_database else Verb.REMOVE

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantRemoved | None:
        if record is None:
            return TenantRemoved(name=name, action=Action.ABSENT)
        if self.age is None or state_of(record) is State.REMOVING:
            return None
        credential = suspended(record)
        if credential is None or self.is_young(credential.suspended):
            return TenantRemoved(name=name, action=Action.KEPT)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantRemoved:
        record, name = tenant.held.record, tenant.names.tenant
        if is_empty(record):
            return TenantRemoved(name=name, action=Action.ABSENT)
        await remove(tenant, self._verb)
        return TenantRemoved(name=name, action=Action.DELETED)


async def remove(tenant: ClaimedTenant, verb: Verb) -> None:
    """Remove a tenant, or its reader or writer. ``Verb.RELEASE`` keeps the database."""
    record, names, sql = tenant.held.record, tenant.names, tenant.site.sql
    kept = {each.username: each for each in (record.current, record.previous) if each is not None}
    intended = intended_login(record)
    ended = state_of(record) in (State.SUSPENDED, State.REMOVING)
    # From now on ``get`` returns None, and no role can be created.
    await tenant.intend(verb, record.current.username if record.current else intended or names.logins[0])
    certain = {login for login in names.logins if not ended and (login in kept or login == intended)}
    whole, failed = names.role is Role.OWNER, False
    present: Sequence[str] = names.logins
    if sql is not None:
        try:
            present = await _end_logins(tenant, certain, kept)
        except GrantError:
            if not whole or verb is Verb.RELEASE:
                raise
            failed = True  # the deletion of the database ends what is in it, such as sessions that keep the login
    await on_roles(RemoveTenants, tenant)
    if sql is None:  # a login could make its database again
        await _delete_logins(tenant, present, certain)
    if whole:
        await _remove_data(tenant, verb)
    if failed:
        present = await _end_logins(tenant, certain, {})
    if sql is not None:  # last: no session can act as a login while it is deleted
        await _delete_logins(tenant, present, certain)
    if sql is not None and not (verb is Verb.RELEASE and whole):
        await tenant.timer.on_sql(sql.forget(names))
    await tenant.held.forget()


async def _end_logins(tenant: ClaimedTenant, certain: Container[str], kept: Mapping[str, Credential]) -> Sequence[str]:
    """End the logins, and return those that exist."""
    return [
        login
        for login in tenant.names.logins
        if await end_login(tenant, login, certain=login in certain, stored=kept.get(login))
    ]


async def _delete_logins(tenant: ClaimedTenant, logins: Sequence[str], certain: Container[str]) -> None:
    for login in logins:
        await delete_login(tenant, login, certain=login in certain)


async def _remove_data(tenant: ClaimedTenant, verb: Verb) -> None:
    names, sql = tenant.names, tenant.site.sql
    if verb is Verb.RELEASE:
        if sql is not None:
            await tenant.timer.on_sql(sql.release(names))
    elif names.database is None:
        await _delete_objects(tenant)
    else:
        if sql is not None:
            await tenant.timer.on_sql(sql.before_removal(names))
        await tenant.held.renew()
        await if_there(partial(tenant.cluster.dbs.delete, names.database), certain=True)


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
