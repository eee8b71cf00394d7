"""``ClientStream``: finds the login and the statements in the bytes of a PostgreSQL client. Pure.

PostgreSQL's manual describes the protocol in "Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

LOGIN, STATEMENT = "sql.login", "sql.statement"
LONGEST_STARTUP = 10_000  # as in PostgreSQL (MAX_STARTUP_PACKET_LENGTH)
_VERSION_3 = 3  # of the protocol
_STATEMENTS = b"QE"  # Query, and Execute of a prepared one
_ENDS = b"ZGW"  # ReadyForQuery, and the two that ask the client for the data of COPY


class ClientStream:
    """Splits the bytes of one client, so that the login and each statement begin a piece."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0  # bytes left of the current message
        self._logged_in = False

    def feed(self, data: bytes) -> Iterator[tuple[str | None, bytes]]:
        """Yield ``(LOGIN, the whole message)``, ``(STATEMENT, its beginning)`` and ``(None, anything else)``."""
        self._held += data
        while self._held:
            kind = None
            if not self._left:
                if len(self._held) < (5 if self._logged_in else 8):
                    return
                kind = self._begin()
            if kind == LOGIN and len(self._held) < self._left:
                self._left = 0  # parse it again when it is complete
                return
            piece, self._held = self._held[: self._left], self._held[self._left :]
            self._left -= len(piece)
            self._logged_in = self._logged_in or kind == LOGIN
            yield kind, piece

    def _begin(self) -> str | None:
        if self._logged_in:
            self._left = max(5, 1 + struct.unpack_from("!I", self._held, 1)[0])
            return STATEMENT if self._held[0] in _STATEMENTS else None
        self._left, code = struct.unpack_from("!II", self._held)
        if not 8 <= self._left <= LONGEST_STARTUP:
            self._left = len(self._held)  # PostgreSQL refuses it
            return None
        return LOGIN if code >> 16 == _VERSION_3 else None


class ServerStream:
    """Holds the answer to one statement until it is complete."""

    def __init__(self) -> None:
        self.data = b""
        self._at = 0

    def feed(self, data: bytes) -> bool:
        """Add ``data``, and return whether the answer is complete."""
        self.data += data
        while len(self.data) >= self._at + 5:
            kind, length = self.data[self._at], struct.unpack_from("!I", self.data, self._at + 1)[0]
            if len(self.data) < self._at + 1 + length:
                break
            self._at += 1 + length
            if kind in _ENDS:
                return True
        return False


def parameters(startup: bytes) -> dict[str, str]:
    """The parameters, such as ``user``, in a StartupMessage from which the length and the version were cut."""
    words = startup.decode(errors="replace").split("\0")
    return dict(zip(words[::2], words[1::2], strict=False))


def fatal(sqlstate: str, message: str) -> bytes:
    """The ErrorResponse that ends a connection."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
    body = "".join(f"{kind}{text}\0" for kind, text in fields.items()).encode() + b"\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body
