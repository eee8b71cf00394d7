"""A suspended tenant keeps its data, and no login of it enters. A removal succeeds, whatever anybody did before."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import evolve
from psycopg import AsyncConnection

from aiodbclient.engines import Engine
from aiodbclient.errors import ConflictError, InvalidArgumentError
from aiodbclient.tenants import (
    Credential,
    OperationKind,
    Problem,
    ProblemKind,
    SQLiteStore,
    TenantAction,
    TenantPools,
    Tenants,
    copy_records,
)
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants.errors import GrantError, SuspendedError, TenantMovingError, TenantNotFoundError

from ..conftest import Place, only, present
from ..dying import begun, leave
from ..moves import connected
from ..problems import kinds
from ..programs import admin_of, ask, refusal, session_of
from .test_check_and_repair import make_login

ENDED = r"(?i)clos|terminat|lost|gone|away|connect|exceeded|no longer|killed|interrupted"


async def suspended(tenants: Tenants, name: str = "alpha") -> Credential:
    outcome = await only(tenants.suspend([name]))
    assert outcome.error is None, outcome.error
    assert outcome.action is TenantAction.SUSPENDED
    assert outcome.record.suspended is not None
    return outcome.credential


async def test_suspend_and_resume_keep_data(anywhere: Place, tenants: Tenants, alpha: Credential) -> None:
    await ask(alpha, "CREATE TABLE t (x int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    second = present((await only(tenants.rotate(["alpha"]))).credential)
    started = datetime.now(UTC)

    credential = await suspended(tenants)

    assert await tenants.get("alpha") is None
    assert await refusal(alpha)
    assert await refusal(second)
    [record] = [record async for record in tenants.records()]
    assert record.suspended is not None
    assert abs(record.suspended - started) < timedelta(minutes=1)
    assert [each.username for each in record.logins] == [credential.username]
    with pytest.raises(SuspendedError, match=r"'alpha' is suspended since .*: resume it first"):
        await tenants.ensure("alpha")
    checked = await only(tenants.check(["alpha"]))
    assert (checked.problems, checked.credential) == ((), credential)
    for run in (tenants.repair(["alpha"]), tenants.rotate(["alpha"]), tenants.revoke_previous(["alpha"])):
        assert (await only(run)).action is TenantAction.KEPT
    assert (await only(tenants.suspend(["alpha"]))).action is TenantAction.KEPT

    resumed = await only(tenants.resume(["alpha"]))

    assert resumed.action is TenantAction.RESUMED
    assert resumed.credential is not None
    assert resumed.record.suspended is None
    assert resumed.credential.password not in (alpha.password, second.password)
    assert await tenants.get("alpha") == resumed.credential
    assert await ask(resumed.credential, "SELECT x FROM t") == [(1,)]
    assert (await only(tenants.check(["alpha"]))).problems == ()
    assert (await only(tenants.resume(["alpha"]))).action is TenantAction.KEPT
    assert (await only(tenants.rotate(["alpha"]))).action is TenantAction.ROTATED


async def test_restored_store_opens_no_suspended_tenant(place: Place, tmp_path: Path) -> None:
    """On PostgreSQL. The tenant was suspended after the backup of the store: no operation makes a login for it."""
    tenants = place.tenants()
    credential = await tenants.ensure("alpha")
    async with SQLiteStore(tmp_path / "restored") as restored:
        await copy_records(place.store, restored)
        await suspended(tenants)
        after = place.tenants(store=restored)

        assert (await only(after.check(["alpha"]))).problems == (
            Problem(ProblemKind.LOGIN_MISSING, credential.username),
            Problem(ProblemKind.UNFINISHED, "suspend"),
        )
        for run in (after.repair(["alpha"]), after.rotate(["alpha"]), after.role("reader").provision(["alpha"])):
            error = (await only(run)).error
            assert isinstance(error, ConflictError)
            assert "'alpha' was suspended after this store was copied" in str(error)
            assert "suspend it" in error.advice
        assert await place.logins() == []

        await suspended(after)
        assert (await only(after.check(["alpha"]))).problems == ()
        resumed = present((await only(after.resume(["alpha"]))).credential)
        assert not await refusal(resumed)


async def test_its_readers_are_suspended_and_resumed_with_it(anywhere: Place) -> None:
    tenants, readers = anywhere.tenants(), anywhere.tenants().role("reader")
    await tenants.ensure("alpha")
    reader = await readers.ensure("alpha")

    await suspended(tenants)

    assert await readers.get("alpha") is None
    for work in (readers.ensure("alpha"), anywhere.tenants().role("writer").ensure("alpha")):
        with pytest.raises(SuspendedError, match="suspended"):
            await work
    assert (await only(readers.check(["alpha"]))).problems == ()
    assert await refusal(reader)

    assert (await only(tenants.resume(["alpha"]))).action is TenantAction.RESUMED

    now = present(await readers.get("alpha"))
    assert now.password != reader.password
    assert (await only(readers.check(["alpha"]))).problems == ()
    assert not await refusal(now, "SELECT 1")


async def test_nothing_planted_survives_suspension(anywhere: Place, tenants: Tenants) -> None:
    """Its open sessions, and a neighbour that the administrator let in."""
    alpha, beta = await tenants.ensure("alpha"), await tenants.ensure("beta")
    reader = await tenants.role("reader").ensure("alpha")
    await ask(alpha, "CREATE TABLE t (x int PRIMARY KEY)")
    credentials = [alpha, reader]
    if alpha.engine == Engine.PG:
        await ask(
            await admin_of(anywhere.cluster),
            f'GRANT ALL ON DATABASE "{alpha.database}" TO "{beta.username}" WITH GRANT OPTION',
        )
        await ask(
            beta, "SET ROLE NONE", f'GRANT CONNECT ON DATABASE "{alpha.database}" TO PUBLIC', database="defaultdb"
        )
        credentials.append(evolve(beta, database=alpha.database))
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(session_of(each)) for each in credentials]
        for each in sessions:
            await each("SELECT 1")

        await suspended(tenants)

        for each in sessions:
            with pytest.raises(Exception, match=ENDED):
                await each("SELECT 1")
    assert await refusal(beta, database=alpha.database)
    assert not await refusal(beta, "SELECT 1")  # in its own database
    resumed = present((await only(tenants.resume(["alpha"]))).credential)
    assert await ask(resumed, "SELECT x FROM t") in ([], ())
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_remove_suspended_for(anywhere: Place, tenants: Tenants) -> None:
    for name in ("alpha", "beta"):
        await tenants.ensure(name)
    await suspended(tenants)
    names = ["alpha", "beta", "nobody"]

    young = [outcome.action async for outcome in tenants.remove(names, suspended_for=timedelta(days=30))]
    actions = {outcome.name: outcome.action async for outcome in tenants.remove(names, suspended_for=timedelta(0))}

    assert sorted(young) == [TenantAction.ABSENT, TenantAction.KEPT, TenantAction.KEPT]
    assert actions == {"alpha": TenantAction.DELETED, "beta": TenantAction.KEPT, "nobody": TenantAction.ABSENT}
    assert await anywhere.store.get("alpha") is None
    assert await tenants.get("beta") is not None
    with pytest.raises(InvalidArgumentError, match="suspended_for must be a timedelta"):
        tenants.remove(names, suspended_for=timedelta(days=-1))


@pytest.mark.parametrize(
    ("unfinished", "why", "done"),
    [
        ("suspend", "is being suspended", TenantAction.SUSPENDED),
        ("resume", "is being resumed", TenantAction.RESUMED),
    ],
)
async def test_repair_finishes_operation(place: Place, unfinished: str, why: str, done: TenantAction) -> None:
    """No login works until then. test_killed.py has the operation itself, which finishes it too."""
    tenants, readers = place.tenants(), place.tenants().role("reader")
    await tenants.ensure("alpha")
    await readers.ensure("alpha")
    if unfinished == "resume":
        await suspended(tenants)
    await begun(place, lambda dying: only(getattr(dying, unfinished)(["alpha"])))
    assert await tenants.get("alpha") is None
    assert (await only(tenants.check(["alpha"]))).problems == kinds(ProblemKind.UNFINISHED)
    with pytest.raises(SuspendedError, match=why):
        await tenants.ensure("alpha")
    assert isinstance((await only(tenants.rotate(["alpha"]))).error, SuspendedError)

    assert (await only(tenants.repair(["alpha"]))).action is done

    for each in (tenants, readers):
        credential = await each.get("alpha")
        assert (credential is None) is (unfinished == "suspend")
        assert credential is None or not await refusal(credential, "SELECT 1")
        assert (await only(each.check(["alpha"]))).problems == ()


async def test_resume_after_unfinished_suspension(place: Place, tenants: Tenants, alpha: Credential) -> None:
    await leave(place.store, alpha, OperationKind.SUSPEND)

    resumed = await only(tenants.resume(["alpha"]))

    assert resumed.action is TenantAction.RESUMED
    assert await refusal(alpha)
    assert resumed.credential is not None
    assert not await refusal(resumed.credential, "SELECT 1")


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (OperationKind.SUSPEND, ProblemKind.UNFINISHED),
        (OperationKind.RESUME, ProblemKind.UNFINISHED),
        (OperationKind.REMOVE, ProblemKind.REMOVAL_UNFINISHED),
        (OperationKind.MOVE, ProblemKind.MOVING),
    ],
)
async def test_reader_removal_waits_for_its_tenant(place: Place, kind: OperationKind, problem: ProblemKind) -> None:
    """Its removal would end the operation of its tenant: a suspension would be lost, and the tenant usable."""
    tenants = place.tenants()
    credential = await tenants.ensure("alpha")
    await tenants.role("reader").ensure("alpha")
    await leave(place.store, credential, kind, target="elsewhere")
    before = await place.store.get("alpha")

    failed = await only(tenants.role("reader").remove(["alpha"]))

    assert isinstance(failed.error, SuspendedError | TenantMovingError | TenantNotFoundError)
    assert await place.store.get("alpha") == before
    assert await tenants.get("alpha") is None
    assert (await only(tenants.check(["alpha"]))).problems == kinds(problem)


@pytest.mark.parametrize("last", ["suspend", "remove"])
async def test_login_of_dead_resumption_is_ended(anywhere: Place, last: str) -> None:
    """The operation keeps it on record. Otherwise it would be newer than all on record, as if of another store."""
    tenants = anywhere.tenants()
    await tenants.ensure("alpha")
    await suspended(tenants)
    await begun(anywhere, lambda dying: only(dying.resume(["alpha"])))
    record = present(await anywhere.store.get("alpha"))
    [login] = present(record.operation).logins
    await make_login(anywhere, login)
    await begun(anywhere, lambda dying: only(getattr(dying, last)(["alpha"])))

    done = await only(getattr(tenants, last)(["alpha"]))

    assert done.error is None
    if last == "suspend":
        assert (await only(tenants.check(["alpha"]))).problems == ()
    else:
        assert await anywhere.logins() == []


async def test_half_removed_tenant_not_suspended_or_resumed(place: Place, tenants: Tenants, alpha: Credential) -> None:
    await leave(place.store, alpha, OperationKind.REMOVE)
    for run in (tenants.suspend(["alpha"]), tenants.resume(["alpha"])):
        failed = await only(run)
        assert isinstance(failed.error, TenantNotFoundError)
        assert "the tenant 'alpha' is being removed, or its removal is unfinished: run remove" in str(failed.error)
    assert not await refusal(alpha, "SELECT 1")


async def test_pool_use_after_suspension(place: Place) -> None:
    await place.tenants().ensure("alpha")
    closing = AsyncConnection[Any].close
    async with TenantPools(place.tenants(), open=connected, close=closing, max_pools=20, refresh=600.0) as pools:
        async with pools.use("alpha") as pool:
            await pool.execute("SELECT 1")
        await suspended(place.tenants())  # by another process
        with pytest.raises(psycopg.Error):
            async with pools.use("alpha") as pool:
                await pool.execute("SELECT 1")
        with pytest.raises(SuspendedError, match="'alpha' is suspended since"):
            async with pools.use("alpha") as pool:
                await pool.execute("SELECT 1")
        await only(place.tenants().resume(["alpha"]))
        async with pools.use("alpha") as pool:
            await pool.execute("SELECT 1")


async def gone(place: Place) -> None:
    """Check that nothing of the test's tenants is left: no login, no role, no database, no record."""
    assert [user.name for user in await place.cluster.users.list() if user.name.startswith(place.prefix)] == []
    assert [db.name for db in await place.cluster.dbs.list() if db.name.startswith(place.prefix)] == []
    assert [record async for record in place.store.records()] == []


