"""One text in a server, which many processes change: in Valkey or Redis, or in PostgreSQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from ..errors import ConfigurationError

LARGEST = 4_000_000  # characters of the text that are read


class Cell(ABC):
    """A text that is written only if it is still the one that was read."""

    where: str  # names the server, for the log

    async def change(self, step: Callable[[str, float], str]) -> None:
        """Replace the text with what ``step`` makes of it and of the server's time. Raises CellError."""
        held, text = None, ""
        while (found := await self._exchange(held, text)) is not None:
            held, now = found
            text = step(held, now)

    @abstractmethod
    async def aclose(self) -> None:
        """Disconnect."""

    @abstractmethod
    async def _exchange(self, held: str | None, text: str) -> tuple[str, float] | None:
        """Write ``text`` if the cell holds ``held``. Otherwise return what it holds, and the server's time."""


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
