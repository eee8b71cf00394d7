"""Records move to another key or store. Killed runs are repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography.fernet import Fernet

from aiodbclient.tenants import Claim, SQLiteStore, Store, copy_records, rewrite_records
from aiodbclient.tenants.errors import StoreError

from ..own_stores import Stores
from ..store_contract import a_login, a_record, all_of, begun, claimed, keep, put

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()
SINCE = datetime(2026, 1, 2, tzinfo=UTC)
EVERY_SHAPE = [
    a_record("alpha"),
    evolve(begun("beta", "beta-b"), logins=(evolve(a_login("beta"), replaced=SINCE), a_login("newer"))),
    begun("delta", "delta"),
    a_record("gone", leftover="elsewhere", suspended=SINCE),
]


async def test_rewrite_changes_key(stores: Stores) -> None:
    async with stores.store("a", OLD) as store:
        for record in EVERY_SHAPE:
            await put(store, record)
    async with stores.store("a", [NEW, OLD]) as store:
        assert await rewrite_records(store) == 4
        assert await rewrite_records(store) == 4
    async with stores.store("a", NEW) as store:
        assert await all_of(store) == EVERY_SHAPE
        for record in EVERY_SHAPE:  # no claim remains
            await store.release(await claimed(store, record.name))
    with pytest.raises(StoreError, match="encrypted with another key"):
        await stores.store("a", OLD).__aenter__()


async def test_records_are_copied_once(stores: Stores) -> None:
    async with stores.store("a", OLD) as source, stores.store("b", NEW) as target:
        for record in EVERY_SHAPE:
            await put(source, record)
        assert await copy_records(source, target) == 4
        assert await all_of(target) == await all_of(source) == EVERY_SHAPE
        assert await copy_records(source, target) == 0
        for store in (source, target):
            for record in EVERY_SHAPE:
                await store.release(await claimed(store, record.name))


async def test_other_record_of_target_is_kept(stores: Stores) -> None:
    async with stores.store("a") as source, stores.store("b") as target:
        await keep(source, "alpha", "old")
        await keep(target, "alpha", "new")
        with pytest.raises(StoreError, match="the target already has another record of 'alpha'"):
            await copy_records(source, target)
        assert await all_of(target) == [a_record("alpha", "new")]
        await target.release(await claimed(target, "alpha"))


async def test_damaged_record_is_left_out(stores: Stores) -> None:
    """The others are copied and rewritten, and the error names it."""
    async with stores.store("a") as source, stores.store("b") as target:
        for name in ("alpha", "beta", "gamma"):
            await keep(source, name)
        stores.execute("a", "UPDATE {} SET record = replace(record, 'hunter2', 'hunter3') WHERE name = 'beta'")
        for run in (copy_records(source, target), rewrite_records(source)):
            with pytest.raises(StoreError, match="record of 'beta' is damaged"):
                await run
        assert [record.name for record in await all_of(target)] == ["alpha", "gamma"]


async def test_claimed_name_is_refused(stores: Stores) -> None:
    async with stores.store("a") as source, stores.store("b") as target, stores.store("a") as worker:
        await keep(source, "alpha")
        claim = await claimed(worker, "alpha")
        for run in (rewrite_records(source), copy_records(source, target)):
            with pytest.raises(StoreError, match="a process works on 'alpha': run this again when it is done"):
                await run
        await worker.release(claim)
        assert await copy_records(source, target) == 1


async def cancelled(moving: Coroutine[Any, Any, int], stores: tuple[Store, Store], number: int) -> None:
    """Run it, and cancel it at this call of one of the stores."""
    calls = 0

    def counted(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def called(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                task.cancel()
            return await method(*arguments, **options)

        return called

    with pytest.MonkeyPatch.context() as patch:
        for store, name in product(stores, ("claim", "save", "release")):
            patch.setattr(store, name, counted(getattr(store, name)))
        task = asyncio.create_task(moving)
        await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("number", [1, 5, 25, 70])
async def test_cancelled_run_is_repeated(stores: Stores, number: int) -> None:
    many = [evolve(EVERY_SHAPE[1], name=f"t{each:03}") for each in range(26)]
    async with stores.store("a", OLD) as source, AsyncExitStack() as stack:
        await asyncio.gather(*(put(source, record) for record in many))
        async with stores.store("b") as target:
            for run in (copy_records(source, target), rewrite_records(source)):
                await cancelled(run, (source, target), number)
        target = await stack.enter_async_context(stores.store("b"))
        await copy_records(source, target)
        await rewrite_records(source)
        assert await all_of(target) == await all_of(source) == many


async def test_run_cancelled_in_release_leaves_no_claim(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "a") as store:
        await keep(store, "alpha")
        release = store.release

        async def slow_release(claim: Claim) -> None:
            running.cancel()
            for _ in range(100):  # the cancellation arrives during this loop
                await asyncio.sleep(0)
            await release(claim)

        store.release = slow_release  # type: ignore[method-assign]
        running = asyncio.create_task(rewrite_records(store))
        await asyncio.wait([running])
        assert running.cancelled()
        await release(await claimed(store, "alpha"))
