"""The clusters of tenants: ``Site`` has the facts about one, and ``JobClusters`` are those of one job."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from copy import copy
from datetime import datetime
from time import monotonic
from typing import Any

from attrs import frozen

from .._bulk.job import OUTAGE, UNANSWERED
from .._dsn import dsn, is_host
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
from ._events import Timer
from ._grants import Grants, sql_grants
from ._listing import Listing
from ._naming import Names
from ._rooms import Rooms, Seat

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
_AWAY_SECONDS = 30.0  # for which nothing is sent to a cluster that is away


@frozen
class Site:
    """The facts about the cluster that all work on tenants needs."""

    cluster_id: str
    engine: Engine | str
    connection: Connection
    ca: str | None  # None: without TLS
    sql: Grants[Any] | None  # None: the API gives the rights

    @property
    def returns_passwords(self) -> bool:
        """Whether the API returns passwords: a token that does not get the primary user's gets none."""
        return CAPABILITIES[self.engine].returns_passwords and self.connection.password is not None

    def credential(self, names: Names, user: User, since: datetime) -> Credential:
        """The credential of the tenant with the login ``user``, stored at ``since``."""
        connection = self.connection
        assert connection.host is not None
        return Credential(
            name=names.tenant,
            username=user.name,
            password=user.password,
            database=names.database,
            host=connection.host,
            port=connection.port or 0,
            engine=self.engine,
            uri=dsn(
                engine=self.engine,
                host=connection.host,
                port=connection.port,
                ssl=connection.ssl,
                uri=connection.uri,
                username=user.name,
                password=user.password,
                database=names.database,
                protocol=connection.protocol,
            ),
            ca=self.ca,
            access_cert=user.access_cert,
            access_key=user.access_key,
            cluster=self.cluster_id,
            since=since,
            role=names.role,
            prefix=names.objects,
        )


class SiteReader:
    """Reads one cluster once for each ``Tenants``, and again after ``reread``."""

    def __init__(
        self,
        cluster: ClusterClient,
        *,
        private: bool = False,
        admin: str | None = None,
        connection_limit: int | None = None,
    ) -> None:
        self.cluster = cluster
        self.reading = asyncio.Lock()  # held by the job that calls ``read``
        self._limit = connection_limit
        self._private = private
        self._admin = admin
        self._site: Site | None = None

    @property
    def engine(self) -> Engine | str | None:
        """The engine of the cluster, if it is known."""
        return self.cluster.engine if self._site is None else self._site.engine

    async def read(self, cluster: ClusterClient) -> Site:
        """The facts about the cluster. The first call reads it and its CA, and logs in as the administrator."""
        if self._site is None:
            self._site = await self._read(cluster)
        return self._site

    def reread(self) -> None:
        """Make the next ``read`` read the cluster again: its primary user may have another password."""
        self._site = None

    async def _read(self, cluster: ClusterClient) -> Site:
        if cluster.engine is not None and cluster.engine in CAPABILITIES:
            guard_tenants(cluster.engine)  # before anything is sent
        info = await cluster.info()
        guard_tenants(info.engine)
        connection = connection_of(info, private=self._private)
        ca = await _authority(cluster, info.name) if connection.ssl else None
        sql = sql_grants(info.engine, connection, ca, self._admin, self._limit)
        if sql is not None:
            try:
                await sql.check()  # before creating anything that could then not get its rights
            except GrantError as error:
                error.may_have_applied, error.on_record = False, f"nothing was changed on the cluster {cluster.id}"
                raise
        return Site(cluster.id, info.engine, connection, ca, sql)


async def connections_of(credential: Credential) -> int | None:
    """Log in with ``credential``, and return how many connections its server allows; None if unknown."""
    itself = Connection(
        host=credential.host,
        port=credential.port,
        user=credential.username,
        password=credential.password,
        database=credential.database,
    )
    sql = sql_grants(credential.engine, itself, credential.ca, None, None)
    return None if sql is None else await sql.connections()


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


