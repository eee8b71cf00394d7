"""Provision a tenant: give it a database and a login of its own, and store its credential."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, get_args

from attrs import evolve, frozen

from .._bulk.outcomes import Action
from .._bulk.settle import FRESH, REFUSED, create_new, create_settled
from .._request.waits import waits
from ..clusters import retry_policy
from ..errors import (
    APIError,
    InvalidArgumentError,
    InvalidResponseError,
    NameTakenError,
    UnsupportedOperationError,
)
from ..models import User
from ._clusters import AWAY
from ._credential import Credential, Secret
from ._intent import Verb, state_of
from ._logins import credential_of, grant, if_there, refused_login, working_credential
from ._loop import ClaimingJob
from ._naming import Role
from ._outcomes import TenantDone
from ._removal import remove
from ._stores import Record
from ._tenancy import ClaimedTenant, Tenancy, Tenant, no_roles, unusable, usable

IfExists = Literal["error", "adopt", "reset"]

# Seconds for which the API may still return a deleted user (Aiven's documentation of its API).
_RETURNED_AFTER_DELETION = 30.0


def check_if_exists(if_exists: IfExists) -> IfExists:
    """Return ``if_exists``. Raises InvalidArgumentError if it is none of the three."""
    if if_exists not in get_args(IfExists):
        raise InvalidArgumentError(f'if_exists must be "error", "adopt" or "reset", not {if_exists!r}')
    return if_exists


class ProvisionTenants(ClaimingJob[TenantDone]):
    """Give each tenant a database and a login of its own. See ``Tenants.provision``."""

    creates = True

    def __init__(self, tenancy: Tenancy, if_exists: IfExists = "error") -> None:
        super().__init__(tenancy)
        self._if_exists: IfExists = check_if_exists(if_exists)

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = usable(record)
        if credential is not None:
            return TenantDone(name=name, action=Action.KEPT, credential=credential)
        if state_of(record).is_of_suspension:
            raise unusable(name, record, self.tenancy.role)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        intent = tenant.held.intent
        if intent is not None and intent.removes:
            await remove(tenant, intent.verb)
            return None
        await refuse_role(tenant)
        tenant = evolve(tenant, lists=self.clusters.bulk)
        if intent is None and (conflict := await find_elsewhere(tenant)) is not None:
            raise conflict
        action, credential = await provision(tenant, self._if_exists)
        return TenantDone(name=tenant.names.tenant, action=action, credential=credential)


async def find_elsewhere(tenant: Tenant) -> NameTakenError | None:
    """The error for a new tenant whose names another of the clusters has, as after a store was lost."""
    if tenant.names.role is not Role.OWNER:
        return None
    clusters = tenant.clusters
    for id in clusters.sites:
        if id != tenant.cluster.id:
            there = evolve(tenant, cluster=clusters.calls(id, tenant.timer.meter, tenant.names.tenant))
            with suppress(*AWAY):
                clusters.check_away(id)
                if found := await find(there):
                    return _conflict(there, found)
    return None


async def refuse_role(tenant: ClaimedTenant) -> None:
    """For a reader or writer: raise an error if the tenant cannot have one."""
    name, tenancy, site = tenant.names.tenant, tenant.tenancy, tenant.site
    if tenancy.role is Role.OWNER:
        return
    owner = await tenancy.for_role(Role.OWNER).record(name, tenant.timer)
    if usable(owner) is None:
        raise no_roles(name, tenancy.role) if owner is None else unusable(name, owner)
    if site.sql is not None and (reason := await tenant.timer.on_sql(site.sql.why_no_roles(tenant.names))):
        raise UnsupportedOperationError(
            f"tenants: {reason}, so the tenant {name!r} can have no {tenancy.role}; nothing was created",
            engine=site.engine,
            operation="tenants.role",
        )


@frozen
class Found:
    """The objects with a tenant's names that somebody else created."""

    user: User | None
    database: bool = False
    objects: Sequence[str] = ()  # topics or indexes
    other: User | None = None  # the tenant's second login, if it was ever rotated

    @property
    def users(self) -> list[User]:
        return [user for user in (self.user, self.other) if user is not None]

    def __bool__(self) -> bool:
        return self.user is not None or self.database or bool(self.objects)


async def provision(tenant: ClaimedTenant, if_exists: IfExists) -> tuple[Action, Credential]:
    """Give the tenant a database and a login of its own, and store its credential."""
    held, login = tenant.held, tenant.names.logins[0]
    if held.intent is not None:  # a process found nothing there and began to create it, so what exists is ours
        exists = held.intent.verb is Verb.RESET
        return Action.CREATED, await _make(tenant, held.intent.login, may_exist=True, exists=exists)
    found = await find(tenant)
    if not found:
        await tenant.intend(Verb.MAKE, login)
        try:
            return Action.CREATED, await _make(tenant, login, may_exist=False)
        except REFUSED as refusal:
            if refusal.may_have_applied:
                raise
            found = await _find_fresh(tenant, refusal)  # somebody created it a moment ago
    if if_exists == "error":
        raise _conflict(tenant, found)
    if if_exists == "adopt" and (adopted := await _adopt(tenant, found)) is not None:
        return Action.ADOPTED, adopted
    if found.user is None or if_exists == "adopt":
        await tenant.intend(Verb.MAKE, login)
        action = Action.ADOPTED if found.user is None else Action.CREATED  # it was being deleted
        return action, await _make(tenant, login, may_exist=True)
    await ensure_database(tenant, may_exist=True)
    await _take_over(tenant, login)
    await tenant.intend(Verb.RESET, login)
    return Action.RESET, await _make(tenant, login, may_exist=True, exists=True)


async def ensure_database(tenant: ClaimedTenant, *, may_exist: bool) -> bool:
    """Create the tenant's database, and return whether it is new. Raises one of REFUSED if it exists and must not."""
    name = tenant.names.database
    if name is None or tenant.names.role is not Role.OWNER:
        return False
    create, read = partial(tenant.cluster.dbs.create, name), partial(tenant.cluster.dbs.get, name)
    retry = retry_policy(tenant.cluster)
    if may_exist:
        created, _ = await create_settled(create, read, retry)
        return created
    await create_new(create, read, retry)
    return True


async def find(tenant: Tenant) -> Found:
    """Find what somebody else created."""
    names, cluster, listing = tenant.names, tenant.cluster, tenant.listing
    login, other = names.logins
    found = Found(await listing.find_user(cluster, login))
    if names.role is Role.OWNER and names.database is not None:
        found = evolve(found, database=await listing.find_database(cluster, names.database))
    elif names.role is Role.OWNER:
        found = evolve(found, objects=await listing.objects(cluster, tenant.site.engine, names))
    return evolve(found, other=await listing.find_user(cluster, other)) if found else found


async def _find_fresh(tenant: ClaimedTenant, refusal: APIError) -> Found:
    """Find what the API says exists. It may be too new to be visible yet. Raises ``refusal`` if nothing is found."""
    for wait in waits(FRESH if isinstance(refusal, NameTakenError) else 0.0):
        await asyncio.sleep(wait)
        if found := await find(evolve(tenant, lists=False)):
            return found
    raise refusal


def _conflict(tenant: Tenant, found: Found) -> NameTakenError:
    if found.user is not None and found.database:
        what = f"the login {found.user.name!r} and the database {tenant.names.database!r} exist and are"
    elif found.user is not None:
        what = f"the login {found.user.name!r} exists and is"
    elif found.database:
        what = f"the database {tenant.names.database!r} exists and is"
    else:
        first, more = found.objects[0], len(found.objects) - 1
        what = f"{first!r}{f' and {more} more' if more else ''} exists and is"
    elsewhere = tenant.cluster.id != tenant.site.cluster_id
    where = f" on the cluster {tenant.cluster.id}" if elsewhere else ""
    alone = " and that cluster alone" if elsewhere else ""
    return NameTakenError(
        f"{what} not on record, so somebody else created this{where}; nothing was changed",
        status=409,
        advice=f'choose another name, or take over what exists with if_exists="adopt"{alone}',
    )


