"""What is around the guides: a sandbox instead of the provider, a Vault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

import aiodbclient
from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox

from ..tenants.vault import Vault

Namespace = dict[str, Any]

WITH_TENANTS = {"how-to/migrations.md", "how-to/move.md", "how-to/pools.md", "how-to/rotate.md", "how-to/tenants.md"}


@pytest.fixture
async def sandbox(_aiodbclient_servers: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A sandbox for all clients without a ``base_url``, with its token in the environment."""

    class OnTheSandbox(DatabaseClient):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"base_url": running.url, **options})

    async with Sandbox(windows=None) as running:
        monkeypatch.setattr(aiodbclient, "DatabaseClient", OnTheSandbox)
        monkeypatch.setenv("DIGITALOCEAN_TOKEN", running.token)
        yield running


@pytest.fixture
async def namespace(
    request: pytest.FixtureRequest, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Namespace:
    """The namespace of a guide, in an empty folder. Its cluster has a PostgreSQL if the page has tenants."""
    monkeypatch.chdir(tmp_path)
    callspec = getattr(request.node, "callspec", None)
    page = None if callspec is None else callspec.params.get("page")
    real = page in WITH_TENANTS
    cluster_id = await sandbox.add_cluster("pg", backend="postgres" if real else "memory")
    monkeypatch.setenv("DIGITALOCEAN_CLUSTER_ID", cluster_id)
    monkeypatch.setenv("AIODBCLIENT_STORE_KEY", Fernet.generate_key().decode())
    if page == "how-to/other-engines.md":
        for engine in ("mongodb", "kafka", "opensearch"):
            monkeypatch.setenv(f"{engine.upper()}_CLUSTER_ID", await sandbox.add_cluster(engine, backend="memory"))
    if real:
        async with aiodbclient.DatabaseClient() as client:
            cluster = client.cluster(cluster_id)
            primary = await cluster.users.get("doadmin")
            monkeypatch.setenv("STORE", (await cluster.info()).connection.uri_for(primary))
    return {"__name__": "guide"}


@pytest.fixture
async def another_cluster(namespace: Namespace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another cluster in the environment."""
    monkeypatch.setenv("OTHER_CLUSTER_ID", await sandbox.add_cluster("pg", backend="postgres"))


@pytest.fixture
async def vault(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Vault]:
    """A Vault with the sandbox's token."""
    monkeypatch.delenv("DIGITALOCEAN_TOKEN")
    async with Vault().running() as vault:
        vault.secrets["digitalocean"] = [{"token": sandbox.token}]
        monkeypatch.setenv("VAULT_ADDR", vault.url)
        monkeypatch.syspath_prepend(Path(__file__).parents[1] / "tenants")  # the page says to copy store_contract.py
        monkeypatch.setenv("VAULT_TOKEN", vault.token)
        yield vault


@pytest.fixture
def drivers() -> None:
    """Packages that some Python versions lack."""
    pytest.importorskip("asyncpg")
    pytest.importorskip("sqlalchemy")


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """Undo what a guide changes of the process: instrumented aiohttp."""
    yield
    AioHttpClientInstrumentor().uninstrument()
