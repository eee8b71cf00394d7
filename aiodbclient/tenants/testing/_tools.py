"""Helpers for the tests of a store. They need no test runner."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from ...engines import Engine
from ...errors import ClaimLostError
from .._credential import Credential
from .._stores import Claim, Record, Store

T = TypeVar("T")

LONG = 600.0  # s: a lease that does not run out during a test
NASTY = ("a'b", 'a"b', "a\\b", "a%b", "a_b", "a/b", "a b", "A", "a", "ä", "😀", "../a", "a;--", "{}", "$1", "x" * 63)


def a_credential(name: str, password: str = "hunter2") -> Credential:
    """A credential of ``name`` in which every field has a value."""
    return Credential(
        name=name,
        username=f"{name}-login",
        password=password,
        database=name,
        host="db.example.com",
        port=25060,
        engine=Engine.PG,
        uri=f"postgresql://{name}:{password}@db.example.com:25060/{name}",
        ca="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        cluster="9cc10173-e9ea-4176-9dbc-a4cee4c4ff30",
        cluster_name="tenants-prod",
        since=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    )


def in_a_loop(test: Callable[[T], Coroutine[Any, Any, None]]) -> Callable[[T], None]:
    """Wrap the coroutine method ``test`` in a plain one that runs it in its own event loop."""

    @functools.wraps(test)
    def run(self: T) -> None:
        asyncio.run(test(self))

    return run


async def all_of(store: Store) -> list[Record]:
    """All records of ``store``, in its order."""
    return [record async for record in store.records()]


async def claimed(store: Store, name: str, lease: float = LONG) -> Claim:
    """Claim ``name``, which must be free."""
    claim = await store.claim(name, lease)
    assert claim is not None, f"{name!r} is free, and could not be claimed"
    return claim


async def kept(store: Store, name: str) -> None:
    """Put a credential of ``name`` on record."""
    await store.keep(await claimed(store, name), a_credential(name))


async def is_lost(store: Store, claim: Claim) -> None:
    """Assert that ``claim`` can no longer change anything."""
    before = await store.get(claim.name)
    changes: list[Callable[[], Awaitable[None]]] = [
        lambda: store.intend(claim, "somebody"),
        lambda: store.renew(claim, LONG),
        lambda: store.keep(claim, a_credential(claim.name, "late")),
        lambda: store.forget(claim),
    ]
    for change in changes:
        with raises(ClaimLostError):
            await change()
    assert await store.get(claim.name) == before


class raises:
    """Like ``pytest.raises``, without pytest."""

    def __init__(self, expected: type[Exception]) -> None:
        self.expected = expected

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        assert kind is not None, f"it did not raise {self.expected.__name__}"
        return issubclass(kind, self.expected)


async def cancelled_after(steps: int, call: Coroutine[Any, Any, Any]) -> Any:
    """Cancel ``call`` after a time that grows with ``steps``. Returns what it returned, or None if it was cancelled."""
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0.0005 * steps)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return await task
    return None
