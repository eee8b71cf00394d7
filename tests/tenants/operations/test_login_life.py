"""The life of a login, of the owner, a reader or a writer: made, in use, previous, ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from aiodbclient._masking import Secret
from aiodbclient.errors import DatabaseClientError, InvalidArgumentError
from aiodbclient.tenants import Credential, OperationKind, RecordCodec, Role, TenantAction, Tenants, _clusters
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._operations import tenant
from aiodbclient.tenants.errors import RotationPendingError, TenantNotFoundError

from ...thorough import first_of
from ..conftest import SQL, Place, only, present
from ..dying import leave
from ..leaks import leaks
from ..programs import ask, refusal
from ..store_contract import a_record


async def test_each_rotation_makes_a_new_login(anywhere: Place) -> None:
    """With a name of its own, which goes on counting, and a password of its own."""
    tenants, names = anywhere.tenants(), names_of("alpha", (await anywhere.cluster.info()).engine, anywhere.prefix)
    used = [await tenants.ensure("alpha")]
    for _ in range(3):
        rotated = present((await only(tenants.rotate(["alpha"]))).credential)
        assert not await refusal(used[-1])
        assert (await only(tenants.revoke_previous(["alpha"]))).action is TenantAction.REVOKED
        assert await refusal(used[-1])
        assert not await refusal(rotated)
        used.append(rotated)
    assert [names.number(each.username) for each in used] == [1, 2, 3, 4]
    assert len({each.password for each in used}) == len(used)
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_rotation_goes_on_without_the_previous_login(anywhere: Place) -> None:
    """Somebody dropped it by hand."""
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    await anywhere.cluster.users.delete(first.username)

    rotated = await only(tenants.rotate(["alpha"], force=True))

    assert rotated.error is None
    assert (await only(tenants.check(["alpha"]))).problems == ()


MILLISECONDS = (1, 4, 10, 20, 40, 80, 200)
CUT_OFF = ("ensure", "rotate", "suspend", "resume", "repair", "remove")
NEW = "Aa1-hunter2-hunter2-hunter2"


async def act(tenants: Tenants, operation: str) -> None:
    if operation == "ensure":
        await tenants.ensure("alpha")
        return
    options = {"force": True} if operation == "rotate" else {}  # again, if it was done when its time was up
    run: AsyncIterable[Any] = getattr(tenants, operation)(["alpha"], **options)
    async for outcome in run:
        if outcome.error is not None:
            raise outcome.error


async def cut_off(tenants: Tenants, secrets: tuple[str, ...], waits: Iterable[int]) -> tuple[Counter[str], set[str]]:
    """How often each operation was cut off, and what the frames of its errors showed."""
    cut, found = Counter[str](), set[str]()
    for milliseconds in waits:
        for operation in CUT_OFF:
            try:
                async with asyncio.timeout(milliseconds / 1000):
                    await act(tenants, operation)
            except (TimeoutError, DatabaseClientError) as error:
                cut[operation] += 1
                found.update(leaks(error, *secrets))
            await act(tenants, operation)  # to its end, so that the next operation has something to do
    return cut, found


@pytest.mark.parametrize("its_cluster", first_of(reversed(SQL)), indirect=True)  # PostgreSQL takes longer
async def test_no_password_in_frames_under_timeout(anywhere: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    info = await anywhere.cluster.info()
    assert info.connection is not None
    assert info.connection.password
    secrets = (info.connection.password, NEW)

    monkeypatch.setattr(tenant, "new_password", lambda: Secret(NEW))
    cut, found = await cut_off(anywhere.tenants(), secrets, MILLISECONDS)
    assert set(cut) == set(CUT_OFF)
    assert found == set()

    shown = set[str]()
    for milliseconds in range(0, 100, 5):  # after the password was made: a frame would show it, if it were no Secret
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as timeout:

                def plain(cut: asyncio.Timeout = timeout, wait: float = milliseconds / 1000) -> str:
                    cut.reschedule(asyncio.get_running_loop().time() + wait)
                    return NEW

                monkeypatch.setattr(tenant, "new_password", plain)
                try:
                    await anywhere.tenants().ensure(f"beta-{milliseconds}")
                except asyncio.CancelledError as error:
                    shown.update(leaks(error, *secrets))
                    raise
        if shown:
            return
    pytest.fail("no frame showed the password that is no Secret, so the test would not see one")


async def test_public_texts_are_plain_str(tenants: Tenants, alpha: Credential) -> None:
    """Drivers such as asyncpg refuse a subclass of ``str``."""
    for credential in (alpha, await tenants.get("alpha"), (await only(tenants.rotate(["alpha"]))).credential):
        assert credential is not None
        for text in (credential.name, credential.username, credential.password, credential.database, credential.uri):
            assert type(text) is str
        assert {type(value) for value in credential.env().values()} == {str}
    assert type(RecordCodec().encode(a_record("alpha"))) is str


async def rights(credential: Credential) -> tuple[bool, bool]:
    """Whether it reads, and whether it writes. The tests of each server have all statements."""
    statements = "SELECT x FROM t", "INSERT INTO t (x) VALUES (2)"
    refusals = [await refusal(credential, statement) for statement in statements]
    assert not any(why and "denied" not in why for why in refusals), refusals
    return not refusals[0], not refusals[1]


async def test_rights_of_reader_and_writer(anywhere: Place, tenants: Tenants) -> None:
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

    assert await rights(reader) == (True, False)
    assert await rights(writer) == (True, True)
    new = present((await only(readers.rotate(all=True))).credential)
    assert new.role is Role.READER
    assert await rights(new) == await rights(reader) == (True, False)
    assert isinstance((await only(readers.rotate(all=True))).error, RotationPendingError)
    assert (await only(readers.revoke_previous(older_than=timedelta(days=1)))).action is TenantAction.KEPT
    assert (await only(readers.revoke_previous(all=True))).action is TenantAction.REVOKED
    assert await refusal(reader)
    assert await rights(new) == (True, False)
    assert (await only(readers.check())).problems == ()
    assert await tenants.get("alpha") == owner
    assert await rights(owner) == (True, True)


async def test_a_role_needs_its_tenant(anywhere: Place) -> None:
    readers = anywhere.tenants().role("reader")
    for run in (readers.provision, readers.rotate, readers.revoke_previous, readers.check):
        assert isinstance((await only(run(["alpha"]))).error, InvalidArgumentError)
    with pytest.raises(InvalidArgumentError, match="provision it first; nothing was sent"):
        await readers.ensure("alpha")
    assert (await only(readers.remove(["alpha"]))).action is TenantAction.ABSENT
    assert [record async for record in anywhere.store.records()] == []
    assert await anywhere.logins() == []


async def test_no_role_of_half_removed_tenant(place: Place, tenants: Tenants) -> None:
    await leave(place.store, await tenants.ensure("alpha"), OperationKind.REMOVE)

    with pytest.raises(TenantNotFoundError, match="'alpha' is being removed, or its removal is unfinished: run remove"):
        await tenants.role("reader").ensure("alpha")

    assert [record.name async for record in place.store.records()] == ["alpha"]


@pytest.mark.parametrize("role", ["owner", "admin", "", None, "READER", ["reader"]])
def test_unknown_role_is_refused(place: Place, role: str) -> None:
    with pytest.raises(InvalidArgumentError, match="role must be one of writer, reader"):
        place.tenants().role(role)


async def test_the_roles_end_with_their_tenant(anywhere: Place, tenants: Tenants) -> None:
    before = sorted(user.name for user in await anywhere.cluster.users.list())
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

    assert [record async for record in anywhere.store.records()] == []
    assert sorted(user.name for user in await anywhere.cluster.users.list()) == before
    for credential in logins:
        assert await refusal(credential)
    assert (await only(tenants.provision(["alpha"]))).action is TenantAction.CREATED


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
