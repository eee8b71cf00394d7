"""A suspended tenant keeps its data, and no login of it enters, whatever it did before."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from attrs import evolve

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
from aiodbclient.tenants.errors import SuspendedError, TenantMovingError, TenantNotFoundError

from ..conftest import Place, only, present
from ..dying import begun, leave
from ..moves import close, connected
from ..problems import kinds
from ..programs import ask, refusal, session_of
from .test_check_and_repair import admin_of, make_login

ENDED = r"(?i)clos|terminat|lost|gone|away|connect|exceeded|no longer|killed|interrupted"


async def suspended(tenants: Tenants, name: str = "alpha") -> Credential:
    outcome = await only(tenants.suspend([name]))
    assert outcome.error is None, outcome.error
    assert outcome.action is TenantAction.SUSPENDED
    assert outcome.record.suspended is not None
    return outcome.credential


async def test_suspend_and_resume_keep_data(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    await ask(first, "CREATE TABLE t (x int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    second = present((await only(tenants.rotate(["alpha"]))).credential)
    started = datetime.now(UTC)

    credential = await suspended(tenants)

    assert await tenants.get("alpha") is None
    assert await refusal(first)
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
    assert resumed.credential.password not in (first.password, second.password)
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
        after = Tenants(place.cluster, restored, prefix=place.prefix)

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


async def test_nothing_planted_survives_suspension(anywhere: Place) -> None:
    """Its open sessions, and a neighbour that the administrator let in."""
    tenants = anywhere.tenants()
    alpha, beta = await tenants.ensure("alpha"), await tenants.ensure("beta")
    reader = await tenants.role("reader").ensure("alpha")
    await ask(alpha, "CREATE TABLE t (x int PRIMARY KEY)")
    credentials = [alpha, reader]
    if alpha.engine == Engine.PG:
        await ask(
            await admin_of(anywhere), f'GRANT ALL ON DATABASE "{alpha.database}" TO "{beta.username}" WITH GRANT OPTION'
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


async def test_remove_suspended_for(anywhere: Place) -> None:
    tenants = anywhere.tenants()
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


async def test_resume_after_unfinished_suspension(place: Place) -> None:
    tenants = place.tenants()
    first = await tenants.ensure("alpha")
    await leave(place.store, first, OperationKind.SUSPEND)

    resumed = await only(tenants.resume(["alpha"]))

    assert resumed.action is TenantAction.RESUMED
    assert await refusal(first)
    assert resumed.credential is not None
    assert not await refusal(resumed.credential, "SELECT 1")


@pytest.mark.parametrize(
    "kind", [OperationKind.SUSPEND, OperationKind.RESUME, OperationKind.REMOVE, OperationKind.MOVE]
)
async def test_reader_removal_waits_for_its_tenant(place: Place, kind: OperationKind) -> None:
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


async def test_half_removed_tenant_not_suspended_or_resumed(place: Place) -> None:
    tenants = place.tenants()
    credential = await tenants.ensure("alpha")
    await leave(place.store, credential, OperationKind.REMOVE)
    for run in (tenants.suspend(["alpha"]), tenants.resume(["alpha"])):
        failed = await only(run)
        assert isinstance(failed.error, TenantNotFoundError)
        assert "the tenant 'alpha' is being removed, or its removal is unfinished: run remove" in str(failed.error)
    assert not await refusal(credential, "SELECT 1")


async def test_pool_use_after_suspension(place: Place) -> None:
    await place.tenants().ensure("alpha")
    async with TenantPools(place.tenants(), open=connected, close=close, max_pools=20, refresh=600.0) as pools:
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
