"""``Tenant`` and ``ClaimedTenant``: one tenant of a job, and the steps that several verbs take."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

from attrs import evolve, frozen

from ..._bulk.settle import if_found
from ...clusters import for_work
from ...errors import GrantError, PermissionDeniedError, UnsupportedOperationError
from .._claims import HeldClaim
from .._clusters import JobSites, Site
from .._context import Context
from .._credential import Credential, Secret
from .._events import Timer
from .._naming import Names, Role
from .._record import Intent, State, Verb, intent_of, no_roles, state_of, unusable, usable
from .._servers.server import Server, Work
from .._stores import Record

T = TypeVar("T")


@frozen(kw_only=True)
class Tenant:
    """One tenant of a job."""

    context: Context
    sites: JobSites
    site: Site
    names: Names
    timer: Timer

    @property
    def server(self) -> Server:
        """The server with its database."""
        return self.site.server

    async def sql(self, call: Awaitable[T]) -> T:
        """Await a call of ``server``, and count its seconds."""
        return await self.timer.on_sql(call)


@frozen(kw_only=True)
class ClaimedTenant(Tenant):
    """One tenant under its claim."""

    held: HeldClaim
    record: Record  # when it was claimed
    work: Work

    @property
    def intent(self) -> Intent | None:
        """What a process that died, or lost its claim, was about to do."""
        return intent_of(self.record)

    @property
    def state(self) -> State:
        """Its state when it was claimed."""
        return state_of(self.record)

    @property
    def current(self) -> Credential:
        """The credential on record when it was claimed. There is one in every state but ABSENT and PROVISIONING."""
        assert self.record.current is not None
        return self.record.current

    @property
    def previous(self) -> Credential | None:
        """The previous credential on record when it was claimed."""
        return self.record.previous

    async def intend(self, verb: Verb, login: str, more: str = "") -> None:
        """Store what is about to happen, before its first step."""
        await self.held.intend(Intent(verb, login, self.site.cluster, more))

    async def set_login(self, login: str, *, may_exist: bool = True) -> Credential:
        """Make the login or, if it ``may_exist`` and does, end it and reset it. Test it, and return its credential."""
        password = new_password()
        await self.sql(self.server.set_login(self.work, login, password, may_exist=may_exist))
        refused = await self.sql(self.server.log_in(self.names, login, password))
        if refused is not None:
            raise GrantError(
                f"tenant {self.names.tenant!r}: the server refuses the new login {login!r}: {refused}",
                tenant=self.names.tenant,
            )
        is_set_up = self.record.current is not None and self.record.current.is_set_up
        return evolve(self.site.credential(self.names, login, password, await self.now()), is_set_up=is_set_up)

    async def end_login(self, login: str) -> None:
        """End the login for good."""
        await self.sql(self.server.end_login(self.work, login))

    async def drop_login(self, login: str) -> bool:
        """Drop a login that was ended. Return False if others hold that up: it stays, ended."""
        dropped = await self.sql(self.server.drop_login(self.work, login))
        if dropped and self.was_adopted(login):
            client = for_work(self.sites.sites.client(self.site.cluster), self.timer.meter)
            with suppress(PermissionDeniedError):  # it is gone from the server, and stays in the API's list
                await if_found(client.users.delete(login))
        return dropped

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

    async def now(self) -> datetime:
        """The time by the clock of the store."""
        return await self.timer.on("store", self.context.now())


def new_password() -> Secret:
    """A random password. Its form fits the password policies of MySQL."""
    return Secret(f"Aa1-{secrets.token_urlsafe(24)}")


async def refuse_role(tenant: ClaimedTenant) -> None:
    """For a reader or writer: raise an error if the tenant cannot have one."""
    name, role, site = tenant.names.tenant, tenant.names.role, tenant.site
    if role is Role.OWNER:
        return
    owner = await tenant.context.for_role(Role.OWNER).record(name, tenant.timer)
    if usable(owner) is None:
        raise no_roles(name, role) if owner is None else unusable(name, owner)
    if reason := await tenant.sql(tenant.server.why_no_roles(tenant.names)):
        raise UnsupportedOperationError(
            f"tenants: {reason}, so the tenant {name!r} can have no {role}; nothing was created",
            engine=site.engine,
            operation="tenants.role",
        )
