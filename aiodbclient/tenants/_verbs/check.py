"""Check each tenant: compare its record with the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from ..._request.call import Meter
from ...errors import GrantError, ServerError, StoreError, TransportError
from .._clusters import AWAY
from .._events import Timer
from .._naming import Role
from .._outcomes import Problem, TenantChecked
from .._record import cluster_of, intent_of, suspended, unusable, usable
from .._stores import Record, entries_of
from .jobs import TenantJob
from .mend import examine
from .tenant import Tenant

_LOOKS = 3  # how often to check a tenant whose record changes meanwhile


class _Stray(str):
    """The name of a tenant whose database is on a server, and not on record."""

    cluster: str


class CheckTenants(TenantJob[TenantChecked]):
    """Find the problems of each tenant. See ``Tenants.check``."""

    def check(self, given: object) -> str:
        return given if isinstance(given, _Stray) else super().check(given)

    async def prepare(self) -> int:
        """Read a cluster. If none can be reached, no tenant can be checked, and each fails with that error."""
        try:
            return await super().prepare()
        except (GrantError, TransportError, ServerError):
            return 1

    async def every_name(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record, then of those whose database is on a server, and not on record."""
        async for name in self.context.names():
            yield name
        if self.context.role is Role.OWNER:
            async for stray in self._strays():
                yield stray

    async def _strays(self) -> AsyncIterator[_Stray]:
        on_record, prefix = await self._on_record(), self.context.prefix
        for cluster in self.context.sites.clients:
            databases: tuple[str, ...] = ()
            with suppress(*AWAY):
                site = await self.context.sites.site(cluster, Meter())
                databases = await site.server.tenants()
            for database in databases:
                is_known = (cluster, database) in on_record or (None, database) in on_record
                if database.startswith(prefix) and not is_known:
                    stray = _Stray(database.removeprefix(prefix))
                    stray.cluster = cluster
                    yield stray

    async def _on_record(self) -> set[tuple[str | None, str]]:
        """The cluster (None: unknown) and the database of each record, also of those that are not ours."""
        on_record = set[tuple[str | None, str]]()
        async for entry in entries_of(self.context.store):
            if isinstance(entry, StoreError):  # it cannot be read
                on_record.add((None, self.context.prefix + entry.damaged[0]))
                continue
            on_record |= {(each.cluster, each.database) for each in (entry.current, entry.previous) if each is not None}
            if entry.current is None or intent_of(entry) is not None:  # a copy of it may be on another cluster
                on_record.add((None, self.context.prefix + entry.name))
        return on_record

    async def do_one(self, name: str, timer: Timer) -> TenantChecked:
        record = await self.context.record(name, timer)
        if isinstance(name, _Stray) and cluster_of(record) != name.cluster:
            return await self._look_at_stray(await self.on(name.cluster, name, timer))
        tenant = await self.on(await self.cluster_for(name, record, timer), name, timer)
        with self.context.sites.watched(tenant.site.cluster, name):
            return await timer.on("sql", self._look(tenant, record))

    async def _look(self, tenant: Tenant, record: Record | None) -> TenantChecked:
        name = tenant.names.tenant
        problems: tuple[Problem, ...] = ()
        for _ in range(_LOOKS):
            if record is None:
                raise unusable(name, record, self.context.role)
            problems = await examine(tenant, record)
            if not problems:
                break
            before, record = record, await self.context.record(name, tenant.timer)
            if record == before:
                break
        else:
            problems = (Problem.UNFINISHED,)  # somebody is changing it now, faster than this looks
        return TenantChecked(name=name, credential=usable(record) or suspended(record), problems=problems)

    async def _look_at_stray(self, tenant: Tenant) -> TenantChecked:
        found = await tenant.server.find(tenant.names)
        problems = (Problem.NOT_ON_RECORD,) if found.database else ()
        return TenantChecked(name=tenant.names.tenant, credential=None, problems=problems)
