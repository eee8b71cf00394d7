from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from aiodbclient import Window
from aiodbclient.shared_budget import SharedRateBudget
from valkey_server import ValkeyServer

MakeBudget = Callable[..., SharedRateBudget]


@pytest.fixture
async def make_budget(valkey: ValkeyServer) -> AsyncIterator[MakeBudget]:
    """One process's budget: each of them is to Valkey what a process is. Closed after the test."""
    budgets: list[SharedRateBudget] = []

    def make(limit: int = 10, seconds: float = 0.4, **options: Any) -> SharedRateBudget:
        # A machine that is busy with tests may be slow to answer, which is not what most of them are about.
        usual: dict[str, Any] = {"windows": [Window(limit, seconds)], "timeout": 5.0}
        budgets.append(SharedRateBudget(valkey.url, **usual | options))
        return budgets[-1]

    yield make
    for budget in budgets:
        await budget.aclose()
