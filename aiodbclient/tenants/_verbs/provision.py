"""Make a tenant: its database and its first login. Or adopt what others made."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Literal, get_args

from attrs import evolve

from ...errors import ConflictError, InvalidArgumentError, NameTakenError, NotFoundError
from .._context import AWAY, Context, TenantServer
from .._credential import Credential
from .._naming import Role
from .._outcomes import Reporter, TenantAction, TenantDone, done
from .._record import OnRecord, State, Verb, with_credentials
from .._servers import Found
from .._stores import entries_of
from .changes import ChangeTenants, remove
from .tenant import Tenant

IfExists = Literal["error", "adopt"]


class ProvisionTenants(ChangeTenants[TenantDone]):
    """``Tenants.provision``: give each tenant a database and a login of its own."""

    verb = Verb.PROVISION

    def __init__(self, context: Context, if_exists: IfExists = "error", wanted: object = None) -> None:
        super().__init__(context)
        if if_exists not in get_args(IfExists):
            raise InvalidArgumentError(f'if_exists must be "error" or "adopt", not {if_exists!r}')
        self._if_exists: IfExists = if_exists
        self._wanted = wanted
        self._chosen: dict[str, str] = {}  # the clusters of new tenants of which nothing is on record, by name

    async def prepare(self) -> int:
        self.context.placement.begin_run()
        concurrency = await super().prepare()
        if self._if_exists == "error" and self.context.role is Role.OWNER and isinstance(self._wanted, Collection):
            await self._refuse_wrong_store(self._wanted)
        return concurrency

    async def _refuse_wrong_store(self, wanted: Collection[object]) -> None:
        """Raise NameTakenError if the store is empty, and the clusters have tenants of these names."""
        async for _ in entries_of(self.context.store):
            return
        prefix, databases = self.context.prefix, {database for _, database in await self.context.servers.databases()}
        taken = [name for name in wanted if isinstance(name, str) and prefix + name in databases]
        if taken:
            raise NameTakenError(
                f"the store is empty, and {len(taken)} of the {len(wanted)} names have a database already, such as "
                f"{taken[0]!r}: is it the right store? Nothing was created",
                status=409,
                advice='open the store that has them, or take over what exists with if_exists="adopt"',
            )

    async def do_one(self, name: str, reporter: Reporter) -> TenantDone:
        """Make a new tenant on the cluster that is chosen, or on another one if that is away and has nothing of it."""
        while True:
            try:
                return await super().do_one(name, reporter)
            except AWAY as error:
                if name not in self._chosen or not self.context.may_choose:
                    raise
                self.context.servers.note_away(self._chosen[name], error)
            finally:
                if name in self._chosen:
                    self.context.placement.leave(self._chosen.pop(name))

    async def cluster_for(self, on_record: OnRecord, reporter: Reporter) -> str:
        """Return the tenant's cluster, or choose one for a new tenant, and another if that is unreachable."""
        if self.context.role is not Role.OWNER:
            return await super().cluster_for(on_record, reporter)
        cluster, intent = on_record.cluster, on_record.intent
        if cluster is not None:
            is_first = on_record.state is State.PROVISIONING and intent is not None and intent.other_cluster is None
            if not is_first or not self.context.may_choose:
                return cluster
            with suppress(*AWAY):
                return (await self.context.servers.server(cluster, reporter.stats)).cluster
        if on_record.name not in self._chosen:
            home = await self.context.choose(on_record.name, reporter.stats)
            self._chosen[on_record.name] = home.cluster
        return self._chosen[on_record.name]

    def done_already(self, on_record: OnRecord, login_at_start: str | None) -> TenantDone | None:
        if on_record.state.is_shut:
            raise on_record.unusable()
        lacks_setup = self.context.setup is not None and self.context.role is Role.OWNER
        if on_record.usable is None or (lacks_setup and not on_record.usable.is_set_up):
            return None
        return done(TenantAction.KEPT, on_record.usable)

    async def change(self, tenant: Tenant) -> TenantDone | None:
        try:
            return await self._change(tenant)
        finally:
            if not tenant.on_record.of_role(Role.OWNER).is_empty:
                self._chosen.pop(tenant.names.tenant, None)  # it stays counted

    async def _change(self, tenant: Tenant) -> TenantDone | None:
        state = tenant.on_record.state
        if state is State.REMOVING:
            await remove(tenant)
            return None
        owner = tenant.on_record.of_role(Role.OWNER)
        if tenant.role is not Role.OWNER and owner.usable is None:
            raise (tenant.on_record if owner.is_empty else owner).unusable()
        if state is State.USABLE:  # the command made it, for example, which has no setup
            credential = await tenant.set_up(tenant.current)
            await tenant.commit(with_credentials(tenant.record, tenant.role, credential, tenant.on_record.previous))
            return done(TenantAction.KEPT, credential)
        if tenant.role is not Role.OWNER:
            return done(TenantAction.CREATED, await provision_role(tenant, tenant.role))
        return done(*await provision(tenant, self._if_exists))


