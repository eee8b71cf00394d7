import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from attrs import frozen


@frozen
class Window:
    limit: int
    seconds: float


@frozen
class RateLimitStatus:
    limit: int | None
    remaining: int | None
    reset: datetime | None


class Budget(Protocol):
    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None: ...
    def release(self, *, sent: bool = True) -> None: ...
    def observe(self, headers: Mapping[str, str]) -> RateLimitStatus | None: ...
    async def throttle(self, headers: Mapping[str, str]) -> float: ...


class RateBudget:
    def __init__(self, windows: object = None) -> None:
        self.gate = 0.0

    async def acquire(self, *, bulk: bool = False, max_wait: float | None = None) -> None:
        await asyncio.sleep(self.gate)

    def release(self, *, sent: bool = True) -> None: ...
    def observe(self, headers: Mapping[str, str]) -> RateLimitStatus | None:
        return None

    async def throttle(self, headers: Mapping[str, str]) -> float:
        self.gate = 0.01
        return self.gate
