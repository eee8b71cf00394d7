"""Fixtures of aiodbclient for pytest: a sandbox, and a client on it.

A module of its own, so that pytest can load it everywhere without importing aiodbclient: that happens in the test that
asks for a fixture.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aiodbclient import DatabaseClient
    from aiodbclient.sandbox import Sandbox

    async_fixture = pytest.fixture
else:
    try:  # in its strict mode pytest-asyncio runs only async fixtures that are declared as its own
        from pytest_asyncio import fixture as async_fixture
    except ImportError:  # anyio runs every async fixture
        async_fixture = pytest.fixture


@pytest.fixture
def aiodbclient_sandbox() -> Iterator[Sandbox]:
    """A running ``Sandbox`` without clusters and without rate limits, new for each test.

    It serves in a thread of its own, so tests that are not async may use it as well; ``await
    aiodbclient_sandbox.add_cluster("pg", backend="memory")`` works in any event loop.
    """
    from aiodbclient.sandbox import Sandbox

    with Sandbox(windows=[]) as sandbox:
        yield sandbox


@async_fixture
async def aiodbclient_client(aiodbclient_sandbox: Sandbox) -> AsyncIterator[DatabaseClient]:
    """A ``DatabaseClient`` with the token of ``aiodbclient_sandbox``. It does not pace itself and retries at once."""
    from aiodbclient import DatabaseClient, RateBudget, RetryPolicy

    async with DatabaseClient(
        aiodbclient_sandbox.token,
        base_url=aiodbclient_sandbox.url,
        retry=RetryPolicy(base_delay=0.01),
        budget=RateBudget([]),
    ) as client:
        yield client
