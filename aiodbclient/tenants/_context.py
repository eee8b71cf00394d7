"""``Context``: what all operations of one ``Tenants`` share: its store, its clusters, and the choice among them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from math import inf
from time import monotonic
from typing import TypeAlias

from attrs import define, evolve, field, frozen

from .._bulk.run import OUTAGE, UNANSWERED
from .._http.call import RequestStats
from .._http.maintenance import MaintenanceWait
from ..clusters import Cluster, for_work
from ..engines import CAPABILITIES, Engine
from ..errors import (
    ConfigurationError,
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ServerError,
    TransportError,
)
from ..models import Connection
from ._credential import Credential
from ._naming import Names, Role, guard_tenants
from ._outcomes import TenantEvent
from ._records import TenantRecord, TenantState
from ._servers import AdminLogin, Found, Server, connection_of, server_of
from ._stores import Store, entries_of
from .errors import CapacityError, GrantError, StoreError

Setup: TypeAlias = Callable[[Credential], Awaitable[object]]
Turns: TypeAlias = defaultdict[str, asyncio.Semaphore]  # by cluster

AT_A_TIME = 16  # tenants of one cluster that a job works on. Their server takes fewer connections
AWAY = (
    ConfigurationError,
    GrantError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ServerError,
    TransportError,
)
_UNCHANGED = "nothing was changed on the cluster {}"
_AWAY_SECONDS = 30.0  # for which nothing is sent to a cluster that is away
_FRESH = 30.0  # s for which the store is not read again to count the tenants


@frozen
class TenantServer:
    """A cluster, and the server of it that the work on tenants needs."""

    cluster: str  # its id
    name: str
    engine: Engine | str
    connection: Connection
    ca: str | None  # None: without TLS
    server: Server

    def new_record(self, names: Names) -> TenantRecord:
        """The record of a tenant here, without a login."""
        assert self.connection.host is not None
        return TenantRecord(
            name=names.tenant,
            cluster=self.cluster,
            cluster_name=self.name,
            database=names.database,
            host=self.connection.host,
            port=self.connection.port or 0,
            engine=self.engine,
            ca=self.ca,
        )


def _make_turns() -> Turns:
    return defaultdict(partial(asyncio.Semaphore, AT_A_TIME))


@define(eq=False, repr=False)
class TenantServers:
    """The clusters of one ``Tenants``, each of which is read once, and again after an error of its server."""

    clients: Mapping[str, Cluster]  # the API of each, by id
    _admins: Mapping[str, AdminLogin | None]
    _private: bool
    _connection_limit: int | None
    _read: dict[str, TenantServer] = field(factory=dict[str, TenantServer])
    _reading: defaultdict[str, asyncio.Lock] = field(factory=partial(defaultdict, asyncio.Lock))  # held by who reads it
    # Of one job:
    _pause: MaintenanceWait | None = None  # of a run; None: requests do not wait in the bulk lane
    turns: Turns = field(factory=_make_turns)  # all single calls of a ``Tenants`` share them
    _away: dict[str, tuple[DatabaseClientError, float]] = field(init=False, factory=dict)
    _unanswered: defaultdict[str, set[str]] = field(init=False, factory=partial(defaultdict, set))  # tenants in a row

    def for_job(self, pause: MaintenanceWait | None, turns: Turns | None = None) -> TenantServers:
        """Return these clusters, all assumed reachable, for one job, which has its own turns if it is given none."""
        return evolve(self, pause=pause, turns=_make_turns() if turns is None else turns)

    def name(self, cluster: str) -> str | None:
        return self._read[cluster].name if cluster in self._read else None

    async def server(self, cluster: str, stats: RequestStats) -> TenantServer:
        """Return the server of a cluster; the first call reads the cluster, and logs in as the administrator."""
        async with self._reading[cluster]:
            if cluster in self._away:
                error, since = self._away[cluster]
                if monotonic() - since < _AWAY_SECONDS:
                    raise copy(error)  # each outcome has its own, since raising it adds to its traceback
            if cluster not in self._read:
                try:
                    self._read[cluster] = await self._ask(for_work(self.clients[cluster], stats, self._pause))
                except AWAY as error:
                    self.note_away(cluster, error)
                    raise
                self.check_engines()
            return self._read[cluster]

    async def _ask(self, client: Cluster) -> TenantServer:
        if client.engine is not None and client.engine in CAPABILITIES:
            guard_tenants(client.engine)  # before anything is sent
        info = await client.info()
        guard_tenants(info.engine)
        connection = connection_of(info, private=self._private)
        try:
            ca = await client.ca() if connection.ssl else None
        except NotFoundError as missing:
            raise ConfigurationError(
                f"the cluster {info.name!r} uses TLS, but the API returns no certificate authority to verify its "
                f"servers (404: {missing.message}): wait until the cluster is online, or ask the provider; nothing was "
                "created"
            ) from None
        server = server_of(info.engine, connection, ca, self._admins[client.id], self._connection_limit)
        try:
            await server.administrator()  # before anything is made that it could then not finish
        except GrantError as error:
            error.may_have_applied, error.on_record = False, _UNCHANGED.format(client.id)
            raise
        return TenantServer(client.id, info.name, info.engine, connection, ca, server)

    async def elsewhere(self, home: str, names: Names, stats: RequestStats) -> list[tuple[TenantServer, Found]]:
        """Find what the clusters other than ``home`` have of a tenant, as far as they can be reached."""
        found = list[tuple[TenantServer, Found]]()
        for cluster in self.clients:
            if cluster != home:
                with suppress(*AWAY):
                    other = await self.server(cluster, stats)
                    found.append((other, await other.server.find(names)))
        return found

    async def databases(self) -> list[tuple[str, str]]:
        """Return each cluster with each database of a tenant on it, as far as the clusters can be reached."""
        found = list[tuple[str, str]]()
        for cluster in self.clients:
            with suppress(*AWAY):
                home = await self.server(cluster, RequestStats())
                found += [(cluster, database) for database in await home.server.tenants()]
        return found

    async def moved_to(self, home: str, names: Names, stats: RequestStats) -> TenantServer | None:
        """The other cluster that has a tenant's database, if the tenant was moved after the store was copied."""
        there = await self.elsewhere(home, names, stats)
        return next((other for other, found in there if found.database and not found.is_foreign), None)

    @contextmanager
    def watched(self, cluster: str, tenant: str) -> Generator[None]:
        """Note errors of the block, so that the cluster is read again, or is away if several tenants got no answer."""
        try:
            yield
        except GrantError as error:
            if not error.tenant:  # of no tenant: the primary user may have another password, for example
                self._read.pop(cluster, None)
            raise
        except UNANSWERED as error:
            self._unanswered[cluster].add(tenant)
            if len(self.clients) > 1 and len(self._unanswered[cluster]) >= OUTAGE:
                self.note_away(cluster, error)
            raise
        self._unanswered[cluster].clear()

    def note_away(self, cluster: str, error: DatabaseClientError) -> None:
        """Send nothing to the cluster for some seconds."""
        noted = copy(error)
        if isinstance(noted, GrantError):  # it may have happened to one tenant, and is raised for others
            noted.may_have_applied, noted.statement, noted.on_record = False, "", _UNCHANGED.format(cluster)
        self._away[cluster] = noted, monotonic()

    def check_engines(self) -> None:
        """Raise InvalidArgumentError unless all clusters whose engine is known have the same one."""
        engines = dict[Engine | str | None, str]()
        for id, client in self.clients.items():
            engines[self._read[id].engine if id in self._read else client.engine] = id
        engines.pop(None, None)
        if len(engines) > 1:
            each = " and ".join(f"{id} is {engine}" for engine, id in engines.items())
            raise InvalidArgumentError(
                f"all clusters must be of one engine, and {each}: make a Tenants for each engine; nothing was sent"
            )


