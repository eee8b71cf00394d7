"""Check a tenant: compare its record with the cluster. Only reads and logs in."""

from __future__ import annotations

from contextlib import nullcontext

from ..errors import GrantError, ServerError, TransportError
from ..models import User
from ._claims import Tenant
from ._credential import Credential
from ._events import Timer
from ._intent import State, intended_login, state_of
from ._listing import Listing, has_database, read_user
from ._logins import has_other_settings, works
from ._loop import TenantJob
from ._naming import names_of
from ._outcomes import Problem, TenantChecked
from ._stores import Record
from ._tenancy import suspended, unusable, usable

_LOOKS = 3  # how often to check a tenant whose record changes meanwhile


class CheckTenants(TenantJob[TenantChecked]):
    """Find the problems of each tenant. See ``Tenants.check``."""

    async def prepare(self) -> int:
        """Read a cluster. If none can be reached, no tenant can be checked, and each fails with that error."""
        try:
            return await super().prepare()
        except (GrantError, TransportError, ServerError):
            return 1

    async def do_one(self, name: str, timer: Timer) -> TenantChecked:
        record = await self.tenancy.record(name, timer)
        site, _ = await self.clusters.locate(self.tenancy, name, record, timer)
        names = names_of(name, site.engine, self.tenancy.prefix, self.tenancy.role)
        calls = self.clusters.calls(site.cluster_id, timer.meter, name)
        tenant = Tenant(site=site, cluster=calls, names=names, timer=timer)
        listing = self.clusters.listings[site.cluster_id]
        problems: tuple[Problem, ...] = ()
        with self.clusters.watched(site.cluster_id, name):
            for _ in range(_LOOKS):
                if record is None:
                    raise unusable(name, record, self.tenancy.role)
                problems = await examine(tenant, record, listing)
                if not problems:
                    break
                before, record = record, await self.tenancy.record(name, timer)
                if record == before:
                    break
        return TenantChecked(name=name, credential=usable(record) or suspended(record), problems=problems)


async def examine(tenant: Tenant, record: Record, listing: Listing) -> tuple[Problem, ...]:
    """Compare the tenant's ``record`` with the cluster."""
    state, sql = state_of(record), tenant.site.sql
    if state is State.REMOVING:
        return (Problem.REMOVAL_UNFINISHED,)
    if state is State.SUSPENDED:
        return ()
    async with nullcontext() if sql is None else sql.shared():
        return await _problems(tenant, record, listing)


async def _problems(tenant: Tenant, record: Record, listing: Listing) -> tuple[Problem, ...]:
    names, sql = tenant.names, tenant.site.sql
    found, intended = set[Problem](), intended_login(record)
    if record.current is None or intended is not None:
        found.add(Problem.UNFINISHED)
    database = names.database is None or await _has_database(tenant, listing)
    if not database:
        found.add(Problem.DATABASE_MISSING)
    existing = list[str]()
    for credential in (record.current, record.previous):
        if credential is None or credential.username == intended:
            continue
        is_current = credential is record.current
        user = await _user(tenant, listing, credential.username)
        if user is None:
            found.add(Problem.LOGIN_MISSING if is_current else Problem.PREVIOUS_REFUSED)
            continue
        existing.append(user.name)
        if database and not await _is_accepted(tenant, credential, user):
            found.add(Problem.PASSWORD_REFUSED if is_current else Problem.PREVIOUS_REFUSED)
        if is_current and await _are_settings_known(tenant, listing, user) and has_other_settings(tenant, user):
            found.add(Problem.SETTINGS_DIFFER)
    if sql is not None and database and existing:
        found |= await tenant.timer.on_sql(sql.problems(names, existing))
    return tuple(problem for problem in Problem if problem in found)


async def _user(tenant: Tenant, listing: Listing, login: str) -> User | None:
    users = await listing.users(tenant.cluster) or {}
    return users.get(login) or await read_user(tenant.cluster, login)


async def _has_database(tenant: Tenant, listing: Listing) -> bool:
    name = tenant.names.database
    assert name is not None
    databases = await listing.databases(tenant.cluster) or ()
    return name in databases or await has_database(tenant.cluster, name)


async def _is_accepted(tenant: Tenant, credential: Credential, user: User) -> bool:
    """Whether the credential logs in. Without SQL: whether its password equals the API's, if the API returns one."""
    if tenant.site.sql is not None:
        return await works(tenant, credential)
    if not user.password or user.password == credential.password:
        return True
    fresh = await read_user(tenant.cluster, user.name)  # the list may be from before a rotation
    return fresh is not None and fresh.password == credential.password


async def _are_settings_known(tenant: Tenant, listing: Listing, user: User) -> bool:
    """Whether the API returns settings: those of this login, or of any other one in the list."""
    users = await listing.users(tenant.cluster) or {}
    return user.settings is not None or any(each.settings is not None for each in users.values())
