"""``ChangeTenants``, the loop of every verb that changes tenants, and most of these verbs."""

# docs/why/logins.md has the table of the verbs, and of what a crash leaves of each.

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress
from datetime import datetime, timedelta
from typing import ClassVar

from attrs import evolve
from backoff import full_jitter

from ..._http.events import logger
from ...errors import InvalidArgumentError
from .._context import Context
from .._credential import Credential
from .._naming import Role
from .._outcomes import Reporter, TenantAction, TenantDone, TenantRemoved, done
from .._record import OnRecord, State, Verb, with_credentials
from .._stores import RoleCredentials
from ..errors import ClaimLostError, GrantError, MoveError, RotationPendingError, TenantBusyError
from .jobs import DoneT, TenantJob
from .left_behind import drop_left_behind, undo_move
from .tenant import LEASE, Tenant, claimed, clock

_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # s between two looks at a record that another process has claimed
_LOSSES = 5  # lost claims of one name before it fails


class ChangeTenants(TenantJob[DoneT]):
    """A job that changes tenants; each verb is a subclass with ``done_already`` and ``change``."""

    verb: ClassVar[Verb | None] = None  # ``change`` continues an unfinished one itself; None: it finishes them all
    ends_logins: ClassVar[bool] = False  # whether it ends all logins of the tenant

    def __init__(self, context: Context, age: timedelta | None = None, *, what: str = "") -> None:
        super().__init__(context)
        if age is not None and (not isinstance(age, timedelta) or age < timedelta(0)):
            raise InvalidArgumentError(f"{what} must be a timedelta of 0 or more, not {age!r}")
        self.age = age
        self._now: datetime | None = None

    async def prepare(self) -> int:
        if self.age is not None:
            self._now = await self.context.store.now()  # so what another process does during the run is young
        return await super().prepare()

    def is_young(self, since: datetime | None) -> bool:
        """Whether ``since`` is less than the age ago."""
        if self.age is None or self._now is None or since is None:
            return False
        return self._now - since < self.age

    async def do_one(self, name: str, reporter: Reporter) -> DoneT:
        """Claim the tenant and do the work, unless its record shows that there is nothing to do."""
        waits_until: float | None = None  # for another process that works on the tenant
        losses, wait = 0, _FIRST_LOOK
        on_record = await self.context.record(name)
        login_at_start = None if on_record.usable is None else on_record.usable.username
        while (outcome := self.done_already(on_record, login_at_start)) is None:
            cluster = await self.cluster_for(on_record, reporter)
            async with self.context.servers.turns[cluster]:
                try:
                    async with claimed(self.context, cluster, name, reporter) as tenant:
                        if tenant is None:
                            waits_until = _wait_for_claim(name, waits_until)
                        else:
                            waits_until = None
                            reporter.stats.writes += 1  # ``Run.stop`` lets it finish
                            outcome = await self._change_claimed(tenant, on_record, login_at_start)
                except ClaimLostError:
                    losses += 1
                    if losses >= _LOSSES:
                        raise
            if outcome is not None:
                return outcome
            await asyncio.sleep(full_jitter(wait))
            wait = min(2 * wait, _LONGEST_LOOK)
            on_record = await self.context.record(name)
        return outcome

    async def _change_claimed(self, tenant: Tenant, seen: OnRecord, login_at_start: str | None) -> DoneT | None:
        """Do the work under the claim, or return None to begin again; ``seen`` is the record from before the claim."""
        home, on_record = tenant.home, tenant.on_record
        outcome = self.done_already(on_record, login_at_start)
        if outcome is not None or on_record.cluster not in (None, seen.cluster, home.cluster):
            return outcome  # meanwhile another process has done it, or has chosen another cluster
        try:
            with self.context.servers.watched(home.cluster, tenant.names.tenant):
                async with home.server.session(tenant, was_interrupted=on_record.intent is not None) as steps:
                    tenant.steps = steps
                    await tenant.look(ends_logins=self.ends_logins)
                    if await self._finish_earlier_verb(tenant):
                        return None
                    return await self.change(tenant)
        except GrantError as error:
            error.on_record = error.on_record or _describe(tenant)
            if await _lost_its_database(tenant):
                raise await tenant.no_database() from error
            raise

    async def _finish_earlier_verb(self, tenant: Tenant) -> bool:
        """Finish or undo what a dead process left, and return whether the work has to begin again."""
        if self.verb is None:
            return False
        intent = tenant.on_record.intent
        if intent is not None and (intent.verb, intent.role) == (self.verb, tenant.role):
            return False
        try:
            return await finish_or_undo(tenant)
        except MoveError:  # the cluster with what is left behind is away
            if self.verb is Verb.REMOVE and tenant.role is Role.OWNER:
                raise
            return False

    @abstractmethod
    def done_already(self, on_record: OnRecord, login_at_start: str | None) -> DoneT | None:
        """Return the outcome if there is nothing to do, by the record now and the login that was on it at the start."""

    @abstractmethod
    async def change(self, tenant: Tenant) -> DoneT | None:
        """Work on a claimed tenant, and return the outcome, or None to begin again under another claim."""


