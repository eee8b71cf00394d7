"""Tests of the service against the sandbox, with a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants
from signup_service import create_app, migrate

Service = TestClient[Any, Any]


@pytest.fixture
async def cluster_id(aiodbclient_sandbox: Sandbox) -> str:
    return await aiodbclient_sandbox.add_cluster("pg", backend="postgres")


@pytest.fixture
async def service(
    aiodbclient_client: DatabaseClient, cluster_id: str, aiohttp_client: AiohttpClient, tmp_path: Path
) -> AsyncIterator[Service]:
    """The service on the sandbox. Its tenants have a prefix, so it cannot use the fixture ``aiodbclient_tenants``."""
    async with SQLiteStore(tmp_path / "tenants.db") as store:
        tenants = Tenants(aiodbclient_client.cluster(cluster_id), store, prefix="tenant_", setup=migrate)
        yield await aiohttp_client(create_app(tenants))


async def sign_up(service: Service, tenant: str) -> tuple[int, Any]:
    async with service.post("/signup", json={"tenant": tenant}) as answer:
        return answer.status, await answer.json()


async def add(service: Service, tenant: str, note: str) -> tuple[int, Any]:
    async with service.post(f"/{tenant}/notes", data=note) as answer:
        return answer.status, await answer.json()


async def test_each_tenant_has_its_own_notes(service: Service) -> None:
    assert await sign_up(service, "alpha") == (201, {"tenant": "alpha"})
    assert await sign_up(service, "beta") == (201, {"tenant": "beta"})

    assert await add(service, "alpha", "one") == (200, {"notes": ["one"]})
    assert await add(service, "alpha", "two") == (200, {"notes": ["one", "two"]})
    assert await add(service, "beta", "three") == (200, {"notes": ["three"]})
    assert (await service.get("/nobody/notes")).status == 404


async def test_a_taken_name_is_refused(service: Service, aiodbclient_client: DatabaseClient, cluster_id: str) -> None:
    await sign_up(service, "alpha")
    await aiodbclient_client.cluster(cluster_id).users.create("tenant_admin")  # not by the service

    for taken in ("alpha", "admin"):
        assert await sign_up(service, taken) == (409, {"error": "this name is taken"})
    assert (await service.get("/admin/notes")).status == 404


async def test_a_signup_succeeds_when_an_answer_of_the_api_is_lost(
    service: Service, aiodbclient_sandbox: Sandbox
) -> None:
    cut = aiodbclient_sandbox.faults.add("clusters.get", cut=True, after=True, times=1)

    assert await sign_up(service, "alpha") == (201, {"tenant": "alpha"})

    assert cut.fired == 1
    assert await add(service, "alpha", "works") == (200, {"notes": ["works"]})


async def test_a_signup_can_be_repeated_after_the_api_was_down(service: Service, aiodbclient_sandbox: Sandbox) -> None:
    aiodbclient_sandbox.faults.add("clusters.get", status=503)
    assert await sign_up(service, "alpha") == (503, {"error": "try again"})

    aiodbclient_sandbox.faults.clear()
    assert await sign_up(service, "alpha") == (201, {"tenant": "alpha"})
    assert await add(service, "alpha", "works") == (200, {"notes": ["works"]})


async def test_the_service_recovers_when_the_database_was_down(
    service: Service, aiodbclient_sandbox: Sandbox, cluster_id: str
) -> None:
    await sign_up(service, "alpha")
    await add(service, "alpha", "kept")

    await aiodbclient_sandbox.stop_database(cluster_id)
    assert await add(service, "alpha", "lost") == (503, {"error": "try again"})

    await aiodbclient_sandbox.start_database(cluster_id)
    assert await add(service, "alpha", "more") == (200, {"notes": ["kept", "more"]})


async def test_an_invalid_name_is_refused_before_a_request_is_sent(
    service: Service, aiodbclient_sandbox: Sandbox
) -> None:
    before = len(aiodbclient_sandbox.requests)

    for name in ("", "../doadmin", "Robert'); DROP TABLE notes;--", "x" * 32):
        async with service.post("/signup", json={"tenant": name}) as answer:
            assert answer.status == 422

    assert len(aiodbclient_sandbox.requests) == before
