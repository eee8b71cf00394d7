"""``Tenant`` and ``ClaimedTenant``: one tenant of a job, its claim, and the steps that several verbs take.

While this process works on a name, a background task renews the lease of its claim. Once the lease may have expired, no
more statements are sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

from attrs import Factory, define, evolve, field, frozen
from backoff import full_jitter

from ..._bulk.settle import none_if_not_found
from ...clusters import for_work
from ...errors import (
    DatabaseClientError,
    PermissionDeniedError,
)
from .._context import Context, Site
from .._credential import Credential, Secret, new_password
from .._naming import ROLES, Names, Role, names_of
from .._outcomes import Timer
from .._record import Intent, OnRecord, Verb, no_roles
from .._servers.server import Server, Work
from .._stores import Claim, Record, Store
from ..errors import ClaimLostError, GrantError, StoreError, TenantBusyError

_logger = logging.getLogger("aiodbclient")
LEASE = 30.0  # s for which a claim holds unless it is renewed. A working process renews it
_LOOK = 0.2  # s between two looks at a role that another process has claimed


def clock() -> float:
    """The time in seconds, by a clock that runs while the process is stopped or the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class HeldClaim:
    """A claim that this process holds: entering it starts to renew the lease, and leaving it ends the claim."""

    def __init__(self, store: Store, claim: Claim, record: OnRecord, since: float) -> None:
        self.store = store
        self.claim = claim
        self.record = record  # as this claim has changed it
        self._until = since + LEASE
        self._ended = False
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the claim, unless ``commit`` or ``delete`` has."""
        assert self._renewing is not None
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        if self._ended:
            return
        try:
            # A name for which no work began need not stay on record.
            if self.record.is_empty:
                await self.delete()
            else:
                await self.store.release(self.claim)
        except StoreError as error:
            if exc is None or (isinstance(error, ClaimLostError) and isinstance(exc, Exception)):
                raise  # otherwise ``exc`` has the reason, and the claim ends with its lease

    def check_lease(self) -> None:
        """Check that the lease has not expired, by the clock alone. Called right before each statement."""
        if clock() >= self._until:
            raise ClaimLostError(
                f"the lease on {self.claim.name!r} ran out (was the process stopped?): the next statement was not "
                "sent, and the next process that claims the name continues"
            )

    async def renew(self) -> None:
        """Extend the claim by another lease."""
        since = clock()
        await self.store.renew(self.claim, LEASE)
        self._until = since + LEASE

    async def begin(self, intent: Intent | None) -> None:
        """Store the intent; None ends it."""
        intended = None if intent is None else str(intent)
        await self.store.begin(self.claim, intended)
        self.record = evolve(self.record, intent=intent)

    async def commit(self, current: Credential | None, previous: Credential | None) -> None:
        """Store the credentials, and end the intent and the claim."""
        record = evolve(self.record, current=current, previous=previous, intent=None)
        stored = Record(name=self.claim.name, current=current, previous=previous)
        await self.store.commit(self.claim, stored)
        self._ended, self.record = True, record

    async def delete(self) -> None:
        """Delete the record, and end the claim."""
        await self.store.commit(self.claim, None)
        self._ended, self.record = True, OnRecord(name=self.record.name, role=self.record.role)

    async def _renew(self) -> None:
        """Renew the lease repeatedly. If that fails, the next ``check_lease`` raises."""
        while True:
            await asyncio.sleep(LEASE / 3)
            try:
                await self.renew()
            except ClaimLostError:
                self._until = 0.0
                return
            except StoreError:
                continue  # the store may be back before the lease expires


@frozen(kw_only=True)
class Tenant:
    """One tenant of a job."""

    context: Context
    site: Site
    names: Names
    timer: Timer
    server: Server = field(init=False, default=Factory(lambda self: self.site.server, takes_self=True))

    def in_role(self, role: Role) -> Tenant:
        """The reader or writer of the same tenant, or its owner."""
        context = self.context.for_role(role)
        names = names_of(self.names.tenant, self.site.engine, context.prefix, role)
        return Tenant(context=context, site=self.site, names=names, timer=self.timer)

    async def read(self) -> OnRecord:
        """Read what is on record for it. Raises as ``Context.ours``."""
        return await self.context.record(self.names.tenant)

    async def now(self) -> datetime:
        """The time by the clock of the store."""
        return await self.context.store.now()

    async def works(self, credential: Credential, working: Collection[str] = ()) -> bool:
        """Whether the login can log in with the password on record. That of an adopted one is unknown."""
        if credential.password is None:
            return credential.username in working
        return await self.server.log_in(self.names, credential.username, Secret(credential.password)) is None

    async def claim(self) -> ClaimedTenant | None:
        """Claim the tenant; None if somebody else works on it. Raises as ``Context.ours``."""
        context, names, timer, since = self.context, self.names, self.timer, clock()
        claim = await context.store.claim(names.record, LEASE)
        if claim is None:
            return None
        try:
            record = context.ours(names.tenant, claim.record)
        except DatabaseClientError:
            await context.store.release(claim)
            raise
        held = HeldClaim(context.store, claim, record, since)
        work = Work(names, held.check_lease, timer.ended)
        return ClaimedTenant(context=context, site=self.site, names=names, timer=timer, held=held, work=work)


@frozen(kw_only=True)
class ClaimedTenant(Tenant):
    """One tenant under its claim."""

    held: HeldClaim
    work: Work

    @property
    def record(self) -> OnRecord:
        """What is on record for it, as this claim has changed it."""
        return self.held.record

    @property
    def current(self) -> Credential:
        """The credential on record. There is one in every state but ABSENT and PROVISIONING."""
        assert self.record.current is not None
        return self.record.current

    async def begin(self, verb: Verb, login: str, more: str = "") -> None:
        """Store what is about to happen, before its first step."""
        await self.held.begin(Intent(verb, login, self.site.cluster, more))

    async def set_login(self, login: str, *, may_exist: bool = True) -> Credential:
        """Make the login or, if it ``may_exist`` and does, end it and reset it. Test it, and return its credential."""
        password = new_password()
        await self.server.set_login(self.work, login, password, may_exist=may_exist)
        refused = await self.server.log_in(self.names, login, password)
        if refused is not None:
            raise GrantError(
                f"tenant {self.names.tenant!r}: the server refuses the new login {login!r}: {refused}",
                tenant=self.names.tenant,
            )
        made = self.site.credential(self.names, login, password, await self.now())
        current = self.record.current
        return made if current is None else evolve(made, is_set_up=current.is_set_up, moved_from=current.moved_from)

    async def drop_login(self, login: str) -> None:
        """Drop a login that was ended. If others hold that up, it stays, ended."""
        dropped = await self.server.drop_login(self.work, login)
        if dropped and self.was_adopted(login):
            client = self.context.sites.clients[self.site.cluster]
            client = for_work(client, self.timer.stats, label=self.names.tenant)
            with suppress(PermissionDeniedError):  # it is gone from the server, and stays in the API's list
                await none_if_not_found(client.users.delete(login))

    def was_adopted(self, login: str) -> bool:
        """Whether ``login`` is the previous one, and was made by others."""
        previous = self.record.previous
        return previous is not None and previous.username == login and previous.password is None

    async def set_up(self, credential: Credential) -> Credential:
        """Call ``setup`` for a database without it, before ``credential`` is stored."""
        setup = self.context.setup
        if setup is None or self.names.role is not Role.OWNER:
            return credential
        await setup(credential)
        await self.held.renew()
        return evolve(credential, is_set_up=True)


@define
class Waiting:
    """How long a verb waits for another process that has claimed the tenant: for one lease."""

    tenant: str
    _until: float | None = None

    def go_on(self) -> None:
        """Note that the tenant is claimed. Raises TenantBusyError after a lease."""
        if self._until is None:
            _logger.info("another process works on the tenant %r: waiting up to %.0f s", self.tenant, LEASE)
            self._until = clock() + LEASE
        elif clock() >= self._until:
            raise TenantBusyError(
                f"another process works on the tenant {self.tenant!r} for over {LEASE:.0f} s; nothing was changed",
                retry_after=LEASE,
            )


async def on_roles(tenant: ClaimedTenant, work: Callable[[ClaimedTenant], Awaitable[None]]) -> None:
    """Claim the reader and the writer that the tenant has on record, and call ``work`` with each, on its cluster."""
    for each in ROLES if tenant.names.role is Role.OWNER else ():
        unclaimed = tenant.in_role(each)
        if not (await unclaimed.read()).exists:
            continue
        waiting = Waiting(tenant.names.tenant)
        while (role := await unclaimed.claim()) is None:
            waiting.go_on()
            await asyncio.sleep(full_jitter(_LOOK))
        async with role.held:
            if role.record.intent is not None:
                await role.server.end_work(role.work)
            await work(role)


async def refuse_role(tenant: ClaimedTenant) -> None:
    """For a reader or writer: raise an error if the tenant cannot have one."""
    name, role = tenant.names.tenant, tenant.names.role
    if role is Role.OWNER:
        return
    owner = await tenant.in_role(Role.OWNER).read()
    if owner.usable is None:
        raise owner.unusable() if owner.exists else no_roles(name, role)
