"""Signups in FastAPI: one client for the whole process, opened in the lifespan.

In a clone:

python3 -m venv .venv && .venv/bin/pip install -e '.[tenants,sandbox]' asyncpg fastapi uvicorn
.venv/bin/python -m aiodbclient.sandbox --cluster pg  # prints `export` lines: paste them into another terminal
export TENANTS_DB=$HOME/signups.db  # plain passwords, unless TENANTS_KEY has a key of `aiodbclient store keygen`
.venv/bin/uvicorn --app-dir examples fastapi_app:app
curl -i -X POST localhost:8000/signup -H 'content-type: application/json' -d '{"tenant": "alpha"}'
curl -i localhost:8000/tenants/alpha/size
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, StringConstraints

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


class Signup(BaseModel):
    tenant: Annotated[str, StringConstraints(pattern=NAME)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with tenants_from_environment() as app.state.tenants, pools_of(app.state.tenants) as app.state.pools:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


@app.post("/signup", status_code=201)
async def sign_up(signup: Signup, request: Request) -> dict[str, str | None]:
    tenants: Tenants = request.app.state.tenants
    credential = await create(tenants, signup.tenant)  # stored for your app; do not return it to the visitor
    return {"tenant": credential.name, "database": credential.database}


async def tenant_connection(tenant: Annotated[str, Path(pattern=NAME)], request: Request) -> AsyncGenerator[Any]:
    """A connection to the tenant's database. Check first that the visitor may act for this tenant."""
    pools: TenantPools[Any] = request.app.state.pools
    async with pools.use(tenant) as pool, pool.acquire() as connection:
        yield connection


@app.get("/tenants/{tenant}/size")
async def size(connection: Annotated[Any, Depends(tenant_connection)]) -> dict[str, int]:
    return {"bytes": await connection.fetchval("SELECT pg_database_size(current_database())")}


@app.exception_handler(DatabaseClientError)
async def handle_error(request: Request, error: DatabaseClientError) -> JSONResponse:
    return answer_of(request, error, *status_of(error))


async def handle_driver_error(request: Request, error: Exception) -> JSONResponse:
    return answer_of(request, error, *status_of_driver(error))


for kind in (asyncpg.PostgresError, asyncpg.InterfaceError, *UNREACHABLE):
    app.add_exception_handler(kind, handle_driver_error)


def answer_of(request: Request, error: Exception, status: int, headers: dict[str, str]) -> JSONResponse:
    logger.warning("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": message_of(status)}, status, headers)
