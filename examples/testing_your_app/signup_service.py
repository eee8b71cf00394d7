"""A signup service: each tenant gets its own database and login, and stores notes there."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from aiohttp import web

from aiodbclient import DatabaseClient
from aiodbclient.errors import DatabaseClientError, NameTakenError
from aiodbclient.tenants import Credential, SQLiteStore, Tenants

logger = logging.getLogger("signups")

TENANTS = web.AppKey("tenants", Tenants)
SIGNED_UP = web.AppKey("signed_up", set[str])  # your app would use a table for this


async def migrate(credential: Credential) -> None:
    """Create the tables of a new tenant. ``Tenants(setup=migrate)`` may call it more than once."""
    async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS notes (text text)")


def create_app(tenants: Tenants) -> web.Application:
    """Create the service. The caller passes the tenants, so that a test can pass its own."""
    app = web.Application()
    app[TENANTS], app[SIGNED_UP] = tenants, set()
    app.router.add_post("/signup", sign_up)
    app.router.add_get("/{tenant}/notes", read_notes)
    app.router.add_post("/{tenant}/notes", add_note)
    return app


async def sign_up(request: web.Request) -> web.Response:
    """Return 201; 409 for a taken name; 503 if the client may try again. The credential is never returned."""
    tenant = await _tenant(request)
    signed_up = request.app[SIGNED_UP]
    if tenant in signed_up:
        return web.json_response({"error": "this name is taken"}, status=409)
    signed_up.add(tenant)
    try:
        await request.app[TENANTS].ensure(tenant)
    except NameTakenError:  # a login or database of this name exists that this service did not create: do not use it
        signed_up.remove(tenant)
        return web.json_response({"error": "this name is taken"}, status=409)
    except DatabaseClientError as error:
        signed_up.remove(tenant)
        logger.warning("the signup of %s failed: %s", tenant, error)
        return web.json_response({"error": "try again"}, status=503, headers={"retry-after": "5"})
    except BaseException:
        signed_up.remove(tenant)
        raise
    return web.json_response({"tenant": tenant}, status=201)


async def read_notes(request: web.Request) -> web.Response:
    """Return the notes of a tenant; 503 while its database is down."""
    return await _with_database(request, "SELECT text FROM notes")


async def add_note(request: web.Request) -> web.Response:
    """Add the request body to the notes of a tenant, and return all notes."""
    insert = "WITH added AS (INSERT INTO notes VALUES (%s) RETURNING text) SELECT text FROM notes UNION ALL TABLE added"
    return await _with_database(request, insert, await request.text())


async def _with_database(request: web.Request, statement: Any, *values: str) -> web.Response:
    credential = await request.app[TENANTS].get(request.match_info["tenant"])
    if credential is None:
        raise web.HTTPNotFound
    try:
        async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
            rows = await (await connection.execute(statement, values)).fetchall()
    except psycopg.OperationalError as error:
        logger.warning("the database of %s is down: %s", credential.name, type(error).__name__)
        return web.json_response({"error": "try again"}, status=503, headers={"retry-after": "5"})
    return web.json_response({"notes": [text for (text,) in rows]})


async def _tenant(request: web.Request) -> str:
    try:
        signup: Any = await request.json()
        tenant: str = signup["tenant"]
        if re.fullmatch("[a-z][a-z0-9]{1,30}", tenant):
            return tenant
    except (ValueError, TypeError, KeyError):
        pass
    raise web.HTTPUnprocessableEntity(text="tenant: 2 to 31 lower-case letters and digits, a letter first")


async def main() -> web.Application:
    client = DatabaseClient()  # reads DIGITALOCEAN_TOKEN, and DIGITALOCEAN_API_URL for the sandbox
    store = SQLiteStore(os.environ["STORE"], key=os.environ["STORE_KEY"])
    cluster = client.cluster(os.environ["DIGITALOCEAN_CLUSTER_ID"])
    app = create_app(Tenants(cluster, store, prefix="tenant_", setup=migrate))

    async def connected(app: web.Application) -> AsyncIterator[None]:
        async with client, store:
            yield

    app.cleanup_ctx.append(connected)
    return app


if __name__ == "__main__":
    web.run_app(main(), host="127.0.0.1")
