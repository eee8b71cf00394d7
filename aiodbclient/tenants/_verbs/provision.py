"""Provision a tenant: give it a database and a login of its own, and store its credential."""

from __future__ import annotations

from contextlib import suppress
from typing import get_args

from ..._bulk.outcomes import Action
from ...errors import InvalidArgumentError
from .._clusters import AWAY
from .._context import Context
from .._credential import Credential
from .._events import Timer
from .._naming import Role
from .._outcomes import TenantDone, done
from .._record import State, cluster_of, state_of, unusable, usable
from .._rooms import Seat
from .._stores import Record
from .jobs import ClaimingJob
from .steps import IfExists, finish, provision
from .tenant import ClaimedTenant, refuse_role


class ProvisionTenants(ClaimingJob[TenantDone]):
    """Give each tenant a database and a login of its own. See ``Tenants.provision``."""

    def __init__(self, context: Context, if_exists: IfExists = "error") -> None:
        super().__init__(context)
        if if_exists not in get_args(IfExists):
            raise InvalidArgumentError(f'if_exists must be "error" or "adopt", not {if_exists!r}')
        self._if_exists: IfExists = if_exists
        self._seats: dict[str, Seat] = {}  # of new tenants, by name

    async def do_one(self, name: str, timer: Timer) -> TenantDone:
        """Make a new tenant on the cluster that is chosen. If that is away, and has nothing of it: on another one."""
        while True:
            try:
                return await super().do_one(name, timer)
            except AWAY as error:
                seat = self._seats.get(name)
                if seat is None or seat.on_record or not self._may_choose:
                    raise
                self.context.sites.note_away(seat.cluster, error)
            finally:
                if (seat := self._seats.pop(name, None)) is not None:
                    self.context.rooms.give_back(seat)

    @property
    def _may_choose(self) -> bool:
        """Whether a tenant may go to another cluster than the one that was chosen first."""
        return len(self.context.sites.clients) > 1 and self.context.rooms.place is None

    async def cluster_for(self, name: str, record: Record | None, timer: Timer) -> str:
        """The cluster of the tenant. A new one gets a seat; also one that got nothing but a cluster, which is away."""
        sites, rooms, role = self.context.sites, self.context.rooms, self.context.role
        if role is not Role.OWNER or cluster_of(record) is not None:
            cluster = await super().cluster_for(name, record, timer)
            if role is not Role.OWNER or state_of(record) is not State.PROVISIONING or not self._may_choose:
                return cluster
            with suppress(*AWAY):
                return (await sites.site(cluster, timer.meter)).cluster
        if name not in self._seats:
            _, self._seats[name] = await sites.choose(name, rooms, timer.meter)
        return self._seats[name].cluster

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        if state_of(record).is_shut:
            raise unusable(name, record, self.context.role)
        credential = usable(record)
        if credential is None or self._lacks_setup(credential):
            return None
        return done(Action.KEPT, credential)

    def _lacks_setup(self, credential: Credential) -> bool:
        context = self.context
        return context.setup is not None and context.role is Role.OWNER and not credential.is_set_up

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        try:
            return await self._work(tenant)
        finally:
            if (seat := self._seats.get(tenant.names.tenant)) is not None:
                seat.on_record = not tenant.held.leaves_nothing

    async def _work(self, tenant: ClaimedTenant) -> TenantDone | None:
        state = tenant.state
        if state in (State.REMOVING, State.RESETTING) or (state is State.USABLE and tenant.intent is not None):
            await finish(tenant)
            return None
        await refuse_role(tenant)
        if state is State.USABLE:  # the command made it, for example, which has no setup
            action, credential = Action.KEPT, await tenant.set_up(tenant.current)
            await tenant.held.keep(credential, tenant.previous)
        else:
            action, credential = await provision(tenant, self._if_exists)
        return done(action, credential)
