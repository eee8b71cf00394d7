"""A tenant is moved to another cluster: no acknowledged write is lost, and there is one whole tenant at any moment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import define, field
from psycopg import AsyncConnection

from aiodbclient import Action, ClusterClient, DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.errors import (
    ConflictError,
    InvalidArgumentError,
    MoveError,
    RotationPendingError,
    SuspendedError,
    TenantNotFoundError,
)
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore, TenantPools, Tenants

from .conftest import only

_used = iter(range(10**6))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[tuple[Sandbox, str, str]]:
    """A sandbox with two clusters of PostgreSQL."""
    with Sandbox(windows=[]) as sandbox:
        old, new = [asyncio.run(sandbox.add_cluster("pg", backend="postgres")) for _ in range(2)]
        yield sandbox, old, new


@define
class Two:
    """Two clusters, and a store."""

    sandbox: Sandbox
    client: DatabaseClient
    store: SQLiteStore
    path: Path
    old: ClusterClient
    new: ClusterClient
    prefix: str = field(factory=lambda: f"m{next(_used)}_")

    def tenants(self, **options: Any) -> Tenants:
        return Tenants([self.old, self.new], self.store, self.prefix, **{"place": self._old} | options)

    async def _old(self, *_: object) -> str:
        return self.old.id


@asynccontextmanager
async def opened(sandbox: tuple[Sandbox, str, str], path: Path) -> AsyncIterator[Two]:
    api, old, new = sandbox
    async with (
        DatabaseClient(
            api.token, base_url=api.url, budget=RateBudget([]), retry=RetryPolicy(base_delay=0.01)
        ) as client,
        SQLiteStore(path) as store,
    ):
        yield Two(api, client, store, path, client.cluster(old), client.cluster(new))


@pytest.fixture
async def two(sandbox: tuple[Sandbox, str, str], tmp_path: Path) -> AsyncIterator[Two]:
    async with opened(sandbox, tmp_path / "store") as two:
        yield two


async def sql(credential: Credential, *statements: str) -> list[Any]:
    """Run statements as a tenant's program, and return the rows of the last one."""
    rows: list[Any] = []
    async with await AsyncConnection.connect(credential.uri, autocommit=True) as connection:
        for statement in statements:
            cursor = await connection.execute(statement)
            rows = [] if cursor.description is None else await cursor.fetchall()
    return rows


async def enters(credential: Credential) -> bool:
    try:
        await sql(credential, "SELECT 1")
    except psycopg.Error:
        return False
    return True


async def left_on(tenants: Tenants, cluster: ClusterClient, name: str) -> tuple[bool, list[str]]:
    """Whether the cluster has a database of the tenant, and what it has of its logins."""
    context = tenants._context
    from aiodbclient._request.call import Meter
    from aiodbclient.tenants._clusters import JobSites
    from aiodbclient.tenants._naming import Role, names_of

    site = await JobSites(context.sites, None).site(cluster.id, Meter())  # type: ignore[arg-type]
    logins = []
    database = False
    for role in Role:
        found = await site.server.find(names_of(name, site.engine, context.prefix, role))
        database |= found.database
        logins += [*found.logins, *found.ended]
    return database, logins


