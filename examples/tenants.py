"""What the web examples share: signing up a tenant, who gets a database and a login of its own. No web framework here.

Each of the apps has ONE client for the whole process, made when it starts and closed when it ends. It is meant for one
process: see to it that a tenant's signups all reach the same one, or lock the tenant's row.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

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
from credentials import Credentials

logger = logging.getLogger("signups")

PATIENCE = 2.0  # s that somebody who waits for a page may wait for the rate budget
# Signups under way. The fewer, the sooner the event loop comes round to all else that the process serves.
AT_A_TIME = 8


class TenantExists(Exception):
    """Somebody has signed up under this name."""


def client_from_environment() -> DatabaseClient:
    """DIGITALOCEAN_TOKEN, and where there is a sandbox its DIGITALOCEAN_API_URL."""
    return DatabaseClient(base_url=os.environ.get("DIGITALOCEAN_API_URL", "https://api.digitalocean.com"))


@asynccontextmanager
async def tenants_from_environment() -> AsyncGenerator[Tenants]:
    """The tenants on the cluster DIGITALOCEAN_CLUSTER_ID, on record in the file TENANTS_DB, or else in memory."""
    cluster_id = os.environ["DIGITALOCEAN_CLUSTER_ID"]
    with Credentials.open(os.environ.get("TENANTS_DB", ":memory:")) as credentials:
        async with client_from_environment() as client:
            info = await client.clusters.get(cluster_id)
            cluster = client.with_options(max_wait=PATIENCE).cluster(cluster_id, info.engine)
            tenants = Tenants(cluster, info.connection, credentials)
            await tenants.settle()
            yield tenants


class Tenants:
    """The tenants on one cluster, with a database and a login each."""

    def __init__(self, cluster: ClusterClient, connection: Connection, credentials: Credentials) -> None:
        self._cluster = cluster
        self._connection = connection
        self._credentials = credentials
        self._under_way: set[str] = set()
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def sign_up(self, tenant: str) -> str:
        """Give ``tenant`` a database and a login, and return its DSN, which is on record by then.

        Raises TenantExists, or a DatabaseClientError, after which signing up again takes up where this ended.
        """
        if tenant in self._under_way:
            raise TenantExists(tenant)
        self._under_way.add(tenant)
        try:
            if not await self._credentials.intend(tenant):
                raise TenantExists(tenant)
            name = _name(tenant)
            async with self._turns:
                await self._ensure_db(name)
                user = await self._ensure_user(name)
            return await self._keep(tenant, user)
        finally:
            self._under_way.remove(tenant)

    async def settle(self) -> None:
        """Complete the signups that broke off when the process ended. Nobody knows the password of such a user."""
        pending = {_name(tenant): tenant for tenant in await self._credentials.pending()}
        if not pending:
            return
        for made in [made async for made in self._cluster.dbs.provision(pending)]:
            if made.error is not None:
                logger.warning("the signup of %s is still pending: %s", pending.pop(made.name), made.error)
        async for outcome in self._cluster.users.provision(pending, if_exists="reset"):
            tenant = pending[outcome.name]
            if outcome.user is not None:
                await self._keep(tenant, outcome.user)
                logger.info("the signup of %s is complete (%s)", tenant, outcome.action)
            else:
                logger.warning("the signup of %s is still pending: %s", tenant, outcome.error)

    async def _keep(self, tenant: str, user: User) -> str:
        dsn = self._connection.uri_for(user, database=_name(tenant))
        await self._credentials.keep(tenant, dsn)
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


def _name(tenant: str) -> str:
    return f"tenant_{tenant}"  # with a prefix no tenant can be a login that is somebody else's, such as doadmin


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
