"""``Places``: like a semaphore of asyncio, but it reports how many wait. First come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """A number of ``free`` places, and the waiters for one."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def take(self) -> bool:
        """Take a place if one is free."""
        if self._free:
            self._free -= 1
            return True
        return False

    def wait(self) -> asyncio.Future[None]:
        """Join the waiters. Pass the returned future to ``taken``."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        return place

    async def taken(self, place: asyncio.Future[None]) -> None:
        """Wait until ``place`` is taken. If this is cancelled, no place is taken."""
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.give_back()
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def give_back(self) -> None:
        """Give a place back: to the first waiter, if there is one."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