async def test_an_open_session_does_not_outlive_its_tenant(anywhere: Place) -> None:
    place, tenants = anywhere, anywhere.tenants()
    credential = await tenants.ensure("alpha")
    async with session_of(credential) as session:
        await session("CREATE TABLE t (x int PRIMARY KEY)" if credential.engine == Engine.PG else "SELECT 1")

        removed = await only(tenants.remove(["alpha"]))

        assert removed.error is None
        with pytest.raises(Exception, match=r"(?i)clos|terminat|lost|gone|away|connect|exceeded|no longer"):
            await session("SELECT 1")
    await gone(place)
    again = await tenants.ensure("alpha")
    assert await refusal(credential)
    await ask(again, "CREATE TABLE t (x int PRIMARY KEY)")


async def test_remove_when_database_is_gone(anywhere: Place, tenants: Tenants, alpha: Credential) -> None:
    await anywhere.cluster.dbs.delete(alpha.database or "")
    await anywhere.cluster.users.delete(alpha.username)

    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED

    await gone(anywhere)


async def test_failed_removal_reports_no_loss(place: Place, tenants: Tenants, alpha: Credential) -> None:
    """A transaction of the administrator changes the owner role meanwhile, so it can be neither dropped nor renamed."""
    admin = await admin_of(place.cluster)
    found = f"SELECT FROM pg_database WHERE datname = '{alpha.database}'"
    role = names_of("alpha", Engine.PG, place.prefix).owner
    async with session_of(admin) as session:
        await session("BEGIN")
        await session(f'ALTER ROLE "{role}" CONNECTION LIMIT 9')

        failed = await only(tenants.remove(["alpha"]))

        assert await ask(admin, found) == []
        assert type(failed.error) is GrantError  # the public class, whose name an application logs
        assert "holds a lock that it needs" in str(failed.error)
        await session("ROLLBACK")
    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED
    await gone(place)


