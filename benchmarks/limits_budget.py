"""A budget built on the moving window of the ``limits`` package. For comparison only.

The package does not use it: it trusts the clocks of its callers, counts a request when it is sent and not when it is
answered, has only one window, and answers only yes or no, so callers must poll.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from aiodbclient import Window


class LimitsBudget:
    """Waits until the window should have room, then tries again. The package offers no more information."""

    def __init__(self, url: str, window: Window) -> None:
        self._limiter = MovingWindowRateLimiter(RedisStorage(f"async+{url}", implementation="valkey"))
        self._item = RateLimitItemPerSecond(window.limit, round(window.seconds))

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        while not await self._limiter.hit(self._item, "account"):
            stats = await self._limiter.get_window_stats(self._item, "account")
            await asyncio.sleep(max(0.005, stats.reset_time - time.time()))

    def release(self, *, sent: bool = True) -> None: ...

    def observe(self, headers: Mapping[str, str]) -> None: ...

    async def throttle(self, headers: Mapping[str, str]) -> float:
        return float(headers.get("retry-after", 0.1))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
