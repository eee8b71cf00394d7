"""``Tenant``: a tenant that this process has claimed, and the steps that several operations take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

from attrs import define, evolve, field

from ..._bulk.settle import none_if_not_found
from ..._masking import Secret
from ...clusters import for_work
from ...errors import ConflictError, DatabaseClientError, PermissionDeniedError
from .._clusters import TenantCluster
from .._context import Context
from .._naming import Role, names_of
from .._outcomes import Reporter
from .._records import (
    Login,
    Operation,
    OperationKind,
    TenantRecord,
    TenantState,
    credential_of,
    known_logins,
    newer_logins,
    no_database,
    state_of,
    unfinished_logins,
)
from .._servers import BaseTenant, ServerState, TenantSteps, new_password
from .._stores import Claim
from ..errors import ClaimLostError, StoreError

LEASE = 30.0  # s for which a claim holds unless it is renewed. A working process renews it


# The time in seconds, by a clock that runs while the process is stopped or the machine is suspended.
clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


class AlreadyClaimedError(Exception):
    """Another process works on the tenant."""


@define(eq=False, repr=False)
class Tenant(BaseTenant):
    """A claimed tenant: its record, its lease, and the steps on its server."""

    context: Context
    role: Role
    cluster: TenantCluster  # the server of its cluster
    reporter: Reporter
    claim: Claim
    record: TenantRecord | None  # as this claim has changed it
    _until: float  # when the lease runs out
    found: ServerState = field(init=False, default=ServerState())  # on the server, when work began
    steps: TenantSteps = field(init=False)  # while a job works

    # The claim, and the record.

    def check_lease(self) -> None:
        """Check by the clock alone, right before each statement, that the lease has not expired."""
        if clock() >= self._until:
            raise ClaimLostError(
                f"the lease on {self.claim.name!r} ran out (was the process stopped?): the next statement was not "
                "sent, and the next process that claims the name continues"
            )

    async def renew(self) -> None:
        since = clock()
        await self.context.store.renew(self.claim, LEASE)
        self._until = since + LEASE

    async def keep_renewing(self) -> None:
        """Renew the lease repeatedly, until it is lost, so that the next ``check_lease`` raises."""
        while True:
            await asyncio.sleep(LEASE / 3)
            try:
                await self.renew()
            except ClaimLostError:
                self._until = 0.0
                return
            except StoreError:
                continue  # the store may be back before the lease expires

    @property
    def stored(self) -> TenantRecord:
        """The record of a tenant that has one."""
        assert self.record is not None
        return self.record

    @property
    def has_login(self) -> bool:
        """Whether a program may have a credential of the tenant."""
        return self.record is not None and self.record.current() is not None

    @property
    def state(self) -> TenantState:
        return state_of(self.record, self.role)

    async def save(self, record: TenantRecord | None) -> None:
        """Store or delete the record. An operation that has ended is not in its record any more."""
        await self.context.store.save(self.claim, record)
        before, self.record = self.record, record
        if before is None or record is None or before.cluster != record.cluster:
            self.context.placement.note(self.claim.name, before, record)

    async def reread(self) -> None:
        """Read the record again after a ``save`` that may have been made although it failed or was cancelled."""
        await self.renew()  # raises an error if the claim was lost
        before, self.record = self.record, await self.context.store.get(self.claim.name)
        self.context.placement.note(self.claim.name, before, self.record)

    async def start(
        self,
        kind: OperationKind,
        logins: Iterable[str] = (),
        *,
        role: Role | None = None,
        target: str | None = None,
        template: str | None = None,
        record: TenantRecord | None = None,
    ) -> None:
        """Store the operation, with the logins that it makes, before its first step; ``record`` is of a new tenant."""
        base = self.stored if record is None else record
        known = tuple(dict.fromkeys([*unfinished_logins(base), *logins]))  # until they are dropped, they may exist
        operation = Operation(kind=kind, role=role, logins=known, target=target, template=template)
        await self.save(evolve(base, operation=operation))

    # The server.

    async def inspect(self, *, ends_logins: bool) -> None:
        """Find what the server has of the tenant, and raise ConflictError if another store has changed it."""
        self.found = await self.cluster.server.inspect(self.names)
        record = self.record
        newer = [] if record is None else newer_logins(record, self.names, self.found.logins)
        kind = None if record is None or record.operation is None else record.operation.kind
        if newer and (self.has_login or kind is OperationKind.PROVISION):
            raise ConflictError(
                f"another store knows the tenant {self.names.tenant!r}: the login {newer[-1]!r} is newer than those on "
                "record; nothing was changed",
                status=409,
                advice="use that store, or remove the record with `store forget`, and provision the tenant again with "
                'if_exists="adopt"',
            )
        if not ends_logins:
            self.check_database()
        if self.found.is_locked_out and not ends_logins and lacks_login(self.record, self.found):
            raise ConflictError(
                f"the tenant {self.names.tenant!r} was suspended after this store was copied: its database is locked, "
                "and its login does not enter; nothing was changed",
                status=409,
                advice="suspend it in this store too, and then resume it if it is to work",
            )

    def check_database(self, consequence: str = "nothing was changed") -> None:
        """Raise ConflictError if the tenant's own database has another name."""
        if self.found.mismatch and self.has_login:
            raise ConflictError(
                f"the tenant {self.names.tenant!r} has another database than the record says: {self.found.mismatch}; "
                f"{consequence}",
                status=409,
            )

    async def no_database(self) -> DatabaseClientError:
        """The error for a tenant on record whose database does not exist on its cluster."""
        other = await self.context.clusters.moved_to(self.cluster.id, self.names, self.reporter.stats)
        return no_database(self.names.tenant, self.names.database, None if other is None else other.id)

    def every_login(self) -> set[str]:
        """All logins that may exist on the server."""
        return {*self.found.logins, *(() if self.record is None else known_logins(self.record))}

    def next_logins(self, count: int = 1, also: Iterable[str] = ()) -> list[str]:
        """Names for new logins, after all that the tenant had, on its cluster or ``also`` on another cluster."""
        return self.names.next_logins([*self.every_login(), *self.found.disabled, *also], count)

    async def add_login(
        self, login: str, role: Role, password: str | None = None, *, steps: TenantSteps | None = None
    ) -> Login:
        """Make the login, by default with a new password, on the tenant's server, or by the ``steps`` on another."""
        secret = new_password() if password is None else Secret(password)
        del password  # a traceback may show it
        await (steps or self.steps).add_login(login, secret, role)
        return Login(username=login, role=role, password=secret, created=await self.context.store.now())

    async def add_logins(self, logins: Mapping[Role, str], *, steps: TenantSteps | None = None) -> tuple[Login, ...]:
        """Make a login for each role."""
        return tuple([await self.add_login(login, role, steps=steps) for role, login in logins.items()])

    async def drop_unfinished_logins(self) -> None:
        """End and drop the logins that an unfinished operation made, which no program has."""
        if logins := unfinished_logins(self.stored):
            await self.steps.end_logins(logins)
            await self.steps.drop_logins(logins)

    async def drop_disabled(self, *logins: str) -> None:
        """Drop these ended logins and all earlier ones, but leave those that others hold up for the next time."""
        left = await self.steps.drop_logins([*logins, *self.found.disabled])
        client = self.context.clusters.clients[self.cluster.id]
        for each in self.stored.logins:
            # An adopted login is in the API's list too.
            if each.password is None and each.username in logins and each.username not in left:
                client = for_work(client, self.reporter.stats, label=self.names.tenant)
                with suppress(PermissionDeniedError):  # it stays in the list
                    await none_if_not_found(client.users.delete(each.username))

    async def revoke_previous(self, role: Role) -> None:
        """End the previous login of a role, and try to drop all that are ended."""
        previous = self.stored.previous(role)
        assert previous is not None
        await self.start(OperationKind.REVOKE, role=role)
        await self.steps.end_logins([previous.username])
        await self.drop_disabled(previous.username)
        kept = tuple(each for each in self.stored.logins if each != previous)
        await self.save(evolve(self.stored, operation=None, logins=kept))

    async def remove_role(self, role: Role) -> None:
        """End and drop the logins of a tenant's readers or writers, then their role."""
        its = [each.username for each in self.stored.logins if each.role is role]
        await self.start(OperationKind.REMOVE, its, role=role)
        logins = unfinished_logins(self.stored)
        await self.steps.end_logins(logins)
        await self.drop_disabled(*logins)
        await self.steps.drop_roles(role)
        kept = tuple(each for each in self.stored.logins if each.role is not role)
        await self.save(evolve(self.stored, operation=None, logins=kept))

    async def set_up(self, record: TenantRecord, login: Login) -> TenantRecord:
        """Call ``setup`` with the credential of ``login``, before that is stored, and return the record afterwards."""
        if self.context.setup is None:
            return record
        await self.context.setup(credential_of(record, login))
        await self.renew()
        return evolve(record, is_set_up=True, version=self.context.version or record.version)


def lacks_login(record: TenantRecord | None, found: ServerState) -> bool:
    """Whether a tenant is usable on record, but its login cannot enter: with a locked database, it was suspended."""
    current = None if record is None else record.credential()
    return current is not None and current.username not in found.logins


@asynccontextmanager
async def claim_tenant(context: Context, cluster: str, name: str, reporter: Reporter) -> AsyncGenerator[Tenant]:
    """Claim a tenant while the block runs, or raise AlreadyClaimedError."""
    at = await context.clusters.get(cluster, reporter.stats)
    names = names_of(name, at.engine, context.prefix)
    since = clock()
    claim = await context.store.claim(name, LEASE)
    if claim is None:
        raise AlreadyClaimedError
    tenant = Tenant(
        names, context, context.role, at, reporter, claim, claim.record, since + LEASE, terminated=reporter.terminated
    )
    renewing = asyncio.create_task(tenant.keep_renewing())
    try:
        context.check_ours(claim.record)
        yield tenant
    finally:
        try:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        finally:
            with suppress(StoreError):  # the end of the lease frees the claim
                if tenant.record is None:  # so the name need not stay in the store
                    await context.store.save(claim, None, release=True)
                else:
                    await context.store.release(claim)
