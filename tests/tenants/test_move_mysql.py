"""A tenant of MySQL is moved to another server: no acknowledged write is lost, and what would fail is found before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from unittest.mock import patch

import pytest
from attrs import evolve

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, TenantAction, Tenants
from aiodbclient.tenants._copy.mysql import MySQLCopier
from aiodbclient.tenants.errors import MoveError

from ..mysql import SERVERS, RestartableMySQL, administrator, in_grant
from ..waiting import until
from .conftest import only, present
from .moves import Two, assert_survives, connected, left_on, moved_beside, moved_while_written, run, sql


@pytest.fixture(scope="module", params=SERVERS)
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, ...]]:
    """A sandbox with two clusters, and their servers."""
    if request.param == "given":
        pytest.skip("needs two servers")
    with ExitStack() as stack, Sandbox(windows=[]) as sandbox:
        own = [RestartableMySQL(request.param, tmp_path_factory.mktemp("mysql")) for _ in range(2)]
        for each in own:
            stack.callback(each.kill)
        yield sandbox, *[asyncio.run(sandbox.add_cluster("mysql", server=each.dsn)) for each in own], *own


@pytest.fixture(scope="module")
def two_clusters(servers: tuple[Any, ...]) -> tuple[Any, ...]:
    return servers[:3]


async def test_no_acknowledged_write_is_lost(two: Two) -> None:
    tenants = two.tenants(connection_limit=20)
    before = await tenants.ensure("alpha")
    await sql(before, "CREATE TABLE t (n INT PRIMARY KEY)")

    moved = await moved_while_written(two, tenants)

    assert (moved.action, moved.credential.cluster) == (TenantAction.MOVED, two.new.id)
    assert await left_on(tenants, two.old, "alpha") == (False, [])


async def test_move_ends_rights_of_others(two: Two, alpha: Credential, servers: tuple[Any, ...]) -> None:
    await sql(alpha, "CREATE TABLE t (n INT PRIMARY KEY)")
    name, password = f"{two.prefix}reporting", "Report-1-ing"
    with administrator(servers[3].dsn) as here:
        here.execute(f"CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'")
        here.execute(f"GRANT SELECT, INSERT ON `{in_grant(here, alpha.database)}`.* TO '{name}'@'%'")
    neighbour = evolve(alpha, username=name, password=password)

    moved = await moved_beside(two, neighbour)

    assert moved.shut_out == (name,)


@pytest.mark.parametrize("is_open", [True, False])
async def test_prepared_transaction_stops_move(
    two: Two, alpha: Credential, servers: tuple[Any, ...], is_open: bool
) -> None:
    tenants = two.tenants()
    await sql(alpha, "CREATE TABLE t (n INT PRIMARY KEY)", "INSERT INTO t VALUES (7)")
    xid = f"'{two.prefix}{is_open}'"
    async with closing(await connected(alpha)) as session:
        await run(session, f"XA START {xid}", "INSERT INTO t VALUES (1)", f"XA END {xid}", f"XA PREPARE {xid}")
        if not is_open:
            session.close()
            listed = "SELECT 1 FROM performance_schema.threads WHERE PROCESSLIST_ID = %s"
            with administrator(servers[3].dsn) as here:  # the server notices it a moment later
                await until(lambda: not here.execute(listed, [session.thread_id()]))
        moved = await only(tenants.move(["alpha"], to=two.new))

    if moved.error is not None:
        assert isinstance(moved.error, MoveError)
        assert "a prepared transaction (XA) holds tables of the schema" in str(moved.error)
        assert "XA_RECOVER_ADMIN" in str(moved.error)
        assert await left_on(tenants, two.new, "alpha") == (False, [])
        assert await sql(alpha, "SELECT n FROM t") == [(7,)]
        with administrator(servers[3].dsn) as here:
            here.execute(f"XA ROLLBACK {xid}")
        moved = await only(tenants.move(["alpha"], to=two.new))
        assert moved.error is None
    assert await sql(moved.credential, "SELECT n FROM t") == [(7,)]
    assert await left_on(tenants, two.old, "alpha") == (False, [])
    assert (await only(tenants.check(["alpha"]))).problems == ()


@pytest.mark.thorough
async def test_target_that_dies_in_the_middle(two: Two, servers: tuple[Any, ...]) -> None:
    """It costs nothing. Nor does a source that dies, see below."""
    there, restore = servers[4], MySQLCopier.restore

    async def dying(self: MySQLCopier, target: Credential, file: Any) -> None:
        if file.seek(0, os.SEEK_END) < 100_000:  # the trial, without rows
            await restore(self, target, file)
            return
        copying = asyncio.ensure_future(restore(self, target, file))
        with administrator(there.dsn) as cursor:
            tables = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s"
            await until(lambda: cursor.execute(tables, [f"{two.prefix}alpha"]))
        assert not copying.done()
        await asyncio.to_thread(there.kill)
        await copying

    await assert_survives(two, 100_000, there, patch.object(MySQLCopier, "restore", dying))
    assert (await only(two.tenants().move(["alpha"], to=two.new))).action is TenantAction.MOVED


async def test_source_that_dies_before_the_commit(two: Two, servers: tuple[Any, ...]) -> None:
    here, dump = servers[3], MySQLCopier.dump

    async def dying(self: MySQLCopier, *arguments: Any) -> None:
        here.kill()  # in one piece: the move may be cancelled meanwhile
        await dump(self, *arguments)

    await assert_survives(two, 1000, here, patch.object(MySQLCopier, "dump", dying))


@asynccontextmanager
async def closing(connection: Any) -> AsyncIterator[Any]:
    try:
        yield connection
    finally:
        connection.close()


async def test_programs_in_database_move_and_run_as_tenant(two: Two, tenants: Tenants, alpha: Credential) -> None:
    reader = await tenants.role("reader").ensure("alpha")
    await sql(
        alpha,
        "CREATE TABLE t (n INT PRIMARY KEY, at TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6))",
        "CREATE TABLE log (n INT PRIMARY KEY AUTO_INCREMENT, what TEXT)",
        "CREATE VIEW v AS SELECT n FROM t",
        "CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW INSERT INTO log (what) VALUES ('triggered')",
        "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO INSERT INTO log (what) VALUES ('event')",
        "CREATE PROCEDURE p() SELECT 7",
        "INSERT INTO t (n) VALUES (1)",
    )
    await only(tenants.rotate(["alpha"]))  # so the definers are a previous login
    await only(tenants.revoke_previous(["alpha"]))
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    after = moved.credential
    await sql(after, "INSERT INTO t (n) VALUES (2)")
    assert await sql(after, "SELECT n FROM v ORDER BY n") == [(1,), (2,)]
    assert await sql(after, "CALL p()") == [(7,)]
    assert await sql(after, "SELECT count(*) FROM log WHERE what = 'triggered'") == [(2,)]
    [(events,)] = await sql(after, "SELECT count(*) FROM log WHERE what = 'event'")
    async with asyncio.timeout(60):  # it runs once a second
        while await sql(after, "SELECT count(*) FROM log WHERE what = 'event'") == [(events,)]:
            await asyncio.sleep(0.1)
    again = present(await tenants.role("reader").get("alpha"))
    assert again.cluster != reader.cluster
    assert await sql(again, "SELECT n FROM v ORDER BY n") == [(1,), (2,)]
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_table_without_key_refused_before_move(two: Two, alpha: Credential, servers: tuple[Any, ...]) -> None:
    tenants = two.tenants()
    with administrator(servers[3].dsn) as here:
        here.execute("SET GLOBAL sql_require_primary_key = 0")
    await sql(alpha, "CREATE TABLE keyless (n INT)")
    refused = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(refused.error, MoveError)
    assert "sql_require_primary_key" in str(refused.error)
    assert await sql(alpha, "SELECT count(*) FROM keyless") == [(0,)]
    assert await left_on(tenants, two.new, "alpha") == (False, [])


async def test_float_refused_before_move(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """mysqldump writes six digits of it: 16777217 would arrive as 16777200."""
    await sql(alpha, "CREATE TABLE t (a INT PRIMARY KEY, f FLOAT)", "INSERT INTO t VALUES (1, 16777217)")
    session = await connected(alpha)
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(moved.error, MoveError)
    assert "a FLOAT of more than six digits (ALTER it to DOUBLE), such as in the column 't.f'" in str(moved.error)
    assert await run(session, "SELECT 7") == [(7,)]
    session.close()
    await sql(alpha, "ALTER TABLE t MODIFY f DOUBLE", "UPDATE t SET f = 16777217")
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    assert await sql(moved.credential, "SELECT f FROM t") == [(16777217.0,)]


async def test_what_no_dump_has_refused_before_move(two: Two, alpha: Credential, servers: tuple[Any, ...]) -> None:
    tenants = two.tenants()
    [(version,)] = await sql(alpha, "SELECT VERSION()")
    if int(version.partition(".")[0]) < 9:
        pytest.skip("needs MySQL 9")
    view = "CREATE JSON DUALITY VIEW folded AS SELECT JSON_DUALITY_OBJECT('_id': a) FROM t"
    await sql(alpha, "CREATE TABLE t (a INT PRIMARY KEY)", view)
    library = f"CREATE LIBRARY `{alpha.database}`.shared LANGUAGE JAVASCRIPT AS 'export function f() {{ return 7; }}'"
    with administrator(servers[3].dsn) as here:  # the tenant may too, but the server warns that it lacks the language
        here.execute(library)
    session = await connected(alpha)

    moved = await only(tenants.move(["alpha"], to=two.new))

    assert isinstance(moved.error, MoveError)
    assert "no dump has a JSON duality view: drop 'folded'" in str(moved.error)
    assert "no dump has a library: drop 'shared'" in str(moved.error)
    assert await run(session, "SELECT 7") == [(7,)]
    session.close()
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    await sql(alpha, "DROP VIEW folded")
    with administrator(servers[3].dsn) as here:
        here.execute(f"DROP LIBRARY `{alpha.database}`.shared")
    assert (await only(tenants.move(["alpha"], to=two.new))).error is None