async def half_removed(place: Place) -> Credential:
    """A tenant with a reader and some data, whose removal ended early."""
    tenants = place.tenants()
    credential = await tenants.ensure("alpha")
    await ask(credential, "CREATE TABLE t (x int PRIMARY KEY)")
    await tenants.role("reader").ensure("alpha")
    await begun(place, lambda dying: only(dying.remove(["alpha"])))
    return credential


async def test_repair_finishes_removal(anywhere: Place, tenants: Tenants) -> None:
    credential = await half_removed(anywhere)
    assert await tenants.get("alpha") is None
    assert (await only(tenants.check())).problems == kinds(ProblemKind.REMOVAL_UNFINISHED)
    for run in (tenants.rotate(all=True), tenants.revoke_previous(all=True)):
        assert "'alpha' is being removed, or its removal is unfinished: run remove" in str((await only(run)).error)

    repaired = await only(tenants.repair(all=True))

    assert repaired.action is TenantAction.DELETED
    assert repaired.error is None
    assert repaired.problems == kinds(ProblemKind.REMOVAL_UNFINISHED)
    await gone(anywhere)
    assert await refusal(credential)
    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.ABSENT


async def test_database_that_looks_foreign_is_removed(anywhere: Place) -> None:
    """After a removal that ended early, somebody drops the logins on MySQL, or opens the database on PostgreSQL."""
    place, credential = anywhere, await half_removed(anywhere)
    if credential.engine == Engine.PG:
        admin, name = await admin_of(place.cluster), credential.database
        await ask(admin, f'GRANT CONNECT ON DATABASE "{name}" TO PUBLIC')
    else:
        for login in await place.logins():
            await place.cluster.users.delete(place.prefix + login)

    assert (await only(place.tenants().remove(["alpha"]))).action is TenantAction.DELETED

    await gone(place)


async def test_provisioning_a_half_removed_tenant_makes_it_new(anywhere: Place, tenants: Tenants) -> None:
    before = await half_removed(anywhere)

    [outcome] = [outcome async for outcome in tenants.provision(["alpha"])]

    assert outcome.action is TenantAction.CREATED
    assert outcome.credential is not None
    assert outcome.credential.password != before.password
    assert await tenants.role("reader").get("alpha") is None
    assert await refusal(before)
    assert await refusal(outcome.credential, "SELECT x FROM t")
    assert (await only(tenants.check())).problems == ()


async def test_repair_finishes_removal_of_reader(place: Place, tenants: Tenants) -> None:
    readers = tenants.role("reader")
    owner, reader = await tenants.ensure("alpha"), await readers.ensure("alpha")
    await begun(place, lambda dying: only(dying.role("reader").remove(["alpha"])))
    assert (await only(readers.check())).problems == (Problem(ProblemKind.UNFINISHED, "remove"),)

    assert (await only(tenants.repair(all=True))).action is TenantAction.REPAIRED

    assert not await refusal(owner, "SELECT 1")
    assert await refusal(reader)
    assert "has no reader: provision one first" in str((await only(readers.rotate(["alpha"]))).error)
