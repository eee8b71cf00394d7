"""Move each tenant to another cluster: copy it while nobody works in it, store that it is there, and drop it here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from time import monotonic
from typing import TypeVar

from attrs import define, evolve, field

from ...clusters import Cluster
from ...engines import Engine
from ...errors import DatabaseClientError, InvalidArgumentError, NameTakenError, UnsupportedOperationError
from .._context import Context, TenantServer
from .._copy import Copier, Survey, check_free, copier_of
from .._credential import Credential, new_password
from .._naming import Role
from .._outcomes import TenantAction, TenantMoved
from .._record import OnRecord, State, Verb
from .._servers import Found, TenantSteps
from .._stores import Record, RoleCredentials
from ..errors import ClaimLostError, MoveError, RotationPendingError
from .changes import ChangeTenants, finish_or_undo
from .left_behind import undo_move
from .provision import conflict
from .tenant import Tenant

_AT_A_TIME = 4  # tenants
_PREPARATION_SECONDS = 120.0  # and for each table. A tenant's function may run for ever in a restore
_SLACK = 10  # how much longer than estimated what has no ``max_frozen`` may take
T = TypeVar("T")
_BYTES_PER_SECOND = 25_000_000
_TABLES_PER_SECOND = 100


class MoveTenants(ChangeTenants[TenantMoved]):
    """``Tenants.move``: move each tenant to another cluster."""

    def __init__(self, context: Context, to: Cluster | str | None, max_frozen: timedelta) -> None:
        super().__init__(context)
        self._to = _checked_target(context, to)
        if not isinstance(max_frozen, timedelta) or max_frozen <= timedelta(0):
            raise InvalidArgumentError(f"max_frozen must be a timedelta of more than 0, not {max_frozen!r}")
        self.max_frozen = max_frozen.total_seconds()
        self.moved: dict[str, TenantMoved] = {}  # the outcomes of moves, until what is left behind is dropped

    async def prepare(self) -> int:
        self.context.placement.begin_run()
        await super().prepare()
        return _AT_A_TIME

    def done_already(self, on_record: OnRecord, login_at_start: str | None) -> TenantMoved | None:
        if on_record.state not in (State.USABLE, State.SUSPENDED, State.MOVING):
            raise on_record.unusable()
        assert on_record.current is not None
        if on_record.current.engine == Engine.MYSQL:
            raise UnsupportedOperationError(
                "move: tenants on MySQL cannot be moved, because mysqldump changes values; nothing was changed. Dump "
                "and load it by hand: see docs/how-to/move.md",
                engine=Engine.MYSQL,
                operation="tenants.move",
            )
        if on_record.state is State.MOVING or on_record.left_behind is not None:
            return None
        moved = self.moved.get(on_record.name)
        if moved is not None and moved.credential.cluster == on_record.current.cluster:
            return evolve(moved, credential=on_record.current)
        if on_record.current.cluster == self._to:
            return TenantMoved(name=on_record.name, action=TenantAction.KEPT, credential=on_record.current)
        return None

    async def change(self, tenant: Tenant) -> TenantMoved | None:
        name, home, placement = tenant.names.tenant, tenant.home.cluster, self.context.placement
        try:
            if await finish_or_undo(tenant):
                return None
        except MoveError as left:  # the tenant works, and ``check`` says what is left
            if name not in self.moved or tenant.on_record.left_behind is None:
                raise
            return evolve(self.moved[name], left=str(left))
        without = {home} if self._to is None else {*self.context.servers.clients} - {self._to}
        there = await self.context.choose(name, tenant.reporter.stats, without)
        outcome: TenantMoved | None = None
        try:
            with self.context.servers.watched(there.cluster, name):
                async with there.server.session(tenant) as copy:
                    outcome = await _Move(self, tenant, there, copy).run()
        finally:
            is_moved = outcome is not None and outcome.action is TenantAction.MOVED
            placement.leave(home if is_moved else there.cluster)
        return None if is_moved else outcome  # what is left behind is dropped next


@define(eq=False, repr=False)
class _Move:
    """The move of one tenant, with the steps for its copy ``there``."""

    _job: MoveTenants
    _tenant: Tenant
    _there: TenantServer
    _copy: TenantSteps
    _frozen_at: float | None = field(init=False, default=None)

    async def run(self) -> TenantMoved:
        """Move the tenant, or leave it as it was if that fails before the commit."""
        tenant, there = self._tenant, self._there
        if any(each.password is None for each in tenant.on_record.every_credential):
            raise RotationPendingError(
                f"the tenant {tenant.names.tenant!r} has an adopted login, which would not work elsewhere; nothing was "
                "changed",
                advice="revoke it first",
            )
        copier = await self._copier()
        found = await there.server.find(tenant.names)
        if found:
            raise conflict(tenant, there, found)
        roles = [role for role in Role if tenant.on_record.of_role(role).current is not None]
        dump_login, *names = tenant.new_logins(1 + len(roles), also=found.ended)
        logins = dict(zip(roles, names, strict=True))
        await tenant.begin(Verb.PREPARE, [dump_login, *names], other_cluster=there.cluster)
        try:
            return await self._prepare_and_copy(copier, dump_login, logins)
        except (ClaimLostError, NameTakenError):
            raise
        except BaseException as error:
            if tenant.on_record.begun not in (Verb.PREPARE, Verb.MOVE):  # it is undone, as far as it can be
                raise
            await self._undo(error)
            if isinstance(error, MoveError) or not isinstance(error, DatabaseClientError | OSError):
                raise
            raise self._error(str(error)) from error

    async def _prepare_and_copy(self, copier: Copier, dump_login: str, logins: dict[Role, str]) -> TenantMoved:
        tenant, current = self._tenant, self._tenant.current
        password = new_password()
        await tenant.steps.add_dump_login(dump_login, password)
        source = tenant.home.credential(tenant.names, Role.READER, dump_login, password)
        survey = await self._within(_PREPARATION_SECONDS, "surveyed", copier.survey(source, current.username))
        kept = TenantMoved(name=current.name, action=TenantAction.KEPT, credential=current, bytes=survey.bytes)
        # As a machine of two processors copies.
        seconds = survey.bytes / _BYTES_PER_SECOND + survey.tables / _TABLES_PER_SECOND
        if current.suspended is None and seconds > self._job.max_frozen:
            await undo_move(tenant)
            return kept
        allowed = _PREPARATION_SECONDS + _SLACK * survey.tables / _TABLES_PER_SECOND
        preparing = self._prepare(copier, survey, source, logins)
        why = ": does a function of an index or constraint run for long?"
        record = await self._within(allowed, "copied without its rows", preparing, why)
        assert record.current is not None
        self._frozen_at = monotonic()
        await tenant.begin(Verb.MOVE, other_cluster=self._there.cluster)  # ``get`` returns None
        await tenant.steps.freeze([each for each in tenant.every_login() if each != dump_login])
        allowed = self._job.max_frozen
        if current.suspended is not None:
            allowed = max(allowed, _PREPARATION_SECONDS + _SLACK * seconds)
        await self._within(allowed, "copied", self._transfer(copier, source, record.current))
        return await self._commit(kept, record)

    async def _within(self, seconds: float, done: str, doing: Awaitable[T], why: str = "") -> T:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await doing
        except TimeoutError:
            if not limit.expired():
                raise
        raise self._error(f"it was not {done} within {seconds:.3g} s{why}")

    async def _undo(self, error: BaseException) -> None:
        try:
            await undo_move(self._tenant)
        except ClaimLostError:
            raise
        except DatabaseClientError as left:
            if not isinstance(error, Exception):  # a cancellation stays one
                return
            raise self._error(f"{error}; nor could what was begun be undone: {left}", "run repair") from error

    async def _copier(self) -> Copier:
        """Find the tools, or raise MoveError if the other server is older."""
        source, target = [(await each.server.administrator()).version for each in (self._tenant.home, self._there)]
        kind = copier_of()
        if reason := kind.refusal(source, target):
            raise self._error(reason)
        has_tls = self._tenant.current.ca is not None
        return await kind.with_tools(self._tenant.names, source, target, has_tls=has_tls)

    async def _prepare(self, copier: Copier, survey: Survey, source: Credential, logins: dict[Role, str]) -> Record:
        """Make the database and the logins on the other cluster, or raise GrantError if it could not have a copy."""
        tenant = self._tenant
        await asyncio.to_thread(check_free, Path(gettempdir()), survey.bytes)
        await self._create(survey, logins.values())
        record = await tenant.at(self._there, self._copy).add_logins(logins)
        assert record.current is not None
        await copier.try_copy(survey, source, record.current)
        await self._copy.copy_settings(*copier.database_settings(survey))
        await self._copy.drop_database()  # and what was tried in it
        await self._create(survey, logins.values())
        await self._copy.repair({login: role for role, login in logins.items()})
        return record

    async def _create(self, survey: Survey, logins: Collection[str]) -> None:
        if not await self._copy.create():  # somebody made it a moment ago, so it is not ours to drop
            await self._tenant.begin(Verb.REPAIR)  # which drops the logins alone, if this ends here
            await self._copy.end_logins(logins)
            await self._copy.drop_logins(logins)
            await self._tenant.end_begun_logins()
            await self._tenant.commit(self._tenant.record)
            raise conflict(self._tenant, self._there, Found(database=True))
        await self._copy.add_extensions(survey.extensions)

    async def _transfer(self, copier: Copier, source: Credential, target: Credential) -> None:
        survey = await copier.survey(source, self._tenant.current.username)  # the tenant changed things until now
        with TemporaryFile() as file:  # without a name, so nothing is left of it
            await copier.dump(source, file)
            await copier.restore(target, file)
        try:
            async with asyncio.TaskGroup() as tasks:  # only now, since somebody may have written in spite of all
                counting = [tasks.create_task(copier.count(each)) for each in (source, target)]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        counted, copied = [each.result() for each in counting]
        for name in [name for name, found in counted.items() if copied.get(name) != found]:
            here, there = [each.get(name, "nothing").split()[0] for each in (counted, copied)]
            how = f"has {here} here, and {there} there" if here != there else "has other values there"
            raise self._error(f"the copy differs: {name} {how}")
        await copier.finish(survey, target)
        await self._copy.copy_settings(*copier.database_settings(survey))

    async def _commit(self, kept: TenantMoved, record: Record) -> TenantMoved:
        """Store that the tenant is there, so that whoever works on it next drops what is left behind."""
        tenant, suspended, now = self._tenant, self._tenant.current.suspended, await self._tenant.context.store.now()
        assert record.current is not None
        assert self._frozen_at is not None
        roles = {
            role: RoleCredentials(current=evolve(pair.current, since=now, suspended=suspended))
            for role, pair in record.roles.items()
        }
        credential = evolve(record.current, since=now, suspended=suspended, moved_from=tenant.home.cluster)
        if suspended is not None:
            logins = [credential.username, *(pair.current.username for pair in roles.values())]
            await self._copy.end_logins(logins)
            await self._copy.drop_logins(logins)
            await self._copy.shut()
        frozen = timedelta(seconds=0 if suspended else monotonic() - self._frozen_at)
        outcome = evolve(kept, action=TenantAction.MOVED, credential=credential, frozen=frozen)
        self._job.moved[outcome.name] = outcome  # before it is stored
        await tenant.commit(evolve(record, current=credential, roles=roles))
        return outcome

    def _error(self, reason: str, advice: str = "") -> MoveError:
        here, there = self._tenant.home.cluster, self._there.cluster
        return MoveError(
            f"the tenant {self._tenant.names.tenant!r} was not moved to the cluster {there}: {reason}; "
            f"it is on the cluster {here}",
            advice=advice,
        )


def _checked_target(context: Context, to: Cluster | str | None) -> str | None:
    """Return the id of the cluster to move to, or raise InvalidArgumentError if it is none of the clusters."""
    if to is None and len(context.servers.clients) < 2:  # what is on ``to`` already is kept
        raise InvalidArgumentError("these tenants have one cluster: to move them, make a Tenants with both clusters")
    cluster = to.id if isinstance(to, Cluster) else to
    if cluster is not None and cluster not in context.servers.clients:
        raise InvalidArgumentError(f"to must be one of the clusters of these tenants, or its id, not {to!r}")
    return cluster
