"""Wait for a state, not for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

HANG = 60.0  # seconds after which a test that waits for a state fails


async def until(is_so: Callable[[], object]) -> None:
    """Wait until ``is_so`` returns something true: a state that no event signals."""
    async with asyncio.timeout(HANG):
        while not is_so():  # noqa: ASYNC110 - nothing wakes us
            await asyncio.sleep(0.001)


def wait_until(is_so: Callable[[], object]) -> None:
    """The same without an event loop."""
    deadline = time.monotonic() + HANG
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def settle() -> None:
    """Let every task run until it waits, without waiting for time."""
    for _ in range(5):
        await asyncio.sleep(0)