@frozen
class ClusterCapacity:
    """A cluster, and how many tenants it has.

    Attributes:
        cluster: The id of the cluster.
        tenants: How many tenants are on record for it, whatever their prefix.
        max_tenants: How many it may have; None if there is no limit.
        name: The name of the cluster; None until it was read.
        bytes: The size of the databases of its tenants. None if the cluster cannot be reached. ``choose_cluster``
            gets None.
    """

    cluster: str
    tenants: int
    max_tenants: int | None
    name: str | None = None
    bytes: int | None = None


ChooseCluster: TypeAlias = Callable[[str, Sequence[ClusterCapacity]], Awaitable[Cluster | str]]


@define(eq=False)
class Placement:
    """Chooses the cluster of each new tenant, by the tenants on record and those that this process has added since."""

    _store: Store
    _clusters: Sequence[str]
    _max_tenants: int | None
    choose_cluster: ChooseCluster | None
    _tenants: Counter[str | None] = field(init=False, factory=Counter[str | None])  # None: of those that have none yet
    _counted_at: float = field(init=False, default=-inf)
    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)

    async def capacities(self) -> list[ClusterCapacity]:
        """Read the store, and return the capacities in the order of the clusters."""
        return self._capacities(await self._count())

    def begin_run(self) -> None:
        """Make the next ``choose`` count the tenants."""
        self._counted_at = -inf

    async def choose(self, name: str, without: Collection[str] = ()) -> str:
        """Choose a cluster for the new tenant ``name``, which counts from now on, until ``leave``."""
        if len(self._clusters) == 1 and self._max_tenants is None and self.choose_cluster is None:
            return self._clusters[0]
        async with self._turn:
            if monotonic() - self._counted_at >= _FRESH:
                self._tenants, self._counted_at = await self._count(), monotonic()
            cluster = await self._choose(name, without)
            self._tenants[cluster] += 1
            return cluster

    def leave(self, cluster: str) -> None:
        """Count a tenant of ``cluster`` less: it was not made there, or is gone."""
        self._tenants[cluster] -= 1

    async def _count(self) -> Counter[str | None]:
        found = Counter[str | None]()
        async for entry in entries_of(self._store):
            if isinstance(entry, TenantRecord):
                found[entry.cluster] += 1
        return found

    def _capacities(self, tenants: Counter[str | None]) -> list[ClusterCapacity]:
        return [ClusterCapacity(each, tenants[each], self._max_tenants) for each in self._clusters]

    async def _choose(self, name: str, without: Collection[str]) -> str:
        capacities = [each for each in self._capacities(self._tenants) if each.cluster not in without]
        free = [each for each in capacities if each.max_tenants is None or each.tenants < each.max_tenants]
        if not free:
            raise CapacityError(
                f"no cluster has capacity for the tenant {name!r}: each has its {self._max_tenants} tenants; "
                "nothing was sent, and nothing is on record",
                advice="give Tenants another cluster, or a larger max_tenants",
            )
        if self.choose_cluster is None or (without and len(capacities) == 1):
            return min(free, key=lambda each: each.tenants).cluster
        chosen = await self.choose_cluster(name, capacities)
        cluster = chosen.id if isinstance(chosen, Cluster) else chosen
        if cluster not in self._clusters:
            raise InvalidArgumentError(
                f"choose_cluster must return one of the clusters of these tenants, or its id, not {cluster!r}; nothing "
                "was sent"
            )
        if cluster not in [each.cluster for each in free]:
            raise CapacityError(
                f"the cluster {cluster} that choose_cluster returned for the tenant {name!r} is full: it has its "
                f"{self._max_tenants} tenants; nothing was sent, and nothing is on record"
            )
        return cluster


