"""Check each tenant: compare its record with the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

from attrs import evolve

from ..._masking import Secret
from ...errors import ServerError, TransportError
from .._clusters import TenantCluster
from .._context import Context
from .._naming import Names, Role, names_of
from .._outcomes import Problem, ProblemKind, Reporter, TenantChecked, in_order
from .._records import (
    Login,
    OperationKind,
    TenantRecord,
    TenantState,
    credential_of,
    unfinished_logins,
    unusable,
)
from .._servers import ServerState
from .._stores import entries_of
from ..errors import GrantError, StoreError
from .loop import TenantJob
from .tenant import lacks_login

_ATTEMPTS = 3  # how often to check a tenant whose record changes meanwhile


class CheckTenants(TenantJob[TenantChecked]):
    """``Tenants.check``: find the problems of each tenant."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._unrecorded = dict[str, str]()  # the clusters of databases that are not on record there, by tenant

    async def prepare(self) -> int:
        """Read a cluster; if none can be reached, each tenant fails with that error."""
        try:
            return await super().prepare()
        except (GrantError, TransportError, ServerError):
            return 1

    async def every_name(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record, then of those whose database is on a server, and not on record."""
        if self.context.role is Role.OWNER:
            await self._find_unrecorded()
        not_on_record = dict(self._unrecorded)
        async for name in self.context.names():
            not_on_record.pop(name, None)
            yield name
        for name in not_on_record:
            yield name

    async def _find_unrecorded(self) -> None:
        known, prefix = await self._known_databases(), self.context.prefix
        for cluster, database in await self.context.clusters.databases():
            is_known = (cluster, database) in known or (None, database) in known
            if database.startswith(prefix) and not is_known:
                self._unrecorded[database.removeprefix(prefix)] = cluster

    async def _known_databases(self) -> set[tuple[str | None, str]]:
        """The cluster (None: unknown) and the database of each record, also of those that are not ours."""
        known = set[tuple[str | None, str]]()
        async for entry in entries_of(self.context.store):
            if isinstance(entry, StoreError):  # it cannot be read
                known.add((None, self.context.prefix + entry.damaged[0]))
                continue
            known |= {(entry.cluster, entry.database), (entry.leftover or entry.cluster, entry.database)}
            if entry.operation is not None:  # a copy of it may be on another cluster
                known.add((None, entry.database))
        return known

    async def do_one(self, name: str, reporter: Reporter) -> TenantChecked:
        record = await self.context.record(name)
        unrecorded: tuple[Problem, ...] = ()
        cluster = self._unrecorded.get(name)
        if cluster is not None and (record is None or cluster != record.cluster):  # or the store is older than its move
            found, names = await self._cluster_and_names(cluster, name, reporter)
            if (await found.server.inspect(names)).database:
                unrecorded = (Problem(ProblemKind.NOT_ON_RECORD, found.name),)
            if record is None:
                return TenantChecked(name=name, credential=None, record=None, problems=unrecorded)
        if record is None:
            raise unusable(record, name, self.context.role)
        its, names = await self._cluster_and_names(record.cluster, name, reporter)
        with self.context.clusters.track_failures(its.id, name):
            checked = await self._check(its, names, record)
        if not unrecorded and ProblemKind.DATABASE_MISSING in [each.kind for each in checked.problems]:
            other = await self.context.clusters.moved_to(its.id, names, reporter.stats)
            unrecorded = () if other is None else (Problem(ProblemKind.NOT_ON_RECORD, other.name),)
        return evolve(checked, problems=(*checked.problems, *unrecorded))

    async def _cluster_and_names(self, id: str, name: str, reporter: Reporter) -> tuple[TenantCluster, Names]:
        cluster = await self.context.clusters.get(id, reporter.stats)
        return cluster, names_of(name, cluster.engine, self.context.prefix)

    async def _check(self, cluster: TenantCluster, names: Names, record: TenantRecord | None) -> TenantChecked:
        problems: tuple[Problem, ...] = ()
        role = self.context.role
        for _ in range(_ATTEMPTS):
            if record is None or record.state(role) is TenantState.ABSENT:
                raise unusable(record, names.tenant, role)
            problems = await examine(cluster, names, record)
            if not problems:
                break
            before, record = record, await self.context.record(names.tenant)
            if record == before:
                break
        else:
            problems = (Problem(ProblemKind.UNFINISHED),)  # somebody is changing it now, faster than this looks
        works = record is not None and record.state(role) in (TenantState.USABLE, TenantState.SUSPENDED)
        credential = credential_of(record, role) if record is not None and works else None
        return TenantChecked(name=names.tenant, credential=credential, record=record, problems=problems)


async def examine(cluster: TenantCluster, names: Names, record: TenantRecord) -> tuple[Problem, ...]:
    """Compare a tenant's record with the server, also what it says of the tenant's readers and writers."""
    operation = "" if record.operation is None else str(record.operation.kind)
    match record.state():
        case TenantState.REMOVING:
            return (Problem(ProblemKind.REMOVAL_UNFINISHED),)
        case TenantState.MOVING:
            return (Problem(ProblemKind.MOVING),)
        case TenantState.ABSENT | TenantState.PROVISIONING:
            return (Problem(ProblemKind.UNFINISHED, operation),)
        case TenantState.SUSPENDING | TenantState.RESUMING:
            # Neither can be finished while another database has the name of the tenant's.
            found = (await cluster.server.inspect(names)).mismatch
            missing = [Problem(ProblemKind.DATABASE_MISSING, found)] if found else []
            return (Problem(ProblemKind.UNFINISHED, operation), *missing)
        case _:
            async with cluster.server.sessions.shared():
                return in_order(await _compare(cluster, names, record))


async def _compare(cluster: TenantCluster, names: Names, record: TenantRecord) -> set[Problem]:
    found, operation, problems = await cluster.server.inspect(names), record.operation, set[Problem]()
    if operation is not None:
        problems.add(Problem(ProblemKind.UNFINISHED, str(operation.kind)))
    if record.leftover is not None:
        problems.add(Problem(ProblemKind.LEFTOVER, record.leftover))
    if found.mismatch:
        return problems | {Problem(ProblemKind.DATABASE_MISSING, found.mismatch)}
    if not found.database:
        problems.add(Problem(ProblemKind.DATABASE_MISSING, names.database))
    if record.state() is TenantState.SUSPENDED:
        return problems | (await cluster.server.problems(names, None) if found.database else set[Problem]())
    current = record.current()
    if current is not None and found.is_locked_out and lacks_login(record, found):
        missing = Problem(ProblemKind.LOGIN_MISSING, current.username)
        return problems | {missing, Problem(ProblemKind.UNFINISHED, str(OperationKind.SUSPEND))}
    changing = {*unfinished_logins(record)}  # and the one that ``revoke_previous`` was about to end
    if operation is not None and operation.kind is OperationKind.REVOKE:
        changing |= {each.username for each in record.logins if each.role is operation.role and each.replaced}
    login_problems, existing = await _login_problems(cluster, names, record, found, changing)
    problems |= login_problems
    if found.database:
        problems |= await cluster.server.problems(names, existing)
    # A login that is made during the check may be unknown, or a member that the check did not expect.
    return {problem for problem in problems if problem.detail not in changing}


async def _login_problems(
    cluster: TenantCluster, names: Names, record: TenantRecord, found: ServerState, changing: Collection[str]
) -> tuple[set[Problem], dict[str, Role]]:
    """The problems of the logins on record but those ``changing``, and which of them exist."""
    problems, existing = set[Problem](), dict[str, Role]()
    for each in record.logins:
        login, is_current = each.username, each.replaced is None
        if login in changing:
            continue
        if each.password is not None and login not in {*found.logins, *found.disabled}:
            kind = ProblemKind.LOGIN_MISSING if is_current else ProblemKind.PREVIOUS_REFUSED
            problems.add(Problem(kind, login))
            continue
        existing[login] = each.role
        if found.database and not await _logs_in(cluster, names, each, found):
            kind = ProblemKind.PASSWORD_REFUSED if is_current else ProblemKind.PREVIOUS_REFUSED
            problems.add(Problem(kind, login))
    return problems, existing


async def _logs_in(cluster: TenantCluster, names: Names, login: Login, found: ServerState) -> bool:
    """Whether the login can log in with its password on record, or exists, if it was adopted without a password."""
    if login.password is None:
        return login.username in found.logins or (login.username == names.database and found.same_name_login)
    return await cluster.server.log_in(names, login.username, Secret(login.password)) is None
