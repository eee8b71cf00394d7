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
    """The budget of one process: for Valkey, each one is a process. It is closed after the test."""
    budgets: list[SharedRateBudget] = []

    def make(limit: int = 10, seconds: float = 0.4, **options: Any) -> SharedRateBudget:
        # Valkey may answer slowly on a machine that is busy with tests. Most tests are not about that.
        usual: dict[str, Any] = {"windows": [Window(limit, seconds)], "timeout": 5.0}
        budgets.append(SharedRateBudget(valkey.url, **usual | options))
        return budgets[-1]

    yield make
    for budget in budgets:
        await budget.aclose()
