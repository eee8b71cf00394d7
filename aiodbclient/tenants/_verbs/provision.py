"""Provision a tenant: give it a database and a login of its own, and store its credential."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal, get_args

from attrs import evolve

from ..._bulk.outcomes import Action
from ...errors import ConflictError, InvalidArgumentError, NameTakenError
from .._clusters import AWAY
from .._context import Context
from .._credential import Credential
from .._events import Timer
from .._naming import Role
from .._outcomes import TenantDone, done
from .._record import State, Verb, cluster_of, state_of, unusable, usable
from .._rooms import Seat
from .._servers.server import Found
from .._stores import Record
from .jobs import ClaimingJob
from .mend import mend
from .remove import remove
from .tenant import ClaimedTenant, Tenant, refuse_role

IfExists = Literal["error", "adopt"]


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
        if state is State.REMOVING:
            await remove(tenant)
            return None
        await refuse_role(tenant)
        if state is State.RESETTING or (state is State.USABLE and tenant.intent is not None):
            await mend(tenant)
            return None
        if state is State.USABLE:  # the command made it, for example, which has no setup
            action, credential = Action.KEPT, await tenant.set_up(tenant.current)
            await tenant.held.keep(credential, tenant.previous)
        else:
            action, credential = await provision(tenant, self._if_exists)
        return done(action, credential)


async def provision(tenant: ClaimedTenant, if_exists: IfExists = "error") -> tuple[Action, Credential]:
    """Make the database and the login, set it up, and store the credential."""
    intent = tenant.intent
    if intent is None or intent.cluster != tenant.site.cluster:  # its cluster is away: it is placed again
        verb, login = await _choose(tenant, if_exists)
    else:  # a process found nothing there and began to make it, so what exists is ours
        verb, login = intent.verb, intent.login
    if verb is Verb.ADOPT:
        return Action.ADOPTED, await _adopt(tenant, login)
    await tenant.intend(Verb.PROVISION, login)
    try:
        is_new = await tenant.server.create(tenant.work)
    except InvalidArgumentError:  # the server takes no such name
        await tenant.held.intend(None)
        raise
    if intent is None and not is_new and tenant.names.role is Role.OWNER:  # somebody made it a moment ago
        await tenant.held.intend(None)
        raise conflict(tenant, Found(database=True, logins=()))
    try:
        made = await tenant.set_login(login, may_exist=intent is not None)
    except ConflictError:  # somebody made it a moment ago
        await _withdraw(tenant)
        raise conflict(tenant, Found(database=False, logins=(login,))) from None
    credential = await tenant.set_up(made)
    await tenant.held.keep(credential)
    return Action.CREATED, credential


async def _withdraw(tenant: ClaimedTenant) -> None:
    """Drop the new database of a tenant. Its intent ends first, so that no login of others counts as ours."""
    await tenant.held.intend(None)
    if tenant.names.role is Role.OWNER:
        await tenant.server.drop_database(tenant.work)


async def _choose(tenant: ClaimedTenant, if_exists: IfExists) -> tuple[Verb, str]:
    """Choose how a new tenant gets its login, and the login."""
    if tenant.intent is None and (taken := await find_elsewhere(tenant)) is not None:
        raise taken
    names, found = tenant.names, await find(tenant)
    if not found:
        return Verb.PROVISION, names.logins[0]
    if if_exists == "error":
        raise conflict(tenant, found)
    if len(found.logins) > 1:
        first, second = found.logins
        raise ConflictError(
            f"the logins {first!r} and {second!r} exist and are not on record, and a tenant has only these two; "
            "nothing was changed",
            status=409,
            advice="drop the one that no program uses, and run this again",
        )
    return Verb.ADOPT, names.other(found.logins[0]) if found.logins else names.logins[0]


async def _adopt(tenant: ClaimedTenant, login: str) -> Credential:
    """Take over what others made, with a new ``login``. The one that was there goes on working until ``retire``."""
    names, server = tenant.names, tenant.server
    await tenant.intend(Verb.ADOPT, login)
    found = await server.find(names)
    old = names.other(login) if names.other(login) in found.logins else None
    try:
        if not found.database:
            await server.create(tenant.work)
        if names.role is Role.OWNER:
            await server.adopt(tenant.work, old)
    except (ConflictError, InvalidArgumentError):  # it is not the tenant's to take, or the server takes no such name
        await tenant.held.intend(None)
        raise
    credential = await tenant.set_up(await tenant.set_login(login))
    previous = None if old is None else tenant.site.credential(names, old, None, await tenant.now())
    await tenant.held.keep(credential, previous)
    return credential


async def find(tenant: Tenant) -> Found:
    """What exists that a new tenant, or a new role of one, would make."""
    found = await tenant.server.find(tenant.names)
    return found if tenant.names.role is Role.OWNER else evolve(found, database=False)


async def find_elsewhere(tenant: Tenant) -> NameTakenError | None:
    """The error for a new tenant whose names another of the clusters has, as after a store was lost."""
    if tenant.names.role is not Role.OWNER:
        return None
    for cluster in tenant.context.sites.clients:
        if cluster != tenant.site.cluster:
            with suppress(*AWAY):
                there = evolve(tenant, site=await tenant.context.sites.site(cluster, tenant.timer.meter))
                if found := await find(there):
                    return conflict(there, found, elsewhere=True)
    return None


def conflict(tenant: Tenant, found: Found, *, elsewhere: bool = False) -> NameTakenError:
    what = [f"the login {login!r}" for login in (*found.logins, *found.ended)]
    if found.database:
        what.append(f"the database {tenant.names.database!r}")
    exist = "exists and is" if len(what) == 1 else "exist and are"
    where = f" on the cluster {tenant.site.cluster}" if elsewhere else ""
    alone = " and that cluster alone" if elsewhere else ""
    return NameTakenError(
        f"{' and '.join(what)} {exist} not on record, so somebody else created this{where}; nothing was changed",
        status=409,
        advice=f'choose another name, or take over what exists with if_exists="adopt"{alone}',
    )
