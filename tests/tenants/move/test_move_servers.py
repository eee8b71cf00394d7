"""Moves between servers of the test: to a newer version, with prepared transactions, and while one dies."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree, which
from typing import Any

import pytest
from attrs import evolve

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Claim, Credential, ProblemKind, TenantAction, TenantRecord, Tenants
from aiodbclient.tenants._move.copier import Copier
from aiodbclient.tenants._servers.postgres import databases
from aiodbclient.tenants.errors import MoveError

from ..conftest import only, present
from ..managed import INSTALLED
from ..moves import Two, between, left_on, moved_beside, moved_while_written, opened, stepped
from ..own_stores import record_for
from ..problems import kinds
from ..programs import admin_of, ask, enters, session_of
from ..servers import RestartablePostgres, as_a_server, execute, new_folder


@pytest.fixture(scope="module", params=INSTALLED, ids=lambda found: found.parent.name)
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[Any, ...]]:
    """A sandbox over a server of each version and one of the newest."""
    own = RestartablePostgres(request.param), RestartablePostgres()
    with Sandbox(windows=[]) as sandbox:
        ids = [asyncio.run(sandbox.add_cluster("pg", server=each.dsn)) for each in own]
        yield sandbox, *ids, *own
    for each in own:
        each.close()


@pytest.fixture(scope="module")
def two_clusters(servers: tuple[Any, ...]) -> tuple[Any, ...]:
    return servers[:3]


async def test_move_verifies_tls(tmp_path: Path) -> None:
    """The programs of the embedded server have no TLS, so those of an installed one copy."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        pytest.skip("needs the programs of PostgreSQL (apt-get install postgresql-17)")
    with Sandbox(windows=[]) as sandbox:
        old, new = [await sandbox.add_cluster("pg", backend="postgres", server=installed[-1].parent) for _ in range(2)]
        async with opened(sandbox, old, new, tmp_path / "store") as two:
            tenants = two.tenants()
            alpha = await tenants.ensure("alpha")
            assert alpha.ca is not None
            await ask(alpha, "CREATE TABLE t AS SELECT 7 AS n")
            moved = await only(tenants.move(["alpha"], to=two.new))
            assert moved.error is None
            assert moved.credential is not None
            assert await ask(moved.credential, "SELECT n FROM t") == [(7,)]


