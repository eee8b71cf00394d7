"""Provision a tenant: give it a database and a login of its own, and store its credential."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, get_args

from attrs import evolve, frozen

from .._bulk.outcomes import Action
from .._bulk.settle import FRESH, TakenError, create_new, create_settled, says_taken
from .._request.waits import waits
from ..clusters import retry_policy
from ..errors import (
    ConflictError,
    InvalidArgumentError,
    InvalidResponseError,
    SuspendedError,
    UnprocessableEntityError,
    UnsupportedOperationError,
)
from ..models import User
from ._claims import ClaimedTenant, Tenant
from ._clusters import AWAY, JobClusters
from ._credential import Credential
from ._intent import Verb
from ._listing import Listing, has_database, read_user
from ._logins import credential_of, grant, if_there, refused_login, working_credential
from ._loop import ClaimingJob
from ._naming import Role
from ._outcomes import TenantDone
from ._removal import remove
from ._stores import Record
from ._tenancy import Setup, Tenancy, no_roles, unusable, usable

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

    places = True

    def __init__(self, tenancy: Tenancy, if_exists: IfExists = "error") -> None:
        super().__init__(tenancy)
        self._if_exists: IfExists = check_if_exists(if_exists)

    def done_already(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = usable(record)
        if credential is not None:
            return TenantDone(name=name, action=Action.KEPT, credential=credential)
        error = unusable(name, record, self.tenancy.role)
        if isinstance(error, SuspendedError):
            raise error
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone | None:
        intent = tenant.held.intent
        if intent is not None and intent.removes:
            await remove(self, tenant, intent.verb)
            return None
        await refuse_role(self.tenancy, tenant)
        if intent is None and (conflict := await find_elsewhere(self.clusters, tenant, self._listing)) is not None:
            raise conflict
        listing = self._listing(tenant.cluster.id)
        action, credential = await provision(tenant, self._if_exists, listing, self.tenancy.setup)
        return TenantDone(name=tenant.names.tenant, action=action, credential=credential)

    def _listing(self, cluster: str) -> Listing | None:
        """What is on a cluster, listed for the whole run; None for a single tenant."""
        return None if self.clusters.pause is None else self.clusters.listings[cluster]


async def find_elsewhere(
    clusters: JobClusters, tenant: Tenant, listing: Callable[[str], Listing | None]
) -> ConflictError | None:
    """The error for a new tenant whose names another of the clusters has, as after a store was lost.

    A cluster that is away is left out.
    """
    if tenant.names.role is not Role.OWNER:
        return None
    for id in clusters.turns:
        if id != tenant.cluster.id:
            there = evolve(tenant, cluster=clusters.calls(id, tenant.timer.meter, tenant.names.tenant))
            with suppress(*AWAY):
                clusters.check_away(id)
                if found := await find(there, listing(id)):
                    return _conflict(there, found)
    return None


async def refuse_role(tenancy: Tenancy, tenant: ClaimedTenant) -> None:
    """For a reader or writer: raise an error if the tenant cannot have one."""
    if tenancy.role is Role.OWNER:
        return
    name, site = tenant.names.tenant, tenant.site
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

    def __bool__(self) -> bool:
        return self.user is not None or self.database or bool(self.objects)


async def provision(
    tenant: ClaimedTenant, if_exists: IfExists, listing: Listing | None, setup: Setup | None
) -> tuple[Action, Credential]:
    """Give the tenant a database and a login of its own, and store its credential.

    The record decides who owns the names. With an intent, a process found nothing there and began to create it, so
    existing objects are ours. Without an intent they are somebody else's.
    """
    held, login = tenant.held, tenant.names.logins[0]
    if held.intent is not None:
        exists = held.intent.verb is Verb.RESET
        return await _make(tenant, held.intent.login, Action.CREATED, setup, may_exist=True, exists=exists)
    found = await find(tenant, listing)
    if not found:
        await tenant.intend(Verb.MAKE, login)
        try:
            return await _make(tenant, login, Action.CREATED, setup, may_exist=False)
        except TakenError as taken:  # somebody created it a moment ago
            found = await _find_fresh(tenant, taken.refusal)
    if if_exists == "error":
        raise _conflict(tenant, found)
    if found.user is None:
        await tenant.intend(Verb.MAKE, login)
        return await _make(tenant, login, Action.ADOPTED, setup, may_exist=True)
    if if_exists == "adopt":
        return await _adopt(tenant, found.user, setup)
    await ensure_database(tenant, may_exist=True)
    await _take_over(tenant, login)
    await tenant.intend(Verb.RESET, login)
    return await _make(tenant, login, Action.RESET, setup, may_exist=True, exists=True)


async def ensure_database(tenant: ClaimedTenant, *, may_exist: bool) -> bool:
    """Create the tenant's database, and return whether it was created now.

    Raises TakenError if it exists and must not (``may_exist``).
    """
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


async def find(tenant: Tenant, listing: Listing | None) -> Found:
    """Find what somebody else created. A listed name is read again, because the list may be old."""
    login, database = tenant.names.logins[0], tenant.names.database
    users = None if listing is None else await listing.users(tenant.cluster)
    user = await read_user(tenant.cluster, login) if users is None or login in users else None
    if tenant.names.role is not Role.OWNER:
        return Found(user)
    if database is None:
        return Found(user, objects=await (listing or Listing()).objects(tenant))
    databases = None if listing is None else await listing.databases(tenant.cluster)
    absent = databases is not None and database not in databases
    return Found(user, not absent and await has_database(tenant.cluster, database))


async def _find_fresh(tenant: ClaimedTenant, refusal: ConflictError | UnprocessableEntityError) -> Found:
    """Find what the API says exists. It may be too new to be visible yet. Raises ``refusal`` if nothing is found."""
    for wait in waits(FRESH if says_taken(refusal) else 0.0):
        await asyncio.sleep(wait)
        if found := await find(tenant, None):
            return found
    raise refusal


def _conflict(tenant: Tenant, found: Found) -> ConflictError:
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
    return ConflictError(
        f"{what} not on record, so somebody else created this{where}; nothing was changed",
        status=409,
        advice=f'choose another name, or take over what exists with if_exists="adopt"{alone}',
    )


async def _make(
    tenant: ClaimedTenant, login: str, action: Action, setup: Setup | None, *, may_exist: bool, exists: bool = False
) -> tuple[Action, Credential]:
    """Create the database and ``login``, or reset the login if it ``exists``, and store its credential.

    If one of them existed and must not (``may_exist``), this raises TakenError, after it removed what it created and
    ended the intent: otherwise the next process would treat what exists as ours.
    """
    created = False
    try:
        created = await ensure_database(tenant, may_exist=may_exist)
        credential = await working_credential(tenant, login, exists=exists, may_exist=may_exist)
    except TakenError:
        await tenant.held.intend(None)
        if created and tenant.names.database is not None:
            await if_there(partial(tenant.cluster.dbs.delete, tenant.names.database), certain=True)
        raise
    await run_setup(tenant, setup, credential)
    previous = tenant.held.record.previous
    await tenant.held.keep(credential, None if previous is None or previous.username == login else previous)
    return action, credential


async def run_setup(tenant: ClaimedTenant, setup: Setup | None, credential: Credential) -> None:
    """Call ``setup`` for a new database, before the credential is stored."""
    if setup is not None and tenant.names.role is Role.OWNER:
        await tenant.timer.on_setup(setup(credential))
        await tenant.held.renew()


async def _take_over(tenant: ClaimedTenant, login: str) -> None:
    if tenant.site.sql is not None:
        await tenant.timer.on_sql(tenant.site.sql.take_over(tenant.names, login))


async def _adopt(tenant: ClaimedTenant, user: User, setup: Setup | None) -> tuple[Action, Credential]:
    """Give an existing login its rights, and store the password that the API returns for it."""
    await ensure_database(tenant, may_exist=True)
    refused: str | None = ""
    for wait in waits(_RETURNED_AFTER_DELETION):
        await asyncio.sleep(wait)
        if not user.password:
            raise InvalidResponseError(
                f"the login {user.name!r} exists, and the API does not return its password (MongoDB never does; "
                "elsewhere the token needs the scope database:view_credentials)",
                advice='if_exists="reset" gives it a new one, which revokes the old one',
            )
        await _take_over(tenant, user.name)
        refused = await grant(tenant, user, is_new=False)
        if refused is None:
            credential = await credential_of(tenant, user)
            await run_setup(tenant, setup, credential)
            await tenant.held.keep(credential)
            return Action.ADOPTED, credential
        found = await read_user(tenant.cluster, user.name)
        if found is None:  # it was being deleted
            await tenant.intend(Verb.MAKE, user.name)
            return await _make(tenant, user.name, Action.CREATED, setup, may_exist=True)
        user = found
    raise refused_login(tenant, user.name, refused or "")
