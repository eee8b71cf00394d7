"""Rotate a tenant's credential, and retire the previous one."""

from __future__ import annotations

from datetime import timedelta

from ..._bulk.outcomes import Action
from ...errors import RotationPendingError
from .._context import Context
from .._credential import Credential
from .._outcomes import TenantDone, done
from .._record import Verb, required, suspended
from .._stores import Record
from .jobs import AgedJob
from .tenant import ClaimedTenant, refuse_role


class RotateTenants(AgedJob[TenantDone]):
    """Give each tenant a credential with its other login. See ``Tenants.rotate``."""

    def __init__(self, context: Context, older_than: timedelta | None, *, force: bool) -> None:
        super().__init__(context, older_than, what="older_than")
        self._force = force

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = suspended(record) or required(name, record, self.context.role)
        if credential.suspended or _was_rotated(before, credential) or self.is_young(credential.since):
            return done(Action.KEPT, credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        await refuse_role(tenant)
        if tenant.previous is not None and tenant.intent is None and not self._force:
            raise RotationPendingError(
                f"the tenant {tenant.names.tenant!r} was rotated and the previous credential is not retired: rotating "
                "again would revoke it while programs may still use it",
                advice="retire it first, or pass force=True",
            )
        return done(Action.ROTATED, await rotate(tenant))


async def rotate(tenant: ClaimedTenant) -> Credential:
    """Make the tenant's other login, and store its credential as the current one."""
    other = tenant.names.other(tenant.current.username)
    await tenant.intend(Verb.ROTATE, other)
    credential = await tenant.set_login(other)
    await tenant.held.keep(credential, tenant.current)
    return credential


class RetireTenants(AgedJob[TenantDone]):
    """End the previous credential of each tenant. See ``Tenants.retire``."""

    def __init__(self, context: Context, after: timedelta | None) -> None:
        super().__init__(context, after, what="after")

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = suspended(record) or required(name, record, self.context.role)
        nothing_to_end = record is not None and record.previous is None and record.intended is None
        # After a rotation by another process, programs still use the previous credential: leave it for a later run.
        rotated = _was_rotated(before, credential)
        if credential.suspended or nothing_to_end or rotated or self.is_young(credential.since):
            return done(Action.KEPT, credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        await retire(tenant)
        return done(Action.KEPT if tenant.previous is None else Action.RETIRED, tenant.current)


async def retire(tenant: ClaimedTenant) -> None:
    """End the previous login, or what an unfinished rotation left of it."""
    other = tenant.names.other(tenant.current.username)
    await tenant.intend(Verb.RETIRE, other)
    await tenant.server.end_login(tenant.work, other)
    await tenant.drop_login(other)  # or the next rotation, or ``repair``
    await tenant.held.keep(tenant.current)


def _was_rotated(before: Credential | None, credential: Credential) -> bool:
    """Whether another process has rotated the tenant since this work began."""
    return before is not None and credential.username != before.username
