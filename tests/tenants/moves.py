"""Two clusters, and a program that writes all the time, to test and measure moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from attrs import define, field
from psycopg import AsyncConnection

from aiodbclient import Cluster, DatabaseClient
from aiodbclient._http.call import RequestStats
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, TenantPools, Tenants
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants.errors import TenantUnavailableError

from ..waiting import until
from .clients import client_of
from .own_stores import HookedStore
from .programs import ask, run
from .servers import RestartablePostgres

Step = Callable[..., Awaitable[object]]
_used = iter(range(10**6))
_WRITERS = 4
_FAILURES = (psycopg.Error, OSError, RuntimeError)  # of a statement or login


@define
class Two:
    """Two clusters, and a store."""

    sandbox: Sandbox
    client: DatabaseClient
    store: HookedStore
    path: Path
    old: Cluster
    new: Cluster
    prefix: str = field(factory=lambda: f"m{next(_used)}_")

    def tenants(self, **options: Any) -> Tenants:
        return Tenants([self.old, self.new], self.store, prefix=self.prefix, **{"choose_cluster": self._old} | options)

    async def _old(self, *_: object) -> str:
        return self.old.id


@asynccontextmanager
async def opened(sandbox: Sandbox, old: str, new: str, path: Path) -> AsyncIterator[Two]:
    async with client_of(sandbox) as client, HookedStore(path) as store:
        yield Two(sandbox, client, store, path, client.cluster(old), client.cluster(new))


@asynccontextmanager
async def between(source: RestartablePostgres, target: RestartablePostgres, folder: Path) -> AsyncIterator[Two]:
    """Two clusters on these servers, which are stopped afterwards."""
    with closing(source), closing(target), Sandbox(windows=[]) as sandbox:
        old, new = [await sandbox.add_cluster("pg", server=each.dsn) for each in (source, target)]
        async with opened(sandbox, old, new, folder / "store") as two:
            yield two


@contextmanager
def stepped(owner: Any, step: str, before: Step | None = None, *, after: Step | None = None) -> Iterator[None]:
    """Call functions of the test before and after each run of a step, with its arguments."""
    its = getattr(owner, step)

    async def run(*arguments: Any, **options: Any) -> Any:
        if before is not None:
            await before(*arguments, **options)
        done = await its(*arguments, **options)
        if after is not None:
            await after(*arguments, **options)
        return done

    with patch.object(owner, step, run):
        yield


async def connected(credential: Credential) -> AsyncConnection[Any]:
    """A connection of a tenant's program."""
    return await AsyncConnection.connect(credential.uri, autocommit=True)


async def left_on(tenants: Tenants, cluster: Cluster, name: str) -> tuple[bool, list[str]]:
    """Whether the cluster has a database of the tenant, and what it has of its logins."""
    context = tenants._context
    on_cluster = await context.clusters.get(cluster.id, RequestStats())
    found = await on_cluster.server.inspect(names_of(name, on_cluster.engine, context.prefix))
    return found.database, [*found.logins, *found.disabled]


async def moved_beside(two: Two, neighbour: Credential) -> Any:
    """Move the tenant alpha while a neighbour, who may do so, writes into its table ``t``. Return the outcome."""
    acknowledged, locked_out = set[int](), 0

    async def move() -> Any:
        await until(lambda: len(acknowledged) >= 5)
        [outcome] = [each async for each in two.tenants().move(["alpha"], to=two.new)]
        return outcome

    moving = asyncio.ensure_future(move())
    while not moving.done():
        with suppress(*_FAILURES):
            session = await connected(neighbour)
            try:
                while not moving.done():
                    await run(session, f"INSERT INTO t VALUES ({len(acknowledged)})")
                    acknowledged.add(len(acknowledged))
            finally:
                await session.close()
        locked_out += 1
        await asyncio.sleep(0.02)
    moved = moving.result()
    assert moved.error is None
    assert locked_out > 1
    assert acknowledged <= {number for (number,) in await ask(moved.credential, "SELECT n FROM t")}
    return moved


@define
class Writes:
    """What a program wrote into the table ``t``."""

    acknowledged: set[int] = field(factory=set[int])
    errors: list[str] = field(factory=list[str])

    async def lost(self, credential: Credential) -> set[int]:
        """Those that were acknowledged, and are not in the database."""
        return self.acknowledged - {number for (number,) in await ask(credential, "SELECT n FROM t")}


@asynccontextmanager
async def writing(tenants: Tenants, name: str, before: int = 30, after: int = 10) -> AsyncIterator[Writes]:
    """Write all the time in four tasks through ``TenantPools``, also so many rows ``before`` and ``after``."""
    writes, numbers, turn = Writes(), iter(range(10**9)), asyncio.Lock()  # a connection takes one statement at a time

    async def write(pools: TenantPools[Any]) -> None:
        while True:
            number = next(numbers)
            try:
                async with turn, pools.use(name) as connection:
                    await run(connection, f"INSERT INTO t VALUES ({number})")
                    writes.acknowledged.add(number)
            except (*_FAILURES, TenantUnavailableError) as error:
                writes.errors.append(str(error))
                await asyncio.sleep(0.02)

    async with (
        TenantPools(tenants, open=connected, close=AsyncConnection[Any].close, max_pools=20) as pools,
        asyncio.TaskGroup() as tasks,
    ):
        writers = [tasks.create_task(write(pools)) for _ in range(_WRITERS)]
        await until(lambda: len(writes.acknowledged) >= before)
        yield writes
        enough = len(writes.acknowledged) + after
        await until(lambda: len(writes.acknowledged) >= enough)
        for each in writers:
            each.cancel()


async def moved_while_written(two: Two, tenants: Tenants) -> Any:
    """Move the tenant alpha while a program writes to it, and no write is lost. Return the outcome."""
    async with writing(tenants, "alpha") as writes:
        [moved] = [each async for each in tenants.move(["alpha"], to=two.new)]
        assert moved.error is None
        during = len(writes.acknowledged)
    assert len(writes.acknowledged) > during
    assert await writes.lost(moved.credential) == set()
    one = min(writes.acknowledged)  # the control
    await ask(moved.credential, f"DELETE FROM t WHERE n = {one}")
    assert await writes.lost(moved.credential) == {one}
    assert [error for error in writes.errors if "is being moved to another cluster" in error]
    assert [each.problems async for each in tenants.check(["alpha"])] == [()]
    return moved
