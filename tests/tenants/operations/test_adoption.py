"""A store is lost, and its tenants are adopted into a new one: programs that use the old login keep working."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiodbclient.engines import Engine
from aiodbclient.errors import ConflictError, InvalidArgumentError, NotFoundError
from aiodbclient.tenants import ProblemKind, SQLiteStore, TenantAction, Tenants
from aiodbclient.tenants.errors import TenantNotFoundError

from ..conftest import Place, only, present
from ..problems import kinds
from ..programs import ask, refusal
from .test_check_and_repair import admin_of, make_login


@pytest.fixture
async def new(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(tmp_path / "new.db") as store:
        yield store


async def test_adopted_login_works_until_revoked(anywhere: Place, new: SQLiteStore) -> None:
    old = await anywhere.tenants().ensure("gamma")
    await ask(old, "CREATE TABLE t (x int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    after = Tenants(anywhere.cluster, new, prefix=anywhere.prefix)

    adopted = await only(after.provision(["gamma"], if_exists="adopt"))

    assert adopted.error is None
    assert adopted.action is TenantAction.ADOPTED
    assert adopted.credential is not None
    assert adopted.credential.username != old.username
    record = present(await new.get("gamma"))
    previous = present(record.previous())
    assert (previous.username, previous.password) == (old.username, None)
    for credential in (old, adopted.credential):
        assert await ask(credential, "SELECT x FROM t") == [(1,)]
    await ask(old, "CREATE TABLE late (x int PRIMARY KEY)")
    assert (await only(after.check(["gamma"]))).problems == ()
    assert (await only(after.repair(["gamma"]))).action is TenantAction.KEPT

    assert (await only(after.revoke_previous(["gamma"]))).action is TenantAction.REVOKED

    assert await refusal(old)
    await ask(adopted.credential, "INSERT INTO late VALUES (1)", "DROP TABLE late")
    assert (await only(after.check(["gamma"]))).problems == ()
    assert (await only(after.rotate(["gamma"]))).action is TenantAction.ROTATED


async def test_adoption_keeps_newest_login(anywhere: Place, new: SQLiteStore) -> None:
    tenants = anywhere.tenants()
    first = await tenants.ensure("gamma")
    second = present((await only(tenants.rotate(["gamma"]))).credential)

    adopted = await Tenants(anywhere.cluster, new, prefix=anywhere.prefix).ensure("gamma", if_exists="adopt")

    assert adopted.username > second.username > first.username
    assert not await refusal(adopted)
    assert not await refusal(second)
    assert await refusal(first)


async def test_the_older_of_two_stores_is_told_so(anywhere: Place, new: SQLiteStore) -> None:
    """A verb that changes a tenant refuses if a login is newer than all on record: `adopt` is the way back."""
    old, after = anywhere.tenants(), Tenants(anywhere.cluster, new, prefix=anywhere.prefix)
    await old.ensure("gamma")
    adopted = await after.ensure("gamma", if_exists="adopt")

    for run in (old.rotate(["gamma"]), old.suspend(["gamma"]), old.repair(["gamma"]), old.remove(["gamma"])):
        error = (await only(run)).error
        assert isinstance(error, ConflictError)
        assert "another store knows the tenant 'gamma'" in str(error)
    assert (await only(old.check(["gamma"]))).problems == kinds(ProblemKind.UNKNOWN_LOGIN)
    assert not await refusal(adopted)

    await anywhere.store.discard("gamma")
    again = await old.ensure("gamma", if_exists="adopt")
    assert not await refusal(again)
    assert not await refusal(adopted)


async def test_adopt_suspended_tenant(anywhere: Place, new: SQLiteStore) -> None:
    """It has a new login alone."""
    tenants = anywhere.tenants()
    old = await tenants.ensure("gamma")
    await ask(old, "CREATE TABLE t (x int PRIMARY KEY)")
    assert (await only(tenants.suspend(["gamma"]))).error is None
    after = Tenants(anywhere.cluster, new, prefix=anywhere.prefix)

    adopted = await after.ensure("gamma", if_exists="adopt")

    await ask(adopted, "INSERT INTO t VALUES (1)")
    assert await refusal(old)
    record = present(await new.get("gamma"))
    assert record.previous() is None
    assert (await only(after.check(["gamma"]))).problems == ()


async def test_adoption_ends_readers(anywhere: Place, new: SQLiteStore) -> None:
    owner = await anywhere.tenants().ensure("gamma")
    await ask(owner, "CREATE TABLE t (x int PRIMARY KEY)")
    before = await anywhere.tenants().role("reader").ensure("gamma")
    after = Tenants(anywhere.cluster, new, prefix=anywhere.prefix)
    await after.ensure("gamma", if_exists="adopt")
    assert await refusal(before)

    reader = await after.role("reader").ensure("gamma")

    assert await ask(reader, "SELECT * FROM t") == []
    assert await refusal(reader, "INSERT INTO t VALUES (1)")
    assert (await only(after.check(["gamma"]))).problems == ()
    assert (await only(after.revoke_previous(["gamma"]))).action is TenantAction.REVOKED
    assert await refusal(owner)
    assert (await only(after.check(["gamma"]))).problems == ()


async def test_reserved_name_is_not_adopted(place: Place) -> None:
    for name in ("defaultdb", "doadmin", "_dodb"):
        with pytest.raises(ValueError, match="it is reserved"):
            await place.tenants(prefix="").ensure(name, if_exists="adopt")


async def test_check_reports_lost_tenant(anywhere: Place, new: SQLiteStore) -> None:
    await anywhere.tenants().ensure("gamma")
    after = Tenants(anywhere.cluster, new, prefix=anywhere.prefix)
    kept = await after.ensure("kept")

    found = {outcome.name: outcome async for outcome in after.check(not_on_record=True)}

    assert {name: outcome.problems for name, outcome in found.items()} == {
        "gamma": kinds(ProblemKind.NOT_ON_RECORD),
        "kept": (),
    }
    assert (found["gamma"].credential, found["kept"].credential) == (None, kept)
    assert {outcome.name async for outcome in anywhere.tenants().check(not_on_record=True)} == {"gamma", "kept"}
    assert {outcome.name async for outcome in after.check()} == {"kept"}
    with pytest.raises(InvalidArgumentError, match="takes no names"):
        after.check(["gamma"], not_on_record=True)
    assert isinstance((await only(after.check(["gamma"]))).error, TenantNotFoundError)


@pytest.mark.parametrize("is_suspended", [False, True])
async def test_returned_login_ended_by_repair(anywhere: Place, is_suspended: bool) -> None:
    """As after a failover or a restore. A suspended tenant is suspended again."""
    tenants = anywhere.tenants()
    old = await tenants.ensure("gamma")
    for verb in ["suspend"] if is_suspended else ["rotate", "revoke_previous"]:
        assert (await only(getattr(tenants, verb)(["gamma"]))).error is None
    assert (await only(tenants.check(["gamma"]))).problems == ()
    if is_suspended and old.engine == Engine.MYSQL:
        await ask(await admin_of(anywhere), f"ALTER USER '{old.username}'@'%' ACCOUNT UNLOCK", database="mysql")
    else:
        await make_login(anywhere, old.username)

    assert (await only(tenants.check(["gamma"]))).problems == kinds(ProblemKind.UNKNOWN_LOGIN)
    repaired = await only(tenants.repair(["gamma"]))

    assert repaired.action is (TenantAction.SUSPENDED if is_suspended else TenantAction.REPAIRED)
    assert repaired.problems == kinds(ProblemKind.UNKNOWN_LOGIN)
    assert is_suspended or repaired.credential == await tenants.get("gamma")
    assert await refusal(old)
    assert (await only(tenants.check(["gamma"]))).problems == ()


async def test_nothing_to_adopt_fails(anywhere: Place) -> None:
    """As with the wrong cluster, where empty twins of all tenants were created."""
    tenants = anywhere.tenants()
    await tenants.ensure("other")
    before = await anywhere.logins()
    [failed] = [outcome async for outcome in tenants.provision(["alpha"], if_exists="adopt")]
    assert isinstance(failed.error, NotFoundError)
    assert "to adopt; nothing was changed" in str(failed.error)
    assert await anywhere.store.get("alpha") is None
    assert await anywhere.logins() == before
    assert (await only(tenants.provision(["alpha"]))).error is None  # the control
