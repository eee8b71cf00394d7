"""Signups in aiohttp: one client for the whole process, opened in a cleanup context.

In a clone:

python3 -m venv .venv && .venv/bin/pip install -e '.[tenants,sandbox]'
.venv/bin/python -m aiodbclient.sandbox --cluster pg  # prints `export` lines: paste them into another terminal
export TENANTS_DB=$HOME/signups.db  # plain passwords, unless TENANTS_KEY has a key of `aiodbclient store keygen`
.venv/bin/python examples/aiohttp_app.py
curl -i -X POST localhost:8080/signup -H 'content-type: application/json' -d '{"tenant": "alpha"}'
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from aiodbclient.errors import DatabaseClientError
from aiodbclient.tenants import Tenants
from web_signups import NAME, create, message_of, status_of, tenants_from_environment

logger = logging.getLogger("signups")

TENANTS = web.AppKey("tenants", Tenants)


async def one_client(app: web.Application) -> AsyncIterator[None]:
    async with tenants_from_environment() as app[TENANTS]:
        yield


@web.middleware
async def handle_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except DatabaseClientError as error:
        status, headers = status_of(error)
        logger.warning("%s %s: %s", request.method, request.path, error)
        message = message_of(status)
        return web.json_response({"error": message}, status=status, headers=headers)


async def health(request: web.Request) -> web.Response:
    return web.json_response({"ok": True})


async def sign_up(request: web.Request) -> web.Response:
    try:
        signup: Any = await request.json()
        tenant = signup["tenant"]
        valid = re.fullmatch(NAME, tenant) is not None
    except (ValueError, TypeError, KeyError):
        valid = False
        tenant = ""
    if not valid:
        return web.json_response({"error": "tenant: a lower-case name of 2 to 31 letters and digits"}, status=422)
    credential = await create(request.app[TENANTS], tenant)  # stored for your app; do not return it to the visitor
    return web.json_response({"tenant": credential.name, "database": credential.database}, status=201)


def create_app() -> web.Application:
    app = web.Application(middlewares=[handle_errors])
    app.cleanup_ctx.append(one_client)
    app.router.add_get("/health", health)
    app.router.add_post("/signup", sign_up)
    return app


if __name__ == "__main__":
    web.run_app(create_app(), host="127.0.0.1")
