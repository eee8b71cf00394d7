"""A stranger's login or database is adopted only on request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from aiodbclient import Cluster, Engine
from aiodbclient.errors import ConflictError, InvalidArgumentError, NameTakenError
from aiodbclient.tenants import OperationKind, SQLiteStore, TenantAction, TenantRecord, Tenants
from aiodbclient.tenants._naming import names_of

from ..conftest import Place, only
from ..dying import leave
from ..programs import ask, refusal
from ..store_contract import a_credential
from .test_check_and_repair import admin_of

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


@pytest.mark.parametrize("verb", ["provision", "repair", "remove"])
async def test_database_made_by_others_after_crash(anywhere: Place, verb: str) -> None:
    """A process dies before it creates the database, and somebody else makes one of that name: it stays theirs."""
    place, name = anywhere, anywhere.prefix + "shop"
    shop = evolve(a_credential("shop"), cluster=place.cluster.id, database=name)
    await leave(place.store, shop, OperationKind.PROVISION)
    await make(place.cluster, "database", name)
    admin = await admin_of(place, name)
    await ask(admin, "CREATE TABLE theirs (x int PRIMARY KEY)")

    outcome = await only(getattr(place.tenants(), verb)(["shop"]))

    assert isinstance(outcome.error, NameTakenError) or outcome.action is TenantAction.DELETED
    assert await place.store.get("shop") is None
    await ask(admin, "INSERT INTO theirs VALUES (1)")
    assert await place.logins() == []
    if verb == "provision":
        assert (await only(place.tenants().provision(["shop"], if_exists="adopt"))).action is TenantAction.ADOPTED


@pytest.mark.parametrize("verb", ["provision", "repair", "remove"])
async def test_tenant_of_another_store_after_crash(anywhere: Place, verb: str, tmp_path: Path) -> None:
    """A process dies before it creates anything, and the process of another store makes the tenant."""
    place, name = anywhere, anywhere.prefix + "shop"
    engine = (await place.cluster.info()).engine
    shop = evolve(a_credential("shop"), cluster=place.cluster.id, database=name)
    login = names_of("shop", engine, place.prefix).new_login([])
    await leave(place.store, shop, OperationKind.PROVISION, logins=(login,))
    async with SQLiteStore(tmp_path / "other.db") as store:
        theirs = await Tenants(place.cluster, store, prefix=place.prefix).ensure("shop")

    outcome = await only(getattr(place.tenants(), verb)(["shop"]))

    assert isinstance(outcome.error, ConflictError)
    assert "another store knows the tenant 'shop'" in str(outcome.error)
    assert not await refusal(theirs)


async def test_prefixes_that_overlap_share_no_tenant(anywhere: Place, tmp_path: Path) -> None:
    place = anywhere
    first = await place.tenants(prefix=f"{place.prefix}app").ensure("1x")
    async with SQLiteStore(tmp_path / "other.db") as store:
        with pytest.raises(ConflictError, match="somebody else created this"):
            await Tenants(place.cluster, store, prefix=f"{place.prefix}app1").ensure("x")
        assert await store.get("x") is None
    assert (await only(place.tenants(prefix=f"{place.prefix}app").check(["1x"]))).problems == ()
    assert first.password is None or first == await place.tenants(prefix=f"{place.prefix}app").get("1x")


async def test_adopted_login_of_api_works_until_revoked(anywhere: Place) -> None:
    place, tenants, name = anywhere, anywhere.tenants(), anywhere.prefix + "shop"
    await make(place.cluster, "database", name)
    user = await place.cluster.users.create(name)
    if (admin := await admin_of(place, name)).engine == Engine.PG:
        await ask(admin, f'GRANT CREATE ON SCHEMA public TO "{name}"')
    old = evolve(admin, username=name, password=user.password)
    await ask(old, "CREATE TABLE t (x int PRIMARY KEY)")
    assert isinstance((await only(tenants.provision(["shop"]))).error, ConflictError)

    adopted = await only(tenants.provision(["shop"], if_exists="adopt"))

    assert adopted.error is None
    assert (adopted.action, adopted.credential.username != name) == (TenantAction.ADOPTED, True)
    for number, credential in enumerate((old, adopted.credential)):
        await ask(credential, f"INSERT INTO t VALUES ({number})")
    assert (await only(tenants.check(["shop"]))).problems == ()
    assert (await only(tenants.revoke_previous(["shop"]))).action is TenantAction.REVOKED
    assert await refusal(old)
    assert name not in [each.name for each in await place.cluster.users.list()]
    assert await ask(adopted.credential, "ALTER TABLE t ADD y int", "SELECT x FROM t ORDER BY x") == [(0,), (1,)]
    assert (await only(tenants.check(["shop"]))).problems == ()


async def test_adopt_database_without_login(anywhere: Place) -> None:
    place = anywhere
    await make(place.cluster, "database", place.prefix + "shop")

    outcome = await only(place.tenants().provision(["shop"], if_exists="adopt"))

    assert outcome.action is TenantAction.ADOPTED
    assert (await only(place.tenants().check(["shop"]))).problems == ()


async def test_two_processes_that_ask_at_once_make_one(anywhere: Place, tmp_path: Path) -> None:
    """Neither mistakes the other's new login for a stranger's."""
    place = anywhere
    async with SQLiteStore(place.path) as store:
        others = Tenants(place.cluster, store, prefix=place.prefix)
        one, two = await asyncio.gather(place.tenants().ensure("alpha"), others.ensure("alpha"))
    assert one == two
    assert await place.logins() == [one.username.removeprefix(place.prefix)]
