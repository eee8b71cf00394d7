"""Thousands of users on an API that fails in 5 % of its answers: every outcome is true."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from aiodbclient import Cluster
from aiodbclient.bulk import Action
from aiodbclient.sandbox import Sandbox

from ..thorough import first_of
from .truth import FAULTS, Truth

SHARE = 0.05


def break_some(sandbox: Sandbox, operation: str, count: int, seed: int) -> int:
    """Let about 5 % of the next ``count`` requests of an operation fail. Returns how many."""
    sandbox.faults.clear()
    chosen = random.Random(seed)
    broken = [n for n in range(1, count + 1) if chosen.random() < SHARE]
    for n in broken:
        sandbox.faults.add(f"users.{operation}", nth=n, **chosen.choice([*FAULTS.values()]))
    return len(broken)


@pytest.mark.parametrize("case", first_of([("pg", 500), ("pg", 5_000), ("mongodb", 500)]))
async def test_outcomes_of_many_users(sandbox: Sandbox, pg: Cluster, mongodb: Cluster, case: tuple[str, int]) -> None:
    engine, count = case
    cluster = {"pg": pg, "mongodb": mongodb}[engine]
    truth = Truth(sandbox, cluster.id)
    names = [f"t{n}" for n in range(count)]

    runs: dict[str, tuple[Any, Action]] = {
        "create": (cluster.users.provision, Action.CREATED),
        "reset_auth": (cluster.users.rotate, Action.RESET),
        "delete": (cluster.users.deprovision, Action.DELETED),
    }
    for seed, (operation, (run, action)) in enumerate(runs.items(), 1):
        broken = break_some(sandbox, operation, count, seed)
        outcomes = await run(names)
        print(f"{engine}: {operation}: {broken} faults, {Counter(str(each.action) for each in outcomes)}")
        assert {each.name for each in outcomes if each.action is action} == set(names)
        if action is not Action.DELETED:
            passwords = {each.name: each.user.password for each in outcomes}
            assert passwords == {name: truth.passwords[name] for name in names}
    assert set(truth.created.values()) == {1}
    assert set(truth.passwords) == {"doadmin"}