async def provision(tenant: Tenant, if_exists: IfExists = "error") -> tuple[TenantAction, Credential]:
    """Make the database and the first login, set it up, and store the credential."""
    intent, previous = tenant.on_record.intent, None
    if intent is not None and intent.cluster == tenant.home.cluster:  # what exists is ours
        verb, left_behind = intent.verb, intent.other_cluster
        if verb is Verb.PROVISION and tenant.found.is_foreign:  # but this was made after a process died
            await tenant.delete()
            raise conflict(tenant, tenant.home, tenant.found)
        await tenant.end_begun_logins()
    else:
        verb = await _verb_for(tenant, if_exists)
        left_behind = None if intent is None else intent.cluster  # unreachable, and may have something of the tenant
    [login] = tenant.new_logins()
    await tenant.begin(verb, [login], other_cluster=left_behind)
    try:
        is_new = await tenant.steps.create()
        adopted = await tenant.steps.adopt() if verb is Verb.ADOPT else None
    except (ConflictError, InvalidArgumentError):  # it is not the tenant's to take, or the server takes no such name
        await tenant.delete()
        raise
    if verb is Verb.PROVISION and not is_new and not tenant.found.database:  # somebody made it a moment ago
        await tenant.delete()
        raise conflict(tenant, tenant.home, Found(database=True))
    if adopted is not None:
        previous = tenant.home.credential(tenant.names, Role.OWNER, adopted, None, await tenant.context.store.now())
    credential = await tenant.set_up(await tenant.add_login(login, Role.OWNER))
    credential = evolve(credential, moved_from=left_behind)
    await tenant.commit(with_credentials(tenant.record, Role.OWNER, credential, previous))
    return TenantAction.ADOPTED if verb is Verb.ADOPT else TenantAction.CREATED, credential


async def provision_role(tenant: Tenant, role: Role) -> Credential:
    """Make the first login of a tenant's readers or writers, and store its credential."""
    await tenant.end_begun_logins()  # of an earlier process
    [login] = tenant.new_logins()
    await tenant.begin(Verb.PROVISION, [login], role=role)
    await tenant.steps.create_role(role)
    credential = await tenant.add_login(login, role)
    await tenant.commit(with_credentials(tenant.record, role, credential, None))
    return credential


async def _verb_for(tenant: Tenant, if_exists: IfExists) -> Verb:
    """Choose how a new tenant gets its login."""
    if tenant.on_record.intent is None:
        home, servers = tenant.home.cluster, tenant.context.servers
        for other, found in await servers.elsewhere(home, tenant.names, tenant.reporter.stats):
            if found:  # as after a store was lost
                raise conflict(tenant, other, found)
    if not tenant.found and if_exists == "adopt" and tenant.on_record.intent is None:
        raise NotFoundError(
            f"the cluster {tenant.home.cluster} has no database {tenant.names.database!r} to adopt; nothing was "
            "changed",
            status=404,
            advice="name the cluster that has it, or provision the tenant without adopting",
        )
    if not tenant.found:
        return Verb.PROVISION
    if tenant.found.misplaced and not tenant.found.database:
        raise ConflictError(
            f"tenant {tenant.names.tenant!r}: {tenant.found.misplaced}; nothing was changed", status=409
        )
    if if_exists == "error":
        raise conflict(tenant, tenant.home, tenant.found)
    return Verb.ADOPT


def conflict(tenant: Tenant, home: TenantServer, found: Found) -> NameTakenError:
    """The error for a new tenant whose names a cluster has already."""
    logins = [*found.logins, *([tenant.names.database] if found.namesake else [])]
    what = [f"the login {login!r}" for login in logins]
    if found.database:
        what.append(f"the database {tenant.names.database!r}")
    exist = "exists and is" if len(what) == 1 else "exist and are"
    several = len(tenant.context.servers.clients) > 1
    where = f" on the cluster {home.cluster}" if several else ""
    alone = " and that cluster alone" if several else ""
    return NameTakenError(
        f"{' and '.join(what)} {exist} not on record, so somebody else created this{where}; nothing was changed",
        status=409,
        advice=f'choose another name, or take over what exists with if_exists="adopt"{alone}',
    )
