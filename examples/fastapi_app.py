"""Signups in FastAPI: one client for the whole process, held by the lifespan.

python -m aiodbclient.sandbox --cluster pg      # tells what to export, and the cluster's id
export DIGITALOCEAN_CLUSTER_ID=...
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
from tenants import TenantExists, Tenants, status_of, tenants_from_environment

logger = logging.getLogger("signups")


class Signup(BaseModel):
    tenant: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9]{1,30}$")]


class Login(BaseModel):
    dsn: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with tenants_from_environment() as app.state.tenants:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


@app.post("/signup", status_code=201)
async def sign_up(signup: Signup, request: Request) -> Login:
    tenants: Tenants = request.app.state.tenants
    return Login(dsn=await tenants.sign_up(signup.tenant))


@app.exception_handler(TenantExists)
async def tell_exists(request: Request, error: TenantExists) -> JSONResponse:
    return JSONResponse({"error": "this name is taken"}, 409)


@app.exception_handler(DatabaseClientError)
async def tell_error(request: Request, error: DatabaseClientError) -> JSONResponse:
    status, headers = status_of(error)
    logger.warning("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": "the signup did not work; it can be tried again"}, status, headers)
