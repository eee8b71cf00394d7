"""Make a tenant: its database and its first login. Or adopt what others made."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Literal, get_args

from attrs import evolve

from ...errors import ConflictError, InvalidArgumentError, NameTakenError, NotFoundError
from .._clusters import UNREACHABLE, TenantCluster
from .._context import Context
from .._naming import Role, names_of
from .._outcomes import Reporter, TenantAction, TenantDone, done
from .._records import LOCKED_OUT, Login, OperationKind, TenantRecord, TenantState, rotated, state_of, unusable
from .._servers import ServerState
from .._stores import entries_of
from .loop import ChangeTenants
from .remove import remove
from .tenant import Tenant

IfExists = Literal["error", "adopt"]


class ProvisionTenants(ChangeTenants[TenantDone]):
    """``Tenants.provision``: give each tenant a database and a login of its own."""

    def __init__(self, context: Context, if_exists: IfExists = "error", wanted: object = None) -> None:
        super().__init__(context)
        if if_exists not in get_args(IfExists):
            raise InvalidArgumentError(f'if_exists must be "error" or "adopt", not {if_exists!r}')
        self._if_exists: IfExists = if_exists
        self._wanted = wanted
        self._chosen: dict[str, str] = {}  # the clusters of new tenants of which nothing is on record, by name

    async def prepare(self) -> int:
        self.context.placement.start_run()
        concurrency = await super().prepare()
        if self._if_exists == "error" and self.context.role is Role.OWNER and isinstance(self._wanted, Collection):
            await self._refuse_wrong_store(self._wanted)
        return concurrency

    async def _refuse_wrong_store(self, wanted: Collection[object]) -> None:
        """Raise NameTakenError if the store is empty, and the clusters have tenants of these names."""
        async for _ in entries_of(self.context.store):
            return
        prefix, databases = self.context.prefix, {database for _, database in await self.context.clusters.databases()}
        taken = [name for name in wanted if isinstance(name, str) and prefix + name in databases]
        if taken:
            raise NameTakenError(
                f"the store is empty, and {len(taken)} of the {len(wanted)} names have a database already, such as "
                f"{taken[0]!r}: is it the right store? Nothing was created",
                status=409,
                advice='open the store that has them, or take over what exists with if_exists="adopt"',
            )

    async def do_one(self, name: str, reporter: Reporter) -> TenantDone:
        """Make a new tenant on the chosen cluster, or on another one if that is unreachable and has nothing of it."""
        placement = self.context.placement
        while True:
            try:
                return await super().do_one(name, reporter)
            except UNREACHABLE as error:
                chosen = self._chosen.get(name)
                if chosen is None or name in placement.on_record[chosen] or not placement.may_choose:
                    raise
                self.context.clusters.mark_unreachable(chosen, error)
            finally:
                if name in self._chosen:
                    placement.leave(name, self._chosen.pop(name))

    async def cluster_for(self, name: str, record: TenantRecord | None, reporter: Reporter) -> str:
        """Return the tenant's cluster, or choose one for a new tenant, and another if that is unreachable."""
        if record is not None:
            is_first = record.state() is TenantState.PROVISIONING and record.leftover is None
            if not is_first or not self.context.placement.may_choose or self.context.role is not Role.OWNER:
                return record.cluster
            with suppress(*UNREACHABLE):
                return (await self.context.clusters.get(record.cluster, reporter.stats)).id
        if name not in self._chosen:
            clusters = self.context.clusters
            self._chosen[name] = (await self.context.placement.choose(name, clusters, reporter.stats)).id
        return self._chosen[name]

    def precheck(self, name: str, record: TenantRecord | None, at_start: TenantRecord | None) -> TenantDone | None:
        role = self.context.role
        state = state_of(record, role)
        if state in LOCKED_OUT or (record is None and role is not Role.OWNER):
            raise unusable(record, name, role)
        lacks_setup = self.context.setup is not None and role is Role.OWNER
        if record is None or state is not TenantState.USABLE or (lacks_setup and not record.is_set_up):
            return None
        if self._if_exists == "adopt" and role is Role.OWNER:  # the store may be older than the server
            return None
        return done(TenantAction.KEPT, record, role)

    async def change(self, tenant: Tenant) -> TenantDone:
        name, role, action = tenant.names.tenant, tenant.role, TenantAction.CREATED
        if role is not Role.OWNER:
            if tenant.stored.state() is not TenantState.USABLE:
                raise unusable(tenant.record, name, Role.OWNER)
            await provision_role(tenant)
        elif tenant.state is TenantState.USABLE:
            action = TenantAction.KEPT
            await _set_up(tenant)
        else:
            if tenant.state is TenantState.REMOVING:
                await remove(tenant)
                await tenant.inspect(ends_logins=False)
            action = await provision(tenant, self._if_exists)
        return done(action, tenant.stored, role)


async def _set_up(tenant: Tenant) -> None:
    """Set up a tenant on record that is not, such as one that the command made, which has no setup."""
    if not tenant.found.database:
        raise await tenant.no_database()
    record, login = tenant.stored, tenant.stored.current()
    if not record.is_set_up and login is not None:
        await tenant.save(await tenant.set_up(record, login))


