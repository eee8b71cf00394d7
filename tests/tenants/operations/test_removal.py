"""A removal succeeds, whatever the tenant or another one did."""

from __future__ import annotations

import pytest

from aiodbclient.engines import Engine
from aiodbclient.tenants import Credential, Problem, ProblemKind, TenantAction
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants.errors import GrantError

from ..conftest import Place, only
from ..dying import begun
from ..problems import kinds
from ..programs import ask, refusal, session_of
from .test_check_and_repair import admin_of


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


async def test_remove_when_database_is_gone(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    credential = await tenants.ensure("alpha")
    await anywhere.cluster.dbs.delete(credential.database or "")
    await anywhere.cluster.users.delete(credential.username)

    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED

    await gone(anywhere)


async def test_failed_removal_reports_no_loss(place: Place) -> None:
    """A transaction of the administrator changes the owner role meanwhile, so it can be neither dropped nor renamed."""
    tenants = place.tenants()
    credential = await tenants.ensure("alpha")
    admin = await admin_of(place)
    found = f"SELECT FROM pg_database WHERE datname = '{credential.database}'"
    role = names_of("alpha", Engine.PG, place.prefix).owner
    async with session_of(admin) as session:
        await session("BEGIN")
        await session(f'ALTER ROLE "{role}" CONNECTION LIMIT 9')

        failed = await only(tenants.remove(["alpha"]))

        assert await ask(admin, found) == []
        assert isinstance(failed.error, GrantError)
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


async def test_repair_finishes_removal(anywhere: Place) -> None:
    tenants = anywhere.tenants()
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
        admin, name = await admin_of(place), credential.database
        await ask(admin, f'GRANT CONNECT ON DATABASE "{name}" TO PUBLIC')
    else:
        for login in await place.logins():
            await place.cluster.users.delete(place.prefix + login)

    assert (await only(place.tenants().remove(["alpha"]))).action is TenantAction.DELETED

    await gone(place)


async def test_provisioning_a_half_removed_tenant_makes_it_new(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    before = await half_removed(anywhere)

    [outcome] = [outcome async for outcome in tenants.provision(["alpha"])]

    assert outcome.action is TenantAction.CREATED
    assert outcome.credential is not None
    assert outcome.credential.password != before.password
    assert await tenants.role("reader").get("alpha") is None
    assert await refusal(before)
    assert await refusal(outcome.credential, "SELECT x FROM t")
    assert (await only(tenants.check())).problems == ()


async def test_repair_finishes_removal_of_reader(place: Place) -> None:
    tenants = place.tenants()
    readers = tenants.role("reader")
    owner, reader = await tenants.ensure("alpha"), await readers.ensure("alpha")
    await begun(place, lambda dying: only(dying.role("reader").remove(["alpha"])))
    assert (await only(readers.check())).problems == (Problem(ProblemKind.UNFINISHED, "remove"),)

    assert (await only(tenants.repair(all=True))).action is TenantAction.REPAIRED

    assert not await refusal(owner, "SELECT 1")
    assert await refusal(reader)
    assert "has no reader: provision one first" in str((await only(readers.rotate(["alpha"]))).error)