async def _make(tenant: ClaimedTenant, login: str, *, may_exist: bool, exists: bool = False) -> Credential:
    """Create the database and ``login``, or reset the login if it ``exists``, and store its credential.

    Raises one of REFUSED if one of them existed and must not (``may_exist``).
    """
    created = False
    try:
        created = await ensure_database(tenant, may_exist=may_exist)
        credential = await working_credential(tenant, login, exists=exists, may_exist=may_exist)
    except REFUSED as refusal:
        if may_exist or refusal.may_have_applied:
            raise
        await tenant.held.intend(None)  # otherwise the next process would treat what exists as ours
        if created and tenant.names.database is not None:
            await if_there(partial(tenant.cluster.dbs.delete, tenant.names.database), certain=True)
        raise
    await run_setup(tenant, credential)
    previous = tenant.held.record.previous
    await tenant.held.keep(credential, None if previous is None or previous.username == login else previous)
    return credential


async def run_setup(tenant: ClaimedTenant, credential: Credential) -> None:
    """Call ``setup`` for a new database, before the credential is stored."""
    setup = tenant.tenancy.setup
    if setup is not None and tenant.names.role is Role.OWNER:
        await tenant.timer.on("setup", setup(credential))
        await tenant.held.renew()


async def _take_over(tenant: ClaimedTenant, login: str, adopted: Collection[str] = ()) -> None:
    if tenant.site.sql is not None:
        await tenant.timer.on_sql(tenant.site.sql.take_over(tenant.names, login, adopted))


async def will_shut_out(tenant: Tenant, found: Found, if_exists: IfExists) -> tuple[str, ...]:
    """The logins that lose access to the database when the tenant is provisioned."""
    if not found.database or tenant.site.sql is None:
        return ()
    keep: Collection[str] = tenant.names.family if found.user is None else tenant.names.logins[:1]
    if if_exists == "adopt" and found.users:
        keep = [user.name for user in await _working(tenant, found)]
        if not keep:
            return ()  # it will fail, and change nothing
    return await tenant.timer.on_sql(tenant.site.sql.shut_out(tenant.names, keep))


async def _working(tenant: Tenant, found: Found) -> list[User]:
    """The tenant's logins whose password the API returns and the server accepts."""
    # The second one comes first: if both work, the first rotation made it the current one.
    known, sql = [user for user in reversed(found.users) if user.password], tenant.site.sql
    if len(found.users) == 1 and sql is not None and not sql.needs_password:
        return known  # a killed adoption may have locked it: ``grant`` unlocks it before its test
    return [user for user in known if await _is_accepted(tenant, user)]


async def _is_accepted(tenant: Tenant, user: User) -> bool:
    sql, password = tenant.site.sql, Secret(user.password or "")
    return sql is None or await tenant.timer.on_sql(sql.accepts(tenant.names, user.name, password)) is None


async def _adopt(tenant: ClaimedTenant, found: Found) -> Credential | None:
    """Give the tenant's logins that work their rights, and store their passwords; None if it has no login."""
    working = await _working(tenant, found)
    for wait in waits(_RETURNED_AFTER_DELETION):
        if working or not any(user.password for user in found.users):
            break
        await asyncio.sleep(wait)
        found = await find(evolve(tenant, lists=False))  # a login that is refused may be being deleted
        working = await _working(tenant, found)
    if not found.users:
        return None
    if not working:
        raise _unadoptable(tenant, found)
    await ensure_database(tenant, may_exist=True)
    kept = list[Credential]()
    for user in working:
        await _take_over(tenant, user.name, [each.name for each in working])
        refused = await grant(tenant, user, is_new=False)
        if refused is not None:
            raise refused_login(tenant, user.name, refused)
        kept.append(await credential_of(tenant, user))
    current, *others = kept  # if both work, it is unknown which is newer
    current = evolve(current, spare=len(found.users) > len(kept))
    await run_setup(tenant, current)
    await tenant.held.keep(current, *others)
    return current


def _unadoptable(tenant: Tenant, found: Found) -> InvalidResponseError:
    logins = " and ".join(repr(user.name) for user in found.users)
    why = "no password is returned, or the server refuses it"
    if not tenant.site.returns_passwords:
        why = "MongoDB never returns one; elsewhere the token needs the scope database:view_credentials"
    return InvalidResponseError(
        f"the API returns no password that works for {logins} ({why}); nothing was changed",
        advice=f'if_exists="reset" gives {tenant.names.logins[0]!r} a new one, and locks out the tenant\'s programs',
    )
