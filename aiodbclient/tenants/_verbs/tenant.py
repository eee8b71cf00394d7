"""``Tenant`` and ``ClaimedTenant``: one tenant of a job, and the steps that several verbs take."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import datetime

from attrs import Factory, evolve, field, frozen
from backoff import full_jitter

from ..._bulk.settle import if_found
from ...clusters import for_work
from ...errors import GrantError, PermissionDeniedError, UnsupportedOperationError
from .._claims import HeldClaim
from .._clusters import Site
from .._context import Context
from .._credential import Credential, Secret
from .._events import Timer
from .._naming import ROLES, Names, Role, names_of
from .._record import Intent, State, Verb, intent_of, no_roles, state_of, unusable, usable
from .._servers.server import Server, Work
from .._stores import Record

_LOOK = 0.2  # s between two looks at a role that another process has claimed


@frozen(kw_only=True)
class Tenant:
    """One tenant of a job."""

    context: Context
    site: Site
    names: Names
    timer: Timer

    @property
    def server(self) -> Server:
        """The server with its database."""
        return self.site.server

    async def now(self) -> datetime:
        """The time by the clock of the store."""
        return await self.timer.on("store", self.context.now())

    async def works(self, credential: Credential, working: Collection[str] = ()) -> bool:
        """Whether the login can log in with the password on record. That of an adopted one is unknown."""
        if credential.password is None:
            return credential.username in working
        return await self.server.log_in(self.names, credential.username, Secret(credential.password)) is None


@frozen(kw_only=True)
class ClaimedTenant(Tenant):
    """One tenant under its claim. Record, intent and state are as they were when it was claimed."""

    held: HeldClaim
    record: Record
    work: Work
    intent: Intent | None = field(init=False, default=Factory(lambda self: intent_of(self.record), takes_self=True))
    state: State = field(init=False, default=Factory(lambda self: state_of(self.record), takes_self=True))

    @property
    def current(self) -> Credential:
        """The credential on record. There is one in every state but ABSENT and PROVISIONING."""
        assert self.record.current is not None
        return self.record.current

    @property
    def previous(self) -> Credential | None:
        """The previous credential on record."""
        return self.record.previous

    async def intend(self, verb: Verb, login: str, more: str = "") -> None:
        """Store what is about to happen, before its first step."""
        await self.held.intend(Intent(verb, login, self.site.cluster, more))

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
        is_set_up = self.record.current is not None and self.record.current.is_set_up
        return evolve(self.site.credential(self.names, login, password, await self.now()), is_set_up=is_set_up)

    async def drop_login(self, login: str) -> None:
        """Drop a login that was ended. If others hold that up, it stays, ended."""
        dropped = await self.server.drop_login(self.work, login)
        if dropped and self.was_adopted(login):
            client = self.context.sites.clients[self.site.cluster]
            client = for_work(client, self.timer.meter, tenant=self.names.tenant)
            with suppress(PermissionDeniedError):  # it is gone from the server, and stays in the API's list
                await if_found(client.users.delete(login))

    def was_adopted(self, login: str) -> bool:
        """Whether ``login`` is the previous one, and was made by others."""
        return self.previous is not None and self.previous.username == login and self.previous.password is None

    async def set_up(self, credential: Credential) -> Credential:
        """Call ``setup`` for a database without it, before ``credential`` is stored."""
        setup = self.context.setup
        if setup is None or self.names.role is not Role.OWNER:
            return credential
        await self.timer.on("setup", setup(credential))
        await self.held.renew()
        return evolve(credential, is_set_up=True)


def new_password() -> Secret:
    """A random password. Its form fits the password policies of MySQL."""
    return Secret(f"Aa1-{secrets.token_urlsafe(24)}")


def claimed(tenant: Tenant, held: HeldClaim) -> ClaimedTenant:
    """The same tenant under its claim. Raises as ``Context.check_record``."""
    context, site, names, timer = tenant.context, tenant.site, tenant.names, tenant.timer
    record = evolve(held.record, name=names.tenant)
    context.check_record(record)
    work = Work(names, held.check_lease, timer.ended)
    return ClaimedTenant(context=context, site=site, names=names, timer=timer, held=held, record=record, work=work)


async def on_roles(tenant: ClaimedTenant, work: Callable[[ClaimedTenant], Awaitable[None]]) -> None:
    """Claim the reader and the writer that the tenant has on record, and call ``work`` with each, on its cluster."""
    name, site, timer = tenant.names.tenant, tenant.site, tenant.timer
    for each in ROLES if tenant.names.role is Role.OWNER else ():
        context = tenant.context.for_role(each)
        if await context.record(name, timer) is None:
            continue
        names = names_of(name, site.engine, context.prefix, each)
        while (held := await context.claim(names, timer)) is None:
            await timer.on("claim", asyncio.sleep(full_jitter(_LOOK)))
        async with held:
            role = claimed(Tenant(context=context, site=site, names=names, timer=timer), held)
            if role.intent is not None:
                await role.server.end_work(role.work)
            await work(role)


async def refuse_role(tenant: ClaimedTenant) -> None:
    """For a reader or writer: raise an error if the tenant cannot have one."""
    name, role = tenant.names.tenant, tenant.names.role
    if role is Role.OWNER:
        return
    owner = await tenant.context.for_role(Role.OWNER).record(name, tenant.timer)
    if usable(owner) is None:
        raise no_roles(name, role) if owner is None else unusable(name, owner)
    if reason := await tenant.server.why_no_roles(tenant.names):
        raise UnsupportedOperationError(
            f"tenants: {reason}, so the tenant {name!r} can have no {role}; nothing was created",
            engine=tenant.site.engine,
            operation="tenants.role",
        )