def _wait_for_claim(name: str, until: float | None) -> float:
    """Return until when to wait for another process's claim, or raise TenantBusyError after one lease."""
    if until is None:
        logger.info("another process works on the tenant %r: waiting up to %.0f s", name, LEASE)
        return clock() + LEASE
    if clock() < until:
        return until
    raise TenantBusyError(
        f"another process works on the tenant {name!r} for over {LEASE:.0f} s; nothing was changed",
        retry_after=LEASE,
    )


async def _lost_its_database(tenant: Tenant) -> bool:
    if tenant.record.current is None or tenant.on_record.of_role(Role.OWNER).state is State.REMOVING:
        return False
    try:
        return not (await tenant.home.server.find(tenant.names)).database
    except GrantError:  # such as that the server is away
        return False


def _describe(tenant: Tenant) -> str:
    """What the store holds for a tenant after a verb failed."""
    on_record = tenant.on_record
    if on_record.is_empty:
        return "nothing is on record for the name"
    if on_record.current is None:
        return f"the name is on record for the cluster {tenant.home.cluster}, without a credential"
    if on_record.state is State.USABLE:
        return "the credential in use was not touched"
    return f"its state on record is {on_record.state.name.lower()}"


async def finish_or_undo(tenant: Tenant) -> bool:
    """Finish or undo what a dead process left, unless the verb itself continues it, and return whether it did."""
    intent = tenant.on_record.intent
    match None if intent is None else (intent.verb, intent.role):
        case Verb.PROVISION | Verb.ADOPT | Verb.SUSPEND | Verb.RESUME | Verb.REMOVE, Role.OWNER:
            return False  # of the whole tenant: only verbs that continue with it get here
        case Verb.PREPARE | Verb.MOVE, _:
            with suppress(MoveError):  # the other cluster is away: ``undo_move`` has put it on record as left behind
                await undo_move(tenant)
        case Verb.REVOKE, role:
            await revoke_previous(tenant, role)
        case Verb.REMOVE, role:
            await remove_role(tenant, role)
        case Verb.ROTATE | Verb.REPAIR | Verb.PROVISION, _:
            await tenant.end_begun_logins()
            await tenant.commit(tenant.record)
        case None if tenant.on_record.left_behind is not None:
            await drop_left_behind(tenant)
        case _:
            return False
    return True


