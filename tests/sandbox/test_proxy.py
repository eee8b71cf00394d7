"""All traffic between the client and the sandbox matches the API description."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from jsonschema import ValidationError
from openapi_schema_validator import OAS30ReadValidator, OAS30WriteValidator
from yarl import URL

from aiodbclient import (
    ClusterClient,
    DatabaseClient,
    KafkaACL,
    MongoUserSettings,
    MySQLSettings,
    OpenSearchACL,
    RateLimiter,
    RetryPolicy,
    UserSettings,
    Window,
)
from aiodbclient.errors import APIError, DatabaseClientError, InvalidResponseError
from aiodbclient.sandbox import Sandbox

from ..changes import html
from ..requirements import description

JSON = dict[str, Any]
CALLS = 1_000
WORKERS = 10
SETTINGS = {
    "pg": UserSettings(pg_allow_replication=True),
    "mysql": None,
    "mongodb": UserSettings(mongo_user_settings=MongoUserSettings(["alpha"], "readWrite")),
    "kafka": UserSettings(acl=[KafkaACL("orders", "consume")]),
    "opensearch": UserSettings(opensearch_acl=[OpenSearchACL("logs-*", "read")]),
}


class ValidatingProxy:
    """Forwards requests to ``target``, and records requests and answers that do not match the description."""

    def __init__(self, target: str, paths: JSON) -> None:
        self._target = target
        self._session = aiohttp.ClientSession()
        self._paths = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))), described)
            for template, described in paths.items()
        ]
        self._validators: dict[int, Any] = {}
        self.violations: list[str] = []
        self.passed = Counter[tuple[str, int]]()

    async def close(self) -> None:
        await self._session.close()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        headers = {key: value for key, value in request.headers.items() if key.lower() != "host"}
        url = URL(self._target + request.raw_path, encoded=True)
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            text = await answer.read()
            try:
                self._check(request, body, answer, text)
            except (AssertionError, KeyError, ValueError, ValidationError) as error:
                self.violations.append(f"{request.method} {request.raw_path} {answer.status}: {error}")
            kept = {key: value for key, value in answer.headers.items() if key.lower().startswith(("ratelimit", "re"))}
            return web.Response(
                status=answer.status,
                body=text or None,
                headers=kept,
                content_type=answer.content_type if text else None,
            )

    def _check(self, request: web.BaseRequest, body: bytes, answer: aiohttp.ClientResponse, text: bytes) -> None:
        path = request.raw_path.partition("?")[0]
        [described] = [described for template, described in self._paths if template.fullmatch(path)]
        operation = described[request.method.lower()]
        self.passed[operation["operationId"], answer.status] += 1
        known = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        sent = set(URL(request.raw_path, encoded=True).query)
        # Other lists of the API take ``per_page``. One that does not know it ignores it.
        assert sent - ({"per_page"} if request.method == "GET" else set()) <= known
        if "requestBody" in operation:
            assert request.content_type == "application/json"
            self._validate(OAS30WriteValidator, operation["requestBody"], json.loads(body))
        else:
            assert body == b""
        response = operation["responses"].get(str(answer.status)) or operation["responses"]["default"]
        for name in response["headers"]:
            assert answer.headers[name].isdigit()
        if "content" in response:
            assert answer.content_type == "application/json"
            self._validate(OAS30ReadValidator, response, json.loads(text))
        else:
            assert text == b""

    def _validate(self, kind: Any, where: JSON, value: Any) -> None:
        schema = where["content"]["application/json"]["schema"]
        if id(schema) not in self._validators:
            self._validators[id(schema)] = kind(schema)
        self._validators[id(schema)].validate(value)


@asynccontextmanager
async def validating(target: str) -> AsyncIterator[tuple[ValidatingProxy, str]]:
    paths: JSON = {}
    for name in ("databases.openapi.yaml", "ca.openapi.yaml"):
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        paths |= yaml.load(description(name).read_text(), Loader=loader)["paths"]
    proxy = ValidatingProxy(target, paths)
    runner = web.ServerRunner(web.Server(proxy.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield proxy, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        await proxy.close()


@pytest.mark.described
async def test_mixed_calls_are_as_described() -> None:
    windows = [Window(100_000, 60.0), Window(100_000, 3600.0)]
    async with (
        Sandbox(windows=windows) as sandbox,
        validating(sandbox.url) as (proxy, url),
        DatabaseClient(
            sandbox.token, base_url=url, retry=RetryPolicy(max_tries=1), rate_limiter=RateLimiter([])
        ) as client,
    ):
        engines = {engine: await sandbox.add_cluster(engine, backend="memory", tags=["t"]) for engine in SETTINGS}
        for cluster_id in engines.values():
            assert "BEGIN CERTIFICATE" in await client.cluster(cluster_id).ca()
        for number, status in enumerate((429, 500, 503)):
            sandbox.faults.add(status=status, headers={"retry-after": "0.01"}, probability=0.01, seed=number)

        async def work(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(CALLS // WORKERS):
                engine = chance.choice(list(engines))
                try:
                    await one_call(client, client.cluster(engines[engine], engine=engine), engine, chance)
                except InvalidResponseError:
                    raise
                except DatabaseClientError:
                    pass

        await asyncio.gather(*(work(seed) for seed in range(WORKERS)))

    assert proxy.violations == []
    assert sum(proxy.passed.values()) == CALLS + len(engines)
    assert {operation for operation, status in proxy.passed if status < 300} == {
        "databases_list_clusters",
        "databases_get_cluster",
        "databases_get_ca",
        *(f"databases_{verb}" for verb in ("list_users", "add_user", "get_user", "update_user", "delete_user")),
        "databases_reset_auth",
        *(f"databases_{verb}" for verb in ("list", "add", "get", "delete")),
    }
    assert {status for _, status in proxy.passed} == {200, 201, 204, 404, 422, 429, 500, 503}


@pytest.mark.described
async def test_the_proxy_sees_what_is_not_as_described() -> None:
    async with (
        Sandbox(windows=[Window(1_000, 60.0)]) as sandbox,
        validating(sandbox.url) as (proxy, url),
        DatabaseClient(
            sandbox.token, base_url=url, retry=RetryPolicy(max_tries=1), rate_limiter=RateLimiter([])
        ) as client,
    ):
        cluster = client.cluster(await sandbox.add_cluster("kafka"), engine="kafka")
        await cluster.dbs.list()
        assert proxy.violations == []
        sandbox.faults.add("dbs.list", change=html)
        with suppress(InvalidResponseError):
            await cluster.dbs.list()
        with suppress(APIError):
            await cluster.users.create("app", settings=UserSettings(acl=[KafkaACL("orders", "everything")]))
        assert [violation.partition(":")[0].split()[-1] for violation in proxy.violations] == ["200", "422"]


async def one_call(client: DatabaseClient, cluster: ClusterClient, engine: str, chance: random.Random) -> None:
    name = chance.choice(["app", "a/b", "ü", "tenant-1", "tenant-2"])
    settings = SETTINGS[engine]
    plugin = MySQLSettings("mysql_native_password") if engine == "mysql" and chance.random() < 0.5 else None
    match chance.randrange(12 if settings else 11):
        case 0:
            await client.clusters.list(tag_name=chance.choice([None, "t"]))
        case 1:
            await client.clusters.get(cluster.id)
        case 2:
            await cluster.users.list()
        case 3 | 4:
            await cluster.users.create(name, plugin, settings=settings)
        case 5:
            await cluster.users.get(name)
        case 6:
            await cluster.users.reset_auth(name, plugin)
        case 7:
            await cluster.users.delete(name)
        case 8:
            await cluster.dbs.create(name)
        case 9:
            await (cluster.dbs.list() if chance.random() < 0.5 else cluster.dbs.get(name))
        case 10:
            await cluster.dbs.delete(name)
        case _:
            await cluster.users.update(name, settings or UserSettings())
