"""``StoreContract``: what every store must do, as tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

from attrs import evolve, fields

from ...engines import Engine
from ...errors import StoreError
from .._credential import Credential
from .._stores import Record, Store
from ._tools import LONG, NASTY, a_credential, all_of, cancelled_after, claimed, in_a_loop, is_lost, kept, raises


class StoreContract:
    """What ``aiodbclient.tenants.Store`` promises, as tests. Subclass it, and write ``place``."""

    lease: float = 0.25
    """Seconds of a lease that tests let run out. Increase it for a store with a coarser clock."""

    def place(self) -> AbstractAsyncContextManager[Callable[[], Store]]:
        """Make an empty place for records, as an async context manager, and remove it afterwards. You write this.

        Yields:
            A function that makes a new store on that place. The tests open the stores by entering them.

        Raises:
            NotImplementedError: The subclass does not define it.
        """
        # Not an abstract method: pytest silently skips abstract classes.
        raise NotImplementedError(
            f"{type(self).__name__} needs a method place: an async context manager that makes an empty place and "
            "yields a function that makes a store on it. See the example in aiodbclient.tenants.testing"
        )

    @in_a_loop
    async def test_what_is_not_on_record_is_none(self) -> None:
        async with self.place() as make, make() as store:
            assert await store.get("alpha") is None
            assert await all_of(store) == []

    @in_a_loop
    async def test_a_claim_puts_the_name_on_record(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha")

            assert (claim.name, claim.record) == ("alpha", Record(name="alpha"))
            assert await other.get("alpha") == Record(name="alpha")

    @in_a_loop
    async def test_a_claimed_name_cannot_be_claimed(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            await claimed(store, "alpha")

            assert await store.claim("alpha", LONG) is None
            assert await other.claim("alpha", LONG) is None
            assert await other.claim("beta", LONG) is not None

    @in_a_loop
    async def test_of_many_who_claim_at_once_one_gets_it(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for name in ("new", "new", "known"):
                claims = await asyncio.gather(*(each.claim(name, LONG) for each in (store, other) * 8))
                (claim,) = [claim for claim in claims if claim is not None]
                await store.release(claim)

    @in_a_loop
    async def test_what_is_kept_is_on_record_for_all(self) -> None:
        async with self.place() as make:
            async with make() as store, make() as other:
                claim = await claimed(store, "alpha")
                await store.keep(claim, a_credential("alpha"))
                assert await other.get("alpha") == Record(name="alpha", current=a_credential("alpha"))
            async with make() as later:
                assert await later.get("alpha") == Record(name="alpha", current=a_credential("alpha"))

    @in_a_loop
    async def test_every_shape_of_a_credential_comes_back_as_it_was(self) -> None:
        suspended = datetime(2026, 11, 27, 7, 0, 0, 1, UTC)
        full = evolve(a_credential("alpha", "p'\"\\%😀\n"), suspended=suspended, is_set_up=True)
        bare = evolve(
            full,
            password=None,
            ca=None,
            cluster=None,
            since=None,
            suspended=None,
            is_set_up=False,
            engine="oracle",
        )
        assert None not in [getattr(full, each.name) for each in fields(Credential)]
        async with self.place() as make, make() as store:
            for current, previous in ((full, None), (bare, full), (None, bare), (None, None)):
                await store.keep(await claimed(store, "alpha"), current, previous)
                assert await store.get("alpha") == Record(name="alpha", current=current, previous=previous)
                record = await store.get("alpha")
                assert record is not None
                assert current is None or isinstance(record.current, Credential)
                assert [each and each.is_set_up for each in (record.current, record.previous)] == [
                    each and each.is_set_up for each in (current, previous)
                ]
                assert current is not full or (record.current and isinstance(record.current.engine, Engine))

    @in_a_loop
    async def test_the_time_of_a_credential_comes_back_to_the_microsecond(self) -> None:
        async with self.place() as make, make() as store:
            for since in (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 12, 31, 23, 59, 59, 999999, UTC)):
                current = evolve(a_credential("alpha"), since=since)
                await store.keep(await claimed(store, "alpha"), current, a_credential("alpha", "old"))
                record = await store.get("alpha")
                assert record is not None
                assert record.current == current
                assert record.current is not None
                assert record.current.since is not None
                assert record.current.since.utcoffset() == timedelta(0)

    @in_a_loop
    async def test_keep_ends_the_intent_and_the_claim(self) -> None:
        async with self.place() as make, make() as store:
            claim = await claimed(store, "alpha")
            await store.intend(claim, "alpha-login")
            assert await store.get("alpha") == Record(name="alpha", intended="alpha-login")
            await store.keep(claim, a_credential("alpha"))

            again = await claimed(store, "alpha")
            assert again.record == Record(name="alpha", current=a_credential("alpha"))
            await is_lost(store, claim)

    @in_a_loop
    async def test_an_intent_leaves_the_credentials_as_they_were(self) -> None:
        record = Record(name="alpha", current=a_credential("alpha", "new"), previous=a_credential("alpha", "old"))
        async with self.place() as make, make() as store:
            await store.keep(await claimed(store, "alpha"), record.current, record.previous)
            claim = await claimed(store, "alpha")
            await store.intend(claim, "alpha-login-2")
            await store.intend(claim, "alpha-login-3")

            assert await store.get("alpha") == evolve(record, intended="alpha-login-3")
            await store.intend(claim, None)
            assert await store.get("alpha") == record

    @in_a_loop
    async def test_release_frees_the_name_and_leaves_the_intent(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha")
            await store.intend(claim, "alpha-login")
            await store.release(claim)
            await store.release(claim)

            again = await claimed(other, "alpha")
            assert again.record == Record(name="alpha", intended="alpha-login")
            assert again.token != claim.token
            await is_lost(store, claim)

    @in_a_loop
    async def test_forget_removes_the_record_and_the_claim(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            await store.keep(await claimed(store, "alpha"), a_credential("alpha"))
            claim = await claimed(store, "alpha")
            await store.intend(claim, "alpha-login")
            await store.forget(claim)

            assert await other.get("alpha") is None
            assert await all_of(other) == []
            await is_lost(store, claim)
            assert await store.get("alpha") is None
            assert (await claimed(other, "alpha")).record == Record(name="alpha")
            await is_lost(store, claim)

    @in_a_loop
    async def test_a_claim_is_free_when_its_lease_has_run_out(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha", self.lease)
            await store.intend(claim, "alpha-login")
            await asyncio.sleep(self.lease * 1.2)

            taken_over = await claimed(other, "alpha")
            assert taken_over.record == Record(name="alpha", intended="alpha-login")
            await is_lost(store, claim)
            assert await other.get("alpha") == taken_over.record
            await store.release(claim)
            assert await store.claim("alpha", LONG) is None
            await other.keep(taken_over, a_credential("alpha"))

    @in_a_loop
    async def test_renew_holds_a_claim_for_longer(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha", self.lease)
            await store.renew(claim, LONG)
            await asyncio.sleep(self.lease * 1.2)

            assert await other.claim("alpha", LONG) is None
            await store.keep(claim, a_credential("alpha"))

    @in_a_loop
    async def test_a_lease_that_ran_out_is_renewed_while_nobody_took_the_claim_over(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await claimed(store, "alpha", self.lease)
            await asyncio.sleep(self.lease * 1.2)
            await store.renew(claim, LONG)

            assert await other.claim("alpha", LONG) is None

    @in_a_loop
    async def test_all_records_come_by_name(self) -> None:
        names = [f"tenant-{number:04}" for number in range(1200)] + list(NASTY)
        async with self.place() as make, make() as store:
            for first in range(0, len(names), 100):
                await asyncio.gather(*(kept(store, name) for name in names[first : first + 100]))

            records = await all_of(store)
            assert [record.name for record in records] == sorted(names)
            assert all(record.current == a_credential(record.name) for record in records)

    @in_a_loop
    async def test_names_are_taken_as_they_are(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for name in NASTY:
                await kept(store, name)
            for name in NASTY:
                assert await other.get(name) == Record(name=name, current=a_credential(name))

    @in_a_loop
    async def test_a_cancelled_change_is_made_whole_or_not_at_all(self) -> None:
        before = Record(name="alpha", current=a_credential("alpha", "old"), intended="alpha-login")
        after = Record(name="alpha", current=a_credential("alpha", "new"))
        async with self.place() as make, make() as store:
            for steps in range(12):
                await store.keep(await claimed(store, "alpha"), before.current)
                claim = await claimed(store, "alpha")
                await store.intend(claim, "alpha-login")
                await cancelled_after(steps, store.keep(claim, a_credential("alpha", "new")))
                await store.release(claim)
                assert await store.get("alpha") in (before, after)

    @in_a_loop
    async def test_a_cancelled_claim_is_not_held(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for steps in range(12):
                claim = await cancelled_after(steps, store.claim("alpha", LONG))
                if claim is not None:  # it was claimed before it could be cancelled
                    await store.release(claim)
                await store.get("alpha")
                await other.release(await claimed(other, "alpha"))

    @in_a_loop
    async def test_a_store_that_is_not_open_says_so(self) -> None:
        async with self.place() as make:
            store = make()
            with raises(StoreError):
                await store.get("alpha")
            async with store:
                await claimed(store, "alpha")
            with raises(StoreError):
                await store.get("alpha")

    @in_a_loop
    async def test_no_secret_is_in_a_repr(self) -> None:
        async with self.place() as make, make() as store:
            await kept(store, "alpha")
            claim = await claimed(store, "alpha")
            assert "hunter2" in repr(claim.record.current and claim.record.current.password)
            assert "hunter2" not in f"{store!r} {store} {claim!r} {claim.record!r} {claim.record.current}"
