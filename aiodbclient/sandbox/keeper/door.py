"""``Door``: the port that clients connect to. It can be closed and opened while the server runs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from .front import Front

_BACKLOG = 1024


class Door:
    """Lets clients in to ``front`` while it is open.

    Args:
        front: Serves the clients.
        host: The address that it listens on.
        port: The port, if it is free, else any; 0 for any.
    """

    def __init__(self, front: Front, host: str, port: int) -> None:
        self._front = front
        self._host = host
        try:
            self._socket = _bound(host, port)
        except OSError:
            self._socket = _bound(host, 0)
        self.port: int = self._socket.getsockname()[1]
        self._serving: asyncio.Task[None] | None = None
        self._opening: asyncio.TimerHandle | None = None

    @property
    def is_broken(self) -> bool:
        """Whether it has stopped serving without being asked to."""
        return self._serving is not None and self._serving.done()

    def open(self) -> None:
        """Let clients in. Safe to repeat."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._serving is None:
            self._socket.listen(_BACKLOG)
            self._serving = asyncio.create_task(self._front.serve(self._socket))

    def shut(self, seconds: float | None = None, *, sessions: bool = True) -> None:
        """Refuse connections, and cut those that there are. The port stays reserved. Safe to repeat.

        Args:
            seconds: When it opens again; None: it stays shut.
            sessions: Whether the connections that there are end.
        """
        if self._serving is not None:
            self._serving.cancel()
            self._serving = None
            self._socket.close()
            self._socket = _bound(self._host, self.port)
        if sessions:
            self._front.cut()
        if seconds is not None:
            self._opening = asyncio.get_running_loop().call_later(seconds, self.open)

    async def close(self) -> None:
        """Close it for good."""
        self.shut()
        self._socket.close()
        with suppress(asyncio.CancelledError):
            await self._front.ended()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has the port and does not listen: connections are refused, and nobody else gets the port."""
    bound = socket.socket()
    try:
        if port:  # connections of the socket before may linger
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound
