"""Tenants on a cluster that refuses changes with 412 while it is resized."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aiodbclient import Action, DatabaseClient, RateBudget, Run
from aiodbclient.errors import PreconditionFailedError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants


async def online_when_it_waits(sandbox: Sandbox, cluster_id: str, run: Run[Any]) -> None:
    while run.waiting is None:
        await asyncio.sleep(0.01)
    assert run.waiting == "the cluster is resizing"
    sandbox.set_status(cluster_id, "online")


@pytest.mark.parametrize("engine", ["mongodb", "kafka"])
async def test_every_verb_waits_until_the_cluster_is_online(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiodbclient._request.pause._SHORTEST", 0.05)
    names = [f"t{n}" for n in range(20)]
    async with (
        Sandbox(windows=[]) as sandbox,
        DatabaseClient(sandbox.token, base_url=sandbox.url, budget=RateBudget([])) as client,
        SQLiteStore(tmp_path / "tenants.db") as store,
    ):
        cluster_id = await sandbox.add_cluster(engine)
        tenants = Tenants(client.cluster(cluster_id), store)
        plan = await tenants.plan([*names, "t20"])
        for verb, action in (
            (tenants.provision, Action.CREATED),
            (tenants.rotate, Action.ROTATED),
            (tenants.retire, Action.RETIRED),
            (lambda _: plan.apply(), None),
            (tenants.remove, Action.DELETED),
        ):
            sandbox.set_status(cluster_id, "resizing")
            before = sum(count for (_, status), count in sandbox.counts.items() if status == 412)
            run = verb(names)
            opened = asyncio.create_task(online_when_it_waits(sandbox, cluster_id, run))
            outcomes = [outcome async for outcome in run]
            await opened
            assert {outcome.error for outcome in outcomes} == {None}
            assert action is None or {outcome.action for outcome in outcomes} == {action}
            refused = sum(count for (_, status), count in sandbox.counts.items() if status == 412) - before
            assert 1 <= refused <= 16
        sandbox.set_status(cluster_id, "resizing")
        with pytest.raises(PreconditionFailedError) as caught:
            await tenants.ensure("t21")
        assert not caught.value.may_have_applied
