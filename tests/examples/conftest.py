from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiodbclient.sandbox import Sandbox


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(windows=[]) as running:
        yield running
