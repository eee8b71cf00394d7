"""``Context``: what all operations of one ``Tenants`` share, such as its clusters, each a ``TenantServer``."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from datetime import datetime
from functools import partial
from time import monotonic
from typing import TypeAlias

from attrs import frozen

from .._bulk.run import OUTAGE, UNANSWERED
from .._dsn import is_host
from .._http.call import RequestStats
from .._http.maintenance import MaintenanceWait
from ..clusters import ClusterClient, for_work
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
from ..models import Cluster, Connection, User
from ._capacity import Placement
from ._credential import Credential
from ._guard import guard_tenants
from ._naming import Names, Role
from ._outcomes import TenantEvent
from ._record import OnRecord, read_all
from ._servers import Found, Login, Server, server_of
from ._stores import Record, Store, readable
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


@frozen
class TenantServer:
    """A cluster, and the server of it that the work on tenants needs."""

    cluster: str  # its id
    name: str
    engine: Engine | str
    connection: Connection
    ca: str | None  # None: without TLS
    server: Server

    def credential(
        self, names: Names, role: Role, login: str, password: str | None, since: datetime | None = None
    ) -> Credential:
        """The credential of the tenant with ``login``, stored at ``since``."""
        connection = self.connection
        assert connection.host is not None
        return Credential(
            name=names.tenant,
            username=login,
            password=password,
            database=names.database,
            host=connection.host,
            port=connection.port or 0,
            engine=self.engine,
            # An adopted login has no password that we know.
            uri="" if password is None else connection.uri_for(User(login, password=password), names.database),
            ca=self.ca,
            cluster=self.cluster,
            cluster_name=self.name,
            since=since,
            role=role,
        )


class TenantServers:
    """The clusters of one ``Tenants``, by id. Each is read once, and again after an error of its server.

    Each job has its own: turns, and which clusters did not answer. For a while it asks those no more.
    """

    def __init__(
        self,
        clusters: ClusterClient | Sequence[ClusterClient],
        *,
        private: bool,
        admin: Login | Mapping[str, Login] | None,
        connection_limit: int | None,
    ) -> None:
        self.clients: dict[str, ClusterClient] = _checked_clusters(clusters)  # the API of each, by id
        self._admins = _checked_admins(admin, self.clients)
        self._private, self._connection_limit = private, connection_limit
        self._read = dict[str, TenantServer]()
        self._reading = defaultdict[str, asyncio.Lock](asyncio.Lock)  # held by who reads a cluster
        self._begin(None, None)
        self._check_engines()

    def _begin(self, pause: MaintenanceWait | None, turns: Turns | None) -> None:
        self.pause = pause  # of a run; None: requests do not wait in the bulk lane
        # How many tenants of each cluster to work on at a time. All single calls of a ``Tenants`` share them.
        self.turns: Turns = defaultdict(partial(asyncio.Semaphore, AT_A_TIME)) if turns is None else turns
        self._away = dict[str, tuple[DatabaseClientError, float]]()
        self._unanswered = defaultdict[str, set[str]](set)  # tenants in a row, by cluster

    def for_job(self, pause: MaintenanceWait | None, turns: Turns | None = None) -> TenantServers:
        """Return these clusters for one job, all of them assumed reachable. Without ``turns``, the job has its own."""
        servers = copy(self)
        servers._begin(pause, turns)
        return servers

    @property
    def engine(self) -> Engine | str | None:
        """The engine of the clusters, if it is known."""
        return next(iter(self._engines()), None)

    def name(self, cluster: str) -> str | None:
        return self._read[cluster].name if cluster in self._read else None

    async def any(self) -> TenantServer:
        """The first cluster that can be reached. Raises the first error if none can."""
        failures = list[DatabaseClientError]()
        for cluster in self.clients:
            try:
                return await self.server(cluster, RequestStats())
            except AWAY as error:
                failures.append(error)
        raise failures[0]

    async def server(self, cluster: str, stats: RequestStats) -> TenantServer:
        """The facts about the cluster. The first call reads it and its CA, and logs in as the administrator.

        For some seconds after a failure it raises the same error, and sends nothing.
        """
        async with self._reading[cluster]:
            if cluster in self._away:
                error, since = self._away[cluster]
                if monotonic() - since < _AWAY_SECONDS:
                    raise copy(error)  # each outcome has its own, since raising it adds to its traceback
                del self._away[cluster]
            if cluster not in self._read:
                try:
                    self._read[cluster] = await self._ask(for_work(self.clients[cluster], stats, self.pause))
                except AWAY as error:
                    self.note_away(cluster, error)
                    raise
                self._check_engines()
            return self._read[cluster]

    async def _ask(self, client: ClusterClient) -> TenantServer:
        if client.engine is not None and client.engine in CAPABILITIES:
            guard_tenants(client.engine)  # before anything is sent
        info = await client.info()
        guard_tenants(info.engine)
        connection = connection_of(info, private=self._private)
        ca = await _authority(client, info.name) if connection.ssl else None
        admin = self._admins[client.id]
        server = server_of(info.engine, connection, ca, admin, self._connection_limit)
        try:
            await server.administrator()  # before anything is made that it could then not finish
        except GrantError as error:
            error.may_have_applied, error.on_record = False, _UNCHANGED.format(client.id)
            raise
        return TenantServer(client.id, info.name, info.engine, connection, ca, server)

    async def choose(
        self, name: str, placement: Placement, stats: RequestStats, without: Collection[str] = ()
    ) -> TenantServer:
        """A cluster for a new tenant: one of all but those ``without``. It counts there until ``placement.leave``."""
        unreachable = dict[str, DatabaseClientError]()
        while True:
            try:
                cluster = await placement.choose(name, {*without, *unreachable})
            except CapacityError:
                if unreachable:
                    raise next(iter(unreachable.values())) from None
                raise
            try:
                return await self.server(cluster, stats)
            except BaseException as error:
                placement.leave(cluster)
                # A new tenant goes to a cluster that can be reached, unless the caller of ``Tenants`` chooses.
                if not isinstance(error, AWAY) or placement.choose_cluster is not None or len(self.clients) == 1:
                    raise
                unreachable[cluster] = error

    async def elsewhere(self, home: str, names: Names, stats: RequestStats) -> list[tuple[TenantServer, Found]]:
        """Find what the clusters other than ``home`` have of a tenant, as far as they can be reached."""
        found = list[tuple[TenantServer, Found]]()
        for cluster in self.clients:
            if cluster != home:
                with suppress(*AWAY):
                    other = await self.server(cluster, stats)
                    found.append((other, await other.server.find(names)))
        return found

    async def moved_to(self, home: str, names: Names, stats: RequestStats) -> TenantServer | None:
        """The other cluster that has a tenant's database, if the tenant was moved after the store was copied."""
        there = await self.elsewhere(home, names, stats)
        return next((other for other, found in there if found.database and not found.is_foreign), None)

    @contextmanager
    def watched(self, cluster: str, tenant: str) -> Generator[None]:
        """After an error of the server, read the cluster again. After no answer for several tenants, it is away."""
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

    def _engines(self) -> dict[Engine | str, str]:
        """The engines that are known, each with the id of a cluster."""
        found = dict[Engine | str, str]()
        for id, client in self.clients.items():
            engine = self._read[id].engine if id in self._read else client.engine
            if engine is not None:
                found[engine] = id
        return found

    def _check_engines(self) -> None:
        """Make sure that all clusters whose engine is known have the same one. Raises InvalidArgumentError."""
        engines = self._engines()
        if len(engines) > 1:
            each = " and ".join(f"{id} is {engine}" for engine, id in engines.items())
            raise InvalidArgumentError(
                f"all clusters must be of one engine, and {each}: make a Tenants for each engine; nothing was sent"
            )


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

    async def record(self, name: str) -> OnRecord:
        """Read what is on record for a tenant. Raises as ``ours``."""
        return self.ours(name, await self.store.get(name))

    def ours(self, name: str, record: Record | None) -> OnRecord:
        """Read the record of a tenant. Raises InvalidArgumentError if it is of other clusters or another prefix."""
        found = OnRecord.read(name, self.role, record)
        if reason := self._why_not_ours(found):
            raise InvalidArgumentError(reason)
        return found

    async def records(self) -> AsyncIterator[Record]:
        """Yield the records that are ours, and have this role."""
        async for found in readable(read_all(self.store)):
            if found.record is not None and found.of_role(self.role).exists and not self._why_not_ours(found):
                yield found.record

    async def names(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record in this role, also of those whose record cannot be read."""
        async for entry in self.entries():
            yield entry.damaged[0] if isinstance(entry, StoreError) else entry.name

    async def entries(self) -> AsyncIterator[OnRecord | StoreError]:
        """Yield the record of each tenant for this role, or the StoreError if it cannot be read."""
        async for entry in read_all(self.store):
            if isinstance(entry, StoreError):
                yield entry
                continue
            found = entry.of_role(self.role)
            # A name that is only claimed may be on its way to a cluster of another ``Tenants``.
            if not (found.is_empty or self._why_not_ours(found)):
                yield found

    def _why_not_ours(self, found: OnRecord) -> str:
        """Why a record belongs to another cluster or prefix; "" if it does not."""
        name, cluster = found.name, found.cluster
        if cluster is not None and cluster not in self.servers.clients:
            own = f"{'this is' if len(self.servers.clients) == 1 else 'these are'} {', '.join(self.servers.clients)}"
            return (
                f"the tenant {name!r} is on record for the cluster {cluster}, but {own}: name that cluster too, or "
                "choose another name, since a name is taken in the whole store; nothing was sent"
            )
        if found.home is None or found.home.database == self.prefix + name:
            return ""
        return (
            f"the tenant {name!r} is on record with another prefix than {self.prefix!r}: use the prefix that it was "
            "created with; a name is taken in the whole store; nothing was sent"
        )


def connection_of(cluster: Cluster, *, private: bool) -> Connection:
    """Return the connection for the tenants' programs, public or private."""
    connection = cluster.private_connection if private else cluster.connection
    if connection is None or not connection.host:
        which = "private connection" if private else "connection"
        raise ConfigurationError(
            f"the API returns no {which} for the cluster {cluster.name!r} (its status is {cluster.status}): "
            "wait until it is online, or choose the other connection"
        )
    if not is_host(connection.host):
        raise ConfigurationError(
            f"the cluster {cluster.name!r} has an invalid host in its connection: ask the provider"
        )
    return connection


async def _authority(cluster: ClusterClient, name: str) -> str:
    try:
        return await cluster.ca()
    except NotFoundError as missing:
        raise ConfigurationError(
            f"the cluster {name!r} uses TLS, but the API returns no certificate authority to verify its servers "
            f"(404: {missing.message}): wait until the cluster is online, or ask the provider; nothing was created"
        ) from None


def _checked_clusters(given: ClusterClient | Sequence[ClusterClient]) -> dict[str, ClusterClient]:
    """Return the clusters by id. Raises InvalidArgumentError if there is none, or one twice."""
    clusters = [given] if isinstance(given, ClusterClient) else list(given) if isinstance(given, Iterable) else []
    if not clusters or not all(isinstance(each, ClusterClient) for each in clusters):
        raise InvalidArgumentError(
            f"cluster must be what DatabaseClient.cluster returns, or a list of those, not {given!r:.200}"
        )
    by_id = {each.id: each for each in clusters}
    if len(by_id) < len(clusters):
        raise InvalidArgumentError("cluster has the same cluster twice")
    return by_id


def _checked_admins(admin: Login | Mapping[str, Login] | None, clusters: Collection[str]) -> dict[str, Login | None]:
    """Return the administrator of each cluster. Raises InvalidArgumentError; no message has a password."""
    by_cluster = admin if isinstance(admin, Mapping) else dict.fromkeys(clusters, admin)
    if unknown := [id for id in by_cluster if id not in clusters]:
        raise InvalidArgumentError(f"admin has a login for {unknown[0]!r}, which is none of the clusters")
    for login in by_cluster.values():
        if login is not None and not (
            isinstance(login, tuple) and len(login) == 2 and all(isinstance(each, str) and each for each in login)
        ):
            raise InvalidArgumentError("admin must be a user and a password, or a mapping of cluster ids to such pairs")
    return {id: by_cluster.get(id) for id in clusters}
