"""Start, stop, tokens, and recorded requests."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

import aiohttp
import pytest

from aiodbclient.sandbox import Sandbox

from ..waiting import HANG, until
from .conftest import Call, caller


async def test_two_sandboxes_know_nothing_of_each_other() -> None:
    async with Sandbox(windows=[]) as one, Sandbox(windows=[]) as other, caller(one) as call:
        cluster = await one.add_cluster("pg", backend="memory")
        assert one.url != other.url
        assert one.token != other.token
        assert list(other.clusters) == []
        assert (await call("GET", f"/v2/databases/{cluster}")).status == 200
        assert len(one.requests) == 1
        assert other.requests == []


async def test_a_port_and_a_token_may_be_given() -> None:
    async with Sandbox() as first:
        port = int(first.url.rpartition(":")[2])
    async with Sandbox(port=port, token="mine") as sandbox, caller(sandbox) as call:
        assert sandbox.url == f"http://127.0.0.1:{port}"
        assert (await call("GET", "/v2/databases", token="mine")).status == 200
        with pytest.raises(OSError, match="address already in use"):
            await Sandbox(port=port).__aenter__()


def test_serves_in_thread_without_loop() -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("pg", backend="memory"))
        request = urllib.request.Request(
            f"{sandbox.url}/v2/databases/{cluster}", headers={"authorization": f"Bearer {sandbox.token}"}
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200


async def test_a_sandbox_that_is_not_running_says_so() -> None:
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.url
    with pytest.raises(RuntimeError, match="not running"):
        await sandbox.add_cluster("pg")
    async with sandbox:
        with pytest.raises(RuntimeError, match="running already"):
            await sandbox.__aenter__()


async def test_request_under_way_ends_with_sandbox() -> None:
    async with Sandbox() as sandbox, caller(sandbox) as call:
        sandbox.faults.add(delay=600)
        waiting = asyncio.ensure_future(call("GET", "/v2/databases"))
        await until(lambda: sandbox.requests)
        async with asyncio.timeout(HANG):
            await sandbox.__aexit__(None, None, None)
            with pytest.raises(aiohttp.ClientError):
                await waiting


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "redis", "server": "redis://127.0.0.1"}, "only be in memory"),
        ({"engine": "kafka", "backend": "postgres"}, "only be in memory"),
        ({"engine": "pg", "server": "postgresql://h", "backend": "memory"}, "not both"),
        ({"engine": "pg", "name": "here"}, "'here' exists already"),
        ({"engine": "pg", "name": ""}, "must not be empty"),
        ({"engine": "redis", "online_after": -1}, "online_after must be at least 0, not -1"),
        ({"engine": "pg", "connections": 0}, "connections must be at least 1"),
        ({"engine": "pg", "password_encryption": "plain"}, "'scram-sha-256' or 'md5', not 'plain'"),
        ({"engine": "pg", "connections": 22, "server": "postgresql://h"}, "set them on the server"),
        (
            {"engine": "pg", "password_encryption": "md5", "backend": "memory"},
            "only a PostgreSQL that the sandbox starts",
        ),
    ],
)
async def test_invalid_cluster_is_refused(sandbox: Sandbox, options: dict[str, Any], message: str) -> None:
    await sandbox.add_cluster("redis", "here")
    with pytest.raises(ValueError, match=message):
        await sandbox.add_cluster(**options)
    assert list(sandbox.clusters.values()) == ["here"]


async def test_a_token_may_do_what_its_scopes_say(sandbox: Sandbox, call: Call) -> None:
    users = f"/v2/databases/{await sandbox.add_cluster('pg', backend='memory')}/users"
    needed: dict[str, tuple[str, str, Any]] = {
        "database:read": ("GET", users, None),
        "database:create": ("POST", users, {"name": "app"}),
        "database:update": ("PUT", f"{users}/app", {"settings": {}}),
        "database:delete": ("DELETE", f"{users}/app", None),
    }
    for scope, (method, path, body) in needed.items():
        without = sandbox.add_token(needed.keys() - {scope})
        answer = await call(method, path, body, token=without)
        assert (answer.status, answer.json["id"]) == (403, "forbidden")
        assert scope in answer.json["message"]
        assert (await call(method, path, body, token=sandbox.add_token([scope]))).status < 300


async def test_without_view_credentials_nothing_secret_is_read(sandbox: Sandbox, call: Call) -> None:
    reader = sandbox.add_token(["database:read"])
    for engine in ("pg", "mysql", "kafka", "mongodb", "opensearch"):
        cluster = "/v2/databases/" + await sandbox.add_cluster(engine, backend="memory")
        await call("POST", f"{cluster}/users", {"name": "app"})
        answers = [
            (await call("GET", path, token=reader)) for path in (cluster, f"{cluster}/users", f"{cluster}/users/app")
        ]
        answers.append(await call("GET", "/v2/databases", token=reader))
        assert all(answer.status == 200 for answer in answers)
        assert not any(secret in str(answer.json) for answer in answers for secret in ("AVNS_", "BEGIN", "'password'"))
        assert "uri" not in answers[0].json["database"]["connection"]


def test_a_scope_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown scope database:destroy"):
        Sandbox().add_token(["database:destroy"])


async def test_recorded_requests(sandbox: Sandbox, call: Call) -> None:
    """A test sees what its client sent, as it was sent."""
    cluster = await sandbox.add_cluster("pg", backend="memory")
    body = {"name": "a/b", "password": "hunter2", "settings": {"pg_allow_replication": True}}
    await call("POST", f"/v2/databases/{cluster}/users", body, headers={"x-mine": "yes"})
    await call("DELETE", f"/v2/databases/{cluster}/users/a%2Fb")
    await call("POST", f"/v2/databases/{cluster}/users", token="wrong", data=b"nonsense")
    create, delete, refused = sandbox.requests
    assert (create.method, create.operation, create.cluster, create.name) == ("POST", "users.create", cluster, "a/b")
    assert (create.json, create.headers["x-mine"]) == (body, "yes")
    assert create.headers["authorization"] == f"Bearer {sandbox.token}"
    assert sandbox.token not in repr(sandbox.requests)  # pytest prints it
    assert (delete.path, delete.name, delete.status) == (f"/v2/databases/{cluster}/users/a%2Fb", "a/b", 204)
    assert (refused.body, refused.name, refused.status) == ("nonsense", None, 401)
    assert sandbox.counts == {("users.create", 201): 1, ("users.delete", 204): 1, ("users.create", 401): 1}


async def test_tags_need_a_scope_of_their_own(sandbox: Sandbox, call: Call) -> None:
    cluster = await sandbox.add_cluster("redis", tags=["production"])
    reader, tagger = sandbox.add_token(["database:read"]), sandbox.add_token(["database:read", "tag:read"])
    databases = [
        (await call("GET", f"/v2/databases/{cluster}", token=token)).json["database"] for token in (reader, tagger)
    ]
    assert [database["tags"] for database in databases] == [None, ["production"]]
    refused = await call("GET", "/v2/databases?tag_name=production", token=reader)
    assert (refused.status, refused.json["message"]) == (403, "You are missing the required permission tag:read")
    assert len((await call("GET", "/v2/databases?tag_name=production", token=tagger)).json["databases"]) == 1
