"""First steps: create a database and a user, reset the password, and delete both.

    python examples/quickstart.py

This runs on a sandbox that it starts itself. If DIGITALOCEAN_CLUSTER_ID (and DIGITALOCEAN_TOKEN) are set, it runs on
your cluster. It creates one database and one user with a random, unique name, and removes both, even if a step fails.
It changes nothing else and prints no password.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from aiodbclient import Cluster, DatabaseClient
from aiodbclient.errors import DatabaseClientError, NotFoundError
from aiodbclient.sandbox import Sandbox


async def quickstart(cluster: Cluster) -> None:
    info = await cluster.info()
    users = await cluster.users.list()
    print(f"{info.name}: {info.engine} {info.version}, {info.status}, {len(users)} users, databases {info.db_names}")

    name = f"quickstart_{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        # Register the removal before the create: a create that fails may have been applied all the same.
        stack.push_async_callback(remove, "database", cluster.dbs.delete, name)
        await cluster.dbs.create(name)
        stack.push_async_callback(remove, "user", cluster.users.delete, name)
        user = await cluster.users.create(name)
        print(f"created the database and the user {name} ({user.role})")

        if user.password is not None:
            dsn = info.connection.uri_for(user, database=name)
            print(f"its DSN is {dsn.replace(user.password, '********')}")

        again = await cluster.users.reset_auth(name)
        print(f"its password is {'the same' if again.password == user.password else 'another one'} after reset_auth")


async def remove(what: str, delete: Callable[[str], Awaitable[None]], name: str) -> None:
    try:
        await delete(name)
    except NotFoundError:
        return
    except DatabaseClientError:
        print(f"the {what} {name} may still exist: delete it yourself", file=sys.stderr)
        raise
    print(f"removed the {what} {name}")


@asynccontextmanager
async def some_cluster() -> AsyncGenerator[Cluster]:
    """The cluster that the environment names, or else one in a sandbox."""
    cluster_id = os.environ.get("DIGITALOCEAN_CLUSTER_ID")
    if cluster_id:
        base_url = os.environ.get("DIGITALOCEAN_API_URL", "https://api.digitalocean.com")
        async with DatabaseClient(base_url=base_url) as client:
            yield client.cluster(cluster_id)
    else:
        print("DIGITALOCEAN_CLUSTER_ID is not set, so this runs on a sandbox")
        async with Sandbox() as sandbox, DatabaseClient(sandbox.token, base_url=sandbox.url) as client:
            yield client.cluster(await sandbox.add_cluster("pg"))


async def main() -> int:
    try:
        async with some_cluster() as cluster:
            await quickstart(cluster)
    except DatabaseClientError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
