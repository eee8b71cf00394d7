"""``Places``: a semaphore of asyncio that says how many wait for it. First come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """``free`` places, and those who wait for one."""

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
        """Join those who wait. Pass what this returns to ``taken``."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        return place

    async def taken(self, place: asyncio.Future[None]) -> None:
        """Return when ``place`` is taken. If it is cancelled, no place is taken."""
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.give_back()
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def give_back(self) -> None:
        """Give a place back, or to the first who waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
