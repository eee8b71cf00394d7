"""What both stores of the package do beyond the contract of stores, and how records move to another key or store."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography.fernet import Fernet

from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.tenants import Claim, SQLiteStore, Store, TenantRecord, copy_records, rewrite_records
from aiodbclient.tenants._operations.tenant import LEASE
from aiodbclient.tenants._stores import is_claimed
from aiodbclient.tenants.errors import ClaimLostError, StoreError

from ..own_stores import Stores, password
from ..store_contract import LONG, a_login, a_record, all_of, begun, claimed, keep, put
from .test_codec import forged

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()
KEYS = pytest.mark.parametrize("key", [None, NEW], ids=["plain", "encrypted"])
DAMAGE = "UPDATE {} SET record = replace(record, 'hunter2', 'hunter3') WHERE name IN ('beta', 'delta')"


async def test_invalid_name_is_refused(stores: Stores) -> None:
    async with stores.store("a") as store:
        for name in ("", "a\0b", "\ud800"):
            with pytest.raises(InvalidArgumentError, match="must be unicode without NUL"):
                await store.claim(name, LONG)


async def test_store_is_opened_once(stores: Stores) -> None:
    async with stores.store("a") as store:
        with pytest.raises(ConfigurationError, match="open already"):
            await store.__aenter__()
        await keep(store, "alpha")
    async with store:
        assert await password(store, "alpha") == "hunter2"


async def test_damaged_records_stop_no_others(stores: Stores) -> None:
    """The others are listed, rewritten and copied, then the error names the damaged ones. They can be discarded."""
    both = r"record of 'beta' is damaged.* nor can the records of 'delta' be read"
    async with stores.store("a") as store, stores.store("b") as target:
        for name in ("alpha", "beta", "gamma", "delta"):
            await keep(store, name)
        stores.execute("a", DAMAGE)
        for call in (store.get("beta"), store.claim("beta", LONG)):
            with pytest.raises(StoreError, match="the record of 'beta' is damaged"):
                await call

        seen = [entry async for entry in store.entries()]
        assert [each.name for each in seen if isinstance(each, TenantRecord)] == ["alpha", "gamma"]
        assert [each.damaged for each in seen if isinstance(each, StoreError)] == [("beta",), ("delta",)]
        listed = store.records()
        assert [(await anext(listed)).name, (await anext(listed)).name] == ["alpha", "gamma"]
        for rest in (anext(listed), copy_records(store, target), rewrite_records(store)):
            with pytest.raises(StoreError, match=both) as error:
                await rest
            assert error.value.damaged == ("beta", "delta")
        assert [record.name for record in await all_of(target)] == ["alpha", "gamma"]

    async with stores.store("a") as store:
        for name in ("beta", "delta"):
            await store.discard(name)
        with pytest.raises(StoreError, match="'nobody' is not on record"):
            await store.discard("nobody")
        assert [record.name for record in await all_of(store)] == ["alpha", "gamma"]
        await keep(store, "epsilon")
        await claimed(store, "epsilon")
        with pytest.raises(ClaimLostError, match="a process works on 'epsilon'"):
            await store.discard("epsilon")


@KEYS
async def test_traceback_locals_show_no_credential(stores: Stores, key: bytes | None) -> None:
    """Of a record of a newer version, of a damaged one, and of one that could not be written."""

    def shown(error: BaseException) -> str:
        frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
        found = [each.locals for each in frames if each.filename != __file__]
        assert found
        return "".join(traceback.format_exception(error)) + str(found)

    async with stores.store("a", key) as store:
        for name in ("alpha", "beta", "gamma"):
            await keep(store, name)
        body = json.dumps({"name": "beta", "newer": "hunter2"})
        newer = forged("beta", body) if key is None else f"v1.fernet.{Fernet(key).encrypt(body.encode()).decode()}"
        stores.execute("a", "UPDATE {} SET record = ? WHERE name = 'beta'", newer)
        stores.execute("a", "UPDATE {} SET record = replace(record, 'v1.', 'v2.') WHERE name = 'gamma'")
        for name in ("beta", "gamma"):
            for call in (store.get(name), store.claim(name, LONG)):
                with pytest.raises(StoreError) as unreadable:
                    await call
                assert "hunter2" not in shown(unreadable.value)
        entries = [entry async for entry in store.entries()]
        errors = [entry for entry in entries if isinstance(entry, StoreError)]
        assert [each.damaged for each in errors] == [("beta",), ("gamma",)]
        assert "hunter2" not in "".join(map(shown, errors))

        claim = await claimed(store, "alpha")
        if stores.dsn is None:
            (stores.folder / "a").unlink()
        else:  # PostgreSQL's DETAIL quotes the row
            stores.execute("a", "ALTER TABLE {} ADD CHECK (token IS NOT NULL) NOT VALID")
        with pytest.raises(StoreError) as unwritten:
            await store.save(claim, a_record("alpha"), release=True)
        assert "hunter2" not in shown(unwritten.value)


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
    for key, why in ((OLD, "encrypted with another key"), (None, "is encrypted: open the store with its key=")):
        with pytest.raises(StoreError, match=why):
            await stores.store("a", key).__aenter__()


async def test_records_are_copied_once(stores: Stores) -> None:
    """Also to another key. A record that the target has already is kept."""
    async with stores.store("a", OLD) as source, stores.store("b") as target:
        for record in EVERY_SHAPE:
            await put(source, record)
        assert await copy_records(source, target) == 4
        assert await all_of(target) == await all_of(source) == EVERY_SHAPE
        assert await copy_records(source, target) == 0
        for store in (source, target):
            for record in EVERY_SHAPE:
                await store.release(await claimed(store, record.name))
        shown = ["hunter2" in str(stores.execute(name, "SELECT record FROM {}")) for name in ("a", "b")]
        assert shown == [False, True]

        changed = a_record("alpha", "new")
        await target.save(await claimed(target, "alpha"), changed, release=True)
        with pytest.raises(StoreError, match="the target already has another record of 'alpha'"):
            await copy_records(source, target)
        assert await target.get("alpha") == changed
        await target.release(await claimed(target, "alpha"))
    with pytest.raises(StoreError, match="is not encrypted"):
        await stores.store("b", NEW).__aenter__()


async def test_claimed_name_is_refused(stores: Stores) -> None:
    async with stores.store("a") as source, stores.store("b") as target, stores.store("a") as worker:
        await keep(source, "alpha")
        claim = await claimed(worker, "alpha")
        for run in (rewrite_records(source), copy_records(source, target)):
            with pytest.raises(StoreError, match="a process works on 'alpha': run this again when it is done"):
                await run
        await worker.release(claim)
        assert await copy_records(source, target) == 1


async def test_killed_reader_of_claims_blocks_no_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``tenants check`` claims a name to see whether somebody works on it. Its claim ends before others give up."""
    leases = list[float]()
    async with SQLiteStore(tmp_path / "a") as store:
        claim = store.claim

        async def claiming(name: str, lease: float) -> Claim | None:
            leases.append(lease)
            return await claim(name, lease)

        monkeypatch.setattr(store, "claim", claiming)
        assert not await is_claimed(store, "alpha")
    assert 0 < leases[0] < LEASE


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
