"""Thousands of users on an API that fails in 5 % of its answers: every outcome is true."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from aiodbclient import Action, ClusterClient
from aiodbclient.sandbox import Sandbox

from ..changes import html
from ..thorough import first_of
from .truth import Truth

SHARE = 0.05
FAULTS: list[dict[str, Any]] = [
    {"cut": True},
    {"cut": True, "after": True},
    {"status": 500},
    {"status": 502, "after": True},
    {"status": 200, "change": html},
    {"status": 200, "change": html, "after": True},
    {"status": 429, "headers": {"retry-after": "0.01"}},
]


def break_some(sandbox: Sandbox, operation: str, count: int, seed: int) -> int:
    """Let about 5 % of the next ``count`` requests of an operation fail. Returns how many."""
    sandbox.faults.clear()
    chosen = random.Random(seed)
    broken = [n for n in range(1, count + 1) if chosen.random() < SHARE]
    for n in broken:
        sandbox.faults.add(f"users.{operation}", nth=n, **chosen.choice(FAULTS))
    return len(broken)


@pytest.mark.parametrize("case", first_of([("pg", 500), ("pg", 5_000), ("mongodb", 500)]))
async def test_outcomes_of_many_users(
    sandbox: Sandbox, pg: ClusterClient, mongodb: ClusterClient, case: tuple[str, int]
) -> None:
    engine, count = case
    cluster = {"pg": pg, "mongodb": mongodb}[engine]
    truth = Truth(sandbox, cluster.id)
    names = [f"t{n}" for n in range(count)]

    broken = break_some(sandbox, "create", count, seed=1)
    created = await cluster.users.provision(names)
    print(f"{engine}: create: {broken} faults, {Counter(str(each.action) for each in created)}")
    assert {each.name for each in created if each.action is Action.CREATED} == set(names)
    assert {each.name: each.user and each.user.password for each in created} == {
        name: truth.passwords[name] for name in names
    }
    assert set(truth.created.values()) == {1}

    broken = break_some(sandbox, "reset_auth", count, seed=2)
    rotated = await cluster.users.rotate(names)
    print(f"{engine}: reset_auth: {broken} faults, {Counter(str(each.action) for each in rotated)}")
    assert {each.name for each in rotated if each.action is Action.RESET} == set(names)
    assert {each.name: each.user and each.user.password for each in rotated} == {
        name: truth.passwords[name] for name in names
    }

    broken = break_some(sandbox, "delete", count, seed=3)
    deleted = await cluster.users.deprovision(names)
    print(f"{engine}: delete: {broken} faults, {Counter(str(each.action) for each in deleted)}")
    assert {each.name for each in deleted if each.action is Action.DELETED} == set(names)
    assert set(truth.passwords) == {"doadmin"}
