from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from aiodbclient import RateBudget, Window
from aiodbclient.shared_budget import SharedRateBudget
from valkey_server import ValkeyServer

AnyBudget = RateBudget | SharedRateBudget
MakePair = Callable[..., tuple[AnyBudget, AnyBudget]]


@pytest.fixture(params=["local", "shared"])
async def make_pair(request: pytest.FixtureRequest) -> AsyncIterator[MakePair]:
    """Two ends of one budget: the local one twice, or the shared one in two processes."""
    shared: list[SharedRateBudget] = []
    valkey: ValkeyServer | None = None
    if request.param == "shared":
        valkey = request.getfixturevalue("valkey")

    def make(*windows: Window, reserve: int = 0) -> tuple[AnyBudget, AnyBudget]:
        if valkey is None:
            budget = RateBudget(windows, reserve=reserve)
            return budget, budget
        ends = [SharedRateBudget(valkey.url, windows, reserve=reserve, timeout=5.0) for _ in range(2)]
        shared.extend(ends)
        return ends[0], ends[1]

    yield make
    for budget in shared:
        await budget.aclose()
