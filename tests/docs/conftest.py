"""What the guides take for granted, made real: a sandbox in the provider's place, a Vault, a Valkey."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

import aiodbclient
from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from benchmarks.valkey_server import BINARY, ValkeyServer

from ..requirements import no_server

Namespace = dict[str, Any]


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """One where every client ends up that names no ``base_url``, with its token in the environment."""

    class OnTheSandbox(DatabaseClient):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"base_url": running.url, **options})

    async with Sandbox(windows=None) as running:
        monkeypatch.setattr(aiodbclient, "DatabaseClient", OnTheSandbox)
        monkeypatch.setenv("DIGITALOCEAN_TOKEN", running.token)
        yield running


@pytest.fixture
async def namespace(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Namespace]:
    """The names that every guide may use."""
    cluster_id = await sandbox.add_cluster("pg", backend="memory")
    monkeypatch.setenv("DIGITALOCEAN_CLUSTER_ID", cluster_id)
    async with aiodbclient.DatabaseClient() as client:
        yield {
            "__name__": "guide",
            "DatabaseClient": aiodbclient.DatabaseClient,
            "client": client,
            "cluster": client.cluster(cluster_id),
            "cluster_id": cluster_id,
            "sandbox": sandbox,
        }


@pytest.fixture
async def vault(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """A key-value store of Vault's shape, which has the sandbox's token. Yields what it was asked for."""
    asked: list[str] = []

    async def read(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.headers.get("X-Vault-Token") != "vault-token":
            return web.json_response({"errors": ["permission denied"]}, status=403)
        return web.json_response({"data": {"data": {"token": sandbox.token}, "metadata": {"version": 1}}})

    app = web.Application()
    app.router.add_get("/v1/secret/data/digitalocean", read)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{runner.addresses[0][1]}")
    monkeypatch.setenv("VAULT_TOKEN", "vault-token")
    monkeypatch.delenv("DIGITALOCEAN_TOKEN")
    yield asked
    await runner.cleanup()


@pytest.fixture
def valkey(monkeypatch: pytest.MonkeyPatch) -> Iterator[ValkeyServer]:
    if BINARY is None:
        no_server("there is no valkey-server: apt-get install valkey-server")
    with ValkeyServer() as server:
        monkeypatch.setenv("VALKEY_URL", server.url)
        yield server


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """Undo what guides do to the process: instrument aiohttp, and set up logging, as Litestar does by itself."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if AioHttpClientInstrumentor().is_instrumented_by_opentelemetry:
        AioHttpClientInstrumentor().uninstrument()
    root.handlers[:] = handlers
    root.setLevel(level)
    logger = logging.getLogger("aiodbclient")
    logger.setLevel(logging.NOTSET)
    for each in list(logger.filters):
        logger.removeFilter(each)


@pytest.fixture
async def no_signals() -> AsyncIterator[None]:
    yield
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
