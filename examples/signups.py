"""What the web examples share: the tenants, and how an error is told. No web framework here."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiodbclient import DatabaseClient
from aiodbclient.errors import (
    BadRequestError,
    DatabaseClientError,
    InvalidArgumentError,
    RateLimitError,
    ServerError,
    TransportError,
    UnprocessableEntityError,
)
from aiodbclient.tenants import Credential, SQLiteStore, TenantPools, Tenants

PATIENCE = 2.0  # s that somebody who waits for a page may wait for the rate budget


@asynccontextmanager
async def tenants_from_environment() -> AsyncGenerator[Tenants]:
    """Those on the cluster DIGITALOCEAN_CLUSTER_ID, on record in the file TENANTS_DB, encrypted by TENANTS_KEY."""
    store = SQLiteStore(os.environ["TENANTS_DB"], key=os.environ.get("TENANTS_KEY"))
    async with DatabaseClient() as client, store:
        cluster = client.with_options(max_wait=PATIENCE).cluster(os.environ["DIGITALOCEAN_CLUSTER_ID"])
        yield Tenants(cluster, store, prefix="tenant_")


def pools_of(tenants: Tenants) -> TenantPools[Any]:
    """A pool of asyncpg for each tenant that visitors ask for. Another driver: docs/how-to/pools.md."""
    return TenantPools(tenants, open=_open_pool, close=_close_pool, most=50)


async def _open_pool(credential: Credential) -> Any:
    import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # here, so that signups work without it

    return await asyncpg.create_pool(credential.uri, ssl=credential.ssl_context(), min_size=1, max_size=5)


async def _close_pool(pool: Any) -> None:
    await pool.close()


def status_of(error: DatabaseClientError) -> tuple[int, dict[str, str]]:
    """The status, and the headers, with which a web backend tells an error of this package to its own client."""
    match error:
        case RateLimitError():
            return 503, {"retry-after": str(math.ceil(error.retry_after or 1))}
        case TransportError() | ServerError():
            return 503, {"retry-after": "1"}
        case InvalidArgumentError() | BadRequestError() | UnprocessableEntityError():
            return 422, {}
        case _:  # a token, a cluster, a store or a database server that is not as it should be: ours to repair
            return 500, {}
