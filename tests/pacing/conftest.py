from __future__ import annotations

import asyncio

import pytest

from aiodbclient import RateLimiter, Window
from aiodbclient._pacing.budget import Pacer

from .virtual_fleet import VirtualFleet


@pytest.fixture(params=["valkey", "postgres"])
def fleet(request: pytest.FixtureRequest) -> VirtualFleet:
    """Shared budgets on each server, for a test in virtual time."""
    return VirtualFleet(request.getfixturevalue(f"{request.param}_url"))


class Pairs:
    """Makes two ends of one budget: the local one twice, or the shared one in two processes."""

    def __init__(self, fleet: VirtualFleet | None) -> None:
        self._fleet = fleet

    async def __call__(self, *windows: Window, reserve: int = 0) -> tuple[Pacer, Pacer]:
        if self._fleet is None:
            budget = RateLimiter(windows, reserve=reserve, clock=asyncio.get_running_loop().time)
            return budget, budget
        one, other = [(await self._fleet.connect(*windows, reserve=reserve))[0] for _ in range(2)]
        return one, other

    async def aclose(self) -> None:
        if self._fleet is not None:
            await self._fleet.aclose()


@pytest.fixture(params=["local", "valkey", "postgres"])
def make_pair(request: pytest.FixtureRequest) -> Pairs:
    """For a test in virtual time of what all budgets have in common."""
    if request.param == "local":
        return Pairs(None)
    return Pairs(VirtualFleet(request.getfixturevalue(f"{request.param}_url")))
