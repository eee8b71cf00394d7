"""``Site``: what the work on every tenant needs of the cluster. It is read once, by ``read_site``."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from .._dsn import dsn
from .._hosts import is_host
from ..clusters import ClusterClient
from ..engines import CAPABILITIES, Engine, guard_tenants
from ..errors import ConfigurationError, GrantError, NotFoundError
from ..models import Connection, User, UserSettings
from .credential import Credential
from .grants import Grants, sql_grants
from .grants.settings import settings_for
from .naming import Names


@frozen
class Site:
    """What the work on every tenant needs of the cluster.

    Attributes:
        cluster_id: The id of the cluster.
        engine: Its engine.
        connection: Where the tenants' programs reach it: the public or the private connection.
        ca: Its certificate authority as PEM; None if it speaks no TLS.
        sql: The SQL that gives tenants their rights; None if the API gives them.
    """

    cluster_id: str
    engine: Engine | str
    connection: Connection
    ca: str | None
    sql: Grants[Any] | None

    @property
    def tells_passwords(self) -> bool:
        """Whether the API tells a login's password when it is read, as far as the engine and the token allow it.

        A token that is not told the primary user's password is not told any.
        """
        return CAPABILITIES[self.engine].tells_passwords and self.connection.password is not None

    def settings(self, names: Names) -> UserSettings | None:
        """The settings that a login of the tenant is made with; None if SQL gives the rights."""
        return settings_for(self.engine, names)

    def credential(self, names: Names, user: User) -> Credential:
        """The credential of the tenant with the login ``user``."""
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
        )


async def read_site(cluster: ClusterClient, *, private: bool, admin: str | None) -> Site:
    """Read the cluster and its CA, and log in as the administrator. Changes nothing: safe to repeat and to cancel.

    Args:
        cluster: The cluster.
        private: Whether to use its private connection.
        admin: The DSN of an administrator of a PostgreSQL or MySQL cluster; None for the primary user.

    Raises:
        UnsupportedOperationError: Its engine can have no tenants, or is not known.
        ConfigurationError: It tells no such connection (is it online?), it speaks TLS and the API tells no CA, no
            administrator is known, or a driver is not installed.
        GrantError: The administrator cannot log in.
        DatabaseClientError: It could not be read.
    """
    if cluster.engine is not None and cluster.engine in CAPABILITIES:
        guard_tenants(cluster.engine)  # before anything is sent
    info = await cluster.info()
    guard_tenants(info.engine)
    connection = info.private_connection if private else info.connection
    if connection is None or not connection.host:
        which = "private connection" if private else "connection"
        raise ConfigurationError(
            f"the cluster {info.name!r} tells no {which} (its status is {info.status}): "
            "wait until it is online, or choose the other connection"
        )
    if not is_host(connection.host):
        raise ConfigurationError(f"the cluster {info.name!r} has an invalid host in its connection: ask the provider")
    ca = await _authority(cluster, info.name) if connection.ssl else None
    sql = sql_grants(info.engine, connection, ca, admin)
    if sql is not None:
        try:
            await sql.check()  # before anything is made that it could not give its rights
        except GrantError as error:
            error.may_have_applied = False
            raise
    return Site(cluster.id, info.engine, connection, ca, sql)


async def _authority(cluster: ClusterClient, name: str) -> str:
    try:
        return await cluster.ca()
    except NotFoundError as missing:
        raise ConfigurationError(
            f"the cluster {name!r} speaks TLS, and the API tells no certificate authority by which its servers could "
            f"be verified (404: {missing.message}): wait until the cluster is online, or ask the provider; nothing was "
            "made"
        ) from None
