"""Rotate a tenant's credential, and retire the previous one."""

from __future__ import annotations

from datetime import datetime, timedelta

from .._bulk.outcomes import Action
from .._request.call import Meter
from ..errors import InvalidArgumentError, RotationPendingError
from ._claims import ClaimedTenant
from ._credential import Credential
from ._endings import end_login
from ._logins import working_credential
from ._loop import ClaimingJob
from ._outcomes import TenantDone
from ._provisioning import refuse_role
from ._stores import Record
from ._tenancy import Tenancy, now_of, required, usable


class AgedJob(ClaimingJob[TenantDone]):
    """A job that skips tenants whose credential is younger than ``age``.

    Ages are measured from the start of the run, by the store's clock. So a rotation by another process during the run
    always counts as young.
    """

    def __init__(self, tenancy: Tenancy, age: timedelta | None) -> None:
        super().__init__(tenancy)
        self._age = age
        self._now: datetime | None = None

    async def prepare(self, meter: Meter) -> int:
        if self._age is not None:
            self._now = await now_of(self.tenancy.store)
        return await super().prepare(meter)

    def is_young(self, credential: Credential) -> bool:
        """Whether ``credential`` is younger than the age. One without a date, from version 0.1, is old."""
        if self._age is None or self._now is None or credential.since is None:
            return False
        return self._now - credential.since < self._age


def check_age(name: str, age: timedelta | None) -> timedelta | None:
    """Return ``age``. Raises InvalidArgumentError if it is not a timedelta of 0 or more."""
    if age is not None and (not isinstance(age, timedelta) or age < timedelta(0)):
        raise InvalidArgumentError(f"{name} must be a timedelta of 0 or more, not {age!r}")
    return age


class RotateTenants(AgedJob):
    """Give each tenant a credential with its other login. See ``Tenants.rotate``."""

    def __init__(self, tenancy: Tenancy, older_than: timedelta | None, *, force: bool) -> None:
        super().__init__(tenancy, check_age("older_than", older_than))
        self._force = force

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = required(name, usable(record))
        by_others = before is not None and credential.username != before.username
        if by_others or self.is_young(credential):
            return TenantDone(name=name, action=Action.KEPT, credential=credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        await refuse_role(self.tenancy, tenant)
        credential = await rotate(tenant, force=self._force)
        return TenantDone(name=tenant.names.tenant, action=Action.ROTATED, credential=credential)


class RetireTenants(AgedJob):
    """End the previous credential of each tenant. See ``Tenants.retire``."""

    def __init__(self, tenancy: Tenancy, after: timedelta | None, *, end_sessions: bool) -> None:
        super().__init__(tenancy, check_age("after", after))
        self._end_sessions = end_sessions

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = required(name, usable(record))
        assert record is not None
        nothing_to_end = record.previous is None and record.intended is None
        # If another process rotated it meanwhile, programs still use the previous credential: leave it for a later run.
        rotated = before is not None and credential.username != before.username
        if nothing_to_end or rotated or self.is_young(credential):
            return TenantDone(name=name, action=Action.KEPT, credential=credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        # Without a previous credential, this only cleans up after an unfinished rotation.
        action = Action.KEPT if tenant.held.record.previous is None else Action.RETIRED
        credential = await retire(tenant, end_sessions=self._end_sessions)
        return TenantDone(name=tenant.names.tenant, action=action, credential=credential)


async def rotate(tenant: ClaimedTenant, *, force: bool) -> Credential:
    """Create or reset the tenant's other login, and store its credential as the current one.

    The login in use is not touched and still works.

    Raises:
        InvalidArgumentError: The tenant has no credential on record.
        RotationPendingError: The previous credential is not retired, and ``force`` is false. Not raised if the intent
            names its login: a ``retire`` or a forced rotation has begun to end it.
    """
    record = tenant.held.record
    current, previous = required(tenant.names.tenant, usable(record)), record.previous
    other = tenant.names.other(current.username)
    if previous is not None and record.intended != other and not force:
        raise RotationPendingError(
            f"the tenant {tenant.names.tenant!r} was rotated and the credential from before is not retired: rotating "
            "again would end it while programs may still use it",
            advice="retire it first, or pass force=True",
        )
    await tenant.held.intend(other)
    # Without this, an open session of the other login could set its password after us.
    if previous is not None and tenant.site.sql is not None:
        await end_login(tenant, other, certain=True)
    credential = await working_credential(tenant, other, there=previous is not None)
    await tenant.held.keep(credential, current)
    return credential


async def retire(tenant: ClaimedTenant, *, end_sessions: bool) -> Credential:
    """End the previous credential, or what an unfinished rotation left on its login.

    Returns:
        The credential in use.

    Raises:
        InvalidArgumentError: The tenant has no credential on record.
    """
    record = tenant.held.record
    current = required(tenant.names.tenant, usable(record))
    other = tenant.names.other(current.username)
    await tenant.held.intend(other)
    await end_login(tenant, other, certain=record.previous is not None, end_sessions=end_sessions)
    await tenant.held.keep(current)
    return current
