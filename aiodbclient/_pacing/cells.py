"""One text in a server, which many processes change: in Valkey or Redis, or in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

LARGEST = 4_000_000  # characters of the text that are read
Step = Callable[[str, float], str]


class Cell(Protocol):
    """A text that is read, changed and written at once, whoever else does that at the same time."""

    where: str  # names the server, for the log

    async def change(self, step: Step) -> None:
        """Replace the text with what ``step`` makes of it and of the server's time. Raises CellError."""

    async def aclose(self) -> None:
        """Disconnect."""
