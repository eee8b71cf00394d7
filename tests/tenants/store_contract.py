"""``StoreContract``: what every store must do, as tests, and what tests of stores need. Copy it to test yours.

Subclass it in a module of tests, and write ``place``. These tests cannot check one thing, so test it yourself: a
change is on the disk when a method returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve, fields

from aiodbclient import Engine
from aiodbclient.tenants import Claim, Credential, Login, Operation, OperationKind, Role, Store, TenantRecord
from aiodbclient.tenants.errors import ClaimLostError, StoreError

LONG = 600.0  # s: a lease that does not run out during a test
NASTY = ("a'b", 'a"b', "a\\b", "a%b", "a_b", "a/b", "a b", "A", "a", "ä", "😀", "../a", "a;--", "{}", "$1", "x" * 63)


def a_login(username: str, password: str | None = "hunter2", role: Role = Role.OWNER) -> Login:
    """A login that programs use."""
    return Login(username=username, role=role, password=password, created=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC))


def a_record(name: str, password: str = "hunter2", **more: Any) -> TenantRecord:
    """A record of ``name`` with one login."""
    record = TenantRecord(
        name=name,
        cluster="9cc10173-e9ea-4176-9dbc-a4cee4c4ff30",
        cluster_name="tenants-prod",
        database=name,
        host="db.example.com",
        port=25060,
        engine=Engine.PG,
        ca="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        logins=(a_login(f"{name}-login", password),),
    )
    return evolve(record, **more)


def a_credential(name: str, password: str = "hunter2") -> Credential:
    """The credential of ``a_record``."""
    record = a_record(name, password)
    credential = record.credential()
    assert credential is not None
    return credential


def begun(name: str, login: str) -> TenantRecord:
    """A record of ``name`` with an operation that makes ``login``."""
    return a_record(name, logins=(), operation=Operation(kind=OperationKind.PROVISION, logins=(login,)))


async def all_of(store: Store) -> list[TenantRecord]:
    """All records of ``store``, in its order."""
    return [record async for record in store.records()]


async def claimed(store: Store, name: str, lease: float = LONG) -> Claim:
    """Claim ``name``, which must be free."""
    claim = await store.claim(name, lease)
    assert claim is not None, f"{name!r} is free, and could not be claimed"
    return claim


async def put(store: Store, record: TenantRecord) -> None:
    """Put a record into the store, whose name must be free."""
    await store.save(await claimed(store, record.name), record, release=True)


async def keep(store: Store, name: str, password: str = "hunter2") -> None:
    """Put a record of ``name`` into the store."""
    await put(store, a_record(name, password))


async def is_lost(store: Store, claim: Claim) -> None:
    """Assert that ``claim`` can no longer change anything."""
    before = await store.get(claim.name)
    changes: list[Callable[[], Awaitable[None]]] = [
        lambda: store.renew(claim, LONG),
        lambda: store.save(claim, a_record(claim.name, "late")),
        lambda: store.save(claim, a_record(claim.name, "late"), release=True),
        lambda: store.save(claim, None),
        lambda: store.save(claim, None, release=True),
    ]
    for change in changes:
        with pytest.raises(ClaimLostError):
            await change()
    assert await store.get(claim.name) == before


async def cancelled_after(steps: int, call: Coroutine[Any, Any, Any]) -> Any:
    """Cancel ``call`` once it has begun, with ``steps`` a bit later. Returns its result; None if it was cancelled."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0)  # it waits for the store now
    assert not task.done(), "a store does not block the event loop"
    for _ in range(steps):
        await asyncio.sleep(0.0005 * steps)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return await task
    return None


