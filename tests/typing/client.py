"""The types of the client for a type checker. Never run: ``make check`` checks it with mypy and pyright, both strict.

A line that must be an error has an ignore. An unneeded ignore is an error too.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import assert_type
from uuid import UUID

import aiohttp

from aiodbclient import (
    Cluster,
    ClusterInfo,
    ClusterStatus,
    Connection,
    Database,
    DatabaseClient,
    Engine,
    RateLimiter,
    RetryPolicy,
    User,
    UserSettings,
)
from aiodbclient.rate_limiter import RateLimitStatus, Window


async def a_new_token() -> str:
    return "token"


def not_async() -> str:
    return "token"


async def constructing(session: aiohttp.ClientSession) -> None:
    DatabaseClient()
    DatabaseClient("token")
    DatabaseClient(token=a_new_token)
    DatabaseClient(session=session, timeout=5, retry=RetryPolicy(max_tries=2), max_wait=1.5)
    DatabaseClient(trust_env=True)
    DatabaseClient(rate_limiter=RateLimiter())
    DatabaseClient(rate_limiter=RateLimiter([Window(limit=250, seconds=60.0)]))
    DatabaseClient(rate_limiter=RateLimiter([]))

    DatabaseClient(not_async)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseClient(b"token")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseClient("token", "https://x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DatabaseClient(timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseClient(retries=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DatabaseClient(rate_limiter=250)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def using(client: DatabaseClient, cluster_id: UUID) -> None:
    async with client as entered:
        assert_type(entered, DatabaseClient)
    assert_type(client.rate_limit, RateLimitStatus | None)
    assert_type(client.with_options(max_wait=2.0), DatabaseClient)
    assert_type(client.with_options(max_wait=None, timeout=5, headers={"X-Trace": "7"}), DatabaseClient)
    client.with_options(timeout=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.with_options(bulk=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(client.cluster(cluster_id), Cluster)
    assert_type(client.cluster("9cc10173-e9ea-4176-9dbc-a4cee4c4ff30", engine=Engine.PG), Cluster)
    assert_type(client.cluster(cluster_id, engine="pg"), Cluster)
    client.cluster(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.cluster = None  # type: ignore[method-assign,assignment]  # pyright: ignore[reportAttributeAccessIssue]

    assert_type(await client.clusters.list(), list[ClusterInfo])
    assert_type(await client.clusters.list(tag_name="production"), list[ClusterInfo])
    assert_type(await client.clusters.get(cluster_id), ClusterInfo)
    client.clusters.delete(cluster_id)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def one_cluster(cluster: Cluster) -> None:
    assert_type(await cluster.wait_online(timeout=60), ClusterInfo)
    assert_type(cluster.with_options(timeout=5, max_wait=None), Cluster)
    assert_type(await cluster.uri_for(User("alice"), "app", private=True, ca_file=Path("ca.pem")), str)
    cluster.id = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def users(cluster: Cluster, settings: UserSettings) -> None:
    assert_type(await cluster.users.list(), list[User])
    assert_type(await cluster.users.get("alice"), User)
    assert_type(await cluster.users.create("alice", settings=settings), User)
    assert_type(await cluster.users.ensure("alice", if_exists="reset"), User)
    assert_type(await cluster.users.update("alice", settings), User)
    assert_type(await cluster.users.reset_auth("alice"), User)
    deleting = cluster.users.delete("alice")
    assert_type(await deleting, None)

    await cluster.users.get(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await cluster.users.create("alice", settings)  # type: ignore[call-arg,arg-type]  # pyright: ignore[reportCallIssue]
    await cluster.users.update("alice")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def dbs(cluster: Cluster) -> None:
    assert_type(await cluster.dbs.list(), list[Database])
    assert_type(await cluster.dbs.get("app"), Database)
    assert_type(await cluster.dbs.create("app"), Database)
    assert_type(await cluster.dbs.ensure("app"), Database)
    await cluster.dbs.update("app")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def models(cluster: ClusterInfo, user: User, connection: Connection, status: RateLimitStatus) -> None:
    assert_type(cluster.engine, Engine | str)
    assert_type(cluster.tags, list[str])
    assert_type(connection.uri_for(user, database="app", ca_file=Path("ca.pem")), str)
    connection.uri_for("alice")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(cluster.status, ClusterStatus | str | None)
    assert_type(status.reset, datetime | None)
    print(user.passwort)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    # The API does not return it for every user.
    user.password.encode()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


async def any_call(client: DatabaseClient) -> None:
    await client.request("GET", "/v2/databases/options")
    await client.request("GET", "/v2/databases", params={"tag_name": "prod", "page": 2, "id": ["a", "b"]})
    rules = [{"type": "ip_addr", "value": "192.168.1.1"}]
    await client.request("PUT", "/v2/databases/1/firewall", json={"rules": rules})

    await client.request("PUT", "/v2/databases/1/firewall", json={"at": datetime.now()})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    await client.request("GET", "/v2/databases", params={"tag_name": None})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    await client.request("GET")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
