"""Where the tenants of one cluster live: what is read of the cluster once, and used for each of them."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from .._dsn import dsn
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
    """A cluster as far as its tenants are concerned."""

    cluster_id: str
    engine: Engine | str
    connection: Connection
    ca: str | None
    sql: Grants[Any] | None

    @property
    def tells_passwords(self) -> bool:
        """Whether a read of a login tells its password: the engine's do, and the token is told the primary user's."""
        return CAPABILITIES[self.engine].tells_passwords and self.connection.password is not None

    def settings(self, names: Names) -> UserSettings | None:
        """What a login of the tenant is made with, where the API gives the rights."""
        return settings_for(self.engine, names)

    def credential(self, names: Names, user: User) -> Credential:
        """The credential of the tenant, for the login ``user``."""
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
    """Read what the tenants of ``cluster`` need of it.

    Raises:
        UnsupportedOperationError: Its engine can have no tenants, or is not known.
        ConfigurationError: It is still being created, has no private connection, speaks a TLS that cannot be verified,
            or nothing tells an administrator.
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
