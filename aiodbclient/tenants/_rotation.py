"""Rotate a tenant's credential, and retire the previous one."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from .._bulk.outcomes import Action
from ..errors import RotationPendingError
from ._credential import Credential
from ._intent import Verb
from ._logins import end_login, working_credential
from ._loop import AgedJob
from ._outcomes import TenantDone
from ._provisioning import refuse_role
from ._stores import Record
from ._tenancy import ClaimedTenant, Tenancy, required, suspended


class RotateTenants(AgedJob[TenantDone]):
    """Give each tenant a credential with its other login. See ``Tenants.rotate``."""

    def __init__(self, tenancy: Tenancy, older_than: timedelta | None, *, force: bool) -> None:
        super().__init__(tenancy, older_than, what="older_than")
        self._force = force

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = suspended(record) or required(name, record, self.tenancy.role)
        if credential.suspended or _was_rotated(before, credential) or self.is_young(credential.since):
            return TenantDone(name=name, action=Action.KEPT, credential=credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        """Create or reset the tenant's other login, and store its credential as the current one."""
        await refuse_role(tenant)
        record = tenant.held.record
        current, previous = required(tenant.names.tenant, record), record.previous
        other = tenant.names.other(current.username)
        if previous is not None and record.intended is None and not self._force:
            raise RotationPendingError(
                f"the tenant {tenant.names.tenant!r} was rotated and the previous credential is not retired: rotating "
                "again would revoke it while programs may still use it",
                advice="retire it first, or pass force=True",
            )
        exists = current.spare or previous is not None
        await tenant.intend(Verb.RESET if exists else Verb.MAKE, other)
        if previous is not None and tenant.site.sql is not None:
            # Without this, an open session of the other login could set its password after us.
            await end_login(tenant, other, certain=True, stored=previous)
        credential = await working_credential(tenant, other, exists=exists, in_use=False)
        await tenant.held.keep(credential, current)
        return TenantDone(name=tenant.names.tenant, action=Action.ROTATED, credential=credential)


class RetireTenants(AgedJob[TenantDone]):
    """End the previous credential of each tenant. See ``Tenants.retire``."""

    def __init__(self, tenancy: Tenancy, after: timedelta | None, *, end_sessions: bool) -> None:
        super().__init__(tenancy, after, what="after")
        self._end_sessions = end_sessions

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = suspended(record) or required(name, record, self.tenancy.role)
        nothing_to_end = record is not None and record.previous is None and record.intended is None
        # After a rotation by another process, programs still use the previous credential: leave it for a later run.
        rotated = _was_rotated(before, credential)
        if credential.suspended or nothing_to_end or rotated or self.is_young(credential.since):
            return TenantDone(name=name, action=Action.KEPT, credential=credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        """End the previous credential, or what an unfinished rotation left on its login."""
        record = tenant.held.record
        current, previous = required(tenant.names.tenant, record), record.previous
        other = tenant.names.other(current.username)
        await tenant.intend(Verb.END, other)
        await end_login(tenant, other, certain=previous is not None, stored=previous, end_sessions=self._end_sessions)
        await tenant.held.keep(evolve(current, spare=True))
        action = Action.KEPT if previous is None else Action.RETIRED
        return TenantDone(name=tenant.names.tenant, action=action, credential=current)


def _was_rotated(before: Credential | None, credential: Credential) -> bool:
    """Whether another process has rotated the tenant since this work began."""
    return before is not None and credential.username != before.username
