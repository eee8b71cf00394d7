"""Cancel work at a step, which is a statement of the administrator or a change of the store, or leave its operation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

from attrs import evolve

from aiodbclient.tenants import Credential, Operation, OperationKind, SQLiteStore, Store, TenantRecord, Tenants
from aiodbclient.tenants._operations.tenant import Tenant

from .clients import client_of
from .conftest import Place
from .own_stores import HookedStore, record_of
from .store_contract import claimed


class Steps:
    """Counts steps, and cancels ``task`` at step ``last``."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.seen = 0
        self.task: asyncio.Task[Any] | None = None

    def step(self, *_: object) -> None:
        self.seen += 1
        if self.seen == self.last and self.task is not None:
            self.task.cancel()


class WatchedStore(SQLiteStore):
    """A store that counts a step before and after each change."""

    steps: Steps

    async def _stepping(self, change: Awaitable[Any]) -> Any:
        self.steps.step()
        done = await change
        self.steps.step()
        return done

    async def claim(self, name: str, lease: float) -> Any:
        return await self._stepping(super().claim(name, lease))

    async def save(self, claim: Any, record: TenantRecord | None, *, release: bool = False) -> None:
        await self._stepping(super().save(claim, record, release=release))


@asynccontextmanager
async def watched(place: Place, steps: Steps, **options: Any) -> AsyncIterator[Tenants]:
    """The tenants of ``place`` in a client that counts ``steps``."""
    store = WatchedStore(place.path)
    store.steps = steps
    async with client_of(place.sandbox) as client, store:
        with _watching(steps):
            yield Tenants(client.cluster(place.cluster.id), store, prefix=place.prefix, **options)


@contextmanager
def _watching(steps: Steps) -> Iterator[None]:
    """Count a step before each statement that changes something."""
    check = Tenant.check_lease

    def step(held: Tenant) -> None:
        check(held)
        steps.step()

    with patch.object(Tenant, "check_lease", step):
        yield


async def died(place: Place, last: int, work: Callable[[Tenants], Awaitable[object]], **options: Any) -> bool:
    """Run ``work``, and cancel it at step ``last``. Returns False if it ends before."""
    steps = Steps(last)
    async with watched(place, steps, **options) as tenants:
        steps.task = asyncio.ensure_future(_awaited(work(tenants)))
        try:
            await steps.task
        except asyncio.CancelledError:
            return True
    return False


async def begun(place: Place, work: Callable[[Tenants], Awaitable[object]]) -> None:
    """Run ``work`` on one tenant, and cancel it when its operation is stored, before its first step."""

    async def cancel(*_: object) -> None:
        task.cancel()
        await asyncio.Event().wait()

    async with HookedStore(place.path) as store:
        store.after_save = cancel
        task = asyncio.ensure_future(_awaited(work(place.tenants(store=store))))
        await asyncio.wait([task])
        assert task.cancelled()


async def _awaited(work: Awaitable[object]) -> object:
    return await work


async def leave(store: Store, credential: Credential, kind: OperationKind, **more: Any) -> None:
    """Leave a tenant as a process does that dies right after it has stored its operation."""
    claim = await claimed(store, credential.name)
    record = claim.record or record_of(credential, logins=())
    await store.save(claim, evolve(record, operation=Operation(kind=kind, **more)), release=True)
