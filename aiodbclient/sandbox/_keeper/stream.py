"""The bytes of PostgreSQL's protocol. Pure. The manual describes them in "Message Formats"."""

from __future__ import annotations

import struct

STATEMENTS = b"Q", b"E"
"""How a message begins that runs a statement: Query, and Execute of a prepared one."""

_ENDS = b"ZGW"  # ReadyForQuery, and the two that ask the client for the data of COPY


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
    """The parameters, such as ``user``, in a StartupMessage."""
    words = startup[8:].decode(errors="replace").split("\0")  # after the length and the version
    return dict(zip(words[::2], words[1::2], strict=False))


def fatal(sqlstate: str, message: str) -> bytes:
    """The ErrorResponse that ends a connection."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
    body = "".join(f"{kind}{text}\0" for kind, text in fields.items()).encode() + b"\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body
