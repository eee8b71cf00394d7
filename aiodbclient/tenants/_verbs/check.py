"""Check each tenant: compare its record with the server. ``repair`` then repairs what differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence

from attrs import evolve

from ..._masking import Secret
from ...errors import ServerError, TransportError
from .._context import Context, TenantServer
from .._credential import Credential
from .._naming import Names, Role, names_of
from .._outcomes import Problem, ProblemKind, Reporter, TenantAction, TenantChecked, TenantRepaired, in_order
from .._record import OnRecord, State, Verb, read_all, with_credentials
from .._servers import Found
from ..errors import GrantError, MoveError, StoreError
from .changes import ChangeTenants, finish_or_undo, remove, resume, suspend
from .jobs import TenantJob
from .provision import provision
from .tenant import Tenant, lacks_login

_LOOKS = 3  # how often to check a tenant whose record changes meanwhile
_REFUSED = (ProblemKind.LOGIN_MISSING, ProblemKind.PASSWORD_REFUSED, ProblemKind.PREVIOUS_REFUSED)


class CheckTenants(TenantJob[TenantChecked]):
    """``Tenants.check``: find the problems of each tenant."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._strays = dict[str, str]()  # the clusters of databases that are not on record there, by tenant

    async def prepare(self) -> int:
        """Read a cluster; if none can be reached, each tenant fails with that error."""
        try:
            return await super().prepare()
        except (GrantError, TransportError, ServerError):
            return 1

    async def every_name(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record, then of those whose database is on a server, and not on record."""
        if self.context.role is Role.OWNER:
            await self._find_strays()
        not_on_record = dict(self._strays)
        async for name in self.context.names():
            not_on_record.pop(name, None)
            yield name
        for name in not_on_record:
            yield name

    async def _find_strays(self) -> None:
        known, prefix = await self._known_databases(), self.context.prefix
        for cluster, database in await self.context.servers.databases():
            is_known = (cluster, database) in known or (None, database) in known
            if database.startswith(prefix) and not is_known:
                self._strays[database.removeprefix(prefix)] = cluster

    async def _known_databases(self) -> set[tuple[str | None, str]]:
        """The cluster (None: unknown) and the database of each record, also of those that are not ours."""
        known = set[tuple[str | None, str]]()
        async for entry in read_all(self.context.store):
            if isinstance(entry, StoreError):  # it cannot be read
                known.add((None, self.context.prefix + entry.damaged[0]))
                continue
            known |= {(each.cluster, each.database) for each in entry.credentials}
            known |= {(each.moved_from, each.database) for each in entry.credentials if each.moved_from}
            if entry.current is None or entry.intent is not None:  # a copy of it may be on another cluster
                known.add((None, entry.database or self.context.prefix + entry.name))
        return known

    async def do_one(self, name: str, reporter: Reporter) -> TenantChecked:
        on_record = await self.context.record(name)
        strayed: tuple[Problem, ...] = ()
        stray_on = self._strays.get(name)
        if stray_on is not None and stray_on != on_record.cluster:  # or the store is older than its move
            there, names = await self._home(stray_on, name, reporter)
            if (await there.server.find(names)).database:
                strayed = (Problem(ProblemKind.NOT_ON_RECORD, there.name),)
            if on_record.cluster is None:
                return TenantChecked(name=name, credential=None, problems=strayed)
        home, names = await self._home(await self.cluster_for(on_record, reporter), name, reporter)
        with self.context.servers.watched(home.cluster, name):
            checked = await self._look(home, names, on_record)
        if not strayed and ProblemKind.DATABASE_MISSING in [each.kind for each in checked.problems]:
            other = await self.context.servers.moved_to(home.cluster, names, reporter.stats)
            strayed = () if other is None else (Problem(ProblemKind.NOT_ON_RECORD, other.name),)
        return evolve(checked, problems=(*checked.problems, *strayed))

    async def _home(self, cluster: str, name: str, reporter: Reporter) -> tuple[TenantServer, Names]:
        home = await self.context.servers.server(cluster, reporter.stats)
        return home, names_of(name, home.engine, self.context.prefix)

    async def _look(self, home: TenantServer, names: Names, on_record: OnRecord) -> TenantChecked:
        problems: tuple[Problem, ...] = ()
        for _ in range(_LOOKS):
            if not on_record.exists:
                raise on_record.unusable()
            problems = await examine(home, names, on_record)
            if not problems:
                break
            before, on_record = on_record, await self.context.record(names.tenant)
            if on_record == before:
                break
        else:
            problems = (Problem(ProblemKind.UNFINISHED),)  # somebody is changing it now, faster than this looks
        return TenantChecked(name=names.tenant, credential=on_record.usable or on_record.suspended, problems=problems)


async def examine(home: TenantServer, names: Names, on_record: OnRecord) -> tuple[Problem, ...]:
    """Compare a tenant's record with the server, also what it says of the tenant's readers and writers."""
    tenant = on_record.of_role(Role.OWNER)
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
                return in_order(await _compare(home, names, tenant))


async def _compare(home: TenantServer, names: Names, tenant: OnRecord) -> set[Problem]:
    found, intent, problems = await home.server.find(names), tenant.intent, set[Problem]()
    if intent is not None:
        problems.add(Problem(ProblemKind.UNFINISHED, str(intent.verb)))
    if tenant.left_behind is not None:
        problems.add(Problem(ProblemKind.LEFT_BEHIND, tenant.left_behind))
    if found.misplaced:
        return problems | {Problem(ProblemKind.DATABASE_MISSING, found.misplaced)}
    if not found.database:
        problems.add(Problem(ProblemKind.DATABASE_MISSING, names.database))
    if tenant.state is State.SUSPENDED:
        return problems | (await home.server.problems(names, None) if found.database else set[Problem]())
    if tenant.current is not None and found.is_shut and lacks_login(tenant, found):
        missing = Problem(ProblemKind.LOGIN_MISSING, tenant.current.username)
        return problems | {missing, Problem(ProblemKind.UNFINISHED, str(Verb.SUSPEND))}
    begun = {*tenant.begun_logins}  # and the one that ``revoke_previous`` was about to end
    if intent is not None and intent.verb is Verb.REVOKE:
        begun |= {each.username for each in [tenant.of_role(intent.role).previous] if each is not None}
    login_problems, existing = await _login_problems(home, names, tenant, found, begun)
    problems |= login_problems
    if found.database:
        problems |= await home.server.problems(names, existing)
    # A login that is made during the check may be unknown, or a member that the check did not expect.
    return {problem for problem in problems if problem.detail not in begun}


async def _login_problems(
    home: TenantServer, names: Names, tenant: OnRecord, found: Found, begun: Collection[str]
) -> tuple[set[Problem], dict[str, Role]]:
    """The problems of the logins on record but those ``begun``, and which of them exist."""
    problems, existing = set[Problem](), dict[str, Role]()
    for credential in tenant.every_credential:
        login, role = credential.username, credential.role
        is_current = credential is tenant.of_role(role).current
        if login in begun:
            continue
        if credential.password is not None and login not in {*found.logins, *found.ended}:
            kind = ProblemKind.LOGIN_MISSING if is_current else ProblemKind.PREVIOUS_REFUSED
            problems.add(Problem(kind, login))
            continue
        existing[login] = role
        if found.database and not await _logs_in(home, names, credential, found):
            kind = ProblemKind.PASSWORD_REFUSED if is_current else ProblemKind.PREVIOUS_REFUSED
            problems.add(Problem(kind, login))
    return problems, existing


async def _logs_in(home: TenantServer, names: Names, credential: Credential, found: Found) -> bool:
    """Whether the login can log in with its password on record, or exists, if it was adopted without a password."""
    if credential.password is None:
        login = credential.username
        return login in found.logins or (login == names.database and found.namesake)
    return await home.server.log_in(names, credential.username, Secret(credential.password)) is None


class RepairTenants(ChangeTenants[TenantRepaired]):
    """``Tenants.repair``: repair each tenant."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._finished = defaultdict[str, list[Problem]](list)  # what was finished of each tenant

    def done_already(self, on_record: OnRecord, login_at_start: str | None) -> TenantRepaired | None:
        if not on_record.exists:
            raise on_record.unusable()
        return None

    async def change(self, tenant: Tenant) -> TenantRepaired | None:
        action, problems = TenantAction.REPAIRED, (Problem(ProblemKind.UNFINISHED),)
        match tenant.on_record.state:
            case State.ABSENT:
                raise tenant.on_record.unusable()
            case State.PROVISIONING:
                _, credential = await provision(tenant)
            case State.SUSPENDING:
                action, credential = TenantAction.SUSPENDED, await suspend(tenant)
            case State.RESUMING:
                action, credential = TenantAction.RESUMED, await resume(tenant)
            case State.REMOVING:
                action, problems = TenantAction.DELETED, (Problem(ProblemKind.REMOVAL_UNFINISHED),)
                nobody = tenant.home.credential(tenant.names, Role.OWNER, tenant.names.database, None)
                credential = tenant.on_record.current or nobody
                await remove(tenant)
            case _:
                unfinished, finished = _unfinished(tenant.on_record), self._finished[tenant.names.tenant]
                try:
                    if await finish_or_undo(tenant):
                        finished.append(unfinished)
                        return None
                except MoveError:  # the cluster with what is left behind is away
                    await _repair(tenant, finished)
                    raise
                return await _repair(tenant, finished)
        return TenantRepaired(name=tenant.names.tenant, action=action, credential=credential, problems=problems)


def _unfinished(on_record: OnRecord) -> Problem:
    """What ``finish_or_undo`` finishes, as a problem."""
    if on_record.intent is not None:
        return Problem(ProblemKind.UNFINISHED, str(on_record.intent.verb))
    return Problem(ProblemKind.LEFT_BEHIND, on_record.left_behind or "")


async def _repair(tenant: Tenant, finished: Sequence[Problem]) -> TenantRepaired:
    """Repair a tenant that works or is suspended, and of which the ``finished`` problems are solved already."""
    examined = await examine(tenant.home, tenant.names, tenant.on_record)
    found = [each for each in examined if each.kind is not ProblemKind.LEFT_BEHIND]  # ``finish_or_undo`` drops it
    problems, kinds = (*finished, *found), {each.kind for each in found}
    if ProblemKind.DATABASE_MISSING in kinds:
        raise await tenant.no_database()
    action = TenantAction.REPAIRED if problems else TenantAction.KEPT
    if found and tenant.on_record.state is State.SUSPENDED:
        await tenant.begin(Verb.SUSPEND)  # the repair opens the database to the tenant, which has no login that works
        await tenant.steps.repair({})
        await suspend(tenant)
        action = TenantAction.SUSPENDED
    elif found:
        await _repair_logins(tenant, {each.detail for each in found if each.kind in _REFUSED})
    return TenantRepaired(name=tenant.names.tenant, action=action, credential=tenant.current, problems=problems)


async def _repair_logins(tenant: Tenant, refused: set[str]) -> None:
    """Replace logins that are refused, end those that nobody knows, and give the others the rights of their roles."""
    record, existing = tenant.record, {*tenant.found.logins, *tenant.found.ended}
    roles = [role for role in Role if tenant.on_record.of_role(role).current is not None]
    new = tenant.new_logins(len(roles))
    await tenant.begin(Verb.REPAIR, new)
    ended = {login for login in tenant.found.logins if login not in tenant.on_record.logins}
    for role in roles:
        current, previous = tenant.on_record.of_role(role).current, tenant.on_record.of_role(role).previous
        assert current is not None
        if previous is not None and previous.username in refused:
            ended.add(previous.username)
            previous = None
        if current.username in refused and role is not Role.OWNER:
            await tenant.steps.create_role(role)
        if current.username in refused and current.username in existing:  # it has another password
            ended.add(current.username)
            current = await tenant.add_login(new.pop(), role)
        elif current.username in refused:
            current = await tenant.add_login(current.username, role, current.password)
        record = with_credentials(record, role, current, previous)
    await tenant.steps.end_logins(ended)
    await tenant.steps.repair(OnRecord.read(record.name, tenant.role, record).logins)
    await tenant.drop_ended(*ended)
    await tenant.commit(record)
