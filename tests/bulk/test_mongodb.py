"""A MongoDB cluster answers 500 to overlapping user writes, so a client sends them one at a time."""

from __future__ import annotations

import asyncio

from aiodbclient import Cluster, DatabaseClient
from aiodbclient.bulk import Action
from aiodbclient.sandbox import Sandbox

from .truth import Truth, requests


async def test_parallel_creates_take_turns(sandbox: Sandbox, client: DatabaseClient, mongodb: Cluster) -> None:
    same = client.cluster(mongodb.id, engine="mongodb")
    names = [f"t{n}" for n in range(20)]

    users = await asyncio.gather(*((mongodb, same)[n % 2].users.create(name) for n, name in enumerate(names)))

    assert [user.name for user in users] == names
    assert sandbox.counts["users.create", 201] == requests(sandbox, "users.create") == 20


async def test_run_beside_single_calls(sandbox: Sandbox, mongodb: Cluster) -> None:
    truth = Truth(sandbox, mongodb.id)
    reported: dict[str, str | None] = {}

    async def provision() -> None:
        async for outcome in mongodb.users.provision((f"t{n}" for n in range(100)), concurrency=8):
            assert outcome.action is Action.CREATED, outcome.error
            assert outcome.user is not None
            reported[outcome.name] = outcome.user.password

    async def single() -> None:
        for n in range(10):
            user = await mongodb.users.create(f"single-{n}")
            reported[user.name] = (await mongodb.users.reset_auth(user.name)).password

    await asyncio.gather(provision(), single())

    assert len(reported) == 110
    assert reported == {name: password for name, password in truth.passwords.items() if name != "doadmin"}
    assert not any(status == 500 for _, status in sandbox.counts)
