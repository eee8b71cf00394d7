"""Readers and writers of a tenant: their rights, and their removal with the tenant."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from aiodbclient.engines import MYSQL
from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import Credential, OperationKind, Role, TenantAction, _clusters
from aiodbclient.tenants.errors import RotationPendingError, TenantNotFoundError

from ...thorough import first_of
from ..conftest import Place, only, present
from ..dying import leave
from ..programs import ask, refusal

READ = "SELECT x FROM t"
WRITES = ["INSERT INTO t (x) VALUES (2)", "UPDATE t SET x = 3", "DELETE FROM t WHERE x = 99"]
DEFINES = ["CREATE TABLE mine (x int PRIMARY KEY)", "ALTER TABLE t ADD y int", "DROP TABLE t"]


async def may(credential: Credential, statement: str) -> bool:
    """Whether the login may do this. Any error but a refusal fails the test."""
    why = await refusal(credential, statement)
    assert not why or "denied" in why or "must be owner" in why, why
    return not why


async def rights(credential: Credential) -> tuple[bool, bool, bool]:
    """Whether it may read everything, write everything, and define anything."""
    writes = [await may(credential, statement) for statement in WRITES]
    defines = [await may(credential, statement) for statement in DEFINES[: 1 if credential.engine in MYSQL else None]]
    return await may(credential, READ), all(writes), any(defines)


async def test_rights_of_reader_and_writer(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    readers, writers = tenants.role("reader"), tenants.role(Role.WRITER)
    owner = await tenants.ensure("alpha")
    reader, writer = await readers.ensure("alpha"), await writers.ensure("alpha")

    assert (owner.role, reader.role, writer.role) == (Role.OWNER, Role.READER, Role.WRITER)
    assert owner.database == reader.database == writer.database
    assert len({owner.username, reader.username, writer.username}) == 3
    assert await readers.get("alpha") == reader == await readers.ensure("alpha")
    assert await tenants.get("alpha") == owner
    for each, run in (("alpha", tenants), ("alpha", readers), ("alpha", writers)):
        assert [record.name async for record in run.records()] == [each]
        assert (await only(run.check())).problems == ()
    assert (await only(tenants.repair(all=True))).action is TenantAction.KEPT
    await ask(owner, "CREATE TABLE t (id serial PRIMARY KEY, x int)", "INSERT INTO t (x) VALUES (1)")

    assert await rights(reader) == (True, False, False)
    assert (await rights(writer))[:2] == (True, True)
    new = present((await only(readers.rotate(all=True))).credential)
    assert new.role is Role.READER
    assert await rights(new) == await rights(reader) == (True, False, False)
    assert isinstance((await only(readers.rotate(all=True))).error, RotationPendingError)
    assert (await only(readers.revoke_previous(older_than=timedelta(days=1)))).action is TenantAction.KEPT
    assert (await only(readers.revoke_previous(all=True))).action is TenantAction.REVOKED
    assert await refusal(reader)
    assert await rights(new) == (True, False, False)
    assert (await only(readers.check())).problems == ()
    assert await tenants.get("alpha") == owner
    assert await may(owner, "INSERT INTO t (x) VALUES (4)")


async def test_a_role_needs_its_tenant(anywhere: Place) -> None:
    readers = anywhere.tenants().role("reader")
    for run in (readers.provision, readers.rotate, readers.revoke_previous, readers.check):
        assert isinstance((await only(run(["alpha"]))).error, InvalidArgumentError)
    with pytest.raises(InvalidArgumentError, match="provision it first; nothing was sent"):
        await readers.ensure("alpha")
    assert (await only(readers.remove(["alpha"]))).action is TenantAction.ABSENT
    assert [record async for record in anywhere.store.records()] == []
    assert await anywhere.logins() == []


async def test_no_role_of_half_removed_tenant(place: Place) -> None:
    tenants = place.tenants()
    await leave(place.store, await tenants.ensure("alpha"), OperationKind.REMOVE)

    with pytest.raises(TenantNotFoundError, match="'alpha' is being removed, or its removal is unfinished: run remove"):
        await tenants.role("reader").ensure("alpha")

    assert [record.name async for record in place.store.records()] == ["alpha"]


@pytest.mark.parametrize("role", ["owner", "admin", "", None, "READER", ["reader"]])
def test_unknown_role_is_refused(place: Place, role: str) -> None:
    with pytest.raises(InvalidArgumentError, match="role must be one of writer, reader"):
        place.tenants().role(role)


async def test_the_roles_end_with_their_tenant(anywhere: Place) -> None:
    place, tenants = anywhere, anywhere.tenants()
    before = sorted(user.name for user in await place.cluster.users.list())
    await tenants.ensure("alpha")
    logins = list[Credential]()
    for role in ("reader", "writer"):
        logins.append(await tenants.role(role).ensure("alpha"))
        rotated = present((await only(tenants.role(role).rotate(["alpha"]))).credential)
        logins.append(rotated)

    assert (await only(tenants.role("reader").remove(["alpha"]))).action is TenantAction.DELETED
    assert await tenants.role("reader").get("alpha") is None
    assert (await only(tenants.check())).problems == ()
    assert (await only(tenants.role("writer").check())).problems == ()
    await tenants.role("reader").ensure("alpha")
    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED

    assert [record async for record in place.store.records()] == []
    assert sorted(user.name for user in await place.cluster.users.list()) == before
    for credential in logins:
        assert await refusal(credential)
    assert (await only(tenants.provision(["alpha"]))).action is TenantAction.CREATED


FEW = ["a_c", "abc", "a.c", "A"]


@pytest.mark.parametrize("names", first_of([FEW, [*FEW, "a-c", "_a", "0"]]))
async def test_pairs_of_roles_kept_apart(anywhere: Place, names: list[str]) -> None:
    """Also after a repair of their logins. test_isolation.py has logins that were not repaired."""
    tenants = anywhere.tenants()
    made = dict[tuple[str, str], Credential]()
    for role in ("owner", "reader", "writer"):
        of = tenants if role == "owner" else tenants.role(role)
        async for outcome in of.provision(names):
            assert outcome.credential is not None, outcome.error
            made[outcome.name, role] = outcome.credential
    for number, name in enumerate(names):
        login = made[name, "owner"]
        await ask(login, "CREATE TABLE t (x int PRIMARY KEY)")
        await (anywhere.cluster.users.delete if number % 2 else anywhere.cluster.users.reset_auth)(login.username)
    async for repaired in tenants.repair(all=True):
        assert repaired.credential is not None, repaired.error
        made[repaired.name, "owner"] = repaired.credential
    assert {outcome.problems async for outcome in tenants.check()} == {()}
    for (name, role), credential in made.items():
        assert await may(credential, READ), (name, role)
        for other in names:
            why = await refusal(credential, database=made[other, "owner"].database)
            assert ("denied" in why) is (other != name), (name, role, other, why)


async def test_concurrent_calls_finish_removals_with_readers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each caller holds a turn of the cluster, and its work on the reader needs no second one."""
    monkeypatch.setattr(_clusters, "AT_A_TIME", 3)
    tenants = place.tenants()
    names = [f"n{number}" for number in range(5)]  # more than a cluster's turns
    for name in names:
        credential = await tenants.ensure(name)
        await tenants.role("reader").ensure(name)
        await leave(place.store, credential, OperationKind.REMOVE)

    async with asyncio.timeout(300):  # for ever, if they waited for each other
        await asyncio.gather(*(tenants.ensure(name) for name in names))

    assert [await tenants.role("reader").get(name) for name in names] == [None] * len(names)
