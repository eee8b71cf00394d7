"""Check each tenant: compare its record with the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from attrs import evolve

from ..._http.call import RequestStats
from ...errors import ServerError, TransportError
from .._context import AWAY
from .._credential import Credential
from .._naming import Role
from .._outcomes import Problem, ProblemKind, TenantChecked, Timer, in_order
from .._record import OnRecord, State, Verb, read_all
from ..errors import GrantError, StoreError
from .jobs import TenantJob
from .tenant import Tenant

_LOOKS = 3  # how often to check a tenant whose record changes meanwhile


class _Stray(str):
    """The name of a tenant whose database is on a server, and not on record."""

    cluster: str


class CheckTenants(TenantJob[TenantChecked]):
    """Find the problems of each tenant. See ``Tenants.check``."""

    def parse(self, given: object) -> str:
        return given if isinstance(given, _Stray) else super().parse(given)

    async def prepare(self) -> int:
        """Read a cluster. If none can be reached, no tenant can be checked, and each fails with that error."""
        try:
            return await super().prepare()
        except (GrantError, TransportError, ServerError):
            return 1

    async def every_name(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record, then of those whose database is on a server, and not on record.

        A tenant on record can have another database, on a cluster where it is not on record: it was moved, and then the
        store was restored.
        """
        is_owner = self.context.role is Role.OWNER
        strays: dict[str, _Stray] = {each: each async for each in self._strays()} if is_owner else {}
        async for name in self.context.names():
            yield strays.pop(name, name)
        for stray in strays.values():
            yield stray

    async def _strays(self) -> AsyncIterator[_Stray]:
        on_record, prefix = await self._on_record(), self.context.prefix
        for cluster in self.context.sites.clients:
            databases: tuple[str, ...] = ()
            with suppress(*AWAY):
                site = await self.context.sites.site(cluster, RequestStats())
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
        async for entry in read_all(self.context.store):
            if isinstance(entry, StoreError):  # it cannot be read
                on_record.add((None, self.context.prefix + entry.damaged[0]))
                continue
            on_record |= {(each.cluster, each.database) for each in entry.credentials}
            on_record |= {(each.moved_from, each.database) for each in entry.credentials if each.moved_from}
            is_copied = entry.current is None or entry.intent is not None  # a copy of it may be on another cluster
            if is_copied and entry.role is Role.OWNER:
                on_record.add((None, self.context.prefix + entry.name))
        return on_record

    async def do_one(self, name: str, timer: Timer) -> TenantChecked:
        record = await self.context.record(name)
        strayed: tuple[Problem, ...] = ()
        if isinstance(name, _Stray) and record.cluster != name.cluster:
            there = await self.on(name.cluster, name, timer)
            if (await there.server.find(there.names)).database:
                strayed = (Problem(ProblemKind.NOT_ON_RECORD, there.site.name),)
            if record.cluster is None:
                return TenantChecked(name=name, credential=None, problems=strayed)
        tenant = await self.on(await self.cluster_for(record, timer), name, timer)
        with self.context.sites.watched(tenant.site.cluster, name):
            checked = await self._look(tenant, record)
        return evolve(checked, problems=(*checked.problems, *strayed))

    async def _look(self, tenant: Tenant, record: OnRecord) -> TenantChecked:
        name = tenant.names.tenant
        problems: tuple[Problem, ...] = ()
        for _ in range(_LOOKS):
            if not record.exists:
                raise record.unusable()
            problems = await examine(tenant, record)
            if not problems:
                break
            before, record = record, await tenant.read()
            if record == before:
                break
        else:
            problems = (Problem(ProblemKind.UNFINISHED),)  # somebody is changing it now, faster than this looks
        return TenantChecked(name=name, credential=record.usable or record.suspended, problems=problems)


async def examine(tenant: Tenant, record: OnRecord) -> tuple[Problem, ...]:
    """Compare the tenant's ``record`` with the server."""
    state, begun = record.state, "" if record.intent is None else str(record.intent.verb)
    if state is State.REMOVING:
        return (Problem(ProblemKind.REMOVAL_UNFINISHED),)
    if state is State.MOVING:
        return (Problem(ProblemKind.MOVING),)
    if record.current is None or state in (State.SUSPENDING, State.RESUMING):
        return (Problem(ProblemKind.UNFINISHED, begun),)
    async with tenant.server.sessions.shared():
        return in_order(await _problems(tenant, record, record.current))


async def _problems(tenant: Tenant, record: OnRecord, current: Credential) -> set[Problem]:
    names, server, state = tenant.names, tenant.server, record.state
    found, intent = await server.find(names), record.intent
    problems = set[Problem]() if intent is None else {Problem(ProblemKind.UNFINISHED, str(intent.verb))}
    previous = record.previous
    if record.left_behind is not None:
        problems.add(Problem(ProblemKind.LEFT_BEHIND, record.left_behind))
    if not found.database:
        problems.add(Problem(ProblemKind.DATABASE_MISSING, names.database))
    if state is State.SUSPENDED:
        problems |= {Problem(ProblemKind.UNKNOWN_LOGIN, login) for login in found.logins}
        return problems | (await server.problems(names, None) if found.database else set[Problem]())
    existing = {*found.logins, *found.ended}
    changing = None if intent is None or intent.verb is Verb.REPAIR else intent.login
    kept = list[str]()
    for credential in (current, previous):
        if credential is None or credential.username == changing:
            continue
        login, is_current = credential.username, credential is current
        if login not in existing:
            kind = ProblemKind.LOGIN_MISSING if is_current else ProblemKind.PREVIOUS_REFUSED
            problems.add(Problem(kind, login))
            continue
        kept.append(login)
        if found.database and not await tenant.works(credential, found.logins):
            kind = ProblemKind.PASSWORD_REFUSED if is_current else ProblemKind.PREVIOUS_REFUSED
            problems.add(Problem(kind, login))
    if found.database:
        problems |= await server.problems(names, kept)
    if state is State.USABLE and changing is not None:
        problems.discard(Problem(ProblemKind.UNKNOWN_LOGIN, changing))  # of the verb that was not finished
    return problems
