"""How many pools may be open. ``ServerSlots`` has the ``Slots`` for the pools on each server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

from ..errors import ConfigurationError
from ..models import Connection
from ._credential import Credential
from ._servers import server_of
from .errors import GrantError

_SHARE = 0.8  # of the connections that a server allows. The others are for rotations, migrations and operators
_UNKNOWN = 125  # connections, on engines that report no limit
_ASK_AGAIN = 10.0  # s after which a server that did not answer is asked again


class Slots:
    """A semaphore that reports how many wait, and that can be resized. First come, first served."""

    def __init__(self, most: int) -> None:
        self.closing = 0  # about to be given back; whoever gives them back counts them
        self.ask_at = -inf  # when to ask the server how many connections it allows
        self.asking = asyncio.Lock()
        self._most = most
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def resize(self, most: int) -> None:
        """Have ``most`` slots from now on. If more are taken, the next ones wait for their return."""
        self._most = most
        self._serve()

    async def take(self, make_room: Callable[[], object]) -> bool:
        """Take a slot. If none is free, call ``make_room``, wait for one, and return True. Safe to cancel."""
        if self._taken < self._most:
            self._taken += 1
            return False
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        make_room()
        try:
            await slot
        except asyncio.CancelledError:
            if not slot.cancelled():
                self.give_back()
            elif slot in self._waiting:
                self._waiting.remove(slot)
            raise
        return True

    def give_back(self) -> None:
        """Give a slot back: to the first waiter, if there is one."""
        self._taken -= 1
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._taken < self._most:
            slot = self._waiting.popleft()
            if not slot.done():
                self._taken += 1
                slot.set_result(None)


class ServerSlots:
    """The slots for the pools on each server. With ``most`` all servers share these, and none is asked."""

    def __init__(self, most: int | None, size: int) -> None:
        self._most, self._size = most, size
        self._servers: dict[tuple[str, int], Slots] = {}

    async def on_server_of(self, credential: Credential) -> Slots:
        """The slots on the server of ``credential``. Its first use asks the server how many connections it allows."""
        if self._most is not None:
            return self._servers.setdefault(("", 0), Slots(self._most))
        server = self._servers.setdefault((credential.host, credential.port), Slots(self._fit(_UNKNOWN)))
        now = asyncio.get_running_loop().time
        async with server.asking:
            if now() >= server.ask_at:
                try:
                    server.resize(self._fit(await _connections_of(credential) or _UNKNOWN))
                    server.ask_at = inf
                except (GrantError, ConfigurationError):  # opening the pool raises what is wrong
                    server.ask_at = now() + _ASK_AGAIN
        return server

    def _fit(self, connections: int) -> int:
        """How many pools fit into the ``connections`` of a server."""
        return max(1, int(connections * _SHARE) // self._size)


async def _connections_of(credential: Credential) -> int:
    """Log in with ``credential``, and return how many connections its server allows."""
    itself = Connection(
        host=credential.host,
        port=credential.port,
        user=credential.username,
        password=credential.password,
        database=credential.database,
    )
    server = server_of(credential.engine, itself, credential.ca, None, None)
    return (await server.administrator()).connections
