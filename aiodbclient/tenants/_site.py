"""``Site``: the facts about the cluster that all work on tenants needs. ``SiteReader`` reads them once."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from attrs import frozen

from .._dsn import dsn, is_host
from ..clusters import ClusterClient
from ..engines import CAPABILITIES, Engine, guard_tenants
from ..errors import ConfigurationError, GrantError, NotFoundError
from ..models import Cluster, Connection, User
from ._credential import Credential
from ._grants import Grants, sql_grants
from ._naming import Names


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
        """Whether reads of the API return a login's password, with this engine and token.

        A token that does not get the primary user's password gets no passwords.
        """
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
        self.turn = asyncio.Lock()  # of the job that calls ``read``
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
