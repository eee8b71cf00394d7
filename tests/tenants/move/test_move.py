"""A tenant is moved to another cluster: no acknowledged write is lost, and there is one whole tenant at any moment."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from unittest.mock import patch

import pytest
from attrs import evolve

from aiodbclient._http.call import RequestStats
from aiodbclient.bulk import Failed
from aiodbclient.errors import ConflictError, InvalidArgumentError, NameTakenError
from aiodbclient.tenants import (
    Claim,
    Credential,
    OperationKind,
    ProblemKind,
    SQLiteStore,
    TenantAction,
    TenantRecord,
    Tenants,
    copy_records,
)
from aiodbclient.tenants._move.copier import Copier
from aiodbclient.tenants._move.job import _Move
from aiodbclient.tenants._operations import loop
from aiodbclient.tenants._operations.tenant import Tenant
from aiodbclient.tenants._servers.postgres import PostgresSteps
from aiodbclient.tenants.errors import (
    ClaimLostError,
    GrantError,
    MoveError,
    RotationPendingError,
    StoreError,
    SuspendedError,
    TenantNotFoundError,
)

from ...call_path import path_of
from ..conftest import only, present
from ..moves import Two, left_on, stepped
from ..own_stores import expire
from ..problems import kinds
from ..programs import admin_of, ask, enters

# Without its role, a login may do nothing in the database: what ``pg_restore`` makes after the table is refused.
REFUSED = (
    "CREATE FUNCTION f(n int) RETURNS boolean LANGUAGE plpgsql AS "
    "$$BEGIN PERFORM set_config('role', 'none', false); RETURN true; END$$",
    "CREATE TABLE u (n int)",
    "INSERT INTO u VALUES (1)",
    "CREATE TABLE t (n int CHECK (f(n)))",
    "INSERT INTO t VALUES (1)",
)


async def test_move_with_roles(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """Nothing is left on the other cluster."""
    reader, writer = await tenants.role("reader").ensure("alpha"), await tenants.role("writer").ensure("alpha")
    rotated = present((await only(tenants.rotate(["alpha"]))).credential)
    await ask(alpha, "CREATE TABLE t (n int)", "INSERT INTO t SELECT generate_series(1, 100)")

    run, began = tenants.move(["alpha"], to=two.new), monotonic()
    moved = await only(run)
    assert moved.error is None
    assert (moved.action, moved.credential.cluster) == (TenantAction.MOVED, two.new.id)
    assert timedelta(0) < moved.frozen < timedelta(seconds=monotonic() - began)
    assert moved.bytes > 1_000_000

    after = present(await tenants.get("alpha"))
    assert after == moved.credential
    assert after.username not in (alpha.username, rotated.username)
    assert await ask(after, "SELECT count(*) FROM t") == [(100,)]
    assert await left_on(tenants, two.old, "alpha") == (False, [])
    assert not any([await enters(each) for each in (alpha, rotated, reader, writer)])

    reading = present(await tenants.role("reader").get("alpha"))
    assert reading.cluster == two.new.id
    assert await ask(reading, "SELECT count(*) FROM t") == [(100,)]
    writing = present(await tenants.role("writer").get("alpha"))
    await ask(writing, "INSERT INTO t VALUES (101)")
    for each in (tenants, tenants.role("reader"), tenants.role("writer")):
        assert (await only(each.check(["alpha"]))).problems == ()
    assert (await only(tenants.rotate(["alpha"]))).action is TenantAction.ROTATED
    assert (await only(tenants.move(["alpha"], to=two.new.id))).action is TenantAction.KEPT
    back = await only(tenants.move(["alpha"]))
    assert (back.action, back.credential and back.credential.cluster) == (TenantAction.MOVED, two.old.id)


async def test_move_path(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """A move between clusters that are known, counted as a rotation is."""
    await tenants._context.clusters.get(two.new.id, RequestStats())

    functions, files = await path_of(only(tenants.move(["alpha"], to=two.new)))

    assert len(functions) <= 220
    assert len(files) <= 31


async def test_move_refused_before_sending(two: Two, tenants: Tenants) -> None:
    with pytest.raises(InvalidArgumentError, match="have one cluster"):
        Tenants(two.old, two.store).move(["alpha"])
    with pytest.raises(InvalidArgumentError, match="to must be one of the clusters"):
        tenants.move(["alpha"], to="another")
    with pytest.raises(InvalidArgumentError, match="max_frozen must be"):
        tenants.move(["alpha"], max_frozen=timedelta(0))
    assert isinstance((await only(tenants.move(["nobody"]))).error, TenantNotFoundError)


async def test_move_suspended_tenant(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """No login of the copy remains, and its database is locked."""
    await ask(alpha, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)")
    await tenants.role("reader").ensure("alpha")
    await only(tenants.suspend(["alpha"]))
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    assert (moved.action, moved.frozen) == (TenantAction.MOVED, timedelta(0))
    assert await tenants.get("alpha") is None
    with pytest.raises(SuspendedError, match="is suspended since"):
        await tenants.ensure("alpha")
    assert await left_on(tenants, two.new, "alpha") == (True, [])
    assert (await only(tenants.check(["alpha"]))).problems == ()
    resumed = present((await only(tenants.resume(["alpha"]))).credential)
    assert await ask(resumed, "SELECT n FROM t") == [(7,)]


async def test_failed_move_of_suspended_tenant(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """It is resumed with its reader."""
    await ask(alpha, *REFUSED)
    await tenants.role("reader").ensure("alpha")
    await only(tenants.suspend(["alpha"]))
    assert isinstance((await only(tenants.move(["alpha"], to=two.new))).error, MoveError)
    assert (await only(tenants.resume(["alpha"]))).action is TenantAction.RESUMED
    reader = present(await tenants.role("reader").get("alpha"))
    assert await ask(reader, "SELECT n FROM t") == [(1,)]


async def test_move_finishes_removal_of_reader(two: Two) -> None:
    async def fail(*_: object) -> None:
        raise GrantError("the server is away")

    tenants = two.tenants()
    await tenants.ensure("alpha")
    reader = await tenants.role("reader").ensure("alpha")
    with stepped(PostgresSteps, "end_logins", fail):
        assert isinstance((await only(tenants.role("reader").remove(["alpha"]))).error, GrantError)
    assert (await only(tenants.move(["alpha"], to=two.new))).action is TenantAction.MOVED
    assert await tenants.role("reader").get("alpha") is None
    assert not await enters(reader)


async def test_move_takes_late_settings(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """Those that the administrator changes until the freeze."""

    async def meanwhile(*_: object) -> None:
        await ask(
            await admin_of(two.old),
            f"ALTER DATABASE {alpha.database} SET work_mem = '7MB'",
            f'ALTER DATABASE {alpha.database} SET search_path = "odd, name", public',
            f"ALTER DATABASE {alpha.database} SET default_transaction_read_only = on",
            f"ALTER DATABASE {alpha.database} CONNECTION LIMIT 7",
        )

    with stepped(PostgresSteps, "repair", meanwhile):  # of the copy
        moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    assert await ask(moved.credential, "SHOW work_mem") == [("7MB",)]
    assert await ask(moved.credential, "SHOW default_transaction_read_only") == [("on",)]
    assert await ask(moved.credential, "SHOW search_path") == [('"odd, name", public',)]
    limit = "SELECT datconnlimit FROM pg_database WHERE datname = current_database()"
    assert await ask(moved.credential, limit) == [(7,)]


async def test_commit_whose_answer_was_lost(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """Programs may work on the target already, so the move is not undone."""

    async def then_fail(_: Claim, record: TenantRecord | None, release: bool) -> None:
        if record is not None and record.cluster == two.new.id:
            two.store.after_save = None
            await ask(present(await tenants.get("alpha")), "INSERT INTO t VALUES (2)")
            raise StoreError("no answer")

    await ask(alpha, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
    two.store.after_save = then_fail
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert (moved.error, moved.action) == (None, TenantAction.MOVED)
    assert await ask(present(await tenants.get("alpha")), "SELECT count(*) FROM t") == [(2,)]
    assert await left_on(tenants, two.old, "alpha") == (False, [])


@pytest.mark.parametrize("call", ["save", "release"])
async def test_store_that_fails_after_commit(
    two: Two, alpha: Credential, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The tenant is moved, and says so; the next operation drops the leftover."""

    async def fail(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    async def then_fail(_: Claim, record: TenantRecord | None, release: bool) -> None:
        if record is not None and record.cluster == two.new.id and (record.leftover is None) == (call == "release"):
            monkeypatch.setattr(two.store, call, fail)

    two.store.after_save = then_fail
    moved = await only(two.tenants().move(["alpha"], to=two.new))
    assert (moved.error, moved.action) == (None, TenantAction.MOVED)
    assert moved.leftover == ("the disk is full" if call == "save" else "")

    monkeypatch.undo()
    two.store.after_save = None
    expire(two.path)
    tenants = two.tenants()
    assert await tenants.get("alpha") == moved.credential
    assert (await only(tenants.repair(["alpha"]))).problems == (kinds(ProblemKind.LEFTOVER) if moved.leftover else ())
    assert await left_on(tenants, two.old, "alpha") == (False, [])


async def test_two_processes_that_move_the_same_tenant(two: Two, alpha: Credential) -> None:
    """Without ``to``, the second one does not move it back."""
    moves = await asyncio.gather(*(only(two.tenants().move(["alpha"])) for _ in range(2)))

    assert sorted(each.action for each in moves) == [TenantAction.KEPT, TenantAction.MOVED]
    assert {each.credential and each.credential.cluster for each in moves} == {two.new.id}


async def test_commit_that_was_cancelled(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """It is stored all the same, so the move is not undone, and the next operation drops what is left."""

    async def cancel(_: Claim, record: TenantRecord | None, release: bool) -> None:
        if record is not None and record.leftover is not None:
            moving.cancel()

    await ask(alpha, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
    two.store.before_save = cancel
    moving = asyncio.ensure_future(only(tenants.move(["alpha"], to=two.new)))
    await asyncio.wait([moving])
    assert moving.cancelled()
    after = present(await tenants.get("alpha"))
    assert after.cluster == two.new.id
    assert await ask(after, "SELECT count(*) FROM t") == [(1,)]
    assert (await only(tenants.repair(["alpha"]))).error is None
    assert await left_on(tenants, two.old, "alpha") == (False, [])


async def test_move_after_administrator_password_change(two: Two, tenants: Tenants) -> None:
    """The next move or repair works."""

    async def reset(*_: object) -> None:
        await two.old.users.reset_auth("doadmin")

    await tenants.ensure("alpha")
    await tenants._context.clusters.get(two.new.id, RequestStats())  # it is read, and no tenant is there
    await two.new.users.reset_auth("doadmin")
    assert isinstance((await only(tenants.move(["alpha"], to=two.new))).error, GrantError)
    with stepped(_Move, "_commit", after=reset):
        moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.error is None
    assert moved.leftover == ""  # the session of the move is still open
    assert (await only(tenants.repair(["alpha"]))).error is None
    assert await left_on(two.tenants(), two.old, "alpha") == (False, [])


async def test_failed_move_opens_tenant_again(two: Two, tenants: Tenants, alpha: Credential) -> None:
    reader = await tenants.role("reader").ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    rotated = present(await tenants.get("alpha"))
    await ask(alpha, *REFUSED)
    failed = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(failed.error, MoveError)
    assert f"was not moved to the cluster {two.new.id}: pg_restore failed" in str(failed.error)
    assert str(failed.error).endswith(f"it is on the cluster {two.old.id}")
    assert all([await enters(each) for each in (alpha, reader, rotated)])
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    for each in (tenants, tenants.role("reader")):
        assert (await only(each.check(["alpha"]))).problems == ()
    assert (await only(tenants.revoke_previous(["alpha"]))).action is TenantAction.REVOKED


@pytest.mark.parametrize(
    ("step", "kind", "where"),
    [
        ("undo", MoveError, "pg_restore failed: .*; it is on the cluster {}: run repair"),
        ("commit", StoreError, "the disk is full; nor .*: run repair"),  # which may be stored
    ],
)
async def test_store_that_fails_in_undo_is_named(
    two: Two, alpha: Credential, monkeypatch: pytest.MonkeyPatch, step: str, kind: type[Exception], where: str
) -> None:
    """The tenant may be frozen, so the error says what to run."""
    save, is_full = SQLiteStore.save, False

    async def full(store: SQLiteStore, claim: Claim, record: TenantRecord | None, **release: bool) -> None:
        nonlocal is_full
        assert record is not None
        is_full = is_full or (step == "commit" and record.cluster == two.new.id)
        if is_full:
            raise StoreError("the disk is full")
        await save(store, claim, record, **release)
        is_full = step == "undo" and record.operation is not None and record.operation.kind is OperationKind.MOVE

    async def renew(*_: object) -> None:
        if is_full:
            raise StoreError("the disk is full")

    await ask(alpha, *(REFUSED if step == "undo" else ["CREATE TABLE t AS SELECT 1 AS n"]))
    with monkeypatch.context() as patched:
        patched.setattr(SQLiteStore, "save", full)
        patched.setattr(SQLiteStore, "renew", renew)
        try:
            error = (await only(two.tenants().move(["alpha"], to=two.new))).error
        except StoreError as of_run:  # nothing more can be stored
            error = of_run
    assert type(error) is kind
    assert re.search(where.format(two.old.id), str(error))
    assert "; nor could what was begun be undone: the disk is full" in str(error)
    assert await two.tenants().get("alpha") is None
    assert (await only(two.tenants().repair(["alpha"]))).action is TenantAction.REPAIRED
    assert await two.tenants().get("alpha") == alpha
    assert await ask(alpha, "SELECT n FROM t") == [(1,)]
    assert await left_on(two.tenants(), two.new, "alpha") == (False, [])


@pytest.mark.parametrize(
    ("lost", "how"),
    [
        ("DELETE FROM t WHERE n = 2", "public.t has 2 on the source, and 1 on the target"),
        ("UPDATE t SET n = 3 WHERE n = 2", "public.t has other values on the target"),
        ("UPDATE t SET b = 'z' WHERE n = 2", "public.t has other values on the target"),
        ("DROP TABLE t", "public.t has 2 on the source, and nothing on the target"),
    ],
)
async def test_copy_that_differs_fails_move(two: Two, tenants: Tenants, alpha: Credential, lost: str, how: str) -> None:
    async def lose(_: Copier, target: Credential, file: object) -> None:
        await ask(target, lost)

    await ask(alpha, "CREATE TABLE t (n int, b bytea)", "INSERT INTO t VALUES (1, NULL), (2, 'x')")
    with stepped(Copier, "restore", after=lose):
        failed = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(failed.error, MoveError)
    assert f"the copy differs: {how}" in str(failed.error)
    assert await ask(alpha, "SELECT n FROM t") == [(1,), (2,)]
    assert (await only(tenants.move(["alpha"], to=two.new))).action is TenantAction.MOVED


async def test_member_added_before_freeze_fails_move(two: Two, tenants: Tenants, alpha: Credential) -> None:
    """Of an extension, after the trial: the dump leaves it out."""
    await ask(alpha, "CREATE EXTENSION hstore", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 7'")

    async def meanwhile(*_: object) -> None:
        await ask(alpha, "ALTER EXTENSION hstore ADD FUNCTION f()")

    with stepped(PostgresSteps, "freeze", meanwhile):
        failed = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(failed.error, MoveError)
    assert 'run ALTER EXTENSION "hstore" DROP FUNCTION public.f()' in str(failed.error)
    await ask(alpha, "ALTER EXTENSION hstore DROP FUNCTION f()")
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert await ask(present(moved.credential), "SELECT f()") == [(7,)]


@contextmanager
def stuck(*, frozen: bool) -> Iterator[asyncio.Event]:
    """Let each dump of the trial, or of the ``frozen`` database, wait for ever. Yield an event that it has begun."""
    begun = asyncio.Event()

    async def wait(*arguments: object) -> None:
        if ("--schema-only" in arguments) != frozen:
            begun.set()
            await asyncio.Event().wait()

    with stepped(Copier, "dump", wait):
        yield begun


async def test_move_within_max_frozen(two: Two, tenants: Tenants, alpha: Credential) -> None:
    kept = await only(tenants.move(["alpha"], to=two.new, max_frozen=timedelta(milliseconds=100)))
    assert kept.error is None
    assert (kept.action, kept.bytes > 1_000_000) == (TenantAction.KEPT, True)
    with stuck(frozen=True):
        too_slow = await only(tenants.move(["alpha"], to=two.new, max_frozen=timedelta(seconds=1)))
    assert isinstance(too_slow.error, MoveError)
    assert "it was not copied within 1 s" in str(too_slow.error)
    assert await enters(alpha)
    assert await left_on(tenants, two.new, "alpha") == (False, [])


@pytest.mark.parametrize("frozen", [False, True])
async def test_cancelled_move_is_undone(two: Two, tenants: Tenants, alpha: Credential, frozen: bool) -> None:
    """The tenant is open again, and nothing is left of the copy."""
    with stuck(frozen=frozen) as begun:
        moving = asyncio.ensure_future(only(tenants.move(["alpha"], to=two.new)))
        await begun.wait()
        assert (await tenants.get("alpha"), await enters(alpha)) == ((None, False) if frozen else (alpha, True))
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
    assert await tenants.get("alpha") == alpha
    assert await enters(alpha)
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_repair_move_without_other_cluster(two: Two) -> None:
    """It opens the tenant, and names that cluster."""
    tenants, alone = two.tenants(), Tenants(two.old, two.store, prefix=two.prefix)
    alpha = await tenants.ensure("alpha")
    await moving_until(two, "_copy")
    assert await tenants.get("alpha") is None

    repaired = await only(alone.repair(["alpha"]))
    assert isinstance(repaired.error, MoveError)
    assert f"on the cluster {two.new.id} is still there: run repair with that cluster too" in str(repaired.error)
    assert await enters(alpha)
    assert (await only(alone.check(["alpha"]))).problems == kinds(ProblemKind.LEFTOVER)
    assert (await only(alone.rotate(["alpha"]))).action is TenantAction.ROTATED
    reader = await alone.role("reader").ensure("alpha")
    await two.old.users.delete(reader.username)
    assert isinstance((await only(alone.repair(["alpha"]))).error, MoveError)
    assert await enters(reader)  # what else was wrong is repaired

    assert (await only(tenants.repair(["alpha"]))).action is TenantAction.REPAIRED
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    assert (await only(alone.check(["alpha"]))).problems == ()


@pytest.mark.parametrize("step", ["create", "freeze"])
async def test_suspend_during_unfinished_move(two: Two, tenants: Tenants, alpha: Credential, step: str) -> None:
    """A tenant that leaked is suspended, though a move did not finish and the other cluster is unreachable."""
    await moving_until(two, step)
    two.sandbox.faults.add(cluster=two.new.id, status=503)

    suspended = await only(two.tenants().suspend(["alpha"]))

    two.sandbox.faults.clear()
    assert suspended.action is TenantAction.SUSPENDED, suspended.error
    assert not await enters(alpha)
    assert (await only(tenants.check(["alpha"]))).problems == kinds(ProblemKind.LEFTOVER)
    assert (await only(two.tenants().repair(["alpha"]))).action is TenantAction.REPAIRED
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    assert (await only(tenants.check(["alpha"]))).problems == ()
    resumed = present((await only(tenants.resume(["alpha"]))).credential)
    assert await enters(resumed)


async def die(*_: object) -> None:
    raise ClaimLostError("the process is stopped, and another one takes the claim")


async def moving_until(two: Two, step: str) -> None:
    """Move the tenant in a process that dies before a step."""
    once = patch.object(loop, "_MOST_LOST_CLAIMS", 1)  # it does not begin again
    with once, stepped(_Move if step == "_copy" else PostgresSteps, step, die):
        assert isinstance((await only(two.tenants().move(["alpha"], to=two.new))).error, ClaimLostError)


async def test_undone_move_keeps_tenants_of_another_store(two: Two, tenants: Tenants, tmp_path: Path) -> None:
    """A move dies before it creates the copy, and the process of another store makes a tenant of that name there."""
    await tenants.ensure("alpha")
    await moving_until(two, "create")
    async with SQLiteStore(tmp_path / "other") as store:
        theirs = Tenants(two.new, store, prefix=two.prefix)
        alpha = await theirs.ensure("alpha")

        assert (await only(tenants.repair(["alpha"]))).action is TenantAction.REPAIRED

        assert await enters(alpha)
        assert (await only(theirs.check(["alpha"]))).problems == ()
        assert (await only(theirs.remove(["alpha"]))).action is TenantAction.DELETED


async def test_left_behind_until_dropped_or_destroyed(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
    save = Tenant.save

    async def other(tenant: Tenant, record: Any) -> None:
        await save(tenant, evolve(record, leftover=record.leftover and unknown))

    tenants = two.tenants()
    await tenants.ensure("alpha")
    with monkeypatch.context() as patched:
        patched.setattr(Tenant, "save", other)
        moved = await only(tenants.move(["alpha"], to=two.new))
    assert not isinstance(moved, Failed)
    assert moved.leftover.endswith(
        f"what is left of it on the cluster {unknown} is still there: run repair with that cluster too"
    )
    for operation in (tenants.repair(["alpha"]), tenants.remove(["alpha"])):
        assert isinstance((await only(operation)).error, MoveError)
    assert (await only(tenants.check(["alpha"]))).problems == kinds(ProblemKind.LEFTOVER)

    # With that cluster it is seen that it was destroyed.
    both = Tenants([two.new, two.client.cluster(unknown)], two.store, prefix=two.prefix)
    assert (await only(both.repair(["alpha"]))).error is None
    assert (await only(Tenants(two.new, two.store, prefix=two.prefix).check(["alpha"]))).problems == ()


async def test_check_after_restore_finds_moved_tenant(two: Two, alpha: Credential, tmp_path: Path) -> None:
    """Its database is on the other cluster, and no operation says that it is lost."""
    tenants = two.tenants()
    await ask(alpha, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)")
    async with SQLiteStore(tmp_path / "restored") as restored:
        await copy_records(two.store, restored)
        await only(tenants.move(["alpha"], to=two.new))
        after = Tenants([two.old, two.new], restored, prefix=two.prefix)
        for check in (after.check(), after.check(not_on_record=True)):
            checked = await only(check)
            assert checked.problems == kinds(
                ProblemKind.LOGIN_MISSING, ProblemKind.DATABASE_MISSING, ProblemKind.NOT_ON_RECORD
            )
        [usage] = [each async for each in after.usage()]
        outcomes = [await only(run) for run in (after.repair(all=True), after.rotate(all=True))]
        for error in (usage.error, *[each.error for each in outcomes]):
            assert isinstance(error, ConflictError)
            assert f"is on the cluster {two.new.id}: it was moved after this store was copied" in str(error)

        await restored.discard("alpha")
        adopted = await Tenants(two.new, restored, prefix=two.prefix).ensure("alpha", if_exists="adopt")
        assert await ask(adopted, "SELECT n FROM t") == [(7,)]


async def test_move_refuses_database_of_others(two: Two, tenants: Tenants, alpha: Credential) -> None:
    await two.new.dbs.create(alpha.database)
    refused = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(refused.error, ConflictError)
    assert await enters(alpha)
    await two.new.dbs.delete(alpha.database)


@pytest.mark.parametrize(("times", "dies"), [(1, False), (2, False), (2, True)])
async def test_move_leaves_late_database_of_others(
    two: Two, tenants: Tenants, alpha: Credential, times: int, dies: bool
) -> None:
    """The database is created once to try the copy, and again for the copy. No role is left, also after a death."""
    left = [*range(times)]

    async def meanwhile(_: PostgresSteps) -> None:
        left.pop()
        if not left:
            await two.new.dbs.create(alpha.database)

    with stepped(PostgresSteps, "create", meanwhile):
        if dies:
            await moving_until(two, "end_logins")
        else:
            assert isinstance((await only(tenants.move(["alpha"], to=two.new))).error, NameTakenError)
    if dies:
        assert (await only(tenants.repair(["alpha"]))).action is TenantAction.REPAIRED
    assert await enters(alpha)
    assert (await only(tenants.check(["alpha"]))).problems == ()
    of_alpha = f"SELECT rolname FROM pg_roles WHERE starts_with(rolname, '{alpha.database}')"
    assert await ask(await admin_of(two.old), of_alpha) != []
    assert await ask(await admin_of(two.new), of_alpha) == []
    await two.new.dbs.delete(alpha.database)  # raises an error if it is gone


async def test_an_adopted_login_must_be_revoked_first(two: Two, tenants: Tenants) -> None:
    await two.old.dbs.create(f"{two.prefix}alpha")
    await two.old.users.create(f"{two.prefix}alpha")
    await tenants.ensure("alpha", if_exists="adopt")
    assert isinstance((await only(tenants.move(["alpha"], to=two.new))).error, RotationPendingError)
    await only(tenants.revoke_previous(["alpha"]))
    assert (await only(tenants.move(["alpha"], to=two.new))).action is TenantAction.MOVED
