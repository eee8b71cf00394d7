"""One text in a server, which many processes change: in Valkey or Redis, or in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import ConfigurationError

LARGEST = 4_000_000  # characters of the text that are read
Step = Callable[[str, float], str]


class Cell(Protocol):
    """A text that is read, changed and written at once, whoever else does that at the same time."""

    where: str  # names the server, for the log

    async def change(self, step: Step) -> None:
        """Replace the text with what ``step`` makes of it and of the server's time. Raises CellError."""

    async def aclose(self) -> None:
        """Disconnect."""


def cell_at(url: str, key: str, lives: float, timeout: float) -> Cell:
    """Return the cell named ``key`` in the server at ``url``, which keeps it for ``lives`` seconds."""
    is_postgres = url.startswith(("postgresql://", "postgres://"))
    try:
        if is_postgres:
            from .postgres_cell import PostgresCell

            return PostgresCell(url, key, timeout)
        from .valkey_cell import ValkeyCell

        return ValkeyCell(url, key, lives)
    except ImportError:
        server, extra = ("PostgreSQL", "tenants") if is_postgres else ("Valkey or Redis", "valkey")
        raise ConfigurationError(f"a budget in {server} needs the extra: pip install 'aiodbclient[{extra}]'") from None
