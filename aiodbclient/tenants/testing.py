"""The tests that every store must pass, for who writes one. They need a test runner, and no package of one.

Subclass ``StoreContract`` in a test module, and say how to make a store::

    class TestVaultStore(StoreContract):
        @asynccontextmanager
        async def place(self):
            async with a_fresh_vault() as vault:
                yield lambda: VaultStore(vault.url, vault.token)

pytest collects the tests because the name of your class begins with ``Test``; for unittest, inherit from
``unittest.TestCase`` as well. Each test is a plain function that runs its own event loop. What the tests cannot see is
yours to test: that a change is on the disk when a method returns, and that the claims of a dead process are free.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar

from attrs import evolve, fields

from ..engines import Engine
from ..errors import ClaimLostError, StoreError
from .credential import Credential
from .stores import Claim, Record, Store

T = TypeVar("T", bound="StoreContract")

LONG = 600.0  # s: a lease that does not run out during a test
NASTY = ("a'b", 'a"b', "a\\b", "a%b", "a_b", "a/b", "a b", "A", "a", "ä", "😀", "../a", "a;--", "{}", "$1", "x" * 63)


def a_credential(name: str, password: str = "hunter2") -> Credential:
    """One with every field filled."""
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
        access_cert=f"cert-{password}",
        access_key=f"key-{password}",
        cluster="9cc10173-e9ea-4176-9dbc-a4cee4c4ff30",
    )


def _in_a_loop(test: Callable[[T], Coroutine[Any, Any, None]]) -> Callable[[T], None]:
    @functools.wraps(test)
    def run(self: T) -> None:
        asyncio.run(test(self))

    return run


class StoreContract:
    """What ``aiodbclient.tenants.stores.Store`` promises, as tests."""

    lease = 0.25
    """Seconds: a lease that tests let run out. Make it longer where the store's clock is coarser than that."""

    def place(self) -> AbstractAsyncContextManager[Callable[[], Store]]:
        """Make an empty place for records. Yields what makes a store on it, anew at each call; the stores are not
        entered yet.
        """
        raise NotImplementedError("say in your subclass how to make a store")

    @_in_a_loop
    async def test_what_is_not_on_record_is_none(self) -> None:
        async with self.place() as make, make() as store:
            assert await store.get("alpha") is None
            assert await _all(store) == []

    @_in_a_loop
    async def test_a_claim_puts_the_name_on_record(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await _claimed(store, "alpha")

            assert (claim.name, claim.record) == ("alpha", Record(name="alpha"))
            assert await other.get("alpha") == Record(name="alpha")

    @_in_a_loop
    async def test_a_claimed_name_cannot_be_claimed(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            await _claimed(store, "alpha")

            assert await store.claim("alpha", LONG) is None
            assert await other.claim("alpha", LONG) is None
            assert await other.claim("beta", LONG) is not None

    @_in_a_loop
    async def test_of_many_who_claim_at_once_one_gets_it(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for name in ("new", "new", "known"):
                claims = await asyncio.gather(*(each.claim(name, LONG) for each in (store, other) * 8))
                (claim,) = [claim for claim in claims if claim is not None]
                await store.release(claim)

    @_in_a_loop
    async def test_what_is_kept_is_on_record_for_all(self) -> None:
        async with self.place() as make:
            async with make() as store, make() as other:
                claim = await _claimed(store, "alpha")
                await store.keep(claim, a_credential("alpha"))
                assert await other.get("alpha") == Record(name="alpha", current=a_credential("alpha"))
            async with make() as later:
                assert await later.get("alpha") == Record(name="alpha", current=a_credential("alpha"))

    @_in_a_loop
    async def test_every_shape_of_a_credential_comes_back_as_it_was(self) -> None:
        full = a_credential("alpha", "p'\"\\%😀\n")
        bare = evolve(
            full,
            password=None,
            database=None,
            ca=None,
            access_cert=None,
            access_key=None,
            cluster=None,
            engine="oracle",
        )
        assert None not in [getattr(full, each.name) for each in fields(Credential)]
        async with self.place() as make, make() as store:
            for current, previous in ((full, None), (bare, full), (None, bare), (None, None)):
                await store.keep(await _claimed(store, "alpha"), current, previous)
                assert await store.get("alpha") == Record(name="alpha", current=current, previous=previous)
                record = await store.get("alpha")
                assert record is not None
                assert current is None or isinstance(record.current, Credential)
                assert current is not full or (record.current and isinstance(record.current.engine, Engine))

    @_in_a_loop
    async def test_keep_ends_the_intent_and_the_claim(self) -> None:
        async with self.place() as make, make() as store:
            claim = await _claimed(store, "alpha")
            await store.intend(claim, "alpha-login")
            assert await store.get("alpha") == Record(name="alpha", intended="alpha-login")
            await store.keep(claim, a_credential("alpha"))

            again = await _claimed(store, "alpha")
            assert again.record == Record(name="alpha", current=a_credential("alpha"))
            await _is_lost(store, claim)

    @_in_a_loop
    async def test_an_intent_leaves_the_credentials_as_they_were(self) -> None:
        record = Record(name="alpha", current=a_credential("alpha", "new"), previous=a_credential("alpha", "old"))
        async with self.place() as make, make() as store:
            await store.keep(await _claimed(store, "alpha"), record.current, record.previous)
            claim = await _claimed(store, "alpha")
            await store.intend(claim, "alpha-login-2")
            await store.intend(claim, "alpha-login-3")

            assert await store.get("alpha") == evolve(record, intended="alpha-login-3")
            await store.intend(claim, None)
            assert await store.get("alpha") == record

    @_in_a_loop
    async def test_release_frees_the_name_and_leaves_the_intent(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await _claimed(store, "alpha")
            await store.intend(claim, "alpha-login")
            await store.release(claim)
            await store.release(claim)

            again = await _claimed(other, "alpha")
            assert again.record == Record(name="alpha", intended="alpha-login")
            assert again.token != claim.token
            await _is_lost(store, claim)

    @_in_a_loop
    async def test_forget_removes_the_record_and_the_claim(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            await store.keep(await _claimed(store, "alpha"), a_credential("alpha"))
            claim = await _claimed(store, "alpha")
            await store.intend(claim, "alpha-login")
            await store.forget(claim)

            assert await other.get("alpha") is None
            assert await _all(other) == []
            await _is_lost(store, claim)
            assert await store.get("alpha") is None
            assert (await _claimed(other, "alpha")).record == Record(name="alpha")
            await _is_lost(store, claim)

    @_in_a_loop
    async def test_a_claim_is_free_when_its_lease_has_run_out(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await _claimed(store, "alpha", self.lease)
            await store.intend(claim, "alpha-login")
            await asyncio.sleep(self.lease * 1.2)

            taken_over = await _claimed(other, "alpha")
            assert taken_over.record == Record(name="alpha", intended="alpha-login")
            await _is_lost(store, claim)
            assert await other.get("alpha") == taken_over.record
            await store.release(claim)
            assert await store.claim("alpha", LONG) is None
            await other.keep(taken_over, a_credential("alpha"))

    @_in_a_loop
    async def test_renew_holds_a_claim_for_longer(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await _claimed(store, "alpha", self.lease)
            await store.renew(claim, LONG)
            await asyncio.sleep(self.lease * 1.2)

            assert await other.claim("alpha", LONG) is None
            await store.keep(claim, a_credential("alpha"))

    @_in_a_loop
    async def test_a_lease_that_ran_out_is_renewed_while_nobody_took_the_claim_over(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            claim = await _claimed(store, "alpha", self.lease)
            await asyncio.sleep(self.lease * 1.2)
            await store.renew(claim, LONG)

            assert await other.claim("alpha", LONG) is None

    @_in_a_loop
    async def test_all_records_come_by_name(self) -> None:
        names = [f"tenant-{number:04}" for number in range(1200)] + list(NASTY)
        async with self.place() as make, make() as store:
            for first in range(0, len(names), 100):
                await asyncio.gather(*(_kept(store, name) for name in names[first : first + 100]))

            records = await _all(store)
            assert [record.name for record in records] == sorted(names)
            assert all(record.current == a_credential(record.name) for record in records)

    @_in_a_loop
    async def test_names_are_taken_as_they_are(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for name in NASTY:
                await _kept(store, name)
            for name in NASTY:
                assert await other.get(name) == Record(name=name, current=a_credential(name))

    @_in_a_loop
    async def test_a_cancelled_change_is_made_whole_or_not_at_all(self) -> None:
        before = Record(name="alpha", current=a_credential("alpha", "old"), intended="alpha-login")
        after = Record(name="alpha", current=a_credential("alpha", "new"))
        async with self.place() as make, make() as store:
            for steps in range(12):
                await store.keep(await _claimed(store, "alpha"), before.current)
                claim = await _claimed(store, "alpha")
                await store.intend(claim, "alpha-login")
                await _cancelled_after(steps, store.keep(claim, a_credential("alpha", "new")))
                await store.release(claim)
                assert await store.get("alpha") in (before, after)

    @_in_a_loop
    async def test_a_cancelled_claim_is_not_held(self) -> None:
        async with self.place() as make, make() as store, make() as other:
            for steps in range(12):
                claim = await _cancelled_after(steps, store.claim("alpha", LONG))
                if claim is not None:  # it was claimed before it could be cancelled
                    await store.release(claim)
                await store.get("alpha")
                await other.release(await _claimed(other, "alpha"))

    @_in_a_loop
    async def test_a_store_that_is_not_open_says_so(self) -> None:
        async with self.place() as make:
            store = make()
            with _raises(StoreError):
                await store.get("alpha")
            async with store:
                await _claimed(store, "alpha")
            with _raises(StoreError):
                await store.get("alpha")

    @_in_a_loop
    async def test_no_secret_is_in_a_repr(self) -> None:
        async with self.place() as make, make() as store:
            await _kept(store, "alpha")
            claim = await _claimed(store, "alpha")
            assert "hunter2" in repr(claim.record.current and claim.record.current.password)
            assert "hunter2" not in f"{store!r} {store} {claim!r} {claim.record!r} {claim.record.current}"


async def _all(store: Store) -> list[Record]:
    return [record async for record in store.records()]


async def _claimed(store: Store, name: str, lease: float = LONG) -> Claim:
    claim = await store.claim(name, lease)
    assert claim is not None, f"{name!r} is free, and could not be claimed"
    return claim


async def _kept(store: Store, name: str) -> None:
    await store.keep(await _claimed(store, name), a_credential(name))


async def _is_lost(store: Store, claim: Claim) -> None:
    """With ``claim`` nothing can be changed any more."""
    before = await store.get(claim.name)
    changes: list[Callable[[], Awaitable[None]]] = [
        lambda: store.intend(claim, "somebody"),
        lambda: store.renew(claim, LONG),
        lambda: store.keep(claim, a_credential(claim.name, "late")),
        lambda: store.forget(claim),
    ]
    for change in changes:
        with _raises(ClaimLostError):
            await change()
    assert await store.get(claim.name) == before


class _raises:
    """``pytest.raises``, for who has no pytest."""

    def __init__(self, expected: type[Exception]) -> None:
        self.expected = expected

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        assert kind is not None, f"it did not raise {self.expected.__name__}"
        return issubclass(kind, self.expected)


async def _cancelled_after(steps: int, call: Coroutine[Any, Any, Any]) -> Any:
    """Cancel ``call`` after that many turns of the event loop: what it returned where it was done by then."""
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0.0005 * steps)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return await task
    return None
