"""Processes claim, change and die in any order, and leases expire. Each store behaves like a small model."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from attrs import define
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from aiodbclient.tenants import Claim, Store, TenantRecord
from aiodbclient.tenants.errors import ClaimLostError

from ..own_stores import Stores
from ..store_contract import a_record, all_of

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
        by = "?" if self.kind.dsn is None else "make_interval(secs => ?)"
        self.kind.execute(self.name, f"UPDATE {{}} SET expires = expires - {by}", seconds)
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
