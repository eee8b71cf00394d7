"""Signups in FastAPI: one client for the whole process, held by the lifespan.

python -m aiodbclient.sandbox --cluster pg      # tells what to export, and the cluster's id
export DIGITALOCEAN_CLUSTER_ID=...
export TENANTS_DB=$HOME/tenants.db              # outside of the checkout: it holds passwords
uvicorn --app-dir examples fastapi_app:app
curl -i -X POST localhost:8000/signup -H 'content-type: application/json' -d '{"tenant": "alpha"}'
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, StringConstraints

from aiodbclient.errors import DatabaseClientError
from aiodbclient.tenants import Tenants
from signups import status_of, tenants_from_environment

logger = logging.getLogger("signups")


class Signup(BaseModel):
    tenant: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9]{1,30}$")]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with tenants_from_environment() as app.state.tenants:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


@app.post("/signup", status_code=201)
async def sign_up(signup: Signup, request: Request) -> dict[str, str | None]:
    tenants: Tenants = request.app.state.tenants
    credential = await tenants.ensure(signup.tenant)  # yours to use, and on record; not the visitor's to see
    return {"tenant": credential.name, "database": credential.database}


@app.exception_handler(DatabaseClientError)
async def tell_error(request: Request, error: DatabaseClientError) -> JSONResponse:
    status, headers = status_of(error)
    logger.warning("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": "the signup did not work; it can be tried again"}, status, headers)
