"""Signups in Litestar: one client for the whole process, held by a lifespan context.

python -m aiodbclient.sandbox --cluster pg      # tells what to export, and the cluster's id
export DIGITALOCEAN_CLUSTER_ID=...
export TENANTS_DB=$HOME/tenants.db              # outside of the checkout: it holds passwords
uvicorn --app-dir examples litestar_app:app
curl -i -X POST localhost:8000/signup -H 'content-type: application/json' -d '{"tenant": "alpha"}'
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import ValidationException
from litestar.params import JSONBody

from aiodbclient.errors import DatabaseClientError
from aiodbclient.tenants import Tenants
from signups import status_of, tenants_from_environment

logger = logging.getLogger("signups")


class Signup(msgspec.Struct):
    tenant: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9]{1,30}$")]


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncGenerator[None]:
    async with tenants_from_environment() as app.state.tenants:
        yield


@get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


@post("/signup")
async def sign_up(data: JSONBody[Signup], state: State) -> dict[str, str | None]:
    tenants: Tenants = state.tenants
    credential = await tenants.ensure(data.tenant)  # yours to use, and on record; not the visitor's to see
    return {"tenant": credential.name, "database": credential.database}


def tell_invalid(request: Request[Any, Any, Any], error: ValidationException) -> Response[dict[str, str]]:
    return Response({"error": "tenant: a lower-case name of 2 to 31 letters and digits"}, status_code=422)


def tell_error(request: Request[Any, Any, Any], error: DatabaseClientError) -> Response[dict[str, str]]:
    status, headers = status_of(error)
    logger.warning("%s %s: %s", request.method, request.url.path, error)
    message = "the signup did not work; it can be tried again"
    return Response({"error": message}, status_code=status, headers=headers)


app = Litestar(
    [health, sign_up],
    lifespan=[lifespan],
    logging_config=None,
    exception_handlers={ValidationException: tell_invalid, DatabaseClientError: tell_error},
)
