"""One text in a server, which many processes change: in Valkey or Redis, or in PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

LARGEST = 4_000_000  # characters of the text that are read
Step = Callable[[str, float], str]

# A password, database or certificate that is wrong, or a right that is missing. Where PostgreSQL refuses a connection,
# libpq has only its text.
_LASTING = re.compile(
    r"SQLSTATE (28000|28P01|3D000|3F000|42501)|authentication failed|does not exist(?! \(SQLSTATE)|permission denied"
    "|no pg_hba.conf entry|does not support SSL|certificate|NOAUTH|WRONGPASS|NOPERM|ACL failure|no permissions"
    "|DB index is out of range|^(Authentication|Authorization|NoPermission)Error"
)


class CellError(Exception):
    """The server does not serve this process now. ``lasting``: it refuses it, and waiting does not help."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting or _LASTING.search(why) is not None


class Cell(Protocol):
    """A text that is read, changed and written at once, whoever else does that at the same time."""

    where: str  # names the server, for the log

    async def change(self, step: Step) -> None:
        """Replace the text with what ``step`` makes of it and of the server's time. Raises CellError."""

    async def aclose(self) -> None:
        """Disconnect."""
