"""Fixtures for pytest: ``aiodbclient_sandbox``, ``_client``, ``_tenants`` and ``_setup``.

pytest loads this module in every project that has aiodbclient installed. So it imports the package only when a test
uses a fixture.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .client import DatabaseClient
    from .sandbox import Sandbox
    from .tenants import Credential, Tenants

    Setup = Callable[[Credential], Awaitable[None]]
    async_fixture = pytest.fixture
else:
    try:  # in strict mode, pytest-asyncio runs only async fixtures that use its own decorator
        from pytest_asyncio import fixture as async_fixture
    except ImportError:  # anyio runs every async fixture
        async_fixture = pytest.fixture


@pytest.fixture(scope="session")
def _aiodbclient_servers() -> Iterator[None]:
    """Keep embedded PostgreSQLs running for all tests of this process."""
    from .sandbox import warm_servers

    with warm_servers():
        yield


@pytest.fixture
def aiodbclient_sandbox(_aiodbclient_servers: None) -> Iterator[Sandbox]:
    """A running ``Sandbox`` without clusters and without rate limits, new for each test.

    It serves in its own thread, so tests that are not async can use it too. ``await
    aiodbclient_sandbox.add_cluster("pg", backend="memory")`` works in any event loop.

    The first ``pg`` cluster with a real PostgreSQL takes about a second, the next ones milliseconds: the server runs
    until the session ends, and is emptied after each test. Each process of pytest-xdist has its own servers.

    Yields:
        The sandbox. It stops when the test ends.
    """
    from .sandbox import Sandbox

    with Sandbox(windows=[]) as sandbox:
        yield sandbox


@async_fixture
async def aiodbclient_client(aiodbclient_sandbox: Sandbox) -> AsyncIterator[DatabaseClient]:
    """A ``DatabaseClient`` for ``aiodbclient_sandbox``, with its token, no rate limit and short retry delays.

    Needs pytest-asyncio or anyio.

    Yields:
        The client. It is closed when the test ends.
    """
    from . import DatabaseClient, RateLimiter, RetryPolicy

    async with DatabaseClient(
        aiodbclient_sandbox.token,
        base_url=aiodbclient_sandbox.url,
        retry=RetryPolicy(base_delay=0.01),
        rate_limiter=RateLimiter([]),
    ) as client:
        yield client


@pytest.fixture
def aiodbclient_setup() -> Setup | None:
    """What ``aiodbclient_tenants`` calls for each new tenant: override it with your ``Tenants(setup=...)``.

    Returns:
        None: a new tenant has an empty database.
    """
    return None


@async_fixture
async def aiodbclient_tenants(
    request: pytest.FixtureRequest,
    aiodbclient_sandbox: Sandbox,
    aiodbclient_client: DatabaseClient,
    aiodbclient_setup: Setup | None,
    tmp_path: Path,
) -> AsyncIterator[Tenants]:
    """``Tenants`` on a new cluster of ``aiodbclient_sandbox``, a real PostgreSQL, with a store in ``tmp_path``.

    Needs the extra ``sandbox``, and pytest-asyncio or anyio.

    ```python
    async def test_a_tenant_logs_in(aiodbclient_tenants):
        credential = await aiodbclient_tenants.ensure("alpha")
        async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
            await connection.execute("CREATE TABLE notes (text text)")
    ```

    To pass other options to ``Sandbox.add_cluster``, use
    ``@pytest.mark.parametrize("aiodbclient_tenants", [{"connections": 22}], indirect=True)``. On your own MySQL:
    ``[{"engine": "mysql", "server": "mysql://root:..."}]``.

    Yields:
        The tenants. When the test ends, the store is closed and the database server emptied.
    """
    from .tenants import SQLiteStore, Tenants

    given: dict[str, Any] = getattr(request, "param", {})
    options: dict[str, Any] = given if "engine" in given else {"engine": "pg", "backend": "postgres"} | given
    cluster_id = await aiodbclient_sandbox.add_cluster(**options)
    async with SQLiteStore(tmp_path / "tenants.db") as store:
        cluster = aiodbclient_client.cluster(cluster_id, engine=options["engine"])
        yield Tenants(cluster, store, setup=aiodbclient_setup)
