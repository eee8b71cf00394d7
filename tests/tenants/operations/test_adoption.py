"""What is there already: tenants of a lost store, strangers' logins and databases, records for another place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from aiodbclient import Cluster
from aiodbclient.engines import Engine
from aiodbclient.errors import ConflictError, InvalidArgumentError, NameTakenError, NotFoundError
from aiodbclient.tenants import Credential, OperationKind, ProblemKind, SQLiteStore, TenantAction, Tenants
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants.errors import TenantNotFoundError

from ..conftest import Place, only, present
from ..dying import begun, leave
from ..problems import kinds
from ..programs import admin_of, ask, refusal
from ..store_contract import a_credential
from .test_check_and_repair import make_login


@pytest.fixture
async def new(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(tmp_path / "new.db") as store:
        yield store


@pytest.fixture
def after(anywhere: Place, new: SQLiteStore) -> Tenants:
    """The tenants after their store was lost: by a new one."""
    return anywhere.tenants(store=new)


async def test_adopted_login_works_until_revoked(anywhere: Place, after: Tenants, new: SQLiteStore) -> None:
    old = await anywhere.tenants().ensure("gamma")
    await ask(old, "CREATE TABLE t (x int PRIMARY KEY)", "INSERT INTO t VALUES (1)")

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


async def test_adoption_keeps_newest_login(anywhere: Place, tenants: Tenants, after: Tenants) -> None:
    first = await tenants.ensure("gamma")
    second = present((await only(tenants.rotate(["gamma"]))).credential)

    adopted = await after.ensure("gamma", if_exists="adopt")

    assert adopted.username > second.username > first.username
    assert not await refusal(adopted)
    assert not await refusal(second)
    assert await refusal(first)


async def test_the_older_of_two_stores_is_told_so(anywhere: Place, after: Tenants) -> None:
    """An operation that changes a tenant refuses if a login is newer than all on record: `adopt` is the way back."""
    old = anywhere.tenants()
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


async def test_adopt_suspended_tenant(anywhere: Place, tenants: Tenants, after: Tenants, new: SQLiteStore) -> None:
    """It has a new login alone."""
    old = await tenants.ensure("gamma")
    await ask(old, "CREATE TABLE t (x int PRIMARY KEY)")
    assert (await only(tenants.suspend(["gamma"]))).error is None

    adopted = await after.ensure("gamma", if_exists="adopt")

    await ask(adopted, "INSERT INTO t VALUES (1)")
    assert await refusal(old)
    record = present(await new.get("gamma"))
    assert record.previous() is None
    assert (await only(after.check(["gamma"]))).problems == ()


async def test_adoption_ends_readers(anywhere: Place, after: Tenants) -> None:
    owner = await anywhere.tenants().ensure("gamma")
    await ask(owner, "CREATE TABLE t (x int PRIMARY KEY)")
    before = await anywhere.tenants().role("reader").ensure("gamma")
    await after.ensure("gamma", if_exists="adopt")
    assert await refusal(before)

    reader = await after.role("reader").ensure("gamma")

    assert await ask(reader, "SELECT * FROM t") == []
    assert await refusal(reader, "INSERT INTO t VALUES (1)")
    assert (await only(after.check(["gamma"]))).problems == ()
    assert (await only(after.revoke_previous(["gamma"]))).action is TenantAction.REVOKED
    assert await refusal(owner)
    assert (await only(after.check(["gamma"]))).problems == ()


async def test_check_reports_lost_tenant(anywhere: Place, after: Tenants) -> None:
    await anywhere.tenants().ensure("gamma")
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
async def test_returned_login_ended_by_repair(anywhere: Place, tenants: Tenants, is_suspended: bool) -> None:
    """As after a failover or a restore. A suspended tenant is suspended again."""
    old = await tenants.ensure("gamma")
    for operation in ["suspend"] if is_suspended else ["rotate", "revoke_previous"]:
        assert (await only(getattr(tenants, operation)(["gamma"]))).error is None
    assert (await only(tenants.check(["gamma"]))).problems == ()
    if is_suspended and old.engine == Engine.MYSQL:
        await ask(await admin_of(anywhere.cluster), f"ALTER USER '{old.username}'@'%' ACCOUNT UNLOCK", database="mysql")
    else:
        await make_login(anywhere, old.username)

    assert (await only(tenants.check(["gamma"]))).problems == kinds(ProblemKind.UNKNOWN_LOGIN)
    repaired = await only(tenants.repair(["gamma"]))

    assert repaired.action is (TenantAction.SUSPENDED if is_suspended else TenantAction.REPAIRED)
    assert repaired.problems == kinds(ProblemKind.UNKNOWN_LOGIN)
    assert is_suspended or repaired.credential == await tenants.get("gamma")
    assert await refusal(old)
    assert (await only(tenants.check(["gamma"]))).problems == ()


READS = {"clusters.get", "clusters.ca"}


async def make(cluster: Cluster, what: str, name: str) -> None:
    """Create a login, a database or both through the API alone, as a stranger would."""
    if what != "login":
        await cluster.dbs.create(name)
    if what != "database":
        await cluster.users.create(name)


@pytest.mark.parametrize("what", ["login", "database", "both"])
async def test_existing_name_refused(anywhere: Place, what: str) -> None:
    """Nothing is changed or stored."""
    place, tenants, name = anywhere, anywhere.tenants(), anywhere.prefix + "shop"
    await make(place.cluster, what, name)
    before = await everything(place)
    sent = len(place.sent())

    with pytest.raises(ConflictError, match=r"so somebody else created this; nothing was changed") as caught:
        await tenants.ensure("shop")
    assert not caught.value.may_have_applied
    for _ in range(2):  # nothing is stored that a second run would reset
        outcome = await only(tenants.provision(["shop"]))
        assert isinstance(outcome.error, ConflictError)

    assert {operation for operation, _ in place.sent()[sent:]} <= READS
    assert await everything(place) == before
    assert await place.store.get("shop") is None
    assert (await only(tenants.remove(["shop"]))).action is TenantAction.ABSENT
    assert await everything(place) == before


async def everything(place: Place) -> tuple[list[Any], list[str]]:
    return await place.cluster.users.list(), [db.name for db in await place.cluster.dbs.list()]


@pytest.mark.parametrize("if_exists", ["keep", "reset", "", None, "ADOPT", ["adopt"]])
async def test_invalid_if_exists_refused(place: Place, tenants: Tenants, if_exists: Any) -> None:
    with pytest.raises(InvalidArgumentError, match='if_exists must be "error" or "adopt"'):
        await tenants.ensure("alpha", if_exists=if_exists)
    with pytest.raises(InvalidArgumentError, match="if_exists must be"):
        tenants.provision(["alpha"], if_exists=if_exists)
    assert place.sent() == []


@pytest.mark.parametrize("what", ["database", "both"])
@pytest.mark.parametrize("bulk", [False, True])
async def test_database_made_by_others_before_create(anywhere: Place, tenants: Tenants, what: str, bulk: bool) -> None:
    """A stranger acts right after the first operation is stored: we have listed, but not created anything."""
    store, before = anywhere.store, await everything(anywhere)

    async def stranger(*_: object) -> None:
        store.after_save = None
        await make(anywhere.cluster, what, anywhere.prefix + "shop")

    store.after_save = stranger
    if bulk:
        assert isinstance((await only(tenants.provision(["shop"]))).error, ConflictError)
    else:
        with pytest.raises(ConflictError, match="somebody else created this"):
            await tenants.ensure("shop")

    assert await store.get("shop") is None
    users, databases = await everything(anywhere)
    assert len(users) - len(before[0]) == (what != "database")
    assert len(databases) - len(before[1]) == 1


@pytest.mark.parametrize("operation", ["provision", "repair", "remove"])
@pytest.mark.parametrize("is_tenant", [False, True], ids=["database", "tenant"])
async def test_made_by_others_after_crash(anywhere: Place, after: Tenants, operation: str, is_tenant: bool) -> None:
    """A process dies before it creates the database, and somebody else makes one of that name: it stays theirs."""
    place, name = anywhere, anywhere.prefix + "shop"
    [login] = names_of("shop", (await place.cluster.info()).engine, place.prefix).next_logins([])
    shop = evolve(a_credential("shop"), cluster=place.cluster.id, database=name)
    await leave(place.store, shop, OperationKind.PROVISION, logins=(login,))
    if is_tenant:  # by the process of another store
        theirs = await after.ensure("shop")
    else:
        await make(place.cluster, "database", name)
        theirs = await admin_of(place.cluster, name)
    await ask(theirs, "CREATE TABLE theirs (x int PRIMARY KEY)")

    outcome = await only(getattr(place.tenants(), operation)(["shop"]))

    await ask(theirs, "INSERT INTO theirs VALUES (1)")
    if is_tenant:
        assert isinstance(outcome.error, ConflictError)
        assert "another store knows the tenant 'shop'" in str(outcome.error)
        return
    assert isinstance(outcome.error, NameTakenError) or outcome.action is TenantAction.DELETED
    assert await place.store.get("shop") is None
    assert await place.logins() == []
    if operation == "provision":
        assert (await only(place.tenants().provision(["shop"], if_exists="adopt"))).action is TenantAction.ADOPTED


@pytest.mark.parametrize("what", ["database", "both"])
async def test_adopt_what_the_api_made(anywhere: Place, what: str) -> None:
    """Its login works until it is revoked. With neither there is nothing to adopt, as on the wrong cluster."""
    tenants, name = anywhere.tenants(), anywhere.prefix + "shop"
    nothing = (await only(tenants.provision(["shop"], if_exists="adopt"))).error
    assert isinstance(nothing, NotFoundError)
    assert "to adopt; nothing was changed" in str(nothing)
    assert (await anywhere.store.get("shop"), await anywhere.logins()) == (None, [])
    await make(anywhere.cluster, what, name)
    theirs: Credential | None = None
    if what == "both":
        user = await anywhere.cluster.users.get(name)
        theirs = evolve(await admin_of(anywhere.cluster, name), username=user.name, password=user.password)
        if theirs.engine == Engine.PG:
            await ask(await admin_of(anywhere.cluster, name), f'GRANT ALL ON SCHEMA public TO "{name}"')
        await ask(theirs, "CREATE TABLE t (x int PRIMARY KEY)")

    outcome = await only(tenants.provision(["shop"], if_exists="adopt"))

    assert outcome.action is TenantAction.ADOPTED
    assert (await only(tenants.check(["shop"]))).problems == ()
    if theirs is not None:
        await ask(theirs, "INSERT INTO t VALUES (1)")
        await ask(present(outcome.credential), "INSERT INTO t VALUES (2)", "ALTER TABLE t ADD COLUMN y int")
        assert (await only(tenants.repair(["shop"]))).action is TenantAction.KEPT
        assert not await refusal(theirs)
        assert (await only(tenants.revoke_previous(["shop"]))).action is TenantAction.REVOKED
        assert await refusal(theirs)
        assert (await only(tenants.check(["shop"]))).problems == ()


async def test_prefixes_that_overlap_share_no_tenant(anywhere: Place, new: SQLiteStore) -> None:
    tenants = anywhere.tenants(prefix=f"{anywhere.prefix}app")
    first = await tenants.ensure("1x")
    with pytest.raises(ConflictError, match="somebody else created this"):
        await anywhere.tenants(store=new, prefix=f"{anywhere.prefix}app1").ensure("x")
    assert await new.get("x") is None
    assert (await only(tenants.check(["1x"]))).problems == ()
    assert await tenants.get("1x") == first


async def test_two_processes_that_ask_at_once_make_one(anywhere: Place) -> None:
    """Neither mistakes the other's new login for a stranger's."""
    async with anywhere.another_process() as others:
        one, two = await asyncio.gather(anywhere.tenants().ensure("alpha"), others.ensure("alpha"))
    assert one == two
    assert await anywhere.logins() == [one.username.removeprefix(anywhere.prefix)]


async def elsewhere(place: Place, what: str) -> Tenants:
    """Tenants with the same store and another prefix, or another cluster."""
    if what == "another prefix":
        return place.tenants(prefix=f"{place.prefix}other_")
    other = place.client.cluster(await place.sandbox.add_cluster("pg", backend="postgres"))
    return Tenants(other, place.store, prefix=place.prefix)


@pytest.mark.parametrize("what", ["another cluster", "another prefix"])
@pytest.mark.parametrize("removing", [False, True], ids=["in use", "in removal"])
async def test_records_for_another_place_are_left_alone(place: Place, what: str, removing: bool) -> None:
    wrong = await elsewhere(place, what)
    expected = ConflictError if what == "another cluster" else NameTakenError
    credential = await place.tenants().ensure("alpha")
    if removing:
        await begun(place, lambda dying: only(dying.remove(["alpha"])))
    record = await place.store.get("alpha")
    before = len(place.sent())

    for run in (wrong.provision, wrong.rotate, wrong.revoke_previous, wrong.remove):
        outcome = await only(run(["alpha"]))
        assert type(outcome.error) is expected
        assert "a name is taken in the whole store" in str(outcome.error)
        assert what == "another prefix" or place.cluster.id in str(outcome.error)
    for call in (wrong.ensure("alpha"), wrong.get("alpha")):
        with pytest.raises(expected, match="a name is taken in the whole store"):
            await call
    assert await wrong.check() == []
    for over_all in (wrong.repair, wrong.rotate, wrong.revoke_previous):
        assert await over_all(all=True) == []
    assert [each async for each in wrong.records()] == []

    assert {what for what, _ in place.sent()[before:]} <= READS
    assert await place.store.get("alpha") == record
    assert not await refusal(credential)
