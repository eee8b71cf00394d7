"""What both stores of the package do beyond the contract of stores, also when processes claim and die in any order."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import traceback
from collections.abc import Callable, Coroutine
from math import inf, nan
from typing import Any

import pytest
from attrs import define
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.tenants import Claim, Store, TenantRecord
from aiodbclient.tenants.errors import ClaimLostError, StoreError

from ...proc import line, python
from ..own_stores import Stores, password
from ..store_contract import LONG, a_record, all_of, claimed, keep
from .test_codec import forged

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()
KEYS = pytest.mark.parametrize("key", [None, NEW], ids=["plain", "encrypted"])
DAMAGE = "UPDATE {} SET record = replace(record, 'hunter2', 'hunter3') WHERE name IN ('beta', 'delta')"


async def test_stopped_process_loses_claim(stores: Stores) -> None:
    """A process that was stopped past its lease changes nothing when it goes on."""
    async with stores.store("a") as store:
        with python("-m", "tests.tenants.claimer", stores.place("a"), "alpha", 0.5) as process:
            assert line(process) == "claimed"
            process.send_signal(signal.SIGSTOP)
            while (claim := await store.claim("alpha", LONG)) is None:
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGCONT)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert await asyncio.to_thread(line, process) == "ClaimLostError"
        await store.save(claim, a_record("alpha"))
        assert await password(store, "alpha") == "hunter2"


@pytest.mark.parametrize(
    ("written", "read", "why"),
    [
        (OLD, NEW, "was encrypted with another key"),
        (OLD, None, "is encrypted: open the store with its key="),
        (None, NEW, "is not encrypted"),
    ],
    ids=["another", "none", "not encrypted"],
)
async def test_other_key_is_refused(stores: Stores, written: bytes | None, read: bytes | None, why: str) -> None:
    async with stores.store("a", written) as store:
        await keep(store, "alpha")
    assert ("hunter2" in str(stores.execute("a", "SELECT record FROM {}"))) == (written is None)
    with pytest.raises(StoreError, match=why):
        await stores.store("a", read).__aenter__()


async def test_invalid_lease_is_refused(stores: Stores) -> None:
    async with stores.store("a") as store:
        claim = await claimed(store, "alpha")
        wrong: list[Any] = [nan, inf, -1, 0, "x", None]
        for lease in wrong:
            for call in (store.claim("beta", lease), store.renew(claim, lease)):
                with pytest.raises(InvalidArgumentError, match="lease must be a positive number of seconds"):
                    await call
        assert await store.get("beta") is None


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


async def test_damaged_records_are_listed_last_and_discarded(stores: Stores) -> None:
    async with stores.store("a") as store:
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
        both = r"record of 'beta' is damaged.* nor can the records of 'delta' be read"
        with pytest.raises(StoreError, match=both) as error:
            await anext(listed)
        assert error.value.damaged == ("beta", "delta")

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


PROCESSES = st.sampled_from([0, 1, 2])
CHANGES = st.sampled_from(["save", "renew", "finish", "delete", "remove"])
NAMES = ("alpha", "beta")
# No sum of these ends within 200 s of a lease, so the duration of the test does not matter.
LEASES = st.sampled_from([1_000.0, 10_000.0])
PAUSES = st.sampled_from([600.0, 6_000.0])


@define
class Held:
    """A claim in the model."""

    token: str
    expires: float


class Claims(RuleBasedStateMachine):
    """Three processes with a store of their own for the same records."""

    def __init__(self, kind: Stores) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.kind, self.name = kind, f"claims_{secrets.token_hex(4)}"
        self.stores = [self.opened() for _ in range(3)]
        self.now = 0.0
        self.records: dict[str, TenantRecord] = {}
        self.held: dict[str, Held] = {}
        self.claims: list[Claim] = []

    def opened(self) -> Store:
        return self.runner.run(self.kind.store(self.name).__aenter__())

    def teardown(self) -> None:
        for store in self.stores:
            self.runner.run(store.__aexit__(None, None, None))
        self.runner.close()

    @rule(process=PROCESSES, name=st.sampled_from(NAMES), lease=LEASES)
    def claim(self, process: int, name: str, lease: float) -> None:
        store, held = self.stores[process], self.held.get(name)
        free = held is None or held.expires <= self.now
        claim = self.runner.run(store.claim(name, lease))

        assert (claim is not None) == free
        if claim is not None:
            assert claim.token not in [each.token for each in self.claims]
            assert claim == Claim(name=name, token=claim.token, record=self.records.get(name))
            self.held[name] = Held(claim.token, self.now + lease)
            self.claims.append(claim)

    @rule(process=PROCESSES, of=st.integers(0, 5), do=CHANGES, lease=LEASES)
    def change(self, process: int, of: int, do: str, lease: float) -> None:
        """Any process may use any claim: the store identifies a claim by its token."""
        if of >= len(self.claims):
            return
        claim, store = self.claims[-1 - of], self.stores[process]
        held = self.held.get(claim.name)
        record = a_record(claim.name, secrets.token_hex(4))
        calls: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "save": lambda: store.save(claim, record),
            "renew": lambda: store.renew(claim, lease),
            "finish": lambda: store.save(claim, record, release=True),
            "delete": lambda: store.save(claim, None),
            "remove": lambda: store.save(claim, None, release=True),
        }
        if held is None or held.token != claim.token:
            with pytest.raises(ClaimLostError):
                self.runner.run(calls[do]())
            return
        self.runner.run(calls[do]())
        if do == "renew":
            held.expires = self.now + lease
        elif do in ("save", "finish"):
            self.records[claim.name] = record
        else:
            self.records.pop(claim.name, None)
        if do in ("finish", "remove"):
            del self.held[claim.name]

    @rule(process=PROCESSES, of=st.integers(0, 5))
    def release(self, process: int, of: int) -> None:
        if of < len(self.claims):
            claim = self.claims[-1 - of]
            self.runner.run(self.stores[process].release(claim))
            if claim.name in self.held and self.held[claim.name].token == claim.token:
                del self.held[claim.name]

    @rule(process=PROCESSES)
    def end(self, process: int) -> None:
        """A process ends, and another one starts."""
        self.runner.run(self.stores[process].__aexit__(None, None, None))
        self.stores[process] = self.opened()

    @rule(seconds=PAUSES)
    def wait(self, seconds: float) -> None:
        self.kind.execute(self.name, "UPDATE {} SET expires = expires - ?", seconds)
        self.now += seconds

    @invariant()
    def the_records_are_those_of_the_model(self) -> None:
        for store in self.stores[:2]:
            assert self.runner.run(all_of(store)) == sorted(self.records.values(), key=lambda record: record.name)


@pytest.mark.parametrize("times", [1, pytest.param(7, marks=pytest.mark.thorough)])
def test_random_claims_follow_the_model(stores: Stores, times: int) -> None:
    class OfTheseStores(Claims):
        def __init__(self) -> None:
            super().__init__(stores)

    limits = settings(
        max_examples=times * (20 if stores.dsn is None else 6),
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(OfTheseStores, settings=limits)