@frozen(kw_only=True, eq=False)
class Context:
    """What all operations of one ``Tenants`` share."""

    servers: TenantServers
    placement: Placement
    store: Store
    prefix: str
    role: Role = Role.OWNER
    setup: Setup | None
    on_event: Callable[[TenantEvent], object] | None

    async def choose(self, name: str, stats: RequestStats, without: Collection[str] = ()) -> TenantServer:
        """Choose a cluster, none of ``without``, for a new tenant, and count it there until ``placement.leave``."""
        unreachable = dict[str, DatabaseClientError]()
        while True:
            try:
                cluster = await self.placement.choose(name, {*without, *unreachable})
            except CapacityError:
                if unreachable:
                    raise next(iter(unreachable.values())) from None
                raise
            try:
                return await self.servers.server(cluster, stats)
            except BaseException as error:
                self.placement.leave(cluster)
                # A new tenant goes to a cluster that can be reached, unless the caller of ``Tenants`` chooses.
                if not isinstance(error, AWAY) or not self.may_choose:
                    raise
                unreachable[cluster] = error

    @property
    def may_choose(self) -> bool:
        """Whether a new tenant may go to another cluster than the one that was chosen first."""
        return len(self.servers.clients) > 1 and self.placement.choose_cluster is None

    async def record(self, name: str) -> TenantRecord | None:
        """Read the record of a tenant, or raise as ``check_ours`` does."""
        record = await self.store.get(name)
        self.check_ours(record)
        return record

    def check_ours(self, record: TenantRecord | None) -> None:
        """Raise InvalidArgumentError if a record is of other clusters or another prefix."""
        if record is None:
            return
        name, clusters = record.name, self.servers.clients
        if record.cluster not in clusters:
            own = f"{'this is' if len(clusters) == 1 else 'these are'} {', '.join(clusters)}"
            raise InvalidArgumentError(
                f"the tenant {name!r} is on record for the cluster {record.cluster}, but {own}: name that cluster too, "
                "or choose another name, since a name is taken in the whole store; nothing was sent"
            )
        if record.database != self.prefix + name:
            raise InvalidArgumentError(
                f"the tenant {name!r} is on record with another prefix than {self.prefix!r}: use the prefix that it "
                "was created with; a name is taken in the whole store; nothing was sent"
            )

    async def names(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record in this role, also of those whose record cannot be read."""
        async for entry in self.entries():
            yield entry.damaged[0] if isinstance(entry, StoreError) else entry.name

    async def entries(self) -> AsyncIterator[TenantRecord | StoreError]:
        """Yield the record of each tenant that has this role, or the StoreError if it cannot be read."""
        async for entry in entries_of(self.store):
            if isinstance(entry, StoreError):
                yield entry
                continue
            try:
                self.check_ours(entry)
            except InvalidArgumentError:
                continue
            if entry.state(self.role) is not TenantState.ABSENT:
                yield entry
