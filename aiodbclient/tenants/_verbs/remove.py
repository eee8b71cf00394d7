"""Remove a tenant: its logins, its database with all data, and last its record."""

from __future__ import annotations

from datetime import timedelta

from ..._bulk.outcomes import Action
from .._context import Context
from .._credential import Credential
from .._naming import Role
from .._outcomes import TenantRemoved
from .._record import State, Verb, is_empty, state_of, suspended, unusable
from .._stores import Record
from .jobs import AgedJob
from .tenant import ClaimedTenant, on_roles


class RemoveTenants(AgedJob[TenantRemoved]):
    """Remove each tenant, with its readers and writers. See ``Tenants.remove``."""

    def __init__(
        self, context: Context, *, keep_database: bool = False, suspended_for: timedelta | None = None
    ) -> None:
        super().__init__(context, suspended_for, what="suspended_for")
        self._verb = Verb.RELEASE if keep_database else Verb.REMOVE

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantRemoved | None:
        state = state_of(record)
        if record is None:
            return TenantRemoved(name=name, action=Action.ABSENT)
        if state is State.MOVING:
            raise unusable(name, record, self.context.role)
        if self.age is None or state is State.REMOVING:
            return None
        credential = suspended(record)
        if credential is None or self.is_young(credential.suspended):
            return TenantRemoved(name=name, action=Action.KEPT)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantRemoved:
        name = tenant.names.tenant
        if is_empty(tenant.record):
            return TenantRemoved(name=name, action=Action.ABSENT)
        await remove(tenant, self._verb)
        return TenantRemoved(name=name, action=Action.DELETED)


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
        await tenant.server.end_login(tenant.work, login)
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
