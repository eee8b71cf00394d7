"""Move each tenant to another cluster: copy it while nobody works in it, store where it is, and drop the source."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from time import monotonic
from typing import TYPE_CHECKING

from attrs import define, evolve

from ..._http.retry import with_message
from ...clusters import Cluster
from ...engines import MYSQL, Engine
from ...errors import DatabaseClientError, InvalidArgumentError, NameTakenError, UnsupportedOperationError
from .._clusters import TenantCluster
from .._context import Context
from .._credential import Credential
from .._naming import Role
from .._operations.loop import ChangeTenants
from .._operations.provision import conflict
from .._operations.recover import drop_leftover, undo_move
from .._operations.tenant import Tenant
from .._outcomes import TenantAction, TenantMoved
from .._records import Login, OperationKind, TenantRecord, TenantState, credential_of, roles_of, state_of, unusable
from .._servers import ServerState, TenantSteps, new_password
from ..errors import ClaimLostError, GrantError, MoveError, RotationPendingError, StoreError
from .programs import check_free, tools_for

if TYPE_CHECKING:
    from .copier import Copier, DatabaseInfo

_AT_A_TIME = 4  # tenants
_PREPARATION_SECONDS = 120.0  # and for each table. A tenant's function may run for ever in a restore
_SLACK = 10  # how much longer than estimated what has no ``max_frozen`` may take
_BYTES_PER_SECOND = 25_000_000
_TABLES_PER_SECOND = 100


class MoveTenants(ChangeTenants[TenantMoved]):
    """``Tenants.move``: move each tenant to another cluster."""

    def __init__(self, context: Context, to: Cluster | str | None, max_frozen: timedelta) -> None:
        super().__init__(context)
        clusters = context.clusters.clients
        if to is None and len(clusters) < 2:  # what is on ``to`` already is kept
            raise InvalidArgumentError(
                "these tenants have one cluster: to move them, make a Tenants with both clusters"
            )
        self._to = to.id if isinstance(to, Cluster) else to
        if self._to is not None and self._to not in clusters:
            raise InvalidArgumentError(f"to must be one of the clusters of these tenants, or its id, not {to!r}")
        if not isinstance(max_frozen, timedelta) or max_frozen <= timedelta(0):
            raise InvalidArgumentError(f"max_frozen must be a timedelta of more than 0, not {max_frozen!r}")
        self._max_frozen = max_frozen.total_seconds()

    async def prepare(self) -> int:
        self.context.placement.start_run()
        await super().prepare()
        return _AT_A_TIME

    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> TenantMoved | None:
        state = state_of(record, Role.OWNER)
        if record is None or state not in (TenantState.USABLE, TenantState.SUSPENDED, TenantState.MOVING):
            raise unusable(record, name, Role.OWNER)
        if record.engine in MYSQL:
            raise UnsupportedOperationError(
                "move: tenants on MySQL cannot be moved, because mysqldump changes values; nothing was changed. Dump "
                "and load it by hand: see docs/how-to/move.md",
                engine=Engine.MYSQL,
                operation="tenants.move",
            )
        has_adopted = any(each.password is None for each in record.logins)
        if has_adopted and record.cluster != self._to and record.operation is None:
            raise RotationPendingError(
                f"the tenant {name!r} has an adopted login, which would not work elsewhere; nothing was changed",
                advice="revoke it first",
            )
        was_moved = at_start is not None and record.cluster != at_start.cluster  # meanwhile, by another process
        is_there = was_moved if self._to is None else record.cluster == self._to
        if state is TenantState.MOVING or record.leftover is not None or not is_there:
            return None
        return TenantMoved(name=name, action=TenantAction.KEPT, credential=credential_of(record), record=record)

    async def change(self, tenant: Tenant) -> TenantMoved:
        await drop_leftover(tenant)
        name, clusters, placement = tenant.names.tenant, self.context.clusters, self.context.placement
        without = {tenant.cluster.id} if self._to is None else {*clusters.clients} - {self._to}
        target = await placement.choose(name, clusters, tenant.reporter.stats, without)
        try:
            with clusters.track_failures(target.id, name):
                async with target.server.session(tenant) as on_target:
                    outcome = await _Move(self._max_frozen, tenant, target, on_target).run()
        finally:
            placement.leave(name, target.id)
        if outcome.action is not TenantAction.MOVED:
            return outcome
        try:
            await drop_leftover(tenant)
        except (MoveError, StoreError) as error:  # the tenant works, and ``check`` says what is left
            outcome = evolve(outcome, leftover=str(error))
        return evolve(outcome, record=tenant.stored)


@define(eq=False, repr=False)
class _Move:
    """The move of one tenant: it is prepared while the tenant works, copied while it is frozen, and committed."""

    _max_frozen: float
    _tenant: Tenant  # its steps are those on the source
    _target: TenantCluster
    _on_target: TenantSteps

    async def run(self) -> TenantMoved:
        """Move the tenant, or leave it as it was if that fails before the commit."""
        tenant, target = self._tenant, self._target
        versions = [(await each.server.administrator()).version for each in (tenant.cluster, target)]
        old, new = [int(re.split(r"\D", version)[0]) for version in versions]
        if new < old:
            raise self._error(f"PostgreSQL {versions[1]} is older than {versions[0]}")
        tools = await tools_for(old, new, has_tls=tenant.stored.ca is not None)
        from .copier import Copier  # needs the driver

        copier = Copier(tenant.names, tools, old)
        found = await target.server.inspect(tenant.names)
        if found:
            raise conflict(tenant, target, found)
        roles = roles_of(tenant.stored)
        dump_login, *names = tenant.next_logins(1 + len(roles), also=found.disabled)
        logins = dict(zip(roles, names, strict=True))
        await tenant.start(OperationKind.PREPARE, [dump_login, *names], target=target.id)
        try:
            return await self._move(copier, dump_login, logins)
        except ClaimLostError:
            raise
        except BaseException as error:
            await self._undo(error)
            raise

    async def _move(self, copier: Copier, dump_login: str, logins: dict[Role, str]) -> TenantMoved:
        tenant, record = self._tenant, self._tenant.stored
        current, is_suspended = credential_of(record), record.suspended is not None

        # Prepare: the tenant works.
        password = new_password()
        await tenant.steps.add_dump_login(dump_login, password)
        dumping = Login(username=dump_login, role=Role.READER, password=password, created=current.created)
        source = credential_of(record, dumping)
        async with self._time_limit(_PREPARATION_SECONDS, "inspected"):
            info = await copier.inspect(source, current.username)
        schema_seconds = info.tables / _TABLES_PER_SECOND  # as a machine of two processors copies
        copy_seconds = schema_seconds + info.bytes / _BYTES_PER_SECOND
        outcome = TenantMoved(
            name=record.name, action=TenantAction.KEPT, credential=current, record=record, bytes=info.bytes
        )
        if copy_seconds > self._max_frozen and not is_suspended:
            await undo_move(tenant)
            return evolve(outcome, record=tenant.stored)
        why = ": does a function of an index or constraint run for long, or a transaction of the tenant lock a table?"
        async with self._time_limit(_PREPARATION_SECONDS + _SLACK * schema_seconds, "copied without its rows", why):
            prepared = await self._prepare(copier, info, source, logins)

        # Copy: the tenant is frozen.
        frozen_at, seconds = monotonic(), self._max_frozen
        await tenant.start(OperationKind.MOVE, target=self._target.id)  # ``get`` returns None
        await tenant.steps.freeze([each for each in tenant.every_login() if each != dump_login])
        if is_suspended:
            seconds = max(seconds, _PREPARATION_SECONDS + _SLACK * copy_seconds)
        async with self._time_limit(seconds, "copied"):
            await self._copy(copier, source, credential_of(prepared))

        await self._commit(prepared)
        frozen = timedelta(seconds=0 if is_suspended else monotonic() - frozen_at)
        return evolve(outcome, action=TenantAction.MOVED, credential=credential_of(tenant.stored), frozen=frozen)

    @asynccontextmanager
    async def _time_limit(self, seconds: float, what: str, why: str = "") -> AsyncGenerator[None]:
        """Raise MoveError, that the tenant was not ``what``, if the block takes longer."""
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield
            return
        except TimeoutError:
            if not limit.expired():
                raise
        raise self._error(f"it was not {what} within {seconds:.3g} s{why}")

    async def _undo(self, error: BaseException) -> None:
        """Undo what was begun, unless it is committed, and raise the error that says where the tenant is."""
        failure: DatabaseClientError | None = None
        try:
            await undo_move(self._tenant)
        except ClaimLostError:
            raise
        except DatabaseClientError as failed:
            failure = failed
        is_moved = self._tenant.stored.cluster == self._target.id
        if is_moved or not isinstance(error, DatabaseClientError | OSError):  # a cancellation stays one
            return
        if isinstance(error, MoveError | NameTakenError) and failure is None:
            return
        left = "" if failure is None else f"; nor could what was begun be undone: {failure}"
        if isinstance(error, StoreError) and isinstance(failure, StoreError):  # its commit may be stored
            raise with_message(error, f"{error}{left}", advice="run repair") from error
        # The cause has the statement.
        reason = (
            with_message(error, error.args[0], statement="", on_record="") if isinstance(error, GrantError) else error
        )
        raise self._error(f"{reason}{left}", "run repair" if left else "") from error

    async def _prepare(
        self, copier: Copier, info: DatabaseInfo, source: Credential, logins: dict[Role, str]
    ) -> TenantRecord:
        """Make the database and the logins on the target, or raise GrantError if it could not have a copy."""
        tenant, record = self._tenant, self._tenant.stored
        await asyncio.to_thread(check_free, Path(gettempdir()), info.bytes)
        await self._create(info)
        prepared = evolve(
            self._target.new_record(tenant.names),
            suspended=record.suspended,
            is_set_up=record.is_set_up,
            version=record.version,
            leftover=record.cluster,
            logins=await tenant.add_logins(logins, steps=self._on_target),
        )
        await copier.try_copy(info, source, credential_of(prepared))
        await self._on_target.copy_settings(info.connection_limit, info.settings)
        await self._on_target.drop_database()  # and what was tried in it
        await self._create(info)
        await self._on_target.repair({login: role for role, login in logins.items()})
        return prepared

    async def _create(self, info: DatabaseInfo) -> None:
        if not await self._on_target.create():  # somebody made it a moment ago
            raise conflict(self._tenant, self._target, ServerState(database=True))
        await self._on_target.add_extensions(info.extensions)

    async def _copy(self, copier: Copier, source: Credential, target: Credential) -> None:
        """Copy the frozen database, and compare the copy."""
        # Again, since the tenant changed things until now.
        info = await copier.inspect(source, credential_of(self._tenant.stored).username)
        with TemporaryFile() as file:  # without a name, so nothing is left of it
            await copier.dump(source, file)
            await copier.restore(target, file)
        await copier.check_members(source, target)
        await self._on_target.copy_settings(info.connection_limit, info.settings)  # what ``money`` means depends on one
        try:
            async with asyncio.TaskGroup() as tasks:  # only now, since somebody may have written in spite of all
                counting = [tasks.create_task(copier.count(each)) for each in (source, target)]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        counted, counted_copy = [each.result() for each in counting]
        for name in [name for name, found in counted.items() if counted_copy.get(name) != found]:
            rows, copied_rows = [each.get(name, "nothing").split()[0] for each in (counted, counted_copy)]
            how = f"has {rows} on the source, and {copied_rows} on the target"
            how = how if rows != copied_rows else "has other values on the target"
            raise self._error(f"the copy differs: {name} {how}")
        await copier.copy_settings(info, target)

    async def _commit(self, prepared: TenantRecord) -> None:
        """Store that the tenant is on the target, so that whoever works on it next drops the leftover."""
        tenant, now = self._tenant, await self._tenant.context.store.now()
        if prepared.suspended is not None:
            logins = [each.username for each in prepared.logins]
            await self._on_target.end_logins(logins)
            await self._on_target.drop_logins(logins)
            await self._on_target.lock_out()
        try:
            await tenant.save(evolve(prepared, logins=tuple(evolve(each, created=now) for each in prepared.logins)))
        except StoreError:  # its answer may have been lost
            await tenant.reread()
            if tenant.stored.cluster != self._target.id:
                raise

    def _error(self, reason: str, advice: str = "") -> MoveError:
        source, target = self._tenant.cluster.id, self._target.id
        return MoveError(
            f"the tenant {self._tenant.names.tenant!r} was not moved to the cluster {target}: {reason}; "
            f"it is on the cluster {source}",
            advice=advice,
        )