def check_engines(sites: Mapping[str, SiteReader]) -> None:
    """Make sure that all clusters whose engine is known have the same one. Raises InvalidArgumentError."""
    known = {site.engine: id for id, site in sites.items() if site.engine is not None}
    if len(known) > 1:
        each = " and ".join(f"{id} is {engine}" for engine, id in known.items())
        raise InvalidArgumentError(
            f"all clusters must be of one engine, and {each}: make a Tenants for each engine; nothing was sent"
        )


class JobClusters:
    """The clusters of one job, by id."""

    def __init__(self, sites: Mapping[str, SiteReader], pause: Pause, *, bulk: bool = True) -> None:
        self.sites = sites
        self.bulk = bulk  # whether the job is on many names: then its requests wait in the bulk lane
        self.listings = defaultdict[str, Listing](Listing)  # each made once for this job
        self._pause = pause
        self._away: dict[str, tuple[DatabaseClientError, float]] = {}
        self._unanswered = defaultdict[str, set[str]](set)  # tenants in a row, by cluster

    @property
    def are_many(self) -> bool:
        """Whether one may be away while others are not."""
        return len(self.sites) > 1

    def calls(
        self,
        cluster: str,
        meter: Meter,
        tenant: str | None = None,
        before_sending: Callable[[], object] | None = None,
    ) -> ClusterClient:
        """The cluster, in the lane of this job. ``meter`` counts the requests."""
        pause = self._pause if self.bulk else None
        return for_work(self.sites[cluster].cluster, meter, pause, tenant, before_sending)

    async def any_site(self) -> Site:
        """The facts about the first cluster that can be reached. Raises the first error if none can."""
        failures = list[DatabaseClientError]()
        for cluster in self.sites:
            try:
                return await self.site(cluster, Meter())
            except AWAY as error:
                failures.append(error)
        raise failures[0]

    async def site(self, cluster: str, meter: Meter) -> Site:
        """The facts about the cluster. For some seconds after a failure it raises the same error, and sends nothing."""
        reader = self.sites[cluster]
        async with reader.reading:
            self.check_away(cluster)
            try:
                site = await reader.read(self.calls(cluster, meter))
            except AWAY as error:
                self._away[cluster] = error, monotonic()
                raise
        check_engines(self.sites)
        return site

    async def locate(
        self, name: str, home: str | None, timer: Timer, rooms: Rooms | None = None
    ) -> tuple[Site, Seat | None]:
        """The site of a tenant's ``home``, or of a cluster of ``rooms`` for a new tenant, with its seat there."""
        if home is not None or rooms is None:
            return await self.site(home or next(iter(self.sites)), timer.meter), None
        away = dict[str, DatabaseClientError]()
        while True:
            try:
                seat = await rooms.take(name, away)
            except NoRoomError:
                if away:
                    raise next(iter(away.values())) from None
                raise
            try:
                return await self.site(seat.cluster, timer.meter), seat
            except BaseException as error:
                rooms.give_back(seat)
                # A new tenant goes to a cluster that can be reached, unless the caller of ``Tenants`` chooses.
                if not isinstance(error, AWAY) or rooms.place is not None or not self.are_many:
                    raise
                away[seat.cluster] = error

    @contextmanager
    def watched(self, cluster: str, tenant: str) -> Generator[None]:
        """Notice if tenant after tenant of one of many clusters gets no answer. Then the cluster is away."""
        try:
            yield
        except UNANSWERED as error:
            self._unanswered[cluster].add(tenant)
            if self.are_many and len(self._unanswered[cluster]) >= OUTAGE:
                self._away[cluster] = error, monotonic()
            raise
        self._unanswered[cluster].clear()

    def check_away(self, cluster: str) -> None:
        """Raise what the cluster failed with, if that was a moment ago."""
        if cluster in self._away:
            error, since = self._away[cluster]
            if monotonic() - since < _AWAY_SECONDS:
                raise copy(error)  # each outcome has its own, since raising it adds to its traceback
            del self._away[cluster]
