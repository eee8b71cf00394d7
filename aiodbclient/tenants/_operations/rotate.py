"""Rotate each tenant, then revoke its previous login."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from .._context import Context
from .._naming import Role
from .._outcomes import TenantAction, TenantDone, done
from .._records import OperationKind, TenantRecord, TenantState, operation_on, rotated, unusable
from ..errors import RotationPendingError
from .loop import ChangeTenants
from .tenant import Tenant


class _ChangeLogins(ChangeTenants[TenantDone]):
    """What a rotation and a revocation have in common: what is young, or was rotated meanwhile, is left alone."""

    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> TenantDone | None:
        role = self.context.role
        login = None if record is None else record.current(role)
        if record is None or login is None or record.state(role) not in (TenantState.USABLE, TenantState.SUSPENDED):
            raise unusable(record, name, role)
        # After a rotation by another process, programs still use the previous login: leave it for a later run.
        was_rotated = at_start is not None and login.username not in [each.username for each in at_start.logins]
        # What a process began that died is finished, however young the login is.
        is_too_young = self.is_too_young(login.created) and not _is_unfinished(record, role, self.continues)
        is_settled = record.state(role) is TenantState.SUSPENDED or was_rotated or is_too_young
        return done(TenantAction.KEPT, record, role) if is_settled else None


class RotateTenants(_ChangeLogins):
    """``Tenants.rotate``: give each tenant a credential with a new login."""

    continues = OperationKind.ROTATE

    def __init__(self, context: Context, older_than: timedelta | None, *, force: bool) -> None:
        super().__init__(context, older_than)
        self._force = force

    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> TenantDone | None:
        kept, role = super().precheck(name, record, at_start), self.context.role
        if record is None or kept is not None or record.previous(role) is None or self._force:
            return kept
        if not _is_unfinished(record, role, OperationKind.REVOKE):
            raise RotationPendingError(
                f"the tenant {name!r} has a previous credential that is not revoked: rotating again would revoke it "
                "while programs may still use it",
                advice="revoke it first, or pass force=True",
            )
        return None

    async def change(self, tenant: Tenant) -> TenantDone:
        role = tenant.role
        await tenant.drop_unfinished_logins()  # of an earlier process
        if tenant.stored.previous(role) is not None:
            await tenant.revoke_previous(role)
        [login] = tenant.next_logins()
        await tenant.start(OperationKind.ROTATE, [login], role=role)
        await tenant.save(rotated(tenant.stored, await tenant.add_login(login, role)))
        return done(TenantAction.ROTATED, tenant.stored, role)


class RevokePrevious(_ChangeLogins):
    """``Tenants.revoke_previous``: end the previous login of each tenant."""

    continues = OperationKind.REVOKE

    def __init__(self, context: Context, older_than: timedelta | None, *, unused: bool) -> None:
        super().__init__(context, older_than)
        self._unused = unused

    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> TenantDone | None:
        kept, role = super().precheck(name, record, at_start), self.context.role
        if record is not None and record.previous(role) is None and record.operation is None:
            return done(TenantAction.KEPT, record, role)
        return kept

    async def change(self, tenant: Tenant) -> TenantDone:
        previous = tenant.stored.previous(tenant.role)
        assert previous is not None  # otherwise there was nothing to do
        # What a process began that died is finished: the login may be disabled already.
        is_begun = _is_unfinished(tenant.stored, tenant.role, self.continues)
        if (
            self._unused
            and not is_begun
            and (sessions := await tenant.cluster.server.count_sessions(previous.username))
        ):
            return evolve(done(TenantAction.KEPT, tenant.stored, tenant.role), sessions=sessions)
        await tenant.revoke_previous(tenant.role)
        return done(TenantAction.REVOKED, tenant.stored, tenant.role)


def _is_unfinished(record: TenantRecord, role: Role, kind: OperationKind | None) -> bool:
    """Whether a process died in an operation of this kind on a role."""
    operation = operation_on(record, role)
    return operation is not None and operation.kind is kind