class RotateTenants(ChangeTenants[TenantDone]):
    """``Tenants.rotate``: give each tenant a credential with a new login."""

    verb = Verb.ROTATE

    def __init__(self, context: Context, older_than: timedelta | None, *, force: bool) -> None:
        super().__init__(context, older_than, what="older_than")
        self._force = force

    def done_already(self, on_record: OnRecord, login_at_start: str | None) -> TenantDone | None:
        credential = on_record.suspended or on_record.required()
        was_rotated = login_at_start not in (None, credential.username)  # by another process, meanwhile
        is_young = self.is_young(credential.since) and on_record.begun is not Verb.ROTATE  # finish an unfinished one
        return done(TenantAction.KEPT, credential) if credential.suspended or was_rotated or is_young else None

    async def change(self, tenant: Tenant) -> TenantDone | None:
        await tenant.end_begun_logins()  # of an earlier process
        if tenant.on_record.previous is not None:
            if not self._force:
                raise RotationPendingError(
                    f"the tenant {tenant.names.tenant!r} has a previous credential that is not revoked: rotating "
                    "again would revoke it while programs may still use it",
                    advice="revoke it first, or pass force=True",
                )
            await revoke_previous(tenant, tenant.role)
            return None
        [login] = tenant.new_logins()
        await tenant.begin(Verb.ROTATE, [login], role=tenant.role)
        credential = await tenant.add_login(login, tenant.role)
        await tenant.commit(with_credentials(tenant.record, tenant.role, credential, tenant.on_record.current))
        return done(TenantAction.ROTATED, credential)


class RevokePrevious(ChangeTenants[TenantDone]):
    """``Tenants.revoke_previous``: end the previous credential of each tenant."""

    verb = Verb.REVOKE

    def __init__(self, context: Context, older_than: timedelta | None, *, unused: bool) -> None:
        super().__init__(context, older_than, what="older_than")
        self._unused = unused

    def done_already(self, on_record: OnRecord, login_at_start: str | None) -> TenantDone | None:
        credential = on_record.suspended or on_record.required()
        nothing_to_end = on_record.previous is None and on_record.intent is None
        # After a rotation by another process, programs still use the previous credential: leave it for a later run.
        was_rotated = login_at_start not in (None, credential.username)
        if credential.suspended or nothing_to_end or was_rotated or self.is_young(credential.since):
            return done(TenantAction.KEPT, credential)
        return None

    async def change(self, tenant: Tenant) -> TenantDone | None:
        current, previous = tenant.current, tenant.on_record.previous
        assert previous is not None  # otherwise there was nothing to do, or ``finish_or_undo`` did it
        if self._unused and (open_ := await tenant.home.server.count_sessions(previous.username)):
            return TenantDone(name=current.name, action=TenantAction.KEPT, credential=current, sessions=open_)
        await revoke_previous(tenant, tenant.role)
        return done(TenantAction.REVOKED, current)


async def revoke_previous(tenant: Tenant, role: Role) -> None:
    """End the previous login of a role, and try to drop it and all that were ended before."""
    on_record = tenant.on_record.of_role(role)
    assert on_record.current is not None
    assert on_record.previous is not None
    await tenant.begin(Verb.REVOKE, role=role)
    await tenant.steps.end_logins([on_record.previous.username])
    await tenant.drop_ended(on_record.previous.username)
    await tenant.commit(with_credentials(tenant.record, role, on_record.current, None))


class SuspendTenants(ChangeTenants[TenantDone]):
    """``Tenants.suspend``: suspend each tenant, with its readers and writers."""

    verb = Verb.SUSPEND
    ends_logins = True

    def done_already(self, on_record: OnRecord, login_at_start: str | None) -> TenantDone | None:
        if on_record.state in (State.ABSENT, State.PROVISIONING, State.REMOVING):
            raise on_record.unusable()
        return None if on_record.suspended is None else done(TenantAction.KEPT, on_record.suspended)

    async def change(self, tenant: Tenant) -> TenantDone:
        return done(TenantAction.SUSPENDED, await suspend(tenant))


async def suspend(tenant: Tenant) -> Credential:
    """End all logins of a tenant and of its roles, store since when it is suspended, and return its credential."""
    logins, current = tenant.every_login(), tenant.record.current
    assert current is not None
    await tenant.begin(Verb.SUSPEND)  # from now on ``get`` returns None, and no role can be made
    await tenant.steps.end_logins(logins)
    await tenant.drop_ended(*logins)
    await tenant.steps.shut()
    since = current.suspended or await tenant.context.store.now()
    roles = {
        role: RoleCredentials(current=evolve(pair.current, suspended=since))
        for role, pair in tenant.record.roles.items()
    }
    await tenant.commit(evolve(tenant.record, current=evolve(current, suspended=since), previous=None, roles=roles))
    return tenant.current


