"""Errors and others in between: nobody's login is reset, no credential in use ends, and no dead one is returned."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import closing
from typing import Any

import pytest
from attrs import define

from aiodbclient.tenants import Claim, Credential, SQLiteStore, TenantAction, TenantRecord, Tenants
from aiodbclient.tenants._naming import Names
from aiodbclient.tenants._servers import ServerState
from aiodbclient.tenants._servers.postgres import PostgresServer, rights
from aiodbclient.tenants._servers.postgres.connection import Session
from aiodbclient.tenants._servers.postgres.rights import Login, read_logins
from aiodbclient.tenants.errors import ClaimLostError, StoreError

from ..conftest import Place, found_taken, only, present
from ..programs import refusal


class Meddled(SQLiteStore):
    """A store in which something happens after the next operation is stored, or instead of its end or ``release``."""

    after_begin: Callable[[], Awaitable[object]] | None = None
    loses_claim = False
    is_away = False

    async def save(self, claim: Claim, record: TenantRecord | None, *, release: bool = False) -> None:
        if self.loses_claim and release:
            self.loses_claim = False
            await super().release(claim)
            raise ClaimLostError("somebody else took it over")
        await super().save(claim, record, release=release)
        if record is not None and record.operation is not None:
            meddle, self.after_begin = self.after_begin, None
            if meddle is not None:
                await meddle()

    async def release(self, claim: Claim) -> None:
        if self.is_away:
            raise StoreError("the store is away")
        await super().release(claim)


@define
class Here:
    place: Place
    store: Meddled

    def tenants(self, **options: Any) -> Tenants:
        return Tenants(self.place.cluster, self.store, prefix=self.place.prefix, **options)


@pytest.fixture
async def here(place: Place) -> AsyncIterator[Here]:
    async with Meddled(place.path) as store:
        yield Here(place, store)


async def test_claim_lost_during_rotation(here: Here) -> None:
    """The login in use works on."""
    before = await here.tenants().ensure("alpha")
    here.store.loses_claim = True

    rotated = await only(here.tenants().rotate(["alpha"]))

    assert rotated.action is TenantAction.ROTATED
    assert rotated.credential is not None
    assert not await refusal(before)
    assert not await refusal(rotated.credential)
    record = present(await here.store.get("alpha"))
    assert [each.password for each in record.logins] == [before.password, rotated.credential.password]


async def test_revoke_after_rotation_of_another_process(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves alone what the other process has just rotated away from."""
    # s between two looks at the record
    monkeypatch.setattr("aiodbclient.tenants._operations.loop.full_jitter", lambda *_: 0.5)
    tenants = here.tenants()
    await tenants.ensure("alpha")
    in_use = present((await only(tenants.rotate(["alpha"]))).credential)
    revoking, late_began = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        revoking.set()
        await late_began.wait()

    here.store.after_begin = wait

    async def revoke_and_rotate() -> None:
        await only(tenants.revoke_previous(["alpha"]))
        await only(tenants.rotate(["alpha"]))

    async with SQLiteStore(here.place.path) as store, asyncio.TaskGroup() as group:
        group.create_task(revoke_and_rotate())
        await revoking.wait()
        others, waits = Tenants(here.place.cluster, store, prefix=here.place.prefix), found_taken(store, monkeypatch)
        late_revocation = group.create_task(only(others.revoke_previous(["alpha"])))
        await waits.wait()
        late_began.set()
    late = late_revocation.result()

    assert late.action is TenantAction.KEPT
    record = present(await here.store.get("alpha"))
    assert present(record.previous()).username == in_use.username
    assert not await refusal(in_use)


async def test_cancellation_with_unreachable_store(here: Here) -> None:
    begun = asyncio.Event()

    async def setup(_: Credential) -> None:
        begun.set()
        await asyncio.sleep(5.0)

    task = asyncio.create_task(here.tenants(setup=setup).ensure("alpha"))
    await begun.wait()
    here.store.is_away = True

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()


async def test_cancellation_when_claim_is_lost(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lost claim is no reason to begin again."""
    find = PostgresServer.inspect

    async def lose(server: PostgresServer, names: Names) -> ServerState:
        with closing(sqlite3.connect(here.place.path)) as other:
            other.execute("UPDATE credentials SET token = NULL WHERE name = 'alpha'")
            other.commit()
        call.cancel()
        return await find(server, names)

    monkeypatch.setattr(PostgresServer, "inspect", lose)
    call = asyncio.ensure_future(here.tenants().ensure("alpha"))
    await asyncio.wait([call], timeout=30)

    assert call.cancelled()
    assert await here.tenants().get("alpha") is None


async def test_login_made_during_check_is_no_problem(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation makes its login after the check has read the logins, and before it reads their memberships."""
    known = await here.tenants().ensure("alpha")
    save = here.store.save

    async def fail_at_end(claim: Claim, record: TenantRecord | None, *, release: bool = False) -> None:
        if release:
            raise StoreError("the store is unreachable")
        await save(claim, record)

    with monkeypatch.context() as patched:
        patched.setattr(here.store, "save", fail_at_end)
        with pytest.raises(StoreError):
            await only(here.tenants().rotate(["alpha"]))

    async def read_before(session: Session, wanted: Collection[str] = ()) -> list[Login]:
        return [login for login in await read_logins(session, wanted) if login.name == known.username]

    monkeypatch.setattr(rights, "read_logins", read_before)
    checked = await only(here.tenants().check(["alpha"]))

    assert [str(each) for each in checked.problems] == ["unfinished: rotate"]
