"""Check each tenant: compare its record with the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from attrs import evolve

from ..._http.call import RequestStats
from ...errors import ServerError, TransportError
from .._context import AWAY, TenantServer
from .._naming import Names, Role
from .._outcomes import Problem, ProblemKind, TenantChecked, Timer, in_order
from .._record import OnRecord, State, Verb, read_all
from .._servers import Found
from ..errors import GrantError, StoreError
from .jobs import TenantJob
from .tenant import lacks_login, log_in

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
        for cluster in self.context.servers.clients:
            databases: tuple[str, ...] = ()
            with suppress(*AWAY):
                home = await self.context.servers.server(cluster, RequestStats())
                databases = await home.server.tenants()
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
            if entry.current is None or entry.intent is not None:  # a copy of it may be on another cluster
                on_record.add((None, entry.home.database if entry.home else self.context.prefix + entry.name))
        return on_record

    async def do_one(self, name: str, timer: Timer) -> TenantChecked:
        record = await self.context.record(name)
        strayed: tuple[Problem, ...] = ()
        if isinstance(name, _Stray) and record.cluster != name.cluster:
            there, names = await self.home(name.cluster, name, timer)
            if (await there.server.find(names)).database:
                strayed = (Problem(ProblemKind.NOT_ON_RECORD, there.name),)
            if record.cluster is None:
                return TenantChecked(name=name, credential=None, problems=strayed)
        home, names = await self.home(await self.cluster_for(record, timer), name, timer)
        with self.context.servers.watched(home.cluster, name):
            checked = await self._look(home, names, record)
        if not strayed and ProblemKind.DATABASE_MISSING in [each.kind for each in checked.problems]:
            other = await self.context.servers.moved_to(home.cluster, names, timer.stats)
            strayed = () if other is None else (Problem(ProblemKind.NOT_ON_RECORD, other.name),)
        return evolve(checked, problems=(*checked.problems, *strayed))

    async def _look(self, home: TenantServer, names: Names, record: OnRecord) -> TenantChecked:
        problems: tuple[Problem, ...] = ()
        for _ in range(_LOOKS):
            if not record.exists:
                raise record.unusable()
            problems = await examine(home, names, record)
            if not problems:
                break
            before, record = record, await self.context.record(names.tenant)
            if record == before:
                break
        else:
            problems = (Problem(ProblemKind.UNFINISHED),)  # somebody is changing it now, faster than this looks
        return TenantChecked(name=names.tenant, credential=record.usable or record.suspended, problems=problems)


async def examine(home: TenantServer, names: Names, record: OnRecord) -> tuple[Problem, ...]:
    """Compare a tenant's record with the server, also what it says of the tenant's readers and writers."""
    tenant = record.of_role(Role.OWNER)
    begun = "" if tenant.intent is None else str(tenant.intent.verb)
    match tenant.state:
        case State.REMOVING:
            return (Problem(ProblemKind.REMOVAL_UNFINISHED),)
        case State.MOVING:
            return (Problem(ProblemKind.MOVING),)
        case State.ABSENT | State.PROVISIONING | State.SUSPENDING | State.RESUMING:
            return (Problem(ProblemKind.UNFINISHED, begun),)
        case _:
            async with home.server.sessions.shared():
                return in_order(await _problems(home, names, tenant))


async def _problems(home: TenantServer, names: Names, tenant: OnRecord) -> set[Problem]:
    found, intent = await home.server.find(names), tenant.intent
    problems = set[Problem]() if intent is None else {Problem(ProblemKind.UNFINISHED, str(intent.verb))}
    if tenant.left_behind is not None:
        problems.add(Problem(ProblemKind.LEFT_BEHIND, tenant.left_behind))
    if not found.database:
        problems.add(Problem(ProblemKind.DATABASE_MISSING, names.database))
    if tenant.state is State.SUSPENDED:
        problems |= {Problem(ProblemKind.UNKNOWN_LOGIN, login) for login in found.logins}
        return problems | (await home.server.problems(names, None) if found.database else set[Problem]())
    if tenant.current is not None and found.is_shut and lacks_login(tenant, found):
        missing = Problem(ProblemKind.LOGIN_MISSING, tenant.current.username)
        return problems | {missing, Problem(ProblemKind.UNFINISHED, str(Verb.SUSPEND))}
    known = dict[str, Role]()
    for role in Role:
        login_problems, existing = await _login_problems(home, names, tenant.of_role(role), found)
        problems |= login_problems
        known |= dict.fromkeys(existing, role)
    if found.database:
        problems |= await home.server.problems(names, known)
    return problems - {Problem(ProblemKind.UNKNOWN_LOGIN, login) for login in _begun(tenant)}


def _begun(tenant: OnRecord) -> list[str]:
    """The logins that a verb, which was not finished, makes or revokes."""
    if tenant.intent is None:
        return []
    previous = tenant.of_role(tenant.intent.role).previous if tenant.intent.verb is Verb.REVOKE else None
    return [*tenant.intent.logins, *([] if previous is None else [previous.username])]


async def _login_problems(
    home: TenantServer, names: Names, record: OnRecord, found: Found
) -> tuple[set[Problem], list[str]]:
    """The problems of the logins of one role, and those that exist."""
    problems, existing, begun = set[Problem](), list[str](), _begun(record)
    for credential in record.credentials:
        login, is_current = credential.username, credential is record.current
        if login in begun:
            continue
        if credential.password is not None and login not in {*found.logins, *found.ended}:
            kind = ProblemKind.LOGIN_MISSING if is_current else ProblemKind.PREVIOUS_REFUSED
            problems.add(Problem(kind, login))
            continue
        existing.append(login)
        if found.database and not await log_in(home, names, credential, found):
            kind = ProblemKind.PASSWORD_REFUSED if is_current else ProblemKind.PREVIOUS_REFUSED
            problems.add(Problem(kind, login))
    return problems, existing
