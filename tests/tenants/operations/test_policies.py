"""Rotate by age. The store's clock decides, under the claim, so several machines can run it at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pymysql
import pytest
from attrs import evolve

from aiodbclient.engines import MYSQL
from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import Credential, OperationKind, Role, SQLiteStore, TenantAction, Tenants
from aiodbclient.tenants.errors import RotationPendingError

from ...waiting import HANG, until
from ..conftest import Place, found_taken, only, present
from ..dying import begun, leave
from ..programs import ask, refusal, session_of
from ..store_contract import claimed

DAY = timedelta(days=1)


class ClockedStore(SQLiteStore):
    """A store with a clock that the tests set."""

    time = datetime(2030, 1, 1, tzinfo=UTC)

    async def now(self) -> datetime:
        return self.time


@contextlib.asynccontextmanager
async def clocked(place: Place) -> AsyncIterator[tuple[ClockedStore, Tenants]]:
    async with ClockedStore(place.path) as store:
        yield store, place.tenants(store=store)


async def rotated(tenants: Tenants) -> tuple[Credential, Credential]:
    """Make the tenant alpha, and rotate it. Return both credentials."""
    first = await tenants.ensure("alpha")
    second = present((await only(tenants.rotate(all=True))).credential)
    return first, second


async def test_rotation_by_age_uses_stores_clock(place: Place) -> None:
    async with clocked(place) as (store, tenants):
        first = await tenants.ensure("alpha")
        assert first.created == datetime(2030, 1, 1, tzinfo=UTC)
        store.time += timedelta(days=29)
        kept = await only(tenants.rotate(older_than=30 * DAY))
        assert (kept.action, kept.credential) == (TenantAction.KEPT, first)
        await tenants.ensure("beta")  # a young credential

        store.time += DAY
        outcomes = {outcome.name: outcome async for outcome in tenants.rotate(older_than=30 * DAY)}
        assert {name: outcome.action for name, outcome in outcomes.items()} == {
            "alpha": TenantAction.ROTATED,
            "beta": TenantAction.KEPT,
        }
        second = present(outcomes["alpha"].credential)
        assert second.created == store.time

        # A fresh rotation is not revoked for a day. The next due rotation reports that a revoke is missing.
        store.time += timedelta(hours=23)
        assert {outcome.action async for outcome in tenants.revoke_previous(older_than=DAY)} == {TenantAction.KEPT}
        assert not await refusal(first)
        store.time += timedelta(hours=1)
        revoked = {outcome.name: outcome.action async for outcome in tenants.revoke_previous(older_than=DAY)}
        assert revoked == {"alpha": TenantAction.REVOKED, "beta": TenantAction.KEPT}
        assert await refusal(first)
        assert not await refusal(second)
        assert await tenants.get("alpha") == second
        assert {outcome.action async for outcome in tenants.rotate(older_than=30 * DAY)} == {TenantAction.KEPT}


async def test_waiting_rotation_returns_the_others_result(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SQLiteStore(place.path) as store:
        both = place.tenants(), place.tenants(store=store)
        for tenants in both:
            await tenants.ensure("alpha")
        waiting = [found_taken(each, monkeypatch) for each in (place.store, store)]
        claim = await claimed(place.store, "alpha")
        rotations = [asyncio.create_task(only(tenants.rotate(all=True))) for tenants in both]
        for each in waiting:
            await each.wait()
        await place.store.release(claim)
        outcomes = await asyncio.gather(*rotations)

    assert sorted(outcome.action for outcome in outcomes) == [TenantAction.KEPT, TenantAction.ROTATED]
    assert outcomes[0].credential == outcomes[1].credential == await place.tenants().get("alpha")


@pytest.mark.parametrize("age", [30, 3.5, "30d", timedelta(seconds=-1)])
async def test_an_age_is_a_timedelta(place: Place, age: Any) -> None:
    for operation in (place.tenants().rotate, place.tenants().revoke_previous):
        with pytest.raises(InvalidArgumentError, match="older_than must be a timedelta of 0 or more"):
            operation(older_than=age)


async def test_pending_rotation_needs_force(anywhere: Place, tenants: Tenants) -> None:
    first, second = await rotated(tenants)
    sent = len(anywhere.sent())

    failed = await only(tenants.rotate(all=True))

    assert isinstance(failed.error, RotationPendingError)
    assert "alpha" in str(failed.error)
    assert len(anywhere.sent()) == sent
    assert await tenants.get("alpha") == second
    forced = await only(tenants.rotate(all=True, force=True))
    assert forced.action is TenantAction.ROTATED
    assert forced.credential is not None
    assert forced.credential.username not in (first.username, second.username)
    assert await refusal(first)
    assert not await refusal(second)


async def test_killed_forced_rotation_is_finished(anywhere: Place, tenants: Tenants) -> None:
    """Somebody has asked for the end of the previous login, and it may have ended already."""
    first, second = await rotated(tenants)
    await begun(anywhere, lambda dying: only(dying.rotate(["alpha"], force=True)))
    assert await tenants.get("alpha") == second

    assert (await only(tenants.rotate(all=True))).action is TenantAction.ROTATED

    assert await refusal(first)
    assert not await refusal(second)


@pytest.mark.parametrize(
    ("operation", "kind", "action"),
    [
        ("rotate", OperationKind.ROTATE, TenantAction.ROTATED),
        ("revoke_previous", OperationKind.REVOKE, TenantAction.REVOKED),
    ],
)
async def test_operation_by_age_finishes_unfinished_one(
    place: Place, tenants: Tenants, alpha: Credential, operation: str, kind: OperationKind, action: TenantAction
) -> None:
    """A dead process left it: the age of its credential does not matter. Another young tenant is kept."""
    await tenants.ensure("beta")
    if kind is OperationKind.REVOKE:  # the previous login may be disabled already
        assert all([each.error is None async for each in tenants.rotate(all=True)])
    await leave(place.store, alpha, kind)

    outcomes = {each.name: each.action async for each in getattr(tenants, operation)(older_than=DAY)}

    assert outcomes == {"alpha": action, "beta": TenantAction.KEPT}
    assert bool(await refusal(alpha)) is (kind is OperationKind.REVOKE)


async def test_unfinished_repair_revokes_nothing(place: Place) -> None:
    first, second = await rotated(place.tenants())
    await leave(place.store, second, OperationKind.REPAIR)

    assert isinstance((await only(place.tenants().rotate(all=True))).error, RotationPendingError)

    assert not await refusal(first)
    assert (await only(place.tenants().repair(all=True))).error is None
    assert not await refusal(first)


async def test_three_crontabs_change_each_once(place: Place) -> None:
    """The same one on three machines: each tenant is changed once, and no credential in use ends."""
    names = [f"n{number}" for number in range(5)]
    async with clocked(place) as (store, tenants):
        for made in await tenants.provision(names):
            await place.cluster.users.delete(present(made.credential).username)

        async def machine(days: int, operation: str, options: dict[str, Any]) -> list[Any]:
            async with ClockedStore(place.path) as its_own:
                its_own.time = store.time + days * DAY
                return [outcome async for outcome in getattr(place.tenants(store=its_own), operation)(**options)]

        for days, operation, options, action in (
            (0, "repair", {"all": True}, TenantAction.REPAIRED),
            (31, "rotate", {"older_than": 30 * DAY}, TenantAction.ROTATED),
            (33, "revoke_previous", {"older_than": DAY}, TenantAction.REVOKED),
            (62, "rotate", {"older_than": 30 * DAY}, TenantAction.ROTATED),
        ):
            runs = await asyncio.gather(*(machine(days, operation, options) for _ in range(3)))
            outcomes = [outcome for run in runs for outcome in run]
            assert {outcome.error for outcome in outcomes} == {None}
            by_name = {(outcome.name, outcome.credential) for outcome in outcomes}
            assert len(by_name) == len(names)
            assert sorted(each.name for each in outcomes if each.action is action) == names
            assert {outcome.action for outcome in outcomes} <= {action, TenantAction.KEPT}
            for outcome in outcomes:
                assert not await refusal(outcome.credential)


def mine(credential: Credential) -> list[str]:
    """Set a new password in a session that is still open."""
    if credential.engine in MYSQL:
        return [f"ALTER USER USER() IDENTIFIED BY 'mine' REPLACE '{credential.password}'"]
    return ["SET ROLE NONE", f"ALTER ROLE \"{credential.username}\" PASSWORD 'mine'"]


async def test_open_session_keeps_no_revoked_login(anywhere: Place, tenants: Tenants) -> None:
    leaked, current = await rotated(tenants)
    async with session_of(leaked) as session:
        await session("SELECT 1")

        assert (await only(tenants.revoke_previous(all=True))).action is TenantAction.REVOKED

        assert await refusal(leaked)
        with pytest.raises((psycopg.OperationalError, pymysql.Error)):
            await session(mine(leaked)[0])
    own = evolve(leaked, password="mine")
    assert await refusal(own)
    assert not await refusal(current)
    assert (await only(tenants.revoke_previous(all=True))).action is TenantAction.KEPT
    again = present((await only(tenants.rotate(all=True))).credential)
    assert not await refusal(again)
    assert again.username not in (leaked.username, current.username)
    assert await refusal(leaked)
    await ask(again, "CREATE TABLE t (x int PRIMARY KEY)")


async def test_fighting_login_is_revoked(anywhere: Place, tenants: Tenants) -> None:
    leaked, current = await rotated(tenants)
    own = evolve(leaked, password="mine")

    acts = 0

    async def fight() -> None:
        """Set the password repeatedly, in any session that is left."""
        nonlocal acts
        for with_what in (leaked, leaked, own, own, own):
            with contextlib.suppress(psycopg.Error, pymysql.Error, OSError):
                async with session_of(with_what) as session:
                    while True:
                        for statement in mine(with_what):
                            await session(statement)
                        acts += 1
                        await asyncio.sleep(0.001)

    fights = [asyncio.create_task(fight()) for _ in range(3)]
    await until(lambda: acts >= 10)
    revoked = await only(tenants.revoke_previous(all=True))
    async with asyncio.timeout(HANG):
        await asyncio.gather(*fights)  # no session is left, and no login succeeds

    assert revoked.action is TenantAction.REVOKED
    assert await refusal(leaked)
    assert await refusal(own)
    assert not await refusal(current)


@pytest.mark.parametrize("operation", ["rotate", "revoke_previous", "repair"])
async def test_operation_without_names_needs_all(place: Place, operation: str) -> None:
    """Every tenant in the store is too much to end by leaving an argument out."""
    run: Any = getattr(place.tenants(), operation)
    with pytest.raises(InvalidArgumentError, match=f"{operation} needs names; all=True is every tenant on record"):
        run()
    with pytest.raises(InvalidArgumentError, match="names or all=True, not both"):
        run(["alpha"], all=True)
    await run(all=True).aclose()
    if operation != "repair":
        await run(older_than=timedelta(days=1)).aclose()


def test_remove_without_names_needs_suspended_for(place: Place) -> None:
    run: Any = place.tenants().remove
    with pytest.raises(InvalidArgumentError, match="unless suspended_for is given"):
        run()


async def test_revoke_unused_keeps_open_login(anywhere: Place, tenants: Tenants, alpha: Credential) -> None:
    """``revoke_previous(unused=True)`` leaves a login alone while a session of it is open."""
    assert (await only(tenants.rotate(["alpha"]))).error is None
    async with session_of(alpha) as run:
        await run("SELECT 1")
        kept = await only(tenants.revoke_previous(["alpha"], unused=True))
    assert (kept.action, kept.sessions) == (TenantAction.KEPT, 1)
    assert not await refusal(alpha, "SELECT 1")
    async with asyncio.timeout(60):  # until the server has ended the session
        while (revoked := await only(tenants.revoke_previous(["alpha"], unused=True))).action is TenantAction.KEPT:
            pass
    assert (revoked.action, revoked.sessions) == (TenantAction.REVOKED, 0)
    assert await refusal(alpha)


async def test_begun_revocation_ends_open_login(anywhere: Place, tenants: Tenants, alpha: Credential) -> None:
    """A process died in it, and may have disabled the login: what has a session cannot open another one."""
    rotated = present((await only(tenants.rotate(["alpha"]))).credential)
    await leave(anywhere.store, rotated, OperationKind.REVOKE, role=Role.OWNER)
    with contextlib.suppress(psycopg.Error, pymysql.Error):  # its session is ended
        async with session_of(alpha) as run:
            await run("SELECT 1")
            revoked = await only(tenants.revoke_previous(["alpha"], unused=True))
    assert (revoked.action, revoked.sessions) == (TenantAction.REVOKED, 0)
    assert await refusal(alpha)
