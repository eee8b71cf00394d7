"""Move each tenant to another cluster: copy it while nobody works in it, store that it is there, and drop it here."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from time import monotonic

from attrs import evolve

from ...clusters import ClusterClient
from ...errors import DatabaseClientError, InvalidArgumentError, NameTakenError
from .._context import Context, Site
from .._copy import Copier, Survey, copier_of
from .._copy.programs import check_free
from .._credential import Credential, Secret
from .._naming import ROLES
from .._outcomes import TenantAction, TenantMoved
from .._record import OnRecord, State, Verb
from .._servers.server import Found
from ..errors import ClaimLostError, MoveError, RotationPendingError
from .jobs import ClaimingJob
from .provision import conflict
from .tenant import ClaimedTenant
from .unfinished import MovePlan, end_copying, freeze, reader_of, undo

_AT_A_TIME = 4  # tenants
# What a machine of two processors copies.
_BYTES_PER_SECOND = 25_000_000
_TABLES_PER_SECOND = 100


class MoveTenants(ClaimingJob[TenantMoved]):
    """Move each tenant to another cluster. See ``Tenants.move``."""

    ends_copying = True

    def __init__(self, context: Context, to: ClusterClient | str | None, max_frozen: timedelta) -> None:
        super().__init__(context)
        self._to = _checked_target(context, to)
        if not isinstance(max_frozen, timedelta) or max_frozen <= timedelta(0):
            raise InvalidArgumentError(f"max_frozen must be a timedelta of more than 0, not {max_frozen!r}")
        self.max_frozen = max_frozen.total_seconds()
        self._moved: dict[str, TenantMoved] = {}

    async def prepare(self) -> int:
        await super().prepare()
        return _AT_A_TIME

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantMoved | None:
        if record.state not in (State.USABLE, State.SUSPENDED, State.MOVING):
            raise record.unusable()
        assert record.current is not None
        if record.state is State.MOVING or record.left_behind is not None:
            return None
        moved = self._moved.get(record.name)
        if moved is not None and moved.credential.cluster == record.current.cluster:
            return evolve(moved, credential=record.current)
        if record.current.cluster == self._to:
            return TenantMoved(name=record.name, action=TenantAction.KEPT, credential=record.current)
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantMoved | None:
        name, home, placement = tenant.names.tenant, tenant.site.cluster, self.context.placement
        try:
            if await end_copying(tenant):
                return None
        except MoveError as left:  # the tenant works, and ``check`` says what is left
            if name not in self._moved or tenant.record.left_behind is None:
                raise
            return evolve(self._moved[name], left=str(left))
        without = {home} if self._to is None else {*self.context.sites.clients} - {self._to}
        site = await self.context.sites.choose(name, placement, tenant.timer.stats, without)
        outcome: TenantMoved | None = None
        try:
            with self.context.sites.watched(site.cluster, name):
                outcome = await _Move(self, tenant, site).run()
        finally:
            is_moved = outcome is not None and outcome.action is TenantAction.MOVED
            placement.leave(home if is_moved else site.cluster)
        return None if is_moved else outcome  # what is left behind is dropped next

    def takes_too_long(self, survey: Survey) -> bool:
        """Whether a database cannot be copied within the limit."""
        seconds = survey.bytes / _BYTES_PER_SECOND + survey.tables / _TABLES_PER_SECOND
        return seconds > self.max_frozen

    def note(self, moved: TenantMoved) -> None:
        """Remember the outcome of a move, right before it is stored."""
        self._moved[moved.name] = moved


class _Move:
    """The move of one tenant."""

    def __init__(self, job: MoveTenants, tenant: ClaimedTenant, site: Site) -> None:
        self._job = job
        self._tenant = tenant
        self._there = evolve(tenant, site=site)
        self._plan = MovePlan(site.cluster)
        self._others: tuple[str, ...] = ()  # who has rights on the database, which end with the move
        self._frozen_at: float | None = None

    async def run(self) -> TenantMoved:
        """Move the tenant. If that fails before the commit, the tenant is as it was."""
        tenant, there = self._tenant, self._there
        await self._refuse_adopted()
        copier = await self._copier()
        if found := await there.server.find(there.names):
            raise conflict(there, found)
        self._others = await tenant.server.other_grantees(tenant.names)
        await tenant.begin(Verb.PREPARE, tenant.current.username, str(self._plan))
        try:
            return await self._steps(copier)
        except (ClaimLostError, NameTakenError):
            raise
        except BaseException as error:
            await self._undo(error)
            if isinstance(error, MoveError) or not isinstance(error, DatabaseClientError | OSError):
                raise
            raise self._error(str(error)) from error

    async def _steps(self, copier: Copier) -> TenantMoved:
        tenant, current = self._tenant, self._tenant.current
        survey = await copier.survey(await reader_of(tenant), current.username)
        kept = TenantMoved(name=current.name, action=TenantAction.KEPT, credential=current, bytes=survey.bytes)
        if current.suspended is None and self._job.takes_too_long(survey):
            await undo(tenant, self._plan, shut=False)
            return kept
        writer = await self._prepare(copier, survey)
        self._frozen_at = monotonic()
        await freeze(tenant, self._plan)
        # The tenant may have changed a setting until now, and ``shut`` resets some.
        survey = await copier.survey(await reader_of(tenant), current.username)
        await tenant.server.shut(tenant.work, still=True)
        reader = await reader_of(tenant)
        try:
            async with asyncio.timeout(self._job.max_frozen):
                await self._transfer(copier, survey, reader, writer)
        except TimeoutError:
            raise self._error(f"it was not copied within {self._job.max_frozen} s, its max_frozen") from None
        return await self._commit(evolve(kept, action=TenantAction.MOVED, credential=writer))

    async def _undo(self, error: BaseException) -> None:
        """Undo what was begun before ``error``."""
        try:
            await undo(self._tenant, self._plan, shut=self._frozen_at is not None)
        except ClaimLostError:
            raise
        except DatabaseClientError as left:
            unfinished = self._error(f"{error}; nor could what was begun be undone: {left}")
            unfinished.advice = "run repair"
            raise unfinished from error

    async def _refuse_adopted(self) -> None:
        """Raise RotationPendingError if a login, of which no password is on record, could not be given back."""
        tenant = self._tenant
        name = tenant.names.tenant
        records = [tenant.record, *[await tenant.in_role(role).read() for role in ROLES]]
        if any(each.previous is not None and each.previous.password is None for each in records):
            raise RotationPendingError(
                f"the tenant {name!r} has an adopted login, which would not work elsewhere; nothing was changed",
                advice="revoke it first",
            )

    async def _copier(self) -> Copier:
        """Find the programs. Raises MoveError if the other server is older."""
        source, target = [(await each.server.administrator()).version for each in (self._tenant, self._there)]
        kind = copier_of(self._tenant.site.engine)
        if reason := kind.refusal(source, target):
            raise self._error(reason)
        has_tls = self._tenant.current.ca is not None
        return await kind.with_programs(self._tenant.names, source, target, has_tls=has_tls)

    async def _prepare(self, copier: Copier, survey: Survey) -> Credential:
        """Make the database on the other cluster. Raises MoveError if it could not have a copy."""
        there = self._there
        if survey.refusals:
            raise self._error("; ".join(survey.refusals))
        await self._tenant.server.programs(self._tenant.names)  # it may not read some
        await asyncio.to_thread(check_free, Path(gettempdir()), survey.bytes)
        if not await there.server.create(there.work):  # somebody made it a moment ago, so it is not ours to drop
            await self._tenant.server.drop_temporary(self._tenant.work)
            await self._tenant.held.begin(None)
            raise conflict(there, Found(database=True, logins=()))
        for role in map(there.in_role, ROLES):
            if (await role.read()).exists:
                await there.server.create(evolve(there.work, names=role.names))
        await there.server.add_extensions(there.work, survey.extensions)
        writer = await there.set_login(self._tenant.current.username)
        if obstacles := await copier.obstacles(survey, writer):
            raise self._error("; ".join(obstacles))
        return writer

    async def _transfer(self, copier: Copier, survey: Survey, reader: Credential, writer: Credential) -> None:
        there = self._there
        programs, events = await self._tenant.server.programs(self._tenant.names)
        with TemporaryFile() as file:  # without a name, so nothing is left of it
            try:
                async with asyncio.TaskGroup() as tasks:
                    counting = tasks.create_task(copier.count(reader))
                    tasks.create_task(copier.dump(reader, programs, file))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
            await copier.restore(writer, file)
        counted, copied = counting.result(), await copier.count(writer)
        if different := sorted(each for each in {*counted, *copied} if counted.get(each) != copied.get(each)):
            first = different[0]
            raise self._error(f"the copy differs: {first} has {counted.get(first)} here, and {copied.get(first)} there")
        await copier.finish(survey, writer, events)
        refused = await there.server.log_in(there.names, writer.username, Secret(writer.password or ""))
        if refused is not None:
            raise self._error(f"the new login is refused: {refused}")

    async def _commit(self, outcome: TenantMoved) -> TenantMoved:
        """Store that the tenant is there. From now on what is left behind is dropped, by whoever works on it next."""
        tenant, there, suspended = self._tenant, self._there, self._tenant.current.suspended
        now, home = await tenant.now(), tenant.site.cluster
        credential = evolve(outcome.credential, since=now, suspended=suspended, moved_from=home)
        if suspended is not None:
            await there.server.end_logins(there.work, [credential.username])
            await there.drop_login(credential.username)
            await there.server.shut(there.work)
        assert self._frozen_at is not None
        frozen = timedelta(seconds=0 if suspended else monotonic() - self._frozen_at)
        outcome = evolve(outcome, credential=credential, frozen=frozen, shut_out=self._others)
        self._job.note(outcome)
        await tenant.held.commit(credential, None)
        return outcome

    def _error(self, reason: str) -> MoveError:
        here, there = self._tenant.site.cluster, self._there.site.cluster
        ended = f". The rights on its database of {', '.join(self._others)} have ended" if self._is_moving else ""
        return MoveError(
            f"the tenant {self._tenant.names.tenant!r} was not moved to the cluster {there}: {reason}; "
            f"it is on the cluster {here}{ended if self._others else ''}"
        )

    @property
    def _is_moving(self) -> bool:
        return self._frozen_at is not None


def _checked_target(context: Context, to: ClusterClient | str | None) -> str | None:
    """Return the id of the cluster to move to. Raises InvalidArgumentError if it is none of the clusters."""
    if to is None and len(context.sites.clients) < 2:  # what is on ``to`` already is kept
        raise InvalidArgumentError("these tenants have one cluster: to move them, make a Tenants with both clusters")
    cluster = to.id if isinstance(to, ClusterClient) else to
    if cluster is not None and cluster not in context.sites.clients:
        raise InvalidArgumentError(f"to must be one of the clusters of these tenants, or its id, not {to!r}")
    return cluster
