"""What is there already: tenants of a lost store, strangers' logins and databases, records for another place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import evolve

from aiodbclient import Cluster
from aiodbclient.bulk import Outcome
from aiodbclient.engines import Engine
from aiodbclient.errors import ConflictError, InvalidArgumentError, NameTakenError, NotFoundError
from aiodbclient.tenants import Credential, OperationKind, ProblemKind, SQLiteStore, TenantAction, TenantRecord, Tenants
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants.errors import TenantNotFoundError

from ..conftest import Place, only, present
from ..dying import begun, leave
from ..problems import kinds
from ..programs import ask, refusal
from ..store_contract import a_credential
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
    """An operation that changes a tenant refuses if a login is newer than all on record: `adopt` is the way back."""
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
    for operation in ["suspend"] if is_suspended else ["rotate", "revoke_previous"]:
        assert (await only(getattr(tenants, operation)(["gamma"]))).error is None
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
async def test_invalid_if_exists_refused(place: Place, if_exists: Any) -> None:
    tenants = place.tenants()
    with pytest.raises(InvalidArgumentError, match='if_exists must be "error" or "adopt"'):
        await tenants.ensure("alpha", if_exists=if_exists)
    with pytest.raises(InvalidArgumentError, match="if_exists must be"):
        tenants.provision(["alpha"], if_exists=if_exists)
    assert place.sent() == []


class InterruptedStore(SQLiteStore):
    """A stranger acts right after the first operation is stored: we have listed, but not created anything."""

    stranger: Callable[[], Awaitable[object]] | None = None

    async def save(self, claim: Any, record: TenantRecord | None, *, release: bool = False) -> None:
        await super().save(claim, record, release=release)
        if self.stranger is not None:
            stranger, self.stranger = self.stranger, None
            await stranger()


@pytest.mark.parametrize("what", ["database", "both"])
@pytest.mark.parametrize("bulk", [False, True])
async def test_database_made_by_others_before_create(anywhere: Place, what: str, bulk: bool, tmp_path: Path) -> None:
    place, name = anywhere, anywhere.prefix + "shop"
    async with InterruptedStore(tmp_path / "other.db") as store:
        store.stranger = lambda: make(place.cluster, what, name)
        tenants = Tenants(place.cluster, store, prefix=place.prefix)
        before = await everything(place)

        if bulk:
            assert isinstance((await only(tenants.provision(["shop"]))).error, ConflictError)
        else:
            with pytest.raises(ConflictError, match="somebody else created this"):
                await tenants.ensure("shop")

        assert await store.get("shop") is None
        users, databases = await everything(place)
        assert len(users) - len(before[0]) == (what != "database")
        assert len(databases) - len(before[1]) == 1


@pytest.mark.parametrize("operation", ["provision", "repair", "remove"])
async def test_database_made_by_others_after_crash(anywhere: Place, operation: str) -> None:
    """A process dies before it creates the database, and somebody else makes one of that name: it stays theirs."""
    place, name = anywhere, anywhere.prefix + "shop"
    shop = evolve(a_credential("shop"), cluster=place.cluster.id, database=name)
    await leave(place.store, shop, OperationKind.PROVISION)
    await make(place.cluster, "database", name)
    admin = await admin_of(place, name)
    await ask(admin, "CREATE TABLE theirs (x int PRIMARY KEY)")

    outcome = await only(getattr(place.tenants(), operation)(["shop"]))

    assert isinstance(outcome.error, NameTakenError) or outcome.action is TenantAction.DELETED
    assert await place.store.get("shop") is None
    await ask(admin, "INSERT INTO theirs VALUES (1)")
    assert await place.logins() == []
    if operation == "provision":
        assert (await only(place.tenants().provision(["shop"], if_exists="adopt"))).action is TenantAction.ADOPTED


@pytest.mark.parametrize("operation", ["provision", "repair", "remove"])
async def test_tenant_of_another_store_after_crash(anywhere: Place, operation: str, tmp_path: Path) -> None:
    """A process dies before it creates anything, and the process of another store makes the tenant."""
    place, name = anywhere, anywhere.prefix + "shop"
    engine = (await place.cluster.info()).engine
    shop = evolve(a_credential("shop"), cluster=place.cluster.id, database=name)
    login = names_of("shop", engine, place.prefix).next_login([])
    await leave(place.store, shop, OperationKind.PROVISION, logins=(login,))
    async with SQLiteStore(tmp_path / "other.db") as store:
        theirs = await Tenants(place.cluster, store, prefix=place.prefix).ensure("shop")

    outcome = await only(getattr(place.tenants(), operation)(["shop"]))

    assert isinstance(outcome.error, ConflictError)
    assert "another store knows the tenant 'shop'" in str(outcome.error)
    assert not await refusal(theirs)


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
        theirs = evolve(await admin_of(anywhere, name), username=user.name, password=user.password)
        if theirs.engine == Engine.PG:
            await ask(await admin_of(anywhere, name), f'GRANT ALL ON SCHEMA public TO "{name}"')
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


async def test_prefixes_that_overlap_share_no_tenant(anywhere: Place, tmp_path: Path) -> None:
    place = anywhere
    first = await place.tenants(prefix=f"{place.prefix}app").ensure("1x")
    async with SQLiteStore(tmp_path / "other.db") as store:
        with pytest.raises(ConflictError, match="somebody else created this"):
            await Tenants(place.cluster, store, prefix=f"{place.prefix}app1").ensure("x")
        assert await store.get("x") is None
    assert (await only(place.tenants(prefix=f"{place.prefix}app").check(["1x"]))).problems == ()
    assert first.password is None or first == await place.tenants(prefix=f"{place.prefix}app").get("1x")


async def test_two_processes_that_ask_at_once_make_one(anywhere: Place, tmp_path: Path) -> None:
    """Neither mistakes the other's new login for a stranger's."""
    place = anywhere
    async with SQLiteStore(place.path) as store:
        others = Tenants(place.cluster, store, prefix=place.prefix)
        one, two = await asyncio.gather(place.tenants().ensure("alpha"), others.ensure("alpha"))
    assert one == two
    assert await place.logins() == [one.username.removeprefix(place.prefix)]


Out = TypeVar("Out", bound=Outcome)


async def by_name(run: AsyncIterable[Out]) -> dict[str, Out]:
    return {outcome.name: outcome async for outcome in run}


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
    credential = await place.tenants().ensure("alpha")
    if removing:
        await begun(place, lambda dying: by_name(dying.remove(["alpha"])))
    record = await place.store.get("alpha")
    before = len(place.sent())

    for run in (wrong.provision, wrong.rotate, wrong.revoke_previous, wrong.remove):
        outcome = (await by_name(run(["alpha"])))["alpha"]
        assert isinstance(outcome.error, InvalidArgumentError)
        assert "a name is taken in the whole store" in str(outcome.error)
        assert what == "another prefix" or place.cluster.id in str(outcome.error)
    for call in (wrong.ensure("alpha"), wrong.get("alpha")):
        with pytest.raises(InvalidArgumentError, match="a name is taken in the whole store"):
            await call
    assert await by_name(wrong.check()) == {}
    for over_all in (wrong.repair, wrong.rotate, wrong.revoke_previous):
        assert await by_name(over_all(all=True)) == {}
    assert [each async for each in wrong.records()] == []

    reads = {"clusters.get", "clusters.ca"}
    assert {what for what, _ in place.sent()[before:]} <= reads
    assert await place.store.get("alpha") == record
    assert not await refusal(credential)
