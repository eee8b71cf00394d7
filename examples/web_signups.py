"""Shared by the web examples: open the tenants, and map errors to HTTP statuses. It uses no web framework."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiodbclient import DatabaseClient
from aiodbclient.errors import (
    ClusterNotOnlineError,
    DatabaseClientError,
    InvalidArgumentError,
    MaxWaitError,
    NameTakenError,
    PreconditionFailedError,
    RateLimitError,
    ServerError,
    TransportError,
)
from aiodbclient.tenants import Credential, SQLiteStore, TenantPools, Tenants
from aiodbclient.tenants.errors import (
    CapacityError,
    ClaimLostError,
    GrantError,
    StoreError,
    SuspendedError,
    TenantBusyError,
    TenantMovingError,
    TenantNotFoundError,
)

NAME = "^[a-z][a-z0-9]{1,30}$"  # of a tenant, as this app allows it
PATIENCE = 2.0  # seconds that a visitor's request may wait for the rate limit
CONNECTIONS = int(os.environ.get("TENANTS_CONNECTIONS", "97"))  # that the database server allows, here one of 4 GB
PROCESSES = int(os.environ.get("WEB_CONCURRENCY", "1"))  # of this program
POOL_SIZE = 5


@asynccontextmanager
async def tenants_from_environment() -> AsyncGenerator[Tenants]:
    """The tenants of the cluster DIGITALOCEAN_CLUSTER_ID, stored in the file TENANTS_DB, encrypted by TENANTS_KEY."""
    store = SQLiteStore(os.environ["TENANTS_DB"], key=os.environ.get("TENANTS_KEY"))
    async with DatabaseClient(max_wait=PATIENCE) as client, store:
        cluster = client.cluster(os.environ["DIGITALOCEAN_CLUSTER_ID"])
        yield Tenants(cluster, store, prefix="tenant_")


async def create(tenants: Tenants, name: str) -> Credential:
    """Create the tenant of a new customer, or finish an interrupted signup. A customer's name is a NameTakenError."""
    if await tenants.get(name) is not None:
        raise NameTakenError(f"{name!r} is signed up already")
    return await tenants.ensure(name)


def pools_of(tenants: Tenants) -> TenantPools[Any]:
    """An asyncpg pool for each tenant that visitors use. For other drivers see docs/how-to/pools.md."""
    most = max(1, int(CONNECTIONS * 0.8) // POOL_SIZE // PROCESSES)  # a fifth is left for migrations and rotations
    return TenantPools(tenants, open=_open_pool, close=_close_pool, max_pools=most)


async def _open_pool(credential: Credential) -> Any:
    import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # imported here, so that signups work without it

    return await asyncpg.create_pool(credential.uri, ssl=credential.ssl_context(), min_size=0, max_size=POOL_SIZE)


async def _close_pool(pool: Any) -> None:
    await pool.close()


def status_of(error: DatabaseClientError) -> tuple[int, dict[str, str]]:
    """The status and headers of a web backend's response for an error of this package."""
    match error:
        case MaxWaitError() | RateLimitError() | TenantMovingError() | TenantBusyError():
            return 503, {"retry-after": str(math.ceil(error.retry_after or 1))}
        case TransportError() | ServerError() | ClaimLostError():
            return 503, {"retry-after": "1"}
        case PreconditionFailedError() | ClusterNotOnlineError() | CapacityError():  # waits for the cluster, or another
            return 503, {"retry-after": "60"}
        case StoreError(damaged=()) | GrantError():  # mostly the store or the database server is down or restarts
            return 503, {"retry-after": "60"}
        case SuspendedError():
            return 403, {}
        case TenantNotFoundError():
            return 404, {}
        case NameTakenError():  # it is signed up already, or this app did not create what has this name
            return 409, {}
        case InvalidArgumentError():  # the name is invalid or reserved
            return 422, {}
        case _:  # the token, the cluster or a damaged record: the operator must fix it
            return 500, {}


UNREACHABLE = ConnectionError, TimeoutError, socket.gaierror  # what drivers raise besides their own errors
# Classes of SQLSTATE: the connection was lost, the login refused, too many connections, and the session ended
_CONNECTION_STATES = ("08", "28", "53", "57")


def status_of_driver(error: Exception) -> tuple[int, dict[str, str]]:
    """The same for an error of asyncpg: 503 while a login is replaced or ended, or the server restarts."""
    lost = getattr(error, "sqlstate", "08").startswith(_CONNECTION_STATES)  # UNREACHABLE and InterfaceError have none
    return (503, {"retry-after": "1"}) if lost else (500, {})


def message_of(status: int) -> str:
    """What the visitor reads: only a 503 is worth another try."""
    return {503: "the request failed; try again", 409: "the name is taken"}.get(status, "the request failed")