async def test_a_tenant_with_its_roles_is_on_the_other_cluster_and_nothing_is_left(two: Two) -> None:
    tenants = two.tenants()
    before = await tenants.ensure("alpha")
    reader, writer = await tenants.role("reader").ensure("alpha"), await tenants.role("writer").ensure("alpha")
    await sql(before, "CREATE TABLE t (n int)", "INSERT INTO t SELECT generate_series(1, 100)")
    await only(tenants.role("writer").suspend(["alpha"]))

    run = tenants.move(["alpha"], to=two.new)
    moved = await only(run)
    assert moved.error is None
    assert (moved.action, moved.credential.cluster) == (Action.MOVED, two.new.id)
    assert timedelta(0) < moved.frozen < timedelta(seconds=20)
    assert moved.bytes > 1_000_000
    assert run.copied > 1_000
    after = await tenants.get("alpha")
    assert after is not None
    assert (after, after.username) == (moved.credential, before.username)
    assert await sql(after, "SELECT count(*) FROM t") == [(100,)]
    assert await left_on(tenants, two.old, "alpha") == (False, [])
    assert not any([await enters(each) for each in (before, reader, writer)])

    reading = await tenants.role("reader").get("alpha")
    assert reading is not None
    assert reading.cluster == two.new.id
    assert await sql(reading, "SELECT count(*) FROM t") == [(100,)]
    assert await tenants.role("writer").get("alpha") is None
    writing = (await only(tenants.role("writer").resume(["alpha"]))).credential
    assert writing is not None
    await sql(writing, "INSERT INTO t VALUES (101)")
    for role in ("owner", "reader", "writer"):
        assert (await only(tenants.role(role).check(["alpha"]))).problems == ()
    assert (await only(tenants.move(["alpha"], to=two.new.id))).action is Action.KEPT
    back = await only(tenants.move(["alpha"]))
    assert (back.action, back.credential and back.credential.cluster) == (Action.MOVED, two.old.id)


async def test_what_cannot_be_moved_is_refused_before_anything_is_sent(two: Two) -> None:
    tenants = two.tenants()
    for role in ("reader", "writer"):
        with pytest.raises(InvalidArgumentError, match="move with their tenant"):
            tenants.role(role).move(["alpha"])
    with pytest.raises(InvalidArgumentError, match="have one cluster"):
        Tenants(two.old, two.store).move(["alpha"])
    with pytest.raises(InvalidArgumentError, match="to must be one of the clusters"):
        tenants.move(["alpha"], to="another")
    with pytest.raises(InvalidArgumentError, match="max_frozen must be"):
        tenants.move(["alpha"], max_frozen=timedelta(0))
    assert isinstance((await only(tenants.move(["nobody"]))).error, TenantNotFoundError)


async def test_a_suspended_tenant_is_moved_and_stays_suspended(two: Two) -> None:
    tenants = two.tenants()
    await sql(await tenants.ensure("alpha"), "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)")
    await only(tenants.suspend(["alpha"]))
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    assert (moved.action, moved.frozen) == (Action.MOVED, timedelta(0))
    assert await tenants.get("alpha") is None
    with pytest.raises(SuspendedError, match="is suspended since"):
        await tenants.ensure("alpha")
    assert (await left_on(tenants, two.new, "alpha"))[0]
    resumed = (await only(tenants.resume(["alpha"]))).credential
    assert resumed is not None
    assert await sql(resumed, "SELECT n FROM t") == [(7,)]


async def test_a_tenant_between_rotation_and_retirement_is_moved(two: Two) -> None:
    tenants = two.tenants()
    before = await tenants.ensure("alpha")
    rotated = (await only(tenants.rotate(["alpha"]))).credential
    assert rotated is not None
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    assert not any([await enters(each) for each in (before, rotated)])
    assert (await only(tenants.rotate(["alpha"]))).action is Action.ROTATED


@asynccontextmanager
async def writing(tenants: Tenants, name: str) -> AsyncIterator[tuple[set[int], list[str]]]:
    """Write all the time in four tasks. Yields the writes that were acknowledged, and the errors."""
    acknowledged, errors, numbers = set[int](), list[str](), iter(range(10**9))

    async def open_one(credential: Credential) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(credential.uri, autocommit=True)

    async def write(pools: TenantPools[AsyncConnection[Any]]) -> None:
        while True:
            number = next(numbers)
            try:
                async with pools.use(name) as connection:
                    await connection.execute("INSERT INTO t VALUES (%s)", [number])
                    acknowledged.add(number)
            except (psycopg.Error, SuspendedError) as error:
                errors.append(type(error).__name__ if isinstance(error, psycopg.Error) else str(error))
                await asyncio.sleep(0.02)

    async with (
        TenantPools(tenants, open=open_one, close=AsyncConnection.close) as pools,
        asyncio.TaskGroup() as tasks,
    ):
        running = [tasks.create_task(write(pools)) for _ in range(4)]
        await asyncio.sleep(0.3)
        yield acknowledged, errors
        await asyncio.sleep(0.5)
        for each in running:
            each.cancel()


