"""What the web examples share: signing up a tenant, who gets a database and a login of its own. No web framework here.

Each of the apps has ONE client for the whole process, made when it starts and closed when it ends.
"""

from __future__ import annotations

import math
import os

from aiodbclient import ClusterClient, Connection, DatabaseClient, User
from aiodbclient.errors import (
    BadRequestError,
    ConflictError,
    DatabaseClientError,
    InvalidArgumentError,
    NotFoundError,
    RateLimitError,
    ServerError,
    TransportError,
    UnprocessableEntityError,
)

PATIENCE = 2.0  # s that somebody who waits for a page may wait for the rate budget


class TenantExists(Exception):
    """Somebody has signed up under this name."""


def client_from_environment() -> DatabaseClient:
    """DIGITALOCEAN_TOKEN, and where there is a sandbox its DIGITALOCEAN_API_URL."""
    return DatabaseClient(base_url=os.environ.get("DIGITALOCEAN_API_URL", "https://api.digitalocean.com"))


class Tenants:
    """The tenants on the cluster DIGITALOCEAN_CLUSTER_ID."""

    def __init__(self, cluster: ClusterClient, connection: Connection) -> None:
        self._cluster = cluster
        self._connection = connection
        # Stands for a table of yours, with the name as its key and the DSN encrypted; None while a signup is under way.
        self._dsns: dict[str, str | None] = {}

    @classmethod
    async def connect(cls, client: DatabaseClient) -> Tenants:
        """Read the cluster once, at the start."""
        cluster_id = os.environ["DIGITALOCEAN_CLUSTER_ID"]
        cluster = await client.clusters.get(cluster_id)
        assert cluster.connection is not None, "the cluster is not online yet"
        return cls(client.with_options(max_wait=PATIENCE).cluster(cluster_id, cluster.engine), cluster.connection)

    async def sign_up(self, tenant: str) -> str:
        """Give ``tenant`` a database and a login, and return its DSN.

        Raises TenantExists, or a DatabaseClientError, after which signing up again takes up where this ended.
        """
        if tenant in self._dsns:
            raise TenantExists(tenant)
        self._dsns[tenant] = None
        try:
            # With a prefix no tenant can be a login that is somebody else's, such as doadmin.
            name = f"tenant_{tenant}"
            await self._ensure_db(name)
            user = await self._ensure_user(name)
            dsn = self._dsns[tenant] = self._connection.uri_for(user, database=name)
        finally:
            if self._dsns[tenant] is None:
                del self._dsns[tenant]
        return dsn

    async def _ensure_db(self, name: str) -> None:
        try:
            await self._cluster.dbs.create(name)
        except (ConflictError, UnprocessableEntityError):
            await self._cluster.dbs.get(name)  # left by a signup that broke off

    async def _ensure_user(self, name: str) -> User:
        """The user, with a password that works. Only for a tenant not on record, whose password nobody knows."""
        try:
            return await self._cluster.users.create(name)
        except (ConflictError, UnprocessableEntityError):
            return await self._cluster.users.reset_auth(name)  # left by a signup that broke off
        except DatabaseClientError as error:
            if not error.may_have_applied:
                raise
        try:
            return await self._cluster.users.reset_auth(name)  # the answer was lost, and the password with it
        except NotFoundError:
            return await self._cluster.users.create(name)


def status_of(error: DatabaseClientError) -> tuple[int, dict[str, str]]:
    """The status, and the headers, with which a web backend tells an error of this package to its own client."""
    match error:
        case RateLimitError():
            return 503, {"retry-after": str(math.ceil(error.retry_after or 1))}
        case TransportError() | ServerError():
            return 503, {"retry-after": "1"}
        case InvalidArgumentError() | BadRequestError() | UnprocessableEntityError():
            return 422, {}
        case ConflictError():
            return 409, {}
        case _:  # a token or a cluster that is not as it should be: ours to repair
            return 500, {}
