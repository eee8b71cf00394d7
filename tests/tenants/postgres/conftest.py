"""Less patience than that of operators, for tests of sessions that resist or block."""

from __future__ import annotations

import pytest

from aiodbclient.tenants._servers import postgres
from aiodbclient.tenants._servers.postgres import connection


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a session that resists after two seconds."""
    monkeypatch.setattr(postgres, "ENDING_SECONDS", 2.0)
    monkeypatch.setitem(connection._SETTINGS, "statement_timeout", "2s")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminate a session of a tenant that blocks the administrator after a second."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 1.0)