async def test_a_failure_in_the_middle_opens_the_tenant_again_as_it_was(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    reader = await tenants.role("reader").ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    rotated = await tenants.get("alpha")
    assert rotated is not None
    await sql(
        alpha,
        "CREATE FUNCTION f(n int) RETURNS boolean LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM set_config('role', 'none', false); RETURN true; END$$",
        "CREATE TABLE t (n int CHECK (f(n)))",
        "INSERT INTO t VALUES (1)",
    )
    failed = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(failed.error, MoveError)
    assert f"was not moved to the cluster {two.new.id}: pg_restore failed" in str(failed.error)
    assert str(failed.error).endswith(f"it is on the cluster {two.old.id}")
    assert all([await enters(each) for each in (alpha, reader, rotated)])
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    for role in ("owner", "reader"):
        assert (await only(tenants.role(role).check(["alpha"]))).problems == ()
    assert (await only(tenants.retire(["alpha"]))).action is Action.RETIRED


async def test_a_move_that_takes_too_long_is_left_or_ended(two: Two) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    kept = await only(tenants.move(["alpha"], to=two.new, max_frozen=timedelta(milliseconds=100)))
    assert kept.error is None
    assert (kept.action, kept.bytes > 1_000_000) == (Action.KEPT, True)
    too_slow = await only(tenants.move(["alpha"], to=two.new, max_frozen=timedelta(milliseconds=400)))
    if too_slow.error is not None:
        assert "it was not copied within 0.4 s" in str(too_slow.error)
        assert await enters(alpha)
        assert await left_on(tenants, two.new, "alpha") == (False, [])


async def test_a_cancelled_move_leaves_the_tenant_open(two: Two) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    await sql(alpha, "CREATE TABLE t (n int)")
    for seconds in (0.1, 0.4, 0.8):
        moving = asyncio.ensure_future(only(tenants.move(["alpha"], to=two.new)))
        await asyncio.sleep(seconds)
        moving.cancel()
        with suppress(asyncio.CancelledError):
            await moving
            break
        credential = await tenants.get("alpha")
        assert credential is not None
        assert await enters(credential)
    await only(tenants.repair(["alpha"]))
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_what_others_made_on_the_other_cluster_is_not_touched(two: Two) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    await two.new.dbs.create(alpha.database)
    refused = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(refused.error, ConflictError)
    assert await enters(alpha)
    await two.new.dbs.delete(alpha.database)


async def test_an_adopted_login_must_be_retired_first(two: Two) -> None:
    tenants = two.tenants()
    await two.old.dbs.create(f"{two.prefix}alpha")
    await two.old.users.create(f"{two.prefix}alpha")
    await tenants.ensure("alpha", if_exists="adopt")
    assert isinstance((await only(tenants.move(["alpha"], to=two.new))).error, RotationPendingError)
    await only(tenants.retire(["alpha"]))
    assert (await only(tenants.move(["alpha"], to=two.new))).action is Action.MOVED


async def test_usage_and_rooms_show_how_large_tenants_are(two: Two) -> None:
    tenants = two.tenants()
    credential = await tenants.ensure("alpha")
    await tenants.ensure("beta")
    async with await AsyncConnection.connect(credential.uri):
        found = {each.name: each async for each in tenants.usage()}
    assert set(found) == {"alpha", "beta"}
    assert found["alpha"].cluster == two.old.id
    assert (found["alpha"].bytes or 0) > 1_000_000
    assert (found["alpha"].connections, found["beta"].connections) == (1, 0)
    [nobody] = [each async for each in tenants.usage(["nobody"])]
    assert (nobody.bytes, type(nobody.error)) == (None, TenantNotFoundError)
    old, new = await tenants.rooms(usage=True)
    assert (old.name, (old.bytes or 0) > 2_000_000) == ((await two.old.info()).name, True)
    assert new.bytes is not None
    assert [room.bytes for room in await tenants.rooms()] == [None, None]


async def test_a_tenant_is_dumped_and_loaded(two: Two, tmp_path: Path) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    await tenants.role("reader").ensure("alpha")
    await sql(alpha, "CREATE TABLE t (n int)", "INSERT INTO t SELECT generate_series(1, 50)")
    dumped = await only(tenants.dump(["alpha"], tmp_path))
    assert dumped.error is None
    assert (dumped.action, dumped.file) == (Action.DONE, tmp_path / "alpha.dump")
    assert dumped.bytes == (tmp_path / "alpha.dump").stat().st_size
    assert await left_on(tenants, two.old, "alpha") == (True, [alpha.username, *await logins_of(tenants, "alpha")])
    assert (await only(tenants.check(["alpha"]))).problems == ()

    beta = await tenants.ensure("beta")
    reader = await tenants.role("reader").ensure("beta")
    assert await tenants.load("beta", tmp_path / "alpha.dump") == beta
    assert await sql(beta, "SELECT count(*) FROM t") == [(50,)]
    assert await sql(reader, "SELECT count(*) FROM t") == [(50,)]
    with pytest.raises(ConflictError, match="is not empty"):
        await tenants.load("beta", tmp_path / "alpha.dump")
    (tmp_path / "alpha.dump").write_bytes(b"PGDMP" + b"x" * 100)
    await tenants.ensure("gamma")
    with pytest.raises(InvalidArgumentError, match="SHA-256 differs"):
        await tenants.load("gamma", tmp_path / "alpha.dump")
    with pytest.raises(InvalidArgumentError, match="must be a folder"):
        tenants.dump(["alpha"], tmp_path / "nothing")


async def logins_of(tenants: Tenants, name: str) -> list[str]:
    reader = await tenants.role("reader").get(name)
    return [] if reader is None else [reader.username]


async def killed_at(two: Two, step: int) -> str:
    """Move the tenant in a process that is killed at the step. Returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.tenants.mover", two.sandbox.url, two.sandbox.token, str(two.path)),
        *(two.prefix, two.old.id, two.new.id, str(step)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": "."},
    )
    output, _ = await process.communicate()
    return output.decode()


# The last ones are after the commit.
@pytest.mark.parametrize(
    "step", [10, 60, 110, 150, *(pytest.param(step, marks=pytest.mark.thorough) for step in range(1, 240, 6))]
)
async def test_whenever_the_process_is_killed_there_is_one_whole_tenant_after_repair(two: Two, step: int) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    await tenants.role("reader").ensure("alpha")
    await sql(alpha, "CREATE TABLE t (n int)", "INSERT INTO t SELECT generate_series(1, 1000)")
    await killed_at(two, step)

    await only(tenants.repair(["alpha"]))
    credential, reader = await tenants.get("alpha"), await tenants.role("reader").get("alpha")
    assert credential is not None
    assert reader is not None
    assert credential.cluster == reader.cluster
    assert await sql(reader, "SELECT count(*) FROM t") == await sql(credential, "SELECT count(*) FROM t") == [(1000,)]
    other = two.new if credential.cluster == two.old.id else two.old
    assert await left_on(tenants, other, "alpha") == (False, [])
    for role in ("owner", "reader"):
        assert (await only(tenants.role(role).check(["alpha"]))).problems == ()
    assert [each.problems async for each in tenants.check()] == [()]
