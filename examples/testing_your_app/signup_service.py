"""A signup service: whoever signs up gets a database and a login of their own."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from aiodbclient import ClusterClient, Connection, DatabaseClient
from aiodbclient.errors import DatabaseClientError

logger = logging.getLogger("signups")

CLUSTER = web.AppKey("cluster", ClusterClient)
CONNECTION = web.AppKey("connection", Connection)
TENANTS = web.AppKey("tenants", set[str])  # stands for a table of yours: who has signed up


def create_app(client: DatabaseClient, cluster_id: str) -> web.Application:
    """The service on one cluster. The client is the caller's, which makes it easy to test."""

    async def connect(app: web.Application) -> None:
        info = await client.clusters.get(cluster_id)
        app[CLUSTER], app[CONNECTION] = client.cluster(cluster_id), info.connection

    app = web.Application()
    app[TENANTS] = set()
    app.on_startup.append(connect)
    app.router.add_post("/signup", sign_up)
    return app


async def sign_up(request: web.Request) -> web.Response:
    """Answer with the DSN; or 409 for a name that is taken, and 503 for what may be tried again."""
    tenant = await _tenant(request)
    tenants = request.app[TENANTS]
    if tenant in tenants:
        return web.json_response({"error": "this name is taken"}, status=409)
    tenants.add(tenant)
    try:
        dsn = await _provide(request.app, f"tenant_{tenant}")
    except DatabaseClientError as error:
        tenants.remove(tenant)
        logger.warning("the signup of %s failed: %s", tenant, error)
        return web.json_response({"error": "try again"}, status=503, headers={"retry-after": "5"})
    except BaseException:
        tenants.remove(tenant)
        raise
    return web.json_response({"dsn": dsn}, status=201)


async def _provide(app: web.Application, name: str) -> str:
    """The DSN of a database and a login, both called ``name``.

    The runs settle by themselves what a lost answer leaves open. ``"reset"`` takes up what a signup that broke off has
    left: nobody knows that password, since a tenant who has one is on record.
    """
    [database] = [outcome async for outcome in app[CLUSTER].dbs.provision([name])]
    if database.error is not None:
        raise database.error
    [login] = [outcome async for outcome in app[CLUSTER].users.provision([name], if_exists="reset")]
    if login.user is None:
        raise login.error or RuntimeError(f"no user {name}")
    return app[CONNECTION].uri_for(login.user, database=name)


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
    client = DatabaseClient(base_url=os.environ.get("DIGITALOCEAN_API_URL", "https://api.digitalocean.com"))
    app = create_app(client, os.environ["DIGITALOCEAN_CLUSTER_ID"])

    async def close(app: web.Application) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app.cleanup_ctx.append(close)
    return app


if __name__ == "__main__":
    web.run_app(main(), host="127.0.0.1")
