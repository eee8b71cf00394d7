from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import servers


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.TLSServer]:
    with servers.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mysql() -> Iterator[servers.TLSServer]:
    with servers.mysql() as server:
        yield server