@pytest.mark.thorough
async def test_money_of_other_value_is_not_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The yen has no decimals, so the other server would read a hundredth. The control has two, and other signs."""
    locales = new_folder()
    for name in ("ja_JP", "de_DE"):
        made = ["localedef", "--no-archive", "-i", name, "-f", "UTF-8", str(locales / f"{name}.UTF-8")]
        if not which("localedef") or subprocess.run(made, capture_output=True).returncode:
            pytest.skip("needs locales (apt-get install locales)")
    subprocess.run(["chmod", "-R", "a+rX", locales], check=True)
    monkeypatch.setitem(as_a_server()["env"], "LOCPATH", str(locales))
    source = RestartablePostgres()
    async with between(source, RestartablePostgres(), tmp_path) as two:
        for name, error in (("ja_JP", "public.t has other values on the target"), ("de_DE", "")):
            execute(source.dsn, f"ALTER SYSTEM SET lc_monetary = '{name}.UTF-8'")
            execute(source.dsn, "SELECT pg_reload_conf()")
            credential = await two.tenants().ensure(name.lower())
            await ask(credential, "CREATE TABLE t AS SELECT 98765.43::numeric::money AS m")
            moved = await only(two.tenants().move([credential.name], to=two.new))
            assert error in str(moved.error or "")
            assert (moved.error is None) is (error == "")
    rmtree(locales)


EVERYTHING = """
CREATE TABLE t (n int); CREATE SCHEMA tools; CREATE EXTENSION hstore SCHEMA tools; COMMENT ON EXTENSION hstore IS 'o';
CREATE TABLE more (id serial, h tools.hstore DEFAULT 'a=>1'); INSERT INTO more SELECT FROM generate_series(1, 10);
CREATE TABLE parts (n int) PARTITION BY RANGE (n); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (10);
INSERT INTO parts VALUES (1), (2); CREATE SEQUENCE alone; SELECT nextval('alone'), nextval('alone');
SELECT lo_from_bytea(4711, 'large'); CREATE VIEW v AS SELECT id FROM more;
CREATE FUNCTION secret() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 7';
REVOKE EXECUTE ON FUNCTION secret() FROM PUBLIC
"""
COPIED = {
    "SHOW work_mem": ("5MB",),
    "INSERT INTO more DEFAULT VALUES RETURNING id": (11,),
    "SELECT count(*) FROM v": (11,),
    "SELECT last_value, is_called FROM alone": (2, True),
    "SELECT sum(n) FROM parts": (3,),
    "SELECT lo_get(4711)": (b"large",),
    "SELECT secret(), has_function_privilege('public', 'secret()', 'EXECUTE')": (7, False),
}


async def test_move_to_newest_version_loses_no_write(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """Nor anything else that the tenant has."""
    await ask(alpha, EVERYTHING)
    await ask(await admin_of(two.old), f"ALTER DATABASE \"{alpha.database}\" SET work_mem = '5MB'")

    moved = await moved_while_written(two, tenants)

    assert [await ask(moved.credential, statement) for statement in COPIED] == [[row] for row in COPIED.values()]


async def test_prepared_transaction_stops_move(two: Two, tenants: Tenants, alpha: Credential) -> None:
    await ask(
        alpha, "CREATE TABLE t (n int)", "BEGIN", "INSERT INTO t VALUES (1)", f"PREPARE TRANSACTION '{two.prefix}'"
    )
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(moved.error, MoveError)
    assert f"has the prepared transaction '{two.prefix}'" in str(moved.error)
    assert await enters(alpha)  # nobody was locked out for it
    await ask(alpha, f"ROLLBACK PREPARED '{two.prefix}'")
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    assert await ask(moved.credential, "SELECT count(*) FROM t") == [(0,)]


async def test_transaction_prepared_in_freeze_stops_move(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """A session prepares it after the first look, and before it is terminated. A copy would not have its rows."""
    async with session_of(alpha) as own:
        await own("CREATE TABLE t (n int)")

        async def meanwhile(_: object, *logins: object) -> None:
            if logins:  # it freezes
                await own("BEGIN", "INSERT INTO t VALUES (1)", f"PREPARE TRANSACTION '{two.prefix}'")

        with stepped(databases, "_empty", meanwhile):
            moved = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(moved.error, MoveError)
    assert f"has the prepared transaction '{two.prefix}'" in str(moved.error)
    assert await ask(alpha, f"COMMIT PREPARED '{two.prefix}'", "SELECT n FROM t") == [(1,)]
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    assert await ask(moved.credential, "SELECT n FROM t") == [(1,)]


async def test_move_ends_rights_of_others(two: Two, alpha: Credential) -> None:
    name = f"{two.prefix}reporting"
    source = await two.old.users.create(name)
    await ask(
        alpha,
        "CREATE TABLE t (n int)",
        f'GRANT INSERT ON t TO "{name}"',
    )
    await ask(await admin_of(two.old), f'GRANT CONNECT ON DATABASE "{alpha.database}" TO "{name}"')
    await two.new.users.create(name)

    moved = await moved_beside(two, evolve(alpha, username=name, password=source.password))

    rights = f"SELECT has_database_privilege('{name}', current_database(), 'CONNECT')"
    assert await ask(moved.credential, rights) == [(False,)]


async def test_target_dies_during_copy(two: Two, servers: tuple[Any, ...]) -> None:
    tenants, target = two.tenants(), servers[4]
    alpha = await tenants.ensure("alpha")
    await ask(alpha, "CREATE TABLE t (n int)", "INSERT INTO t SELECT generate_series(1, 300000)")
    moving = asyncio.ensure_future(only(tenants.move(["alpha"], to=two.new)))
    while await tenants.get("alpha") is not None:  # until it is frozen
        await asyncio.sleep(0.01)
    await asyncio.to_thread(target.stop)
    failed = await moving
    assert isinstance(failed.error, MoveError)
    assert str(failed.error).endswith(f"it is on the cluster {two.old.id}: run repair")
    assert await enters(alpha)
    assert await tenants.get("alpha") == alpha
    assert (await record_for(two.store, "alpha")).leftover == two.new.id

    await asyncio.to_thread(target.start)
    repaired = await only(Tenants([two.old, two.new], two.store, prefix=two.prefix).repair(["alpha"]))
    assert repaired.action is TenantAction.REPAIRED
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    assert (await only(tenants.check(["alpha"]))).problems == ()
    assert (await only(two.tenants().move(["alpha"], to=two.new))).action is TenantAction.MOVED


async def test_source_dies_before_commit(
    two: Two, tenants: Tenants, alpha: Credential, servers: tuple[Any, ...]
) -> None:
    """The tenant is where it was, and whole. Nothing is left of the copy."""
    source = servers[3]

    async def stop(*arguments: object) -> None:
        if "--schema-only" not in arguments:  # which is the trial
            source.stop()  # in one piece: the move may be cancelled meanwhile

    await ask(alpha, "CREATE TABLE t (n int)", "INSERT INTO t SELECT generate_series(1, 1000)")
    with stepped(Copier, "dump", stop):
        failed = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(failed.error, MoveError)
    assert str(failed.error).endswith(f"it is on the cluster {two.old.id}: run repair")
    await asyncio.to_thread(source.start)
    assert (await only(two.tenants().repair(["alpha"]))).action is TenantAction.REPAIRED
    assert await tenants.get("alpha") == alpha
    assert await ask(alpha, "SELECT count(*) FROM t") == [(1000,)]
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_source_dies_after_commit(two: Two, servers: tuple[Any, ...]) -> None:
    tenants, source = two.tenants(), servers[3]
    before = await tenants.ensure("alpha")
    await tenants.role("reader").ensure("alpha")
    await ask(before, "CREATE TABLE t (n int)", "INSERT INTO t SELECT generate_series(1, 1000)")

    async def stop(_: Claim, record: TenantRecord | None, release: bool) -> None:
        if record is not None and record.leftover is not None:
            await asyncio.to_thread(source.stop)

    two.store.after_save = stop
    moved = await only(tenants.move(["alpha"], to=two.new))
    two.store.after_save = None
    assert moved.error is None
    assert moved.action is TenantAction.MOVED
    assert f"what is left of it on the cluster {two.old.id} could not be dropped" in moved.leftover
    assert moved.leftover.endswith("run repair when that cluster can be reached")

    # It is whole, and what needs no other cluster goes on.
    again, reader = await tenants.get("alpha"), await tenants.role("reader").get("alpha")
    assert again == moved.credential
    assert reader is not None
    assert await ask(again, "SELECT count(*) FROM t") == await ask(reader, "SELECT count(*) FROM t") == [(1000,)]
    assert (await only(tenants.check(["alpha"]))).problems == kinds(ProblemKind.LEFTOVER)
    assert (await only(tenants.suspend(["alpha"]))).action is TenantAction.SUSPENDED
    assert not await enters(again)
    assert (await only(tenants.check(["alpha"]))).problems == kinds(ProblemKind.LEFTOVER)
    resumed = await only(tenants.resume(["alpha"]))
    assert resumed.credential is not None
    assert await enters(resumed.credential)
    for run in (tenants.repair(["alpha"]), tenants.remove(["alpha"])):
        assert isinstance((await only(run)).error, MoveError)
    assert await enters(resumed.credential)
    # A leaked credential is replaced.
    assert (await only(tenants.rotate(["alpha"]))).action is TenantAction.ROTATED
    assert (await only(tenants.revoke_previous(["alpha"]))).action is TenantAction.REVOKED
    assert not await enters(resumed.credential)
    assert (await only(tenants.check(["alpha"]))).problems == kinds(ProblemKind.LEFTOVER)

    await asyncio.to_thread(source.start)
    assert not await enters(before)
    repaired = await only(two.tenants().repair(["alpha"]))
    assert repaired.error is None
    assert await left_on(two.tenants(), two.old, "alpha") == (False, [])
    assert [each.problems async for each in two.tenants().check()] == [()]
    assert (await only(two.tenants().rotate(["alpha"]))).action is TenantAction.ROTATED


@pytest.mark.parametrize("number", [4, pytest.param(50, marks=pytest.mark.thorough)])
async def test_failed_tenant_stops_no_other_move(two: Two, number: int) -> None:
    tenants, names = two.tenants(), [f"n{each}" for each in range(number)]
    assert all([each.error is None async for each in tenants.provision(names)])
    bad = present(await tenants.get("n3"))
    await ask(
        bad, "CREATE TABLE t AS SELECT 1 AS n", "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    )
    outcomes = {each.name: each async for each in tenants.move(names)}
    assert {name for name, each in outcomes.items() if each.action is not TenantAction.MOVED} == {"n3"}
    assert "row-level security policy for table" in str(outcomes["n3"].error)
    assert await enters(bad)
    old, new = await tenants.capacity()
    assert (old.tenants, new.tenants) == (1, number - 1)
    assert {each.problems async for each in tenants.check()} == {()}
