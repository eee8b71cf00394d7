"""Two clusters, statements of both engines, and a program that writes all the time, to test and measure moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiomysql
import psycopg
import pymysql
from attrs import define, field
from psycopg import AsyncConnection

from aiodbclient import Cluster, DatabaseClient
from aiodbclient._http.call import RequestStats
from aiodbclient.engines import POSTGRESQL
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore, TenantPools, Tenants
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants.errors import TenantUnavailableError

from ..waiting import until
from .clients import client_of

_used = iter(range(10**6))
_WRITERS = 4
_FAILURES = (psycopg.Error, pymysql.Error, OSError, RuntimeError)  # of a statement or login


@define
class Two:
    """Two clusters, and a store."""

    sandbox: Sandbox
    client: DatabaseClient
    store: SQLiteStore
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
    async with client_of(sandbox) as client, SQLiteStore(path) as store:
        yield Two(sandbox, client, store, path, client.cluster(old), client.cluster(new))


async def connected(credential: Credential) -> Any:
    """A connection of the driver that a tenant's program uses."""
    if credential.engine in POSTGRESQL:
        return await AsyncConnection.connect(credential.uri, autocommit=True)
    return await aiomysql.connect(
        host=credential.host,
        port=credential.port,
        user=credential.username,
        password=credential.password,
        db=credential.database,
        ssl=credential.ssl_context(),
        autocommit=True,
    )


async def close(connection: Any) -> None:
    closing = connection.close()
    if closing is not None:  # psycopg's is a coroutine
        await closing


async def run(connection: Any, *statements: str) -> list[Any]:
    """Run statements, and return the rows of the last one."""
    rows = list[Any]()
    async with connection.cursor() as cursor:
        for statement in statements:
            await cursor.execute(statement)
            rows = [] if cursor.description is None else list(await cursor.fetchall())
    return rows


async def administrator_of(cluster: Cluster, database: str) -> str:
    """The URI with which the administrator of a cluster enters a database."""
    connection = (await cluster.info()).connection
    assert connection is not None
    return connection.uri_for(await cluster.users.get("doadmin"), database)


async def administer(cluster: Cluster, *statements: str) -> list[Any]:
    """Run statements as the administrator of a cluster, and return the rows of the last one."""
    uri = await administrator_of(cluster, "defaultdb")
    async with await AsyncConnection.connect(uri, autocommit=True) as session:
        return await run(session, *statements)


async def sql(credential: Credential, *statements: str) -> list[Any]:
    """Run statements as a tenant's program, and return the rows of the last one."""
    connection = await connected(credential)
    try:
        return await run(connection, *statements)
    finally:
        await close(connection)


async def enters(credential: Credential) -> bool:
    try:
        await sql(credential, "SELECT 1")
    except _FAILURES:
        return False
    return True


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
                await close(session)
        locked_out += 1
        await asyncio.sleep(0.02)
    moved = moving.result()
    assert moved.error is None
    assert locked_out > 1
    assert acknowledged <= {number for (number,) in await sql(moved.credential, "SELECT n FROM t")}
    return moved


@define
class Writes:
    """What a program wrote into the table ``t``."""

    acknowledged: set[int] = field(factory=set[int])
    errors: list[str] = field(factory=list[str])

    async def lost(self, credential: Credential) -> set[int]:
        """Those that were acknowledged, and are not in the database."""
        return self.acknowledged - {number for (number,) in await sql(credential, "SELECT n FROM t")}


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

    async with TenantPools(tenants, open=connected, close=close, max_pools=20) as pools, asyncio.TaskGroup() as tasks:
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
    await sql(moved.credential, f"DELETE FROM t WHERE n = {one}")
    assert await writes.lost(moved.credential) == {one}
    assert [error for error in writes.errors if "is being moved to another cluster" in error]
    assert [each.problems async for each in tenants.check(["alpha"])] == [()]
    return moved
