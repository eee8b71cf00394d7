"""Wait for something that is about to change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from math import inf
from typing import TypeVar

from attrs import evolve

from .._backoff import expo
from ..errors import DatabaseClientError
from ..models import User

T = TypeVar("T")

FIRST = 0.25  # seconds
_LONGEST = 60.0


def waits(total: float = inf, *, first: float = FIRST, longest: float = _LONGEST) -> Iterator[float]:
    """Yield the seconds to wait before each look: first 0, then waits that double until their sum is ``total``."""
    yield 0.0
    left = total
    for wait in expo(factor=first, max_value=longest):
        if left <= 0:
            return
        yield min(wait, left)
        left -= wait


async def until_seen(look: Callable[[], Awaitable[T | None]], seconds: float, *, first: float = FIRST) -> T | None:
    """Call ``look`` repeatedly for some seconds, until it returns something; None if it does not."""
    for wait in waits(seconds, first=first):
        await asyncio.sleep(wait)
        if (seen := await look()) is not None:
            return seen
    return None


async def with_password(
    user: User, read: Callable[[], Awaitable[User]], seconds: float, *, first: float = FIRST
) -> User:
    """Return ``user`` with its secrets, read until the API returns a password; as it was if the API returns none."""

    async def look() -> User | None:
        with suppress(DatabaseClientError):  # the caller has a better error
            found = await read()
            if found.password:
                return evolve(user, password=found.password, access_cert=found.access_cert, access_key=found.access_key)
        return None

    return user if user.password else await until_seen(look, seconds, first=first) or user
