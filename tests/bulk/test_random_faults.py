"""With runs and faults in any order, as a state machine draws them, the outcomes have the right passwords."""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aiodbclient import Cluster, DatabaseClient, NewUser, RateLimiter, RetryPolicy, UserSettings
from aiodbclient.bulk import Action, Run
from aiodbclient.errors import DatabaseClientError, NameTakenError, NotFoundError
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._protocol import RequestedUser

from ..changes import hide_new_users
from .truth import FAULTS, WITHOUT_CREDENTIALS, Truth

NAMES = [f"t{n}" for n in range(6)]
some_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
operations = st.sampled_from(["create", "create", "create", "reset_auth", "get", "delete", "list", "update"])
failures = st.sampled_from([*FAULTS.values(), {"status": 403}, {"delay": 0.01}, {"unseen_for": 0.03}])
faults = {"operation": operations, "failure": failures, "nth": st.integers(1, 3), "times": st.integers(1, 5)}
breakage = st.lists(st.fixed_dictionaries(faults), max_size=4)


class Operator(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.noted: dict[str, str | None] = {}  # None: exists, with an unknown password
        self.unsure: set[str] = set()  # the error said so, or it was never requested

    @initialize(engine=st.sampled_from(["pg", "mongodb"]), credentials=st.booleans())
    def start(self, engine: str, credentials: bool) -> None:
        self.runner.run(self._start(engine, credentials))

    async def _start(self, engine: str, credentials: bool) -> None:
        self.sandbox = await Sandbox(windows=[]).__aenter__()
        cluster_id = await self.sandbox.add_cluster(engine, backend="memory")
        token = self.sandbox.token if credentials else self.sandbox.add_token(WITHOUT_CREDENTIALS)
        self.truth = Truth(self.sandbox, cluster_id)
        self.client = DatabaseClient(
            token,
            base_url=self.sandbox.url,
            retry=RetryPolicy(max_tries=2, base_delay=0.001),
            rate_limiter=RateLimiter([]),
        )
        self.cluster: Cluster = self.client.cluster(cluster_id)

    def teardown(self) -> None:
        self.runner.run(self._end())
        self.runner.close()

    async def _end(self) -> None:
        await self.client.aclose()
        await self.sandbox.__aexit__(None, None, None)

    @rule(name=st.sampled_from(NAMES))
    def somebody_else_creates(self, name: str) -> None:
        if name not in self.truth.passwords:
            self.runner.run(self.truth._backend.create_user(RequestedUser(name, None, {})))
            self.unsure.add(name)

    @rule(
        names=some_names,
        if_exists=st.sampled_from(["keep", "reset", "error", "update"]),
        replicating=st.booleans(),
        concurrency=st.sampled_from([None, 1, 4]),
        broken=breakage,
    )
    def provision(
        self,
        names: list[str],
        if_exists: Literal["keep", "reset", "error", "update"],
        replicating: bool,
        concurrency: int | None,
        broken: list[dict[str, Any]],
    ) -> None:
        wanted = UserSettings(pg_allow_replication=replicating) if self.cluster.engine == "pg" else None
        specs = [NewUser(name, settings=wanted) for name in names]
        run = self.cluster.users.provision(specs, if_exists=if_exists, concurrency=concurrency)
        self._take(run, names, broken, may_reset=if_exists == "reset")

    @rule(names=some_names, broken=breakage)
    def rotate(self, names: list[str], broken: list[dict[str, Any]]) -> None:
        self._take(self.cluster.users.rotate(names), names, broken, may_reset=True)

    @rule(names=some_names, broken=breakage)
    def deprovision(self, names: list[str], broken: list[dict[str, Any]]) -> None:
        self._take(self.cluster.users.deprovision(names), names, broken, may_reset=False)

    def _take(self, run: Run[Any], names: list[str], broken: list[dict[str, Any]], *, may_reset: bool) -> None:
        before = self.truth.passwords
        self.truth.created.clear()
        self.truth.reset.clear()
        for fault in broken:
            selected = {"nth": fault["nth"], "times": fault["times"]}
            if "unseen_for" in fault["failure"]:
                hide_new_users(self.sandbox, fault["failure"]["unseen_for"], **selected)
            else:
                self.sandbox.faults.add(f"users.{fault['operation']}", **selected, **fault["failure"])
        self.runner.run(self._outcomes(run))
        self.sandbox.faults.clear()
        assert set(self.truth.created) <= set(names) - set(before)
        assert max(self.truth.created.values(), default=1) == 1
        assert set(self.truth.reset) <= (set(names) if may_reset else set(self.truth.created))

    async def _outcomes(self, run: Run[Any]) -> None:
        broken = [fault.options["operation"] for fault in self.sandbox.faults]
        try:
            async for outcome in run:
                self._note(outcome.name, outcome.action, outcome.user, outcome.error)
                if outcome.error is not None and not isinstance(outcome.error, NameTakenError | NotFoundError):
                    assert broken, "nothing was wrong"
        except DatabaseClientError:
            assert "users.list" in broken, "only a list that cannot be read ends the run"

    def _note(self, name: str, action: Action, user: Any, error: Exception | None) -> None:
        if action is Action.FAILED:
            assert isinstance(error, DatabaseClientError)
            if error.may_have_applied:
                self.unsure.add(name)
            return
        if action in (Action.DELETED, Action.ABSENT):
            self.unsure.discard(name)
            self.noted.pop(name, None)
        elif action in (Action.KEPT, Action.UPDATED):
            if user.password is not None:
                assert user.password == self.truth.passwords[name]
        else:
            self.unsure.discard(name)
            self.noted[name] = user.password

    @invariant()
    def the_notes_are_true(self) -> None:
        if hasattr(self, "truth"):
            truth = self.truth.passwords
            assert set(truth) <= {"doadmin", *self.noted, *self.unsure}
            for name in set(self.noted) - self.unsure:
                assert self.noted[name] is not None
                assert self.noted[name] == truth[name]


Operator.TestCase.settings = settings(
    max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class TestOperator(Operator.TestCase):  # type: ignore[valid-type, misc]
    def setUp(self) -> None:
        super().setUp()
        quick: dict[str, Any] = {"READ_DELAY": 0.3, "FIRST_POLL": 0.005, "RESET_DELAY": 0.005}
        self.enterContext(patch.multiple("aiodbclient._bulk.settle", **quick))
