"""``Tenancy``: the state that all operations of one ``Tenants`` share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from attrs import evolve, frozen

from ..clusters import ClusterClient
from ..engines import Engine
from ..errors import InvalidArgumentError, StoreError, SuspendedError, TenantNotFoundError
from ._claims import HeldClaim, clock
from ._clusters import JobClusters, Site, SiteReader
from ._credential import Credential
from ._events import TenantEvent, Timer
from ._intent import Intent, State, Verb, cluster_of, home_of, intended_login, intent_of, is_empty, state_of
from ._listing import Listing
from ._naming import Names, Role, names_of, record_name, tenant_of
from ._rooms import Rooms
from ._stores import Record, Store, entries_of, readable

Setup: TypeAlias = Callable[[Credential], Awaitable[object]]


@frozen(kw_only=True, eq=False)
class Tenancy:
    """The state that all operations of one ``Tenants`` share."""

    sites: Mapping[str, SiteReader]  # by the id of the cluster
    rooms: Rooms
    turns: dict[str, asyncio.Semaphore]  # how many tenants of each cluster all single calls work on at a time
    store: Store
    prefix: str
    role: Role = Role.OWNER
    lease: float
    setup: Setup | None
    on_event: Callable[[TenantEvent], object] | None

    def for_role(self, role: Role) -> Tenancy:
        """The same for another role."""
        return evolve(self, role=role)

    async def record(self, name: str, timer: Timer) -> Record | None:
        """Read the record of a tenant. Raises as ``check_record``."""
        record = await timer.on("store", self.store.get(record_name(name, self.role)))
        self.check_record(record)
        return record

    async def home(self, name: str, record: Record | None, timer: Timer) -> str | None:
        """The cluster of a tenant with this ``record``; None for one that is new."""
        cluster = home_of(record, self.sites)
        if cluster is None and self.role is not Role.OWNER:
            cluster = cluster_of(await self.for_role(Role.OWNER).record(name, timer))
            if cluster is None and len(self.sites) > 1:
                raise no_roles(name, self.role)
        return cluster

    async def records(self) -> AsyncIterator[Record]:
        """Yield the records of this role that are ours, each with the tenant's name."""
        async for record, reason in self.all_records():
            if not reason:
                yield record

    async def all_records(self) -> AsyncIterator[tuple[Record, str]]:
        """Yield all records of this role, each with the tenant's name and why it is not ours ("" if it is)."""
        async for record in readable(self._entries()):
            yield record, self._why_not_ours(record)

    async def names(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record in this role, also of those whose record cannot be read."""
        async for entry in self._entries():
            if isinstance(entry, StoreError):
                yield tenant_of(entry.damaged[0])[0]
            # A name that is only claimed may be on its way to a cluster of another ``Tenants``.
            elif not is_empty(entry) and not self._why_not_ours(entry):
                yield entry.name

    async def _entries(self) -> AsyncIterator[Record | StoreError]:
        async for entry in entries_of(self.store):
            name, role = tenant_of(entry.damaged[0] if isinstance(entry, StoreError) else entry.name)
            if role is self.role:
                try:
                    intent_of(entry if isinstance(entry, Record) else None)
                except StoreError as error:  # of a newer version
                    entry = error
                yield evolve(entry, name=name) if isinstance(entry, Record) else entry

    async def claim(self, names: Names, timer: Timer) -> HeldClaim | None:
        """Claim the tenant; None if somebody else works on it. Raises as ``check_record``."""
        since = clock()
        claim = await timer.on("store", self.store.claim(names.record, self.lease))
        return None if claim is None else HeldClaim(self.store, claim, self.lease, since, timer)

    def check_record(self, record: Record | None) -> None:
        """Make sure that ``record`` belongs to these clusters and this prefix. Raises InvalidArgumentError."""
        if record is None:
            return
        if reason := self._why_not_ours(record):
            raise InvalidArgumentError(reason)
        if len(self.sites) > 1 and cluster_of(record) is None and not is_empty(record):
            name = tenant_of(record.name)[0]
            raise InvalidArgumentError(
                f"an earlier version put the tenant {name!r} on record without its cluster: finish it with a Tenants "
                f"of that cluster alone, by repair([{name!r}]) or remove([{name!r}]); nothing was sent"
            )

    def _why_not_ours(self, record: Record) -> str:
        """Why ``record`` belongs to another cluster or prefix; "" if it does not."""
        name, cluster = tenant_of(record.name)[0], cluster_of(record)
        if cluster is not None and cluster not in self.sites:
            own = f"{'this is' if len(self.sites) == 1 else 'these are'} {', '.join(self.sites)}"
            return (
                f"the tenant {name!r} is on record for the cluster {cluster}, but {own}: a name is taken in the whole "
                "store, so choose another one, or name that cluster too; nothing was sent"
            )
        kept = [each for each in (record.current, record.previous) if each is not None]
        stored = [(each.engine, each.username) for each in kept]
        if (login := intended_login(record)) is not None and (engine := self._engine()) is not None:
            stored.append((engine, login))
        try:
            for engine, username in stored:
                logins = names_of(name, engine, self.prefix, self.role).logins
                if username not in logins:
                    return (
                        f"the tenant {name!r} is on record with the login {username!r}, but with this prefix its "
                        f"logins are {' and '.join(map(repr, logins))}: use the prefix that it was created with; a "
                        "name is taken in the whole store; nothing was sent"
                    )
        except InvalidArgumentError as error:  # with another prefix the name itself may be invalid
            return str(error)
        return ""

    def _engine(self) -> Engine | str | None:
        """The engine of the clusters, if it is known."""
        return next((site.engine for site in self.sites.values() if site.engine is not None), None)


@frozen(kw_only=True)
class Tenant:
    """One tenant, with everything that is needed to look at it."""

    tenancy: Tenancy
    clusters: JobClusters
    site: Site
    cluster: ClusterClient
    names: Names
    timer: Timer
    lists: bool = True  # whether to list what exists for all tenants of the job, not to read each name

    @property
    def listing(self) -> Listing:
        """What exists on ``cluster``."""
        return self.clusters.listings[self.cluster.id] if self.lists else Listing(lists=False)


def tenant_on(site: Site, name: str, timer: Timer, tenancy: Tenancy, clusters: JobClusters) -> Tenant:
    """The tenant ``name`` on the cluster of ``site``."""
    names = names_of(name, site.engine, tenancy.prefix, tenancy.role)
    calls = clusters.calls(site.cluster_id, timer.meter, name)
    return Tenant(tenancy=tenancy, clusters=clusters, site=site, cluster=calls, names=names, timer=timer)


@frozen(kw_only=True)
class ClaimedTenant(Tenant):
    """One tenant under its claim. Once the lease has expired, calls of ``cluster`` raise ClaimLostError."""

    held: HeldClaim

    @property
    def is_elsewhere(self) -> bool:
        """Whether the tenant is on record for another cluster than the one that was chosen for it."""
        return cluster_of(self.held.record) not in (None, self.cluster.id)

    async def intend(self, verb: Verb, login: str) -> None:
        """Store what is about to happen to ``login``, before the request that does it."""
        await self.held.intend(Intent(verb, login, self.cluster.id))


def turns_of(clusters: Iterable[str], at_a_time: int) -> dict[str, asyncio.Semaphore]:
    """How many tenants of each cluster to work on at a time."""
    return {id: asyncio.Semaphore(at_a_time) for id in clusters}


def checked_clusters(given: ClusterClient | Sequence[ClusterClient]) -> list[ClusterClient]:
    """Return the clusters as a list. Raises InvalidArgumentError if it is none, or has one twice."""
    clusters = [given] if isinstance(given, ClusterClient) else list(given) if isinstance(given, Iterable) else []
    if not clusters or not all(isinstance(each, ClusterClient) for each in clusters):
        raise InvalidArgumentError(
            f"cluster must be what DatabaseClient.cluster returns, or a list of those, not {given!r:.200}"
        )
    if len({each.id for each in clusters}) < len(clusters):
        raise InvalidArgumentError("cluster has the same cluster twice")
    return clusters


def checked_admins(admin: str | Mapping[str, str] | None, clusters: list[ClusterClient]) -> dict[str, str | None]:
    """Return the DSN of the administrator of each cluster. Raises InvalidArgumentError; no message has a DSN."""
    ids = [each.id for each in clusters]
    if isinstance(admin, Mapping):
        if unknown := [id for id in admin if id not in ids]:
            raise InvalidArgumentError(f"admin has a DSN for {unknown[0]!r}, which is none of the clusters")
        return {id: admin.get(id) for id in ids}
    if admin is not None and len(ids) > 1:
        raise InvalidArgumentError("admin must be a mapping from the ids of the clusters, because there are several")
    return dict.fromkeys(ids, admin)


def no_roles(name: str, role: Role) -> TenantNotFoundError:
    """The error for a reader or writer of a tenant that is not on record."""
    return TenantNotFoundError(
        f"the tenant {name!r} has no credential on record, so it can have no {role}: provision it first; "
        "nothing was sent"
    )


async def now_of(store: Store) -> datetime:
    """The time in UTC by the clock of ``store``, or by this machine's if the store has no method ``now``."""
    now: Callable[[], Awaitable[datetime]] | None = getattr(store, "now", None)
    return datetime.now(UTC) if now is None else await now()


def usable(record: Record | None) -> Credential | None:
    """The credential of ``record`` that a program can use; None if there is none, or its login changes or is ended."""
    return record.current if record is not None and state_of(record) is State.USABLE else None


def suspended(record: Record | None) -> Credential | None:
    """The credential of a suspended tenant. None if it is not suspended, or if another verb has begun."""
    return record.current if record is not None and state_of(record) is State.SUSPENDED else None


def required(name: str, record: Record | None, role: Role = Role.OWNER) -> Credential:
    """Return the usable credential of ``record``. Raises as ``unusable`` describes."""
    credential = usable(record)
    if credential is None:
        raise unusable(name, record, role)
    return credential


def unusable(name: str, record: Record | None, role: Role = Role.OWNER) -> TenantNotFoundError | SuspendedError:
    """The error for a tenant, or a role of it, that has no usable credential. It names the verb to run next."""
    who = f"the tenant {name!r}" if role is Role.OWNER else f"the {role} of the tenant {name!r}"
    state = state_of(record)
    if state is State.REMOVING:
        return TenantNotFoundError(f"the removal of {who} is unfinished: run remove; nothing was sent")
    if state is State.SUSPENDING:
        return SuspendedError(f"the suspension of {who} is unfinished: run suspend, or resume; nothing was sent")
    if record is not None and record.current is not None and (since := record.current.suspended) is not None:
        return SuspendedError(f"{who} is suspended since {since:%Y-%m-%d %H:%M} UTC: resume it first; nothing was sent")
    if role is not Role.OWNER and state is State.ABSENT:
        return TenantNotFoundError(f"the tenant {name!r} has no {role}: provision one first; nothing was sent")
    return TenantNotFoundError(
        f"{who} has no usable credential on record: provision or repair it first; nothing was sent"
    )
