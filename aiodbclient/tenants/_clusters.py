"""The clusters of tenants: a ``Site`` has the facts about one, ``Sites`` are those of one ``Tenants``."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import datetime
from time import monotonic

from attrs import frozen

from .._bulk.job import OUTAGE, UNANSWERED
from .._dsn import is_host
from .._request.call import Meter
from .._request.pause import Pause
from ..clusters import ClusterClient, for_work
from ..engines import CAPABILITIES, Engine, guard_tenants
from ..errors import (
    ConfigurationError,
    DatabaseClientError,
    GrantError,
    InvalidArgumentError,
    InvalidResponseError,
    NoRoomError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ServerError,
    TransportError,
)
from ..models import Cluster, Connection, User
from ._credential import Credential
from ._naming import Names
from ._rooms import Rooms, Seat
from ._servers import check_place, server_of
from ._servers.server import Server

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
class Site:
    """The facts about the cluster that all work on tenants needs."""

    cluster: str  # its id
    name: str
    engine: Engine | str
    connection: Connection
    ca: str | None  # None: without TLS
    server: Server

    def credential(self, names: Names, login: str, password: str | None, since: datetime) -> Credential:
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
            role=names.role,
        )


class Sites:
    """The clusters of one ``Tenants``, by id. Each is read once, and again after an error of its server.

    Each job has its own: for a while it asks a cluster no more that did not answer.
    """

    def __init__(
        self,
        clusters: ClusterClient | Sequence[ClusterClient],
        *,
        private: bool,
        admin: str | Mapping[str, str] | None,
        connection_limit: int | None,
    ) -> None:
        self.clients = _checked_clusters(clusters)  # the API of each, by id
        self._admins = _checked_admins(admin, self.clients)
        self._private, self._connection_limit = private, connection_limit
        self._read = dict[str, Site]()
        self._turns = defaultdict[str, asyncio.Lock](asyncio.Lock)  # held by who reads a cluster
        self.pause: Pause | None = None  # of a run; None: requests do not wait in the bulk lane
        self._away = dict[str, tuple[DatabaseClientError, float]]()
        self._unanswered = defaultdict[str, set[str]](set)  # tenants in a row, by cluster
        self._check_engines()

    def for_job(self, pause: Pause | None) -> Sites:
        """The same clusters for one job, of which none is away yet."""
        sites = copy(self)
        sites.pause, sites._away, sites._unanswered = pause, {}, defaultdict(set)
        return sites

    @property
    def engine(self) -> Engine | str | None:
        """The engine of the clusters, if it is known."""
        return next(iter(self._engines()), None)

    def name(self, cluster: str) -> str | None:
        """The name of the cluster; None until it is read."""
        return self._read[cluster].name if cluster in self._read else None

    async def any(self) -> Site:
        """The first site that can be reached. Raises the first error if none can."""
        failures = list[DatabaseClientError]()
        for cluster in self.clients:
            try:
                return await self.site(cluster, Meter())
            except AWAY as error:
                failures.append(error)
        raise failures[0]

    async def site(self, cluster: str, meter: Meter) -> Site:
        """The facts about the cluster. The first call reads it and its CA, and logs in as the administrator.

        For some seconds after a failure it raises the same error, and sends nothing.
        """
        async with self._turns[cluster]:
            if cluster in self._away:
                error, since = self._away[cluster]
                if monotonic() - since < _AWAY_SECONDS:
                    raise copy(error)  # each outcome has its own, since raising it adds to its traceback
                del self._away[cluster]
            if cluster not in self._read:
                try:
                    self._read[cluster] = await self._ask(for_work(self.clients[cluster], meter, self.pause))
                except AWAY as error:
                    self.note_away(cluster, error)
                    raise
                self._check_engines()
            return self._read[cluster]

    async def _ask(self, client: ClusterClient) -> Site:
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
            if admin is not None:
                await check_place(info, admin, ca)
        except GrantError as error:
            error.may_have_applied, error.on_record = False, _UNCHANGED.format(client.id)
            raise
        return Site(client.id, info.name, info.engine, connection, ca, server)

    async def choose(self, name: str, rooms: Rooms, meter: Meter, without: Collection[str] = ()) -> tuple[Site, Seat]:
        """A site for a new tenant, and its seat there: one of all but those ``without``."""
        away = dict[str, DatabaseClientError]()
        while True:
            try:
                seat = await rooms.take(name, {*without, *away})
            except NoRoomError:
                if away:
                    raise next(iter(away.values())) from None
                raise
            try:
                return await self.site(seat.cluster, meter), seat
            except BaseException as error:
                rooms.give_back(seat)
                # A new tenant goes to a cluster that can be reached, unless the caller of ``Tenants`` chooses.
                if not isinstance(error, AWAY) or rooms.place is not None or len(self.clients) == 1:
                    raise
                away[seat.cluster] = error

    @contextmanager
    def watched(self, cluster: str, tenant: str) -> Generator[None]:
        """After an error of SQL, read the cluster again. After no answer for several tenants, it is away."""
        try:
            yield
        except GrantError:
            self._read.pop(cluster, None)  # it is read again: the primary user may have another password
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


async def connections_of(credential: Credential) -> int:
    """Log in with ``credential``, and return how many connections its server allows."""
    itself = Connection(
        host=credential.host,
        port=credential.port,
        user=credential.username,
        password=credential.password,
        database=credential.database,
    )
    server = server_of(credential.engine, itself, credential.ca, None, None)
    return (await server.administrator()).connections


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


def _checked_admins(admin: str | Mapping[str, str] | None, clusters: Collection[str]) -> dict[str, str | None]:
    """Return the DSN of the administrator of each cluster. Raises InvalidArgumentError; no message has a DSN."""
    if isinstance(admin, Mapping):
        if unknown := [id for id in admin if id not in clusters]:
            raise InvalidArgumentError(f"admin has a DSN for {unknown[0]!r}, which is none of the clusters")
        return {id: admin.get(id) for id in clusters}
    if admin is not None and len(clusters) > 1:
        raise InvalidArgumentError("admin must be a mapping from the ids of the clusters, because there are several")
    return dict.fromkeys(clusters, admin)
