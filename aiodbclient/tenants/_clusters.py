"""``TenantClusters``: the clusters of one ``Tenants``, and the database server of each."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from time import monotonic
from typing import TypeAlias

from attrs import define, evolve, field, frozen

from .._bulk.run import NO_USABLE_ANSWER, OUTAGE_AFTER
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
from ._naming import Names, guard_tenants
from ._options import DatabaseOptions
from ._records import TenantRecord
from ._servers import AdminLogin, Server, ServerState, connection_of, server_of
from .errors import GrantError

Limits: TypeAlias = defaultdict[str, asyncio.Semaphore]  # by cluster

AT_A_TIME = 16  # tenants of one cluster that a run works on. Their server takes fewer connections
_new_limits = partial(defaultdict[str, asyncio.Semaphore], partial(asyncio.Semaphore, AT_A_TIME))
UNREACHABLE = (
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
_UNREACHABLE_SECONDS = 30.0  # for which nothing is sent to a cluster that is unreachable


@frozen
class TenantCluster:
    """A cluster, and the server of it that the work on tenants needs."""

    id: str
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
            cluster=self.id,
            cluster_name=self.name,
            database=names.database,
            host=self.connection.host,
            port=self.connection.port or 0,
            engine=self.engine,
            ca=self.ca,
        )


@define(eq=False, repr=False)
class TenantClusters:
    """The clusters of one ``Tenants``, each of which is read once, and again after an error of its server."""

    clients: Mapping[str, Cluster]  # the API of each, by id
    _admins: Mapping[str, AdminLogin | None]
    _private: bool
    _connection_limit: int | None
    options: DatabaseOptions
    _read: dict[str, TenantCluster] = field(factory=dict[str, TenantCluster])
    _reading: defaultdict[str, asyncio.Lock] = field(factory=partial(defaultdict, asyncio.Lock))  # held by who reads it
    # Of one job:
    _maintenance: MaintenanceWait | None = None  # of a run; None: a single call, which does not wait for a cluster
    limits: Limits = field(factory=_new_limits)  # all single calls of a ``Tenants`` share them
    _unreachable: dict[str, tuple[DatabaseClientError, float]] = field(init=False, factory=dict)
    _unanswered: defaultdict[str, set[str]] = field(init=False, factory=partial(defaultdict, set))  # tenants in a row

    def for_job(self, maintenance: MaintenanceWait | None, limits: Limits | None = None) -> TenantClusters:
        """Return these clusters, all assumed reachable, for a run or a single call, by default with its own limits."""
        return evolve(self, maintenance=maintenance, limits=_new_limits() if limits is None else limits)

    def name(self, cluster: str) -> str | None:
        return self._read[cluster].name if cluster in self._read else None

    async def get(self, cluster: str, stats: RequestStats) -> TenantCluster:
        """Return the server of a cluster; the first call reads the cluster, and logs in as the administrator."""
        async with self._reading[cluster]:
            if cluster in self._unreachable:
                error, since = self._unreachable[cluster]
                if monotonic() - since < _UNREACHABLE_SECONDS:
                    raise copy(error)  # each outcome has its own, since raising it adds to its traceback
            if cluster not in self._read:
                try:
                    self._read[cluster] = await self._ask(for_work(self.clients[cluster], stats, self._maintenance))
                except UNREACHABLE as error:
                    self.mark_unreachable(cluster, error)
                    raise
            return self._read[cluster]

    async def _ask(self, client: Cluster) -> TenantCluster:
        if client.engine is not None and client.engine in CAPABILITIES:
            guard_tenants(client.engine)  # before anything is sent
        info = await client.info()
        guard_tenants(info.engine)
        self.check_engines({client.id: info.engine})
        connection = connection_of(info, private=self._private)
        try:
            ca = await client.ca() if connection.ssl else None
        except NotFoundError as missing:
            raise ConfigurationError(
                f"the cluster {info.name!r} uses TLS, but the API returns no certificate authority to verify its "
                f"servers (404: {missing.message}): wait until the cluster is online, or ask the provider; nothing was "
                "created"
            ) from None
        server = server_of(info.engine, connection, ca, self._admins[client.id], self._connection_limit, self.options)
        try:
            await server.administrator()  # before anything is made that it could then not finish
        except GrantError as error:
            error.may_have_applied, error.on_record = False, _UNCHANGED.format(client.id)
            raise
        return TenantCluster(client.id, info.name, info.engine, connection, ca, server)

    async def on_others(
        self, cluster: str, names: Names, stats: RequestStats
    ) -> list[tuple[TenantCluster, ServerState]]:
        """Find what the clusters other than ``cluster`` have of a tenant, as far as they can be reached."""
        found = list[tuple[TenantCluster, ServerState]]()
        for each in self.clients:
            if each != cluster:
                with suppress(*UNREACHABLE):
                    other = await self.get(each, stats)
                    found.append((other, await other.server.inspect(names)))
        return found

    async def databases(self) -> list[tuple[str, str]]:
        """Return each cluster with each database of a tenant on it, as far as the clusters can be reached."""
        found = list[tuple[str, str]]()
        for cluster in self.clients:
            with suppress(*UNREACHABLE):
                found_on = await self.get(cluster, RequestStats())
                found += [(cluster, database) for database in await found_on.server.tenants()]
        return found

    async def moved_to(self, cluster: str, names: Names, stats: RequestStats) -> TenantCluster | None:
        """The other cluster that has a tenant's database, if the tenant was moved after the store was copied."""
        found = await self.on_others(cluster, names, stats)
        return next((other for other, state in found if state.database and not state.not_ours), None)

    @contextmanager
    def track_failures(self, cluster: str, tenant: str) -> Generator[None]:
        """Read the cluster again after an error of the block, or mark it unreachable after several tenants."""
        try:
            yield
        except GrantError as error:
            if not error.tenant:  # of no tenant: the primary user may have another password, for example
                self._read.pop(cluster, None)
            raise
        except NO_USABLE_ANSWER as error:
            self._unanswered[cluster].add(tenant)
            if len(self.clients) > 1 and len(self._unanswered[cluster]) >= OUTAGE_AFTER:
                self.mark_unreachable(cluster, error)
            raise
        self._unanswered[cluster].clear()

    def mark_unreachable(self, cluster: str, error: DatabaseClientError) -> None:
        """Send nothing to the cluster for some seconds."""
        noted = copy(error)
        if isinstance(noted, GrantError):  # it may have happened to one tenant, and is raised for others
            noted.may_have_applied, noted.statement, noted.on_record = False, "", _UNCHANGED.format(cluster)
        self._unreachable[cluster] = noted, monotonic()

    def check_engines(self, read: Mapping[str, Engine | str]) -> None:
        """Raise InvalidArgumentError unless all clusters whose engine was given or ``read`` have the same one."""
        given = {id: client.engine for id, client in self.clients.items() if client.engine is not None}
        engines = {**given, **{id: each.engine for id, each in self._read.items()}, **read}
        for engine in engines.values():
            self.options.check_engine(engine)
        if len({*engines.values()}) > 1:
            each = " and ".join(f"{id} is {engine}" for id, engine in engines.items())
            raise InvalidArgumentError(
                f"all clusters must be of one engine, and {each}: make a Tenants for each engine; nothing was sent"
            )
