"""``Door``: the port that clients connect to. It can be closed and opened while the server runs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from .front import Front

_BACKLOG = 1024
_RETRY_SECONDS = 0.05


class Door:
    """Lets clients in to ``front`` while it is open, at this port or, if it is taken, any other."""

    def __init__(self, front: Front, host: str, port: int) -> None:
        self._front = front
        self._host = host
        try:
            self._socket = _bound(host, port)
        except OSError:
            self._socket = _bound(host, 0)
        self.port: int = self._socket.getsockname()[1]
        self._is_open = False
        self._opening: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Let clients in. Safe to repeat."""
        self._cancel_opening()
        if not self._is_open:
            self._is_open = True
            self._socket.listen(_BACKLOG)
            self._listen()

    def shut(self, seconds: float | None = None, *, sessions: bool = True) -> None:
        """Refuse new connections for so many seconds, and with ``sessions`` cut existing ones. The port stays ours."""
        self._cancel_opening()
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = _bound(self._host, self.port)
        if sessions:
            self._front.cut()
        if seconds is not None:
            self._opening = asyncio.get_running_loop().call_later(seconds, self.open)

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except BlockingIOError:
            pass  # the client has disconnected
        except OSError:  # too many open files: retry after a connection has ended
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            self._opening = loop.call_later(_RETRY_SECONDS, self._listen)
        else:
            self._front.take(client)

    def _cancel_opening(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None

    async def close(self) -> None:
        """Close it for good."""
        self.shut()
        self._socket.close()
        with suppress(asyncio.CancelledError):
            await self._front.ended()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that holds the port but does not listen. Connections are refused, and no other process gets the port."""
    bound = socket.socket()
    try:
        if port:  # connections of the previous socket may linger
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound
