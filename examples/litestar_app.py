"""Signups in Litestar: one client for the whole process, opened in a lifespan context.

In a clone:

python3 -m venv .venv && .venv/bin/pip install -e '.[tenants,sandbox]' asyncpg litestar uvicorn
.venv/bin/python -m aiodbclient.sandbox --cluster pg  # prints `export` lines: paste them into another terminal
export TENANTS_DB=$HOME/signups.db  # plain passwords, unless TENANTS_KEY has a key of `aiodbclient store keygen`
.venv/bin/uvicorn --app-dir examples litestar_app:app
curl -i -X POST localhost:8000/signup -H 'content-type: application/json' -d '{"tenant": "alpha"}'
curl -i localhost:8000/tenants/alpha/size
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import ValidationException
from litestar.params import JSONBody, PathParameter

from aiodbclient.errors import DatabaseClientError
from aiodbclient.tenants import TenantPools, Tenants
from web_signups import (
    NAME,
    UNREACHABLE,
    create,
    message_of,
    pools_of,
    status_of,
    status_of_driver,
    tenants_from_environment,
)

logger = logging.getLogger("signups")


class Signup(msgspec.Struct):
    tenant: Annotated[str, msgspec.Meta(pattern=NAME)]


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncGenerator[None]:
    async with tenants_from_environment() as app.state.tenants, pools_of(app.state.tenants) as app.state.pools:
        yield


@get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


@post("/signup")
async def sign_up(data: JSONBody[Signup], state: State) -> dict[str, str | None]:
    tenants: Tenants = state.tenants
    credential = await create(tenants, data.tenant)  # stored for your app; do not return it to the visitor
    return {"tenant": credential.name, "database": credential.database}


async def tenant_connection(tenant: Annotated[str, PathParameter(pattern=NAME)], state: State) -> AsyncGenerator[Any]:
    """A connection to the tenant's database. Check first that the visitor may act for this tenant."""
    pools: TenantPools[Any] = state.pools
    async with pools.use(tenant) as pool, pool.acquire() as connection:
        yield connection


@get("/tenants/{tenant:str}/size", dependencies={"connection": Provide(tenant_connection)})
async def size(connection: NamedDependency[Any]) -> dict[str, int]:
    return {"bytes": await connection.fetchval("SELECT pg_database_size(current_database())")}


def handle_invalid(request: Request[Any, Any, Any], error: ValidationException) -> Response[dict[str, str]]:
    return Response({"error": "tenant: a lower-case name of 2 to 31 letters and digits"}, status_code=422)


def handle_error(request: Request[Any, Any, Any], error: DatabaseClientError) -> Response[dict[str, str]]:
    return answer_of(request, error, *status_of(error))


def handle_driver_error(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, str]]:
    return answer_of(request, error, *status_of_driver(error))


def answer_of(
    request: Request[Any, Any, Any], error: Exception, status: int, headers: dict[str, str]
) -> Response[dict[str, str]]:
    logger.warning("%s %s: %s", request.method, request.url.path, error)
    return Response({"error": message_of(status)}, status_code=status, headers=headers)


app = Litestar(
    [health, sign_up, size],
    lifespan=[lifespan],
    logging_config=None,
    exception_handlers={
        ValidationException: handle_invalid,
        DatabaseClientError: handle_error,
        **dict.fromkeys((asyncpg.PostgresError, asyncpg.InterfaceError, *UNREACHABLE), handle_driver_error),
    },
)
