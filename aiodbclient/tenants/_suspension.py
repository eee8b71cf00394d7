"""Suspend a tenant: end all its logins, and keep its database. Resume it: give it its login back."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from .._bulk.outcomes import Action, Done
from ..errors import SuspendedError
from ._claims import ClaimedTenant
from ._credential import Credential
from ._intent import Verb, intent_of
from ._logins import end_login, working_credential
from ._loop import ClaimingJob
from ._outcomes import TenantDone
from ._provisioning import refuse_role
from ._removal import remove
from ._stores import Record
from ._tenancy import now_of, suspended, unusable, usable


class SuspendTenants(ClaimingJob[TenantDone]):
    """Suspend each tenant, with its readers and writers. See ``Tenants.suspend``."""

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        if not _has_logins(record):
            raise unusable(name, record, self.tenancy.role)
        credential = suspended(record)
        return None if credential is None else TenantDone(name=name, action=Action.KEPT, credential=credential)

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        credential = await suspend(self, tenant)
        return TenantDone(name=tenant.names.tenant, action=Action.SUSPENDED, credential=credential)


class ResumeTenants(ClaimingJob[TenantDone]):
    """Give each suspended tenant, with its readers and writers, a new password. See ``Tenants.resume``."""

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = usable(record)
        if credential is not None:
            return TenantDone(name=name, action=Action.KEPT, credential=credential)
        error = unusable(name, record, self.tenancy.role)
        if not isinstance(error, SuspendedError):
            raise error
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        await refuse_role(self.tenancy, tenant)
        if _is_being_suspended(tenant):
            await suspend(self, tenant)
            return None
        credential = await resume(self, tenant)
        return TenantDone(name=tenant.names.tenant, action=Action.RESUMED, credential=credential)


class SuspendRole(ClaimingJob[Done]):
    """Suspend the reader or writer of a tenant that is being suspended. One that was never finished is removed."""

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> Done | None:
        return Done(name=name, action=Action.KEPT) if record is None or suspended(record) is not None else None

    async def work(self, tenant: ClaimedTenant) -> Done:
        if _has_logins(tenant.held.record):
            await suspend(self, tenant)
        else:
            await remove(self, tenant, Verb.REMOVE)
        return Done(name=tenant.names.tenant, action=Action.SUSPENDED)


class ResumeRole(ClaimingJob[Done]):
    """Resume the reader or writer of a tenant that is being resumed."""

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> Done | None:
        is_suspended = _has_logins(record) and isinstance(unusable(name, record), SuspendedError)
        return None if is_suspended and usable(record) is None else Done(name=name, action=Action.KEPT)

    async def work(self, tenant: ClaimedTenant) -> Done | None:
        if _is_being_suspended(tenant):
            await suspend(self, tenant)
            return None
        await resume(self, tenant)
        return Done(name=tenant.names.tenant, action=Action.RESUMED)


async def suspend(job: ClaimingJob[Any], tenant: ClaimedTenant) -> Credential:
    """End all logins of a tenant and of its roles, and store since when it is suspended. Return its credential."""
    record, names = tenant.held.record, tenant.names
    current = record.current
    assert current is not None
    kept = {each.username: each for each in (current, record.previous) if each is not None}
    other = names.other(current.username)
    # From now on ``get`` returns None, and no role can be created.
    await tenant.intend(Verb.SUSPEND, current.username)
    await job.on_roles(SuspendRole, tenant)
    await end_login(tenant, current.username, certain=False, stored=current)
    await end_login(tenant, other, certain=False, stored=kept.get(other))
    if tenant.site.sql is not None:
        await tenant.timer.on_sql(tenant.site.sql.shut(names))
    since = current.suspended or await tenant.timer.on_store(now_of(tenant.held.store))
    credential = evolve(current, suspended=since, spare=current.spare or other in kept)
    await tenant.held.keep(credential)
    return credential


async def resume(job: ClaimingJob[Any], tenant: ClaimedTenant) -> Credential:
    """Give a suspended tenant its login back, then its roles theirs. Return its credential.

    Its own credential is stored last. So until its roles have theirs, it counts as suspended.
    """
    current = tenant.held.record.current
    assert current is not None
    await tenant.intend(Verb.RESET, current.username)
    credential = await working_credential(tenant, current.username, exists=True, in_use=False)
    credential = evolve(credential, spare=current.spare)
    await job.on_roles(ResumeRole, tenant)
    await tenant.held.keep(credential)
    return credential


def _has_logins(record: Record | None) -> bool:
    """Whether the tenant was created, and its removal has not begun."""
    intent = intent_of(record)
    return record is not None and record.current is not None and not (intent is not None and intent.removes)


def _is_being_suspended(tenant: ClaimedTenant) -> bool:
    return tenant.held.intent is not None and tenant.held.intent.verb is Verb.SUSPEND
