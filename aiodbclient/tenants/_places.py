"""``Places``: a semaphore that reports how many wait, and that can be resized. First come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """A number of places, and the waiters for one."""

    def __init__(self, most: int) -> None:
        self.closing = 0  # about to be given back; whoever gives them back counts them
        self._most = most
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def resize(self, most: int) -> None:
        """Have ``most`` places from now on. If more are taken, the next ones wait for their return."""
        self._most = most
        self._serve()

    def take(self) -> bool:
        """Take a place if one is free."""
        if self._taken < self._most:
            self._taken += 1
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
        self._taken -= 1
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._taken < self._most:
            place = self._waiting.popleft()
            if not place.done():
                self._taken += 1
                place.set_result(None)
