"""The provider's own client works, sync and async. It only knows the sandbox's URL."""

from __future__ import annotations

import asyncio
from typing import Any

import pydo
import pytest

from aiodbclient.sandbox import Sandbox

HTTP = {"enforce_https": False}  # it refuses to send a token over http otherwise


def test_the_providers_sync_client() -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("pg", "tenants", backend="memory", tags=["production"]))
        client = pydo.Client(token=sandbox.token, endpoint=sandbox.url)
        api: Any = client.databases
        assert [listed["id"] for listed in api.list_clusters(tag_name="production", **HTTP)["databases"]] == [cluster]
        assert api.get_cluster(cluster, **HTTP)["database"]["name"] == "tenants"

        user = api.add_user(cluster, {"name": "app/1"}, **HTTP)["user"]
        assert (user["role"], len(user["password"]) > 20) == ("normal", True)
        assert api.get_user(cluster, "app/1", **HTTP)["user"] == user
        settings = {"settings": {"pg_allow_replication": True}}
        assert api.update_user(cluster, "app/1", settings, **HTTP)["user"]["settings"] == settings["settings"]
        assert api.reset_auth(cluster, "app/1", {}, **HTTP)["user"]["password"] != user["password"]
        users = api.list_users(cluster, **HTTP)["users"]
        assert [(user["name"], user["role"]) for user in users] == [("doadmin", "primary"), ("app/1", "normal")]
        assert api.delete_user(cluster, "app/1", **HTTP) is None
        assert api.get_user(cluster, "app/1", **HTTP)["id"] == "not_found"

        assert api.add(cluster, {"name": "alpha"}, **HTTP) == {"db": {"name": "alpha"}}
        assert api.get(cluster, "alpha", **HTTP) == {"db": {"name": "alpha"}}
        assert api.list(cluster, **HTTP) == {"dbs": [{"name": "defaultdb"}, {"name": "alpha"}]}
        assert api.delete(cluster, "alpha", **HTTP) is None
        assert api.get(cluster, "alpha", **HTTP)["id"] == "not_found"
        client.close()
        assert {status for _, status in sandbox.counts} == {200, 201, 204, 404}


def test_delete_of_dots_destroys_nothing() -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("redis"))
        client = pydo.Client(token=sandbox.token, endpoint=sandbox.url)
        with pytest.raises(Exception, match="not allowed"):
            client.databases.delete_user(cluster, "..", **HTTP)
        client.close()
        assert (sandbox.requests[-1].method, sandbox.requests[-1].status) == ("DELETE", 405)
        assert list(sandbox.clusters) == [cluster]
