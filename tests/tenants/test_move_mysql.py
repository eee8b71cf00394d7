"""A tenant of MySQL is moved to another server: no acknowledged write is lost, and what would fail is found before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from aiodbclient import Action
from aiodbclient.errors import GrantError, MoveError
from aiodbclient.sandbox import Sandbox

from ..mysql import SERVERS, administrator, running
from .conftest import only
from .moves import Two, connected, left_on, opened, run, sql, writing


@pytest.fixture(scope="module", params=SERVERS)
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, ...]]:
    """A sandbox with two clusters, and the DSN of the second one's superuser."""
    if request.param == "given":
        pytest.skip("needs two servers")
    with ExitStack() as stack, Sandbox(windows=[]) as sandbox:
        dsns = [stack.enter_context(running(request.param, tmp_path_factory.mktemp("mysql"))) for _ in range(2)]
        yield sandbox, *[asyncio.run(sandbox.add_cluster("mysql", dsn=dsn)) for dsn in dsns], dsns[0], dsns[1]


@pytest.fixture
async def two(servers: tuple[Any, ...], tmp_path: Path) -> AsyncIterator[Two]:
    for dsn in servers[3:]:
        with administrator(dsn) as cursor:
            cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1, GLOBAL event_scheduler = 1")
    async with opened(servers[0], servers[1], servers[2], tmp_path / "store") as two:
        yield two


async def test_no_acknowledged_write_is_lost(two: Two) -> None:
    tenants = two.tenants(connection_limit=20)
    before = await tenants.ensure("alpha")
    await sql(before, "CREATE TABLE t (n INT PRIMARY KEY)")
    async with writing(tenants, "alpha") as writes:
        moved = await only(tenants.move(["alpha"], to=two.new))
        assert moved.error is None
        during = len(writes.acknowledged)
    assert len(writes.acknowledged) > during > 20
    assert await writes.lost(moved.credential) == set()
    assert [error for error in writes.errors if "is being moved to another cluster" in error]
    assert (moved.action, moved.credential.cluster) == (Action.MOVED, two.new.id)
    assert await left_on(tenants, two.old, "alpha") == (False, [])
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_programs_in_the_database_move_with_it_and_run_as_the_tenant(two: Two) -> None:
    tenants = two.tenants()
    before = await tenants.ensure("alpha")
    reader = await tenants.role("reader").ensure("alpha")
    await sql(
        before,
        "CREATE TABLE t (n INT PRIMARY KEY, at TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6))",
        "CREATE TABLE log (n INT PRIMARY KEY AUTO_INCREMENT, what TEXT)",
        "CREATE VIEW v AS SELECT n FROM t",
        "CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW INSERT INTO log (what) VALUES ('triggered')",
        "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO INSERT INTO log (what) VALUES ('event')",
        "CREATE PROCEDURE p() SELECT 7",
        "INSERT INTO t (n) VALUES (1)",
    )
    await only(tenants.rotate(["alpha"]))  # so the definers are a previous login
    await only(tenants.retire(["alpha"]))
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    after = moved.credential
    await sql(after, "INSERT INTO t (n) VALUES (2)")
    assert await sql(after, "SELECT n FROM v ORDER BY n") == [(1,), (2,)]
    assert await sql(after, "CALL p()") == [(7,)]
    assert await sql(after, "SELECT count(*) FROM log WHERE what = 'triggered'") == [(2,)]
    [(events,)] = await sql(after, "SELECT count(*) FROM log WHERE what = 'event'")
    await asyncio.sleep(1.5)
    [(later,)] = await sql(after, "SELECT count(*) FROM log WHERE what = 'event'")
    assert later > events
    again = await tenants.role("reader").get("alpha")
    assert again is not None
    assert again.cluster != reader.cluster
    assert await sql(again, "SELECT n FROM v ORDER BY n") == [(1,), (2,)]
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_a_table_without_a_key_is_found_before_anybody_is_shut_out(
    two: Two, servers: tuple[Any, ...], request: pytest.FixtureRequest
) -> None:
    tenants = two.tenants()
    before = await tenants.ensure("alpha")
    with administrator(servers[3]) as here, administrator(servers[4]) as there:
        here.execute("SELECT VERSION()")
        if "MariaDB" in str(here.fetchall()):
            pytest.skip("MariaDB requires no primary key")
        here.execute("SET GLOBAL sql_require_primary_key = 0")
        there.execute("SET GLOBAL sql_require_primary_key = 1")
        await sql(before, "CREATE TABLE keyless (n INT)")
        refused = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(refused.error, MoveError)
    assert "it requires primary keys (sql_require_primary_key), and 'keyless' has none" in str(refused.error)
    assert await sql(before, "SELECT count(*) FROM keyless") == [(0,)]
    assert await left_on(tenants, two.new, "alpha") == (False, [])


async def test_what_no_dump_has_is_found_before_anybody_is_shut_out(
    two: Two, servers: tuple[Any, ...], tmp_path: Path
) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    [(version,)] = await sql(alpha, "SELECT VERSION()")
    if "MariaDB" in version or int(version.partition(".")[0]) < 9:
        pytest.skip("needs MySQL 9")
    view = "CREATE JSON DUALITY VIEW folded AS SELECT JSON_DUALITY_OBJECT('_id': a) FROM t"
    await sql(alpha, "CREATE TABLE t (a INT PRIMARY KEY)", view)
    library = f"CREATE LIBRARY `{alpha.database}`.shared LANGUAGE JAVASCRIPT AS 'export function f() {{ return 7; }}'"
    with administrator(servers[3]) as here:  # the tenant may too, but the server warns that it lacks the language
        here.execute(library)
    session = await connected(alpha)

    moved = await only(tenants.move(["alpha"], to=two.new))
    dumped = await only(tenants.dump(["alpha"], tmp_path))

    for error, kind in ((moved.error, MoveError), (dumped.error, GrantError)):
        assert isinstance(error, kind)
        assert "no dump has a JSON duality view: drop 'folded'" in str(error)
        assert "no dump has a library: drop 'shared'" in str(error)
    assert await run(session, "SELECT 7") == [(7,)]
    session.close()
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    await sql(alpha, "DROP VIEW folded")
    with administrator(servers[3]) as here:
        here.execute(f"DROP LIBRARY `{alpha.database}`.shared")
    assert (await only(tenants.move(["alpha"], to=two.new))).error is None


async def test_a_tenant_is_dumped_and_loaded(two: Two, tmp_path: Path) -> None:
    tenants = two.tenants()
    await sql(
        await tenants.ensure("alpha"),
        "CREATE TABLE t (n INT PRIMARY KEY)",
        "INSERT INTO t VALUES (1), (2)",
        "CREATE VIEW v AS SELECT n FROM t",
    )
    dumped = await only(tenants.dump(["alpha"], tmp_path))
    assert dumped.error is None
    assert dumped.file == tmp_path / "alpha.sql"
    beta = await tenants.ensure("beta")
    await tenants.load("beta", dumped.file)
    assert await sql(beta, "SELECT n FROM v ORDER BY n") == [(1,), (2,)]
    found = {each.name: each async for each in tenants.usage()}
    assert found["beta"].error is None
    assert found["beta"].connections == 0
