"""Change a tenant that is there: rotate and revoke it, suspend and resume it, remove it.

Each job says when there is nothing to do, then what it intends, its steps, and what it keeps:

- **rotate** intends the other login. Set it. Keeps both.
- **revoke** intends the other login. End and drop it. Keeps the current credential alone.
- **suspend** intends the current login. End all logins, those of the roles too, shut the database. Keeps the date.
- **resume** intends the current login. Set it, then those of the roles. Keeps the new credential.
- **remove** intends the first login. End all logins, remove the roles, drop the database and the logins. Keeps nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from attrs import evolve

from .._context import Context
from .._credential import Credential
from .._naming import Names, Role
from .._outcomes import TenantAction, TenantDone, TenantRemoved, done
from .._record import OnRecord, State, Verb
from ..errors import RotationPendingError
from .jobs import ClaimingJob
from .tenant import ClaimedTenant, on_roles, refuse_role
from .unfinished import end_copying_here

SUSPENSION = (State.SUSPENDING, State.SUSPENDED, State.RESUMING)


class RotateTenants(ClaimingJob[TenantDone]):
    """Give each tenant a credential with its other login. See ``Tenants.rotate``."""

    ends_copying = True

    def __init__(self, context: Context, older_than: timedelta | None, *, force: bool) -> None:
        super().__init__(context, older_than, what="older_than")
        self._force = force

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        credential = record.suspended or record.required()
        if credential.suspended or _was_rotated(before, credential) or self.is_young(credential.since):
            return done(TenantAction.KEPT, credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        if await end_copying_here(tenant):
            return None
        await refuse_role(tenant)
        current, previous = tenant.current, tenant.record.previous
        if previous is not None and not self._force and await self._is_in_use(tenant, previous):
            raise RotationPendingError(
                f"the tenant {tenant.names.tenant!r} was rotated and the previous credential is not revoked: rotating "
                "again would revoke it while programs may still use it",
                advice="revoke it first, or pass force=True",
            )
        other = tenant.names.other(current.username)
        await tenant.begin(Verb.ROTATE, other)
        credential = await tenant.set_login(other)
        await tenant.held.commit(credential, current)
        return done(TenantAction.ROTATED, credential)

    async def _is_in_use(self, tenant: ClaimedTenant, previous: Credential) -> bool:
        """Whether programs may use the previous credential: a verb that did not finish may have ended it."""
        intent = tenant.record.intent
        if intent is None or not intent.ends_other:
            return True
        return await tenant.works(previous, (await tenant.server.find(tenant.names)).logins)


class RevokePrevious(ClaimingJob[TenantDone]):
    """End the previous credential of each tenant. See ``Tenants.revoke_previous``."""

    ends_copying = True

    def __init__(self, context: Context, older_than: timedelta | None, *, unused: bool) -> None:
        super().__init__(context, older_than, what="older_than")
        self._unused = unused

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        credential = record.suspended or record.required()
        nothing_to_end = record.previous is None and record.intent is None
        # After a rotation by another process, programs still use the previous credential: leave it for a later run.
        rotated = _was_rotated(before, credential)
        if credential.suspended or nothing_to_end or rotated or self.is_young(credential.since):
            return done(TenantAction.KEPT, credential)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        if await end_copying_here(tenant):
            return None
        current, previous = tenant.current, tenant.record.previous
        if self._unused and previous is not None and (open := await tenant.server.count_sessions(previous.username)):
            return TenantDone(name=current.name, action=TenantAction.KEPT, credential=current, sessions=open)
        other = tenant.names.other(current.username)  # or what an unfinished rotation left of it
        await tenant.begin(Verb.REVOKE, other)
        await tenant.server.end_logins(tenant.work, [other])
        await tenant.drop_login(other)  # or the next rotation, or ``repair``
        await tenant.held.commit(current, None)
        return done(TenantAction.KEPT if previous is None else TenantAction.REVOKED, current)


def _was_rotated(before: Credential | None, credential: Credential) -> bool:
    """Whether another process has rotated the tenant since this work began."""
    return before is not None and credential.username != before.username


class SuspendTenants(ClaimingJob[TenantDone]):
    """Suspend each tenant, with its readers and writers. See ``Tenants.suspend``."""

    ends_copying = True

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        if record.state in (State.ABSENT, State.PROVISIONING, State.REMOVING, State.MOVING):
            raise record.unusable()
        return None if record.suspended is None else done(TenantAction.KEPT, record.suspended)

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        if await end_copying_here(tenant):
            return None
        return done(TenantAction.SUSPENDED, await suspend(tenant))


async def suspend(tenant: ClaimedTenant) -> Credential:
    """End all logins of a tenant and of its roles, and store since when it is suspended. Return its credential."""
    current, other = tenant.current, tenant.names.other(tenant.current.username)
    # From now on ``get`` returns None, and no role can be made.
    await tenant.begin(Verb.SUSPEND, current.username)
    await tenant.server.end_logins(tenant.work, ended_by(tenant.names))
    await on_roles(tenant, _suspend_role)
    if tenant.was_adopted(other):
        await tenant.drop_login(other)
    await tenant.server.shut(tenant.work)
    suspended = current.suspended or await tenant.now()
    credential = evolve(current, suspended=suspended)
    await tenant.held.commit(credential, None)
    return credential


def ended_by(names: Names) -> Collection[str]:
    """The logins that end with a tenant, those of its roles too, or with one of its roles."""
    return names.all_logins if names.role is Role.OWNER else names.logins


async def _suspend_role(role: ClaimedTenant) -> None:
    if role.record.state in (State.PROVISIONING, State.REMOVING):
        await remove(role)
    elif role.record.state not in (State.ABSENT, State.SUSPENDED):
        await suspend(role)


class ResumeTenants(ClaimingJob[TenantDone]):
    """Give each suspended tenant, with its readers and writers, a new password. See ``Tenants.resume``."""

    ends_copying = True

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        if record.usable is not None:
            return done(TenantAction.KEPT, record.usable)
        if record.state not in SUSPENSION:
            raise record.unusable()
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        if await end_copying_here(tenant):
            return None
        await refuse_role(tenant)
        if tenant.record.state is State.SUSPENDING:
            await suspend(tenant)
            return None
        return done(TenantAction.RESUMED, await resume(tenant))


async def resume(tenant: ClaimedTenant) -> Credential:
    """Give a suspended tenant its login back, then its roles theirs. Return its credential."""
    login = tenant.current.username
    await tenant.begin(Verb.RESUME, login)
    credential = await tenant.set_login(login)
    await on_roles(tenant, _resume_role)  # before its own: until they have theirs, it counts as suspended
    await tenant.held.commit(credential, None)
    return credential


async def _resume_role(role: ClaimedTenant) -> None:
    if role.record.state in SUSPENSION:
        await resume(role)


class RemoveTenants(ClaimingJob[TenantRemoved]):
    """Remove each tenant, with its readers and writers. See ``Tenants.remove``."""

    def __init__(self, context: Context, *, suspended_for: timedelta | None = None) -> None:
        super().__init__(context, suspended_for, what="suspended_for")

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantRemoved | None:
        if not record.exists:
            return TenantRemoved(name=record.name, action=TenantAction.ABSENT)
        if record.state is State.MOVING:
            raise record.unusable()
        if self.age is None or record.state is State.REMOVING:
            return None
        if record.suspended is None or self.is_young(record.suspended.suspended):
            return TenantRemoved(name=record.name, action=TenantAction.KEPT)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantRemoved:
        name = tenant.names.tenant
        if tenant.record.is_empty:
            return TenantRemoved(name=name, action=TenantAction.ABSENT)
        await remove(tenant)
        return TenantRemoved(name=name, action=TenantAction.DELETED)


async def remove(tenant: ClaimedTenant) -> None:
    """Remove a tenant, or its reader or writer.

    Its logins end first, so that nothing of it works on. They are dropped after the database, with what they owned.
    """
    names, server, work = tenant.names, tenant.server, tenant.work
    is_whole, logins = names.role is Role.OWNER, names.logins
    await tenant.begin(Verb.REMOVE, logins[0])  # from now on ``get`` returns None, and no role can be made
    await server.end_logins(work, ended_by(names))
    await on_roles(tenant, remove)
    if is_whole:
        await server.drop_database(work)
    for login in logins:
        await tenant.drop_login(login)
    await server.forget(work)
    await tenant.held.delete()
    if is_whole:
        tenant.context.placement.leave(tenant.site.cluster)
