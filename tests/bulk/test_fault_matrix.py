"""Every fault in every operation of a bulk run, over real HTTP.

In all cases: a reported password is the server's current one; no user exists that was not
requested; no user is created twice; and no existing user is changed without a request.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from itertools import product, starmap
from typing import Any

import aiohttp
import pytest

from aiodbclient import Cluster, DatabaseClient, RateLimiter, RetryPolicy, errors
from aiodbclient.bulk import Action, RemovalOutcome, Run, UserDone, UserOutcome
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox

from ..changes import hide_new_users
from ..server import time_out_if_late
from ..thorough import first_of
from .truth import FAULTS, WITHOUT_CREDENTIALS, Truth, requests

OPERATIONS = ["create", "reset_auth", "delete", "list", "get"]
ENGINES = ["pg", "mongodb", "pg without the credentials scope"]
CASES: dict[str, dict[str, Any]] = FAULTS | {
    "timeout after": {"headers": {"x-too-late": "1"}},
    "slow": {"delay": 0.1},
    "404 on read-back": {"cut": True, "after": True},
}
UNSEEN = 0.12

KEPT, ROTATED, GONE = ["kept-0", "kept-1"], ["rotated-0", "rotated-1"], ["gone-0", "gone-1"]
NEW = ["new-lost", "new-cut", "new"]


@pytest.fixture(autouse=True)
def enough_time(quick_polls: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiodbclient._bulk.settle.READ_DELAY", 10 * UNSEEN)  # the rest is margin for a busy machine
    monkeypatch.setattr("aiodbclient._http.resets._MAX_PAUSE", 0.05)


class Case:
    """One fault in one operation, on its own cluster, with the users before and the outcomes of the runs."""

    def __init__(self, what: str, truth: Truth) -> None:
        self.what = what
        self.truth = truth
        self.before = truth.passwords
        self.outcomes: dict[str, UserOutcome | RemovalOutcome] = {}

    async def take(self, run: Run[Any]) -> None:
        async for outcome in run:
            self.outcomes[outcome.name] = outcome

    def __repr__(self) -> str:
        return self.what


async def provision_rotate_deprovision(case: Case, cluster: Cluster) -> None:
    await case.take(cluster.users.provision([*NEW, KEPT[0]]))
    await case.take(cluster.users.rotate(ROTATED))
    await case.take(cluster.users.deprovision(GONE))


@asynccontextmanager
async def prepared(sandbox: Sandbox, engine: str, operation: str, fault: str, times: int | None, max_tries: int) -> Any:
    cluster_id = await sandbox.add_cluster(engine.split()[0], backend="memory")
    token = sandbox.add_token(WITHOUT_CREDENTIALS) if engine.endswith("scope") else sandbox.token
    async with (
        DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as patient,
        aiohttp.ClientSession(middlewares=[time_out_if_late]) as session,
        DatabaseClient(
            token,
            base_url=sandbox.url,
            session=session,
            retry=RetryPolicy(max_tries=max_tries, base_delay=0.01),
            rate_limiter=RateLimiter([Window(1_000, 0.25)]),
        ) as client,
    ):
        cluster = client.cluster(cluster_id)
        truth = Truth(sandbox, cluster_id)
        for name in [*KEPT, *ROTATED, *GONE]:
            await patient.cluster(cluster_id).users.create(name)
        truth.created.clear()
        # Two creates are always lost, so that the read-back and the reset are needed.
        sandbox.faults.add("users.create", cluster=cluster_id, name="new-lost", nth=1, status=500, after=True)
        sandbox.faults.add("users.create", cluster=cluster_id, name="new-cut", nth=1, cut=True)
        sandbox.faults.add(f"users.{operation}", cluster=cluster_id, times=times, **CASES[fault])
        if fault == "404 on read-back":
            hide_new_users(sandbox, UNSEEN, cluster=cluster_id)
        yield Case(f"{fault} at {operation} on {engine}", truth), cluster


def check_invariant(case: Case) -> None:
    truth = case.truth
    for name, outcome in case.outcomes.items():
        if outcome.action in (Action.CREATED, Action.RESET):
            assert isinstance(outcome, UserDone), case
            assert outcome.user.password == truth.passwords[name], (case, name)
            assert outcome.user.password is not None, (case, name)
        elif outcome.action is Action.KEPT:
            assert isinstance(outcome, UserDone), case
            assert outcome.user.password in (None, truth.passwords[name]), (case, name)
        elif outcome.action in (Action.DELETED, Action.ABSENT):
            assert name not in truth.passwords, (case, name)
        else:
            changed = truth.passwords.get(name) != case.before.get(name)
            assert isinstance(outcome.error, errors.DatabaseClientError), (case, name)
            assert outcome.error.may_have_applied or not changed, (case, name)
    assert set(truth.created) <= set(NEW), case
    assert all(times == 1 for times in truth.created.values()), case
    assert set(truth.reset) <= {*NEW, *ROTATED}, case
    assert set(truth.passwords) <= {"doadmin", *KEPT, *ROTATED, *GONE, *NEW}, case
    assert {name: truth.passwords[name] for name in KEPT} == {name: case.before[name] for name in KEPT}, case


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_passing_faults_leave_no_failure(sandbox: Sandbox, operation: str) -> None:
    async def one(engine: str, fault: str) -> None:
        async with prepared(sandbox, engine, operation, fault, times=2, max_tries=6) as (case, cluster):
            await provision_rotate_deprovision(case, cluster)

        check_invariant(case)
        assert {name: outcome.action for name, outcome in case.outcomes.items()} == {
            **dict.fromkeys(NEW, Action.CREATED),
            KEPT[0]: Action.KEPT,
            **dict.fromkeys(ROTATED, Action.RESET),
            **dict.fromkeys(GONE, Action.DELETED),
        }, case
        assert set(case.truth.created) == set(NEW), case

    await asyncio.gather(*starmap(one, product(ENGINES, CASES)))
    assert requests(sandbox, f"users.{operation}") > len(ENGINES) * len(CASES)


@pytest.mark.parametrize("operation", first_of(OPERATIONS, 2))
async def test_lasting_faults_are_reported(sandbox: Sandbox, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiodbclient._bulk.settle.READ_DELAY", UNSEEN)  # no time is enough

    async def one(engine: str, fault: str) -> None:
        async with prepared(sandbox, engine, operation, fault, times=None, max_tries=2) as (case, cluster):
            with suppress(errors.DatabaseClientError):  # a list that cannot be read ends the run
                await provision_rotate_deprovision(case, cluster)

        check_invariant(case)
        if operation == "list" and fault != "slow":
            assert case.outcomes == {}
            assert not case.truth.created
        else:
            assert len(case.outcomes) == len([*NEW, KEPT[0], *ROTATED, *GONE]), case

    await asyncio.gather(*starmap(one, product(ENGINES, [fault for fault in CASES if fault != "429"])))