class ResumeTenants(ChangeTenants[TenantDone]):
    """``Tenants.resume``: give each suspended tenant, with its readers and writers, new logins."""

    verb = Verb.RESUME

    def done_already(self, on_record: OnRecord, login_at_start: str | None) -> TenantDone | None:
        if on_record.usable is not None:
            return done(TenantAction.KEPT, on_record.usable)
        if on_record.state not in (State.SUSPENDING, State.SUSPENDED, State.RESUMING):
            raise on_record.unusable()
        return None

    async def change(self, tenant: Tenant) -> TenantDone | None:
        if tenant.on_record.state is State.SUSPENDING:
            await suspend(tenant)
            return None
        return done(TenantAction.RESUMED, await resume(tenant))


async def resume(tenant: Tenant) -> Credential:
    """Give a suspended tenant, and its roles, a new login each, and return its credential."""
    await tenant.end_begun_logins()
    roles = [Role.OWNER, *tenant.record.roles]
    logins = dict(zip(roles, tenant.new_logins(len(roles)), strict=True))
    await tenant.begin(Verb.RESUME, logins.values())
    await tenant.commit(await tenant.add_logins(logins))
    return tenant.current


class RemoveTenants(ChangeTenants[TenantRemoved]):
    """``Tenants.remove``: remove each tenant, with its readers and writers."""

    verb = Verb.REMOVE
    ends_logins = True

    def __init__(self, context: Context, *, suspended_for: timedelta | None = None) -> None:
        super().__init__(context, suspended_for, what="suspended_for")

    def done_already(self, on_record: OnRecord, login_at_start: str | None) -> TenantRemoved | None:
        if not on_record.exists:
            return TenantRemoved(name=on_record.name, action=TenantAction.ABSENT)
        # Of a role: not while its whole tenant is being suspended, resumed or removed, which comes first.
        intent = on_record.intent
        of_the_tenant = intent is not None and intent.role is not on_record.role and on_record.begun is not None
        if on_record.state is State.MOVING or of_the_tenant:
            raise on_record.unusable()
        if self.age is None or on_record.state is State.REMOVING:
            return None
        if on_record.suspended is None or self.is_young(on_record.suspended.suspended):
            return TenantRemoved(name=on_record.name, action=TenantAction.KEPT)
        return None

    async def change(self, tenant: Tenant) -> TenantRemoved:
        action = TenantAction.ABSENT if tenant.on_record.is_empty else TenantAction.DELETED
        left: tuple[str, ...] = ()
        if action is TenantAction.DELETED and tenant.role is Role.OWNER:
            left = await remove(tenant)
        elif action is TenantAction.DELETED:
            await remove_role(tenant, tenant.role)
        return TenantRemoved(name=tenant.names.tenant, action=action, left=left)


async def remove(tenant: Tenant) -> tuple[str, ...]:
    """Remove a tenant: end its logins, so that nothing of it works, drop its database, then drop the logins.

    Return the other databases that have objects of it.
    """
    left: tuple[str, ...] = ()
    logins = tenant.every_login()
    is_anothers = tenant.record.current is None and tenant.found.is_foreign  # made after a process died
    await tenant.begin(Verb.REMOVE)  # from now on ``get`` returns None, and no role can be made
    await tenant.steps.end_logins(logins)
    if not is_anothers:
        await tenant.steps.drop_database()
    await tenant.drop_ended(*logins)
    if not is_anothers:
        left = await tenant.steps.forget()
    await tenant.delete()
    tenant.context.placement.leave(tenant.home.cluster)
    return left


async def remove_role(tenant: Tenant, role: Role) -> None:
    await tenant.begin(Verb.REMOVE, [each.username for each in tenant.on_record.of_role(role).credentials], role=role)
    logins = tenant.on_record.begun_logins
    await tenant.steps.end_logins(logins)
    await tenant.drop_ended(*logins)
    await tenant.steps.forget(role)
    roles = {each: pair for each, pair in tenant.record.roles.items() if each is not role}
    await tenant.commit(evolve(tenant.record, roles=roles))