async def provision(tenant: Tenant, if_exists: IfExists = "error") -> TenantAction:
    """Make the database and the first login, set it up, and store the login."""
    record, cluster = tenant.record, tenant.cluster
    if record is not None and record.operation is not None and record.cluster == cluster.id:  # what exists is ours
        kind = record.operation.kind
        if kind is OperationKind.PROVISION and tenant.found.not_ours:  # but this was made after a process died
            await tenant.save(None)
            raise conflict(tenant, cluster, tenant.found)
        await tenant.drop_unfinished_logins()
    else:
        kind = await _kind_for(tenant, if_exists)
        # The first cluster of a new tenant may be unreachable, and have something of it.
        leftover = None if record is None else record.cluster
        record = evolve(cluster.new_record(tenant.names), leftover=leftover)
    template = await _find_template(tenant) if kind is OperationKind.PROVISION else None
    if template is not None:
        record = evolve(record, is_set_up=template.is_set_up, version=template.version)
        if tenant.found.database:  # of a process that died: a copy is never continued
            await tenant.steps.drop_database()
    [login] = tenant.next_logins()
    await tenant.start(kind, [login], record=record, template=None if template is None else template.name)
    try:
        is_new = await (tenant.steps.create() if template is None else _copy(tenant, template))
        adopted = await tenant.steps.adopt() if kind is OperationKind.ADOPT else None
    except (ConflictError, InvalidArgumentError):  # it is not the tenant's to take, or the server takes no such name
        if template is not None:
            await remove(tenant)
        else:
            await tenant.save(None)
        raise
    is_continued = template is None and tenant.found.database
    if kind is OperationKind.PROVISION and not is_new and not is_continued:  # somebody made it a moment ago
        await tenant.save(None)
        raise conflict(tenant, cluster, ServerState(database=True))
    await tenant.steps.restore_extensions(is_new=kind is OperationKind.PROVISION)
    logins = list[Login]()
    if adopted is not None:
        now = await tenant.context.store.now()
        logins.append(Login(username=adopted, password=None, created=now, replaced=now))
    logins.append(await tenant.add_login(login, Role.OWNER))
    await tenant.save(await tenant.set_up(evolve(tenant.stored, operation=None, logins=tuple(logins)), logins[-1]))
    return TenantAction.ADOPTED if kind is OperationKind.ADOPT else TenantAction.CREATED


async def _find_template(tenant: Tenant) -> TenantRecord | None:
    """Return the suspended tenant whose database is copied, or raise ConflictError if it cannot be."""
    cluster, record = tenant.cluster, tenant.record
    name = tenant.context.clusters.options.template.get(cluster.id)
    if name is None and record is not None and record.operation is not None:  # continue what another process began
        name = record.operation.template
    if name is None:
        return None
    if name == tenant.names.tenant:
        raise InvalidArgumentError(
            f"the tenant {name!r} is its own template: make it with a Tenants without template; nothing was created"
        )
    record, reason = await tenant.context.record(name), ""
    if record is None:
        reason = "is not on record"
    elif record.cluster != cluster.id:
        reason = f"is on the cluster {record.cluster}, and the tenant on {cluster.id}"
    elif record.state() is not TenantState.SUSPENDED:
        reason = "is not suspended"
    elif not (await cluster.server.inspect(names_of(name, cluster.engine, tenant.context.prefix))).is_locked_out:
        reason = "is suspended in the store, and not on the server"
    if reason:
        raise ConflictError(
            f"the template {name!r} {reason}; the tenant {tenant.names.tenant!r} was not created",
            status=409,
            advice="provision the template without template=, migrate it, and suspend it",
        )
    return record


async def _copy(tenant: Tenant, template: TenantRecord) -> bool:
    """Create the database as a copy of the template's, and return whether it is new."""
    is_new = await tenant.steps.create(names_of(template.name, tenant.cluster.engine, tenant.context.prefix))
    now = await _find_template(tenant)
    if now is None or now.suspended != template.suspended:
        raise ConflictError(f"the template {template.name!r} was resumed meanwhile; nothing was created", status=409)
    return is_new


async def provision_role(tenant: Tenant) -> None:
    """Make the first login of a tenant's readers or writers, and store it."""
    [login] = tenant.next_logins()
    await tenant.start(OperationKind.PROVISION, [login], role=tenant.role)
    await tenant.save(rotated(tenant.stored, await tenant.add_login(login, tenant.role)))


async def _kind_for(tenant: Tenant, if_exists: IfExists) -> OperationKind:
    """Choose how a new tenant gets its login."""
    if tenant.record is None:
        clusters = tenant.context.clusters
        for other, found in await clusters.on_others(tenant.cluster.id, tenant.names, tenant.reporter.stats):
            if found:  # as after a store was lost
                raise conflict(tenant, other, found)
    if not tenant.found and if_exists == "adopt" and tenant.record is None:
        raise NotFoundError(
            f"the cluster {tenant.cluster.id} has no database {tenant.names.database!r} to adopt; nothing was changed",
            status=404,
            advice="name the cluster that has it, or provision the tenant without adopting",
        )
    if not tenant.found:
        return OperationKind.PROVISION
    if tenant.found.mismatch and not tenant.found.database:
        raise ConflictError(f"tenant {tenant.names.tenant!r}: {tenant.found.mismatch}; nothing was changed", status=409)
    if if_exists == "error":
        raise conflict(tenant, tenant.cluster, tenant.found)
    return OperationKind.ADOPT


def conflict(tenant: Tenant, cluster: TenantCluster, found: ServerState) -> NameTakenError:
    """The error for a new tenant whose names a cluster has already."""
    logins = [*found.logins, *([tenant.names.database] if found.same_name_login else [])]
    what = [f"the login {login!r}" for login in logins]
    if found.database:
        what.append(f"the database {tenant.names.database!r}")
    exist = "exists and is" if len(what) == 1 else "exist and are"
    several = len(tenant.context.clusters.clients) > 1
    where = f" on the cluster {cluster.id}" if several else ""
    alone = " and that cluster alone" if several else ""
    return NameTakenError(
        f"{' and '.join(what)} {exist} not on record, so somebody else created this{where}; nothing was changed",
        status=409,
        advice=f'choose another name, or take over what exists with if_exists="adopt"{alone}',
    )
