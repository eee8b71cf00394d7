"""Wait for a state, not for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

HANG = 60.0  # seconds after which a test that waits for a state fails


async def until(is_so: Callable[[], object]) -> None:
    """Wait until ``is_so`` returns something true: a state that no event signals."""
    async with asyncio.timeout(HANG):
        while not is_so():  # noqa: ASYNC110 - nothing wakes us
            await asyncio.sleep(0.001)


async def settle() -> None:
    """Let every task run until it waits, without waiting for time."""
    for _ in range(5):
        await asyncio.sleep(0)
