"""``StoreContract``: what every store must do, as tests, and what tests of stores need. Copy it to test yours.

Subclass it in a module of tests, and write ``place``. These tests cannot check one thing, so test it yourself: a
change is on the disk when a method returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve, fields

from aiodbclient import Engine
from aiodbclient.tenants import Claim, Credential, Record, Store
from aiodbclient.tenants.errors import ClaimLostError, StoreError

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


async def all_of(store: Store) -> list[Record]:
    """All records of ``store``, in its order."""
    return [record async for record in store.records()]


async def claimed(store: Store, name: str, lease: float = LONG) -> Claim:
    """Claim ``name``, which must be free."""
    claim = await store.claim(name, lease)
    assert claim is not None, f"{name!r} is free, and could not be claimed"
    return claim


async def put_on_record(
    store: Store, claim: Claim, current: Credential | None, previous: Credential | None = None
) -> None:
    """Commit a record of these credentials."""
    await store.commit(claim, Record(name=claim.name, current=current, previous=previous))


async def keep(store: Store, name: str, password: str = "hunter2") -> None:
    """Put a credential of ``name`` on record."""
    await put_on_record(store, await claimed(store, name), a_credential(name, password))


async def is_lost(store: Store, claim: Claim) -> None:
    """Assert that ``claim`` can no longer change anything."""
    before = await store.get(claim.name)
    changes: list[Callable[[], Awaitable[None]]] = [
        lambda: store.begin(claim, "somebody"),
        lambda: store.renew(claim, LONG),
        lambda: put_on_record(store, claim, a_credential(claim.name, "late")),
        lambda: store.commit(claim, None),
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

    async def test_claim_creates_record(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha")

            assert (claim.name, claim.record) == ("alpha", Record(name="alpha"))
            assert await other.get("alpha") == Record(name="alpha")

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

    async def test_commit_is_seen_by_other_stores(self) -> None:
        async with self.place() as make:
            async with make() as store, make() as other:
                claim = await claimed(store, "alpha")
                await put_on_record(store, claim, a_credential("alpha"))
                assert await other.get("alpha") == Record(name="alpha", current=a_credential("alpha"))
            async with make() as later:
                assert await later.get("alpha") == Record(name="alpha", current=a_credential("alpha"))

    async def test_credential_is_read_unchanged(self) -> None:
        """Its times too, to the microsecond and in UTC."""
        suspended = datetime(2026, 11, 27, 7, 0, 0, 1, UTC)
        full = evolve(a_credential("alpha", "p'\"\\%😀\n"), suspended=suspended, is_set_up=True, moved_from="old")
        exact = evolve(
            full, since=datetime(2026, 12, 31, 23, 59, 59, 999999, UTC), suspended=datetime(2027, 1, 1, tzinfo=UTC)
        )
        bare = evolve(full, password=None, ca=None, cluster=None, since=None, suspended=None)
        bare = evolve(bare, moved_from=None, is_set_up=False, engine="oracle")
        assert None not in [getattr(full, each.name) for each in fields(Credential)]
        async with self.place() as make, make() as store:
            for current, previous in ((full, None), (exact, None), (bare, full), (None, bare), (None, None)):
                await put_on_record(store, await claimed(store, "alpha"), current, previous)
                record = await store.get("alpha")
                assert record == Record(name="alpha", current=current, previous=previous)
                assert record is not None
                assert current is None or isinstance(record.current, Credential)
                assert current is not full or (record.current and isinstance(record.current.engine, Engine))
                if record.current and record.current.since:
                    assert record.current.since.utcoffset() == timedelta(0)

    async def test_commit_ends_intent_and_claim(self) -> None:
        async with self.place() as make, make() as store:
            claim = await claimed(store, "alpha")
            await store.begin(claim, "alpha-login")
            assert await store.get("alpha") == Record(name="alpha", intended="alpha-login")
            await put_on_record(store, claim, a_credential("alpha"))

            again = await claimed(store, "alpha")
            assert again.record == Record(name="alpha", current=a_credential("alpha"))
            await is_lost(store, claim)

    async def test_commit_stores_intent(self) -> None:
        """A copy of a store commits a record with its intent at once."""
        record = Record(name="alpha", current=a_credential("alpha"), intended="rotate alpha-login")
        async with self.place() as make, make() as store:
            await store.commit(await claimed(store, "alpha"), record)
            assert await store.get("alpha") == record

    async def test_now_is_in_utc(self) -> None:
        async with self.place() as make, make() as store:
            assert (await store.now()).utcoffset() == timedelta(0)

    async def test_intent_leaves_credentials_unchanged(self) -> None:
        record = Record(name="alpha", current=a_credential("alpha", "new"), previous=a_credential("alpha", "old"))
        async with self.place() as make, make() as store:
            await put_on_record(store, await claimed(store, "alpha"), record.current, record.previous)
            claim = await claimed(store, "alpha")
            await store.begin(claim, "alpha-login-2")
            await store.begin(claim, "alpha-login-3")

            assert await store.get("alpha") == evolve(record, intended="alpha-login-3")
            await store.begin(claim, None)
            assert await store.get("alpha") == record

    async def test_release_frees_name_and_keeps_intent(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha")
            await store.begin(claim, "alpha-login")
            await store.release(claim)
            await store.release(claim)

            again = await claimed(other, "alpha")
            assert again.record == Record(name="alpha", intended="alpha-login")
            assert again.token != claim.token
            await is_lost(store, claim)

    async def test_commit_none_removes_record_and_claim(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            await put_on_record(store, await claimed(store, "alpha"), a_credential("alpha"))
            claim = await claimed(store, "alpha")
            await store.begin(claim, "alpha-login")
            await store.commit(claim, None)

            assert await other.get("alpha") is None
            assert await all_of(other) == []
            await is_lost(store, claim)
            assert await store.get("alpha") is None
            assert (await claimed(other, "alpha")).record == Record(name="alpha")
            await is_lost(store, claim)

    async def test_expired_claim_is_taken_over(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha", self.lease)
            await store.begin(claim, "alpha-login")
            await asyncio.sleep(self.lease * 1.2)

            taken_over = await claimed(other, "alpha")
            assert taken_over.record == Record(name="alpha", intended="alpha-login")
            await is_lost(store, claim)
            assert await other.get("alpha") == taken_over.record
            await store.release(claim)
            assert await store.claim("alpha", LONG) is None
            await put_on_record(other, taken_over, a_credential("alpha"))

    @pytest.mark.parametrize(("before", "after"), [(0, 1.2), (1.2, 0)])
    async def test_renew_extends_claim(self, before: float, after: float) -> None:
        """Also one that expired, as long as nobody took it over."""
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha", self.lease)
            await asyncio.sleep(self.lease * before)
            await store.renew(claim, LONG)
            await asyncio.sleep(self.lease * after)

            assert await other.claim("alpha", LONG) is None
            await put_on_record(store, claim, a_credential("alpha"))

    async def test_records_are_sorted_by_name(self) -> None:
        names = [f"tenant-{number:04}" for number in range(self.many)] + list(NASTY)
        async with self.place() as make, make() as store:
            for first in range(0, len(names), 100):
                await asyncio.gather(*(keep(store, name) for name in names[first : first + 100]))

            records = await all_of(store)
            assert [record.name for record in records] == sorted(names)
            assert all(record.current == a_credential(record.name) for record in records)

    async def test_names_are_stored_unchanged(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for name in NASTY:
                await keep(store, name)
            for name in NASTY:
                assert await other.get(name) == Record(name=name, current=a_credential(name))

    async def test_cancelled_change_is_whole_or_none(self) -> None:
        before = Record(name="alpha", current=a_credential("alpha", "old"), intended="alpha-login")
        after = Record(name="alpha", current=a_credential("alpha", "new"))
        async with self.place() as make, make() as store:
            for steps in range(12):
                await put_on_record(store, await claimed(store, "alpha"), before.current)
                claim = await claimed(store, "alpha")
                await store.begin(claim, "alpha-login")
                await cancelled_after(steps, put_on_record(store, claim, a_credential("alpha", "new")))
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
            assert "hunter2" in repr(claim.record.current and claim.record.current.password)
            assert "hunter2" not in f"{store!r} {store} {claim!r} {claim.record!r} {claim.record.current}"