class StoreContract:
    """What ``aiodbclient.tenants.Store`` promises, as tests. Subclass it, and write ``place``."""

    lease: float = 0.25  # s, that tests let run out. Increase it for a store with a coarser clock
    many: int = 600  # records: more than the store reads at once

    def place(self) -> AbstractAsyncContextManager[Callable[[], Store]]:
        """An empty place for records, removed afterwards. It yields a function that makes a new store on that place."""
        raise NotImplementedError

    async def test_missing_record_is_none(self) -> None:
        async with self.place() as make, make() as store:
            assert await store.get("alpha") is None
            assert await all_of(store) == []

    async def test_claim_makes_no_record(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha")

            assert (claim.name, claim.record) == ("alpha", None)
            assert await other.get("alpha") is None
            assert await all_of(other) == []

    async def test_claimed_name_is_taken(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            await claimed(store, "alpha")

            assert await store.claim("alpha", LONG) is None
            assert await other.claim("alpha", LONG) is None
            assert await other.claim("beta", LONG) is not None

    async def test_one_of_many_claims_succeeds(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for name in ("new", "new", "known"):
                claims = await asyncio.gather(*(each.claim(name, LONG) for each in (store, other) * 8))
                (claim,) = [claim for claim in claims if claim is not None]
                await store.release(claim)

    async def test_stores_opened_at_once_share_their_records(self) -> None:
        """Also the first ones, each of which finds an empty place."""
        for _ in range(5):
            async with self.place() as make, AsyncExitStack() as opened:
                stores = await asyncio.gather(*(opened.enter_async_context(make()) for _ in range(10)))
                await asyncio.gather(*(keep(store, f"tenant-{number}") for number, store in enumerate(stores)))
                assert len(await all_of(stores[0])) == len(stores)

    async def test_saved_record_is_seen_by_other_stores(self) -> None:
        async with self.place() as make:
            async with make() as store, make() as other:
                await store.save(await claimed(store, "alpha"), a_record("alpha"))
                assert await other.get("alpha") == a_record("alpha")
            async with make() as later:
                assert await later.get("alpha") == a_record("alpha")

    async def test_record_is_read_unchanged(self) -> None:
        """Its times too, to the microsecond and in UTC."""
        replaced = evolve(a_login("old", "p'\"\\%😀\n"), replaced=datetime(2026, 12, 31, 23, 59, 59, 999999, UTC))
        full = a_record(
            "alpha",
            suspended=datetime(2026, 11, 27, 7, 0, 0, 1, UTC),
            is_set_up=True,
            version="0042_äöü",
            leftover="old",
            logins=(replaced, a_login("new"), a_login("reader", role=Role.READER)),
            operation=Operation(kind=OperationKind.MOVE, role=Role.OWNER, logins=("a", "b"), target="new"),
        )
        adopted = evolve(a_login("adopted", None), replaced=datetime(2027, 1, 1, tzinfo=UTC))
        bare = a_record("alpha", ca=None, engine="oracle", logins=(adopted,))
        assert None not in [getattr(full, each.name) for each in fields(TenantRecord)]
        async with self.place() as make, make() as store:
            for record in (full, bare, begun("alpha", "first")):
                await put(store, record)
                read = await store.get("alpha")
                assert read == record
                assert read is not None
                assert isinstance(read.engine, Engine) == (record is not bare)
                assert all(each.created.utcoffset() == timedelta(0) for each in read.logins)
                assert all(isinstance(each, Login) for each in read.logins)

    async def test_save_keeps_the_claim(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha")
            for record in (begun("alpha", "first"), begun("alpha", "second"), a_record("alpha"), None):
                await store.save(claim, record)
                assert await other.get("alpha") == record
                assert await other.claim("alpha", LONG) is None
            await store.save(claim, a_record("alpha"))
            assert await other.get("alpha") == a_record("alpha")

    async def test_last_save_releases_the_claim(self) -> None:
        async with self.place() as make, make() as store:
            claim = await claimed(store, "alpha")
            await store.save(claim, begun("alpha", "first"))
            await store.save(claim, a_record("alpha"), release=True)

            again = await claimed(store, "alpha")
            assert again.record == a_record("alpha")
            await is_lost(store, claim)

    async def test_now_is_in_utc(self) -> None:
        async with self.place() as make, make() as store:
            assert (await store.now()).utcoffset() == timedelta(0)

    async def test_release_frees_name_and_keeps_record(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha")
            await store.save(claim, begun("alpha", "first"))
            await store.release(claim)
            await store.release(claim)

            again = await claimed(other, "alpha")
            assert again.record == begun("alpha", "first")
            assert again.token != claim.token
            await is_lost(store, claim)

    async def test_save_of_none_removes_the_record(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            await keep(store, "alpha")
            claim = await claimed(store, "alpha")
            await store.save(claim, begun("alpha", "first"))
            await store.save(claim, None, release=True)

            assert await other.get("alpha") is None
            assert await all_of(other) == []
            await is_lost(store, claim)
            assert await store.get("alpha") is None
            assert (await claimed(other, "alpha")).record is None
            await is_lost(store, claim)

    async def test_expired_claim_is_taken_over(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha", self.lease)
            await store.save(claim, begun("alpha", "first"))
            await asyncio.sleep(self.lease * 1.2)

            taken_over = await claimed(other, "alpha")
            assert taken_over.record == begun("alpha", "first")
            await is_lost(store, claim)
            assert await other.get("alpha") == taken_over.record
            await store.release(claim)
            assert await store.claim("alpha", LONG) is None
            await other.save(taken_over, a_record("alpha"))

    @pytest.mark.parametrize(("before", "after"), [(0, 1.2), (1.2, 0)])
    async def test_renew_extends_claim(self, before: float, after: float) -> None:
        """Also one that expired, as long as nobody took it over."""
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha", self.lease)
            await asyncio.sleep(self.lease * before)
            await store.renew(claim, LONG)
            await asyncio.sleep(self.lease * after)

            assert await other.claim("alpha", LONG) is None
            await store.save(claim, a_record("alpha"))

    async def test_records_are_sorted_by_name(self) -> None:
        names = [f"tenant-{number:04}" for number in range(self.many)] + list(NASTY)
        async with self.place() as make, make() as store:
            for first in range(0, len(names), 100):
                await asyncio.gather(*(keep(store, name) for name in names[first : first + 100]))

            records = await all_of(store)
            assert [record.name for record in records] == sorted(names)
            assert all(record == a_record(record.name) for record in records)

    async def test_names_are_stored_unchanged(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for name in NASTY:
                await keep(store, name)
            for name in NASTY:
                assert await other.get(name) == a_record(name)

    async def test_cancelled_change_is_whole_or_none(self) -> None:
        before, after = begun("alpha", "first"), a_record("alpha", "new")
        async with self.place() as make, make() as store:
            for steps in range(12):
                claim = await claimed(store, "alpha")
                await store.save(claim, before)
                await cancelled_after(steps, store.save(claim, after, release=True))
                await store.release(claim)
                assert await store.get("alpha") in (before, after)

    async def test_cancelled_claim_is_not_held(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for steps in range(12):
                claim = await cancelled_after(steps, store.claim("alpha", LONG))
                if claim is not None:  # it was claimed before it could be cancelled
                    await store.release(claim)
                await store.get("alpha")
                await other.release(await claimed(other, "alpha"))

    async def test_closed_store_raises(self) -> None:
        async with self.place() as make:
            store = make()
            with pytest.raises(StoreError):
                await store.get("alpha")
            async with store:
                await claimed(store, "alpha")
            with pytest.raises(StoreError):
                await store.get("alpha")

    async def test_repr_shows_no_secret(self) -> None:
        async with self.place() as make, make() as store:
            await keep(store, "alpha")
            claim = await claimed(store, "alpha")
            assert claim.record is not None
            assert "hunter2" in repr([each.password for each in claim.record.logins])
            assert "hunter2" not in f"{store!r} {store} {claim!r} {claim.record!r} {claim.record.credential()}"
