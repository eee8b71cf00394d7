"""``doctor`` asks a server whether the ACL of a tenant opens its own names and not its neighbour's."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

pytest.importorskip("typer", reason="needs the cli extra")

from aiodbclient._cli.doctor_findings import Findings
from aiodbclient._cli.doctor_trial import try_pattern
from aiodbclient.tenants import Credential

PREFIX = "alpha-5306d220."


def credential(engine: str, host: str = "127.0.0.1", port: int = 1, prefix: str | None = PREFIX) -> Credential:
    return Credential(
        name="alpha",
        username="alpha",
        password="hunter2",
        database=None,
        host=host,
        port=port,
        engine=engine,
        uri=f"http://alpha:hunter2@{host}:{port}",
        prefix=prefix,
    )


async def found(given: Credential, capsys: pytest.CaptureFixture[str]) -> str:
    await try_pattern(Findings(as_json=False), given)
    out = capsys.readouterr().out
    assert "hunter2" not in out
    return out


@pytest.fixture
async def opensearch() -> AsyncIterator[tuple[TestServer, list[str]]]:
    """A server that answers as OpenSearch does, and lets the tenant write what one of ``patterns`` matches."""
    patterns: list[str] = []

    async def index(request: web.Request) -> web.Response:
        name = request.match_info["index"]
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return web.json_response({"_index": name, "result": "created"}, status=201)
        return web.json_response({"error": {"type": "security_exception"}, "status": 403}, status=403)

    app = web.Application()
    app.router.add_post("/{index}/_doc", index)
    server = TestServer(app)
    async with server:
        yield server, patterns


# From Python 3.13 on aiohttp warns about an option that opensearch-py passes.
@pytest.mark.filterwarnings("ignore:enable_cleanup_closed:DeprecationWarning")
@pytest.mark.parametrize(
    ("patterns", "line"),
    [
        ([f"{PREFIX}*"], "ok    pattern: alpha-5306d220.* opens its own names, and not its neighbour's"),
        (["*"], "FAIL  pattern: alpha-5306d220.* opens its own names, and its neighbour too"),
        ([], "FAIL  pattern: alpha-5306d220.* opens not even its own names"),
    ],
)
async def test_opensearch_is_asked(
    opensearch: tuple[TestServer, list[str]], capsys: pytest.CaptureFixture[str], patterns: list[str], line: str
) -> None:
    pytest.importorskip("opensearchpy")
    server, allowed = opensearch
    allowed += patterns
    assert server.port is not None
    assert (await found(credential("opensearch", port=server.port), capsys)).startswith(line)


async def test_kafka_is_asked_by_its_own_client(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for aiokafka, since there is no Kafka server in the tests. It has the answers of Kafka's protocol."""
    asked: list[str] = []

    class Client:
        def __init__(self, **options: Any) -> None:
            assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-256")

        async def start(self) -> None: ...

        async def close(self) -> None: ...

        async def create_topics(self, topics: list[str], validate_only: bool) -> Any:
            assert validate_only
            asked.extend(topics)
            code = 0 if topics[0].startswith(PREFIX) else 29
            return SimpleNamespace(topic_errors=[(topics[0], code, None)])

    admin = SimpleNamespace(AIOKafkaAdminClient=Client, NewTopic=lambda name, *_: name)
    errors = SimpleNamespace(TopicAuthorizationFailedError=SimpleNamespace(errno=29))
    monkeypatch.setitem(sys.modules, "aiokafka.admin", admin)
    monkeypatch.setitem(sys.modules, "aiokafka.errors", errors)

    assert (await found(credential("kafka"), capsys)).startswith("ok    pattern: ")
    assert asked[0] == f"{PREFIX}doctor"
    assert not asked[1].startswith(PREFIX)


async def test_what_cannot_be_asked_is_skipped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await found(credential("pg", prefix=None), capsys) == ""
    assert "skip  pattern: the client failed: " in await found(credential("opensearch"), capsys)
    monkeypatch.setitem(sys.modules, "aiokafka.admin", None)
    assert "skip  pattern: to try it, install aiokafka" in await found(credential("kafka"), capsys)
