"""Cancel work at a step, or leave its operation as a process does that died."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

import psycopg
from attrs import evolve

from aiodbclient.tenants import Credential, Operation, OperationKind, SQLiteStore, Store, Tenants
from aiodbclient.tenants._move import programs
from aiodbclient.tenants._servers.mysql.connection import Cursor

from .clients import client_of
from .conftest import Place
from .own_stores import HookedStore, record_of
from .store_contract import claimed


@contextmanager
def stepping(step: Callable[[], None]) -> Iterator[None]:
    """Call ``step`` before each statement of the administrator, change of the store and start of a program."""

    def counted(run: Callable[..., Any]) -> Callable[..., Any]:
        def then_run(*args: Any, **options: Any) -> Any:
            step()
            return run(*args, **options)

        return then_run

    with ExitStack() as patched:
        for owner, names in (
            (psycopg.AsyncConnection, ["execute"]),
            (Cursor, ["execute"]),  # of MySQL
            (SQLiteStore, ["claim", "save"]),
            (programs, ["create_subprocess_exec"]),
        ):
            for name in names:
                patched.enter_context(patch.object(owner, name, counted(getattr(owner, name))))
        yield


async def died(place: Place, last: int, work: Callable[[Tenants], Awaitable[object]], **options: Any) -> bool:
    """Run ``work``, and cancel it at step ``last``. Returns False if it ends before."""
    steps = count(1)

    def step() -> None:
        if next(steps) == last:
            task.cancel()

    async with client_of(place.sandbox) as client, SQLiteStore(place.path) as store:
        tenants = Tenants(client.cluster(place.cluster.id), store, prefix=place.prefix, **options)
        with stepping(step):
            task = asyncio.ensure_future(_awaited(work(tenants)))
            await asyncio.wait([task])
    if not task.cancelled():
        await task
    return task.cancelled()


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
