"""Fixtures of aiodbclient for pytest: ``aiodbclient_sandbox`` and ``aiodbclient_client``.

pytest loads this module in every project that has aiodbclient installed. So it is outside the package, and imports the
package only when a test asks for a fixture.
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

    It serves in a thread of its own, so tests that are not async can use it too. ``await
    aiodbclient_sandbox.add_cluster("pg", backend="memory")`` works in any event loop.

    Yields:
        The sandbox. It stops when the test has ended.
    """
    from aiodbclient.sandbox import Sandbox

    with Sandbox(windows=[]) as sandbox:
        yield sandbox


@async_fixture
async def aiodbclient_client(aiodbclient_sandbox: Sandbox) -> AsyncIterator[DatabaseClient]:
    """A ``DatabaseClient`` on ``aiodbclient_sandbox``, with its token. It keeps no rate limit and retries at once.

    Needs pytest-asyncio or anyio.

    Yields:
        The client. It is closed when the test has ended.
    """
    from aiodbclient import DatabaseClient, RateBudget, RetryPolicy

    async with DatabaseClient(
        aiodbclient_sandbox.token,
        base_url=aiodbclient_sandbox.url,
        retry=RetryPolicy(base_delay=0.01),
        budget=RateBudget([]),
    ) as client:
        yield client
