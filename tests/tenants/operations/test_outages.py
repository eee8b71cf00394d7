"""The database server, the API or the store is away: an error, no problem of a tenant, and it leaves no session."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from attrs import evolve

from aiodbclient import ClusterInfo, Connection, DatabaseClient, RateLimiter
from aiodbclient._http.call import RequestStats
from aiodbclient.errors import DatabaseClientError, ServerError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import (
    Credential,
    Role,
    SQLiteStore,
    TenantAction,
    Tenants,
    _clusters,
)
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers import SharedSessions, connection_of
from aiodbclient.tenants.errors import GrantError, StoreError

from ...proxy import Proxy
from ..conftest import Place, only
from ..programs import admin_of, ask, refusal

NAMES = ["alpha", "beta", "gamma", "delta"]


async def logins_on_record(place: Place) -> set[str]:
    """The logins on record, without the test's prefix."""
    logins = [each async for record in place.store.records() for each in record.logins if each.replaced is None]
    return {each.username.removeprefix(place.prefix) for each in logins}


@asynccontextmanager
async def behind(place: Place) -> AsyncIterator[Proxy]:
    """A proxy in front of the place's server, through which all tenants connect."""
    there = (await place.cluster.info()).connection
    with Proxy(there.port or 0, any_protocol=True) as proxy:

        def through(cluster: ClusterInfo, **options: bool) -> Connection:
            found = connection_of(cluster, **options)
            return evolve(found, host="127.0.0.1", port=proxy.port) if found.port == there.port else found

        with patch.object(_clusters, "connection_of", through):
            yield proxy


async def failure_of(run: AsyncIterable[Any]) -> Exception | None:
    """The error of a run for one name, or of the run itself."""
    try:
        error: Exception | None = (await only(run)).error
    except DatabaseClientError as ended:
        return ended
    return error


async def test_outage_is_no_tenant_problem(anywhere: Place) -> None:
    """Of many, each has an error of its own."""
    place = anywhere
    async with behind(place) as proxy:
        tenants = place.tenants()
        credential = await tenants.ensure("alpha")
        proxy.add(cut=True)
        another = place.tenants()  # of a process that reads the cluster only now
        for run in (tenants.check, lambda: tenants.repair(all=True), another.check):
            assert isinstance(await failure_of(run()), GrantError)
        proxy.rules.clear()
        assert (await only(tenants.check())).problems == ()
        await tenants.ensure("beta")
        proxy.add(cut=True)
        one, other = [outcome.error for outcome in await place.tenants().check()]
        assert (type(one), str(one), one is other) == (GrantError, str(other), False)
        proxy.rules.clear()
        assert (await only(tenants.remove(["beta"]))).error is None

        place.sandbox.faults.add("*", status=503)
        assert (await only(tenants.check())).problems == ()  # it needs no request
        assert (await only(tenants.repair(all=True))).action is TenantAction.KEPT
        assert isinstance(await failure_of(place.tenants().check()), ServerError)
        place.sandbox.faults.clear()
        assert await tenants.get("alpha") == credential


async def test_new_tenants_avoid_unreachable_server(place: Place) -> None:
    """Its API answers."""
    async with (
        Sandbox(windows=[]) as sandbox,
        DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client,
        behind(place) as proxy,
    ):
        a, b = place.cluster, client.cluster(await sandbox.add_cluster("pg", backend="postgres"))
        tenants = Tenants([a, b], place.store, prefix=place.prefix)
        for name in NAMES:
            await tenants.ensure(name)
        proxy.add(cut=True)
        for name in ("next", "last"):  # a has as few tenants as b
            assert (await tenants.ensure(name)).cluster == b.id
        proxy.rules.clear()
        assert (await tenants.ensure("after")).cluster == a.id


async def test_outage_error_says_state_on_record(anywhere: Place) -> None:
    async with behind(anywhere) as proxy:
        tenants = anywhere.tenants()
        await tenants.ensure("alpha")
        for operation in (tenants.rotate, tenants.revoke_previous):
            assert (await only(operation(["alpha"]))).error is None
        proxy.add(cut=True)
        rotated = await only(tenants.rotate(["alpha"]))
        proxy.rules.clear()
        assert (await only(tenants.suspend(["alpha"]))).error is None
        proxy.add(cut=True)
        resumed = await only(tenants.resume(["alpha"]))
        assert "the credential in use was not touched" in str(rotated.error)
        assert "its state on record is suspended" in str(resumed.error)
        proxy.rules.clear()
        for number in count(1, 3):  # until the server stops after the resumption has begun
            proxy.add(nth=number, cut=True)
            error = await failure_of(anywhere.tenants().resume(["alpha"]))
            proxy.rules.clear()
            assert error is not None
            if "its state on record is resuming" in str(error):
                break


Breaks = Callable[[str], Awaitable[object]]


@pytest.mark.parametrize(("operation", "step"), [("check", 9), ("repair", 21)])
async def test_server_stops_during_operation(anywhere: Place, operation: str, step: int) -> None:
    """It stops at messages of the operation in turn."""
    users, names = anywhere.cluster.users, NAMES[:2]
    broken: list[tuple[str, Breaks]] = [("alpha", users.delete), ("beta", users.reset_auth)]
    async with behind(anywhere) as proxy:
        tenants = anywhere.tenants()
        assert all([outcome.error is None async for outcome in tenants.provision(names)])
        failed = 0
        for number in count(1, step):
            for name, breaks in broken:
                if operation == "repair" and (credential := await tenants.get(name)):
                    await breaks(credential.username)
            outage = proxy.add(nth=number, cut=True)
            try:
                outcomes = await (tenants.check() if operation == "check" else tenants.repair(all=True))
            except GrantError as ended:  # the whole run, which could not begin
                assert operation == "repair"
                errors: list[Exception] = [ended]
            else:
                assert sorted(outcome.name for outcome in outcomes) == names
                errors = [outcome.error for outcome in outcomes if outcome.error is not None]
                if operation == "check":
                    assert {outcome.problems for outcome in outcomes if outcome.error is None} <= {()}
            assert all(isinstance(error, GrantError) for error in errors), errors
            stopped = bool(outage.fired)
            proxy.rules.clear()
            assert stopped or errors == []
            failed += bool(errors)  # none, if it stops at the last message of a session
            if operation == "repair":
                assert all([outcome.error is None async for outcome in tenants.repair(all=True)])
            assert {outcome.problems async for outcome in tenants.check()} == {()}
            assert await anywhere.logins() == sorted(await logins_on_record(anywhere))
            if not stopped:
                break
        assert failed > 2


OTHERS = {
    "pg": "SELECT pid FROM pg_stat_activity WHERE usename = 'doadmin' AND pid <> pg_backend_pid()",
    "mysql": "SHOW PROCESSLIST",
}
END = {"pg": "SELECT pg_terminate_backend({}, 1000)", "mysql": "KILL {}"}


async def sessions(admin: Credential) -> list[int]:
    """The other sessions of the administrator."""
    rows = await ask(admin, OTHERS[admin.engine])
    if admin.engine == "pg":
        return [number for (number,) in rows]
    return [row[0] for row in rows if row[1] == "doadmin" and row[7] != OTHERS["mysql"]]  # the last is our own


async def are_none_left(admin: Credential) -> bool:
    """Whether all other sessions end. A server may need a moment to notice that one was closed."""
    async with asyncio.timeout(60):
        while await sessions(admin):
            await asyncio.sleep(0.01)
    return True


async def test_check_of_many_shares_few_sessions(anywhere: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants, admin = anywhere.tenants(), await admin_of(anywhere.cluster)
    names = [f"n{number}" for number in range(8)]
    assert all([outcome.error is None async for outcome in tenants.provision(names)])
    logins = list[object]()
    borrowed = SharedSessions.session

    def counted(sessions: SharedSessions[Any], begin: Any) -> Any:
        async def begun(session: Any) -> Any:
            logins.append(session)
            return await begin(session)

        return borrowed(sessions, begun)

    monkeypatch.setattr(SharedSessions, "session", counted)
    assert {outcome.problems async for outcome in anywhere.tenants().check()} == {()}
    # One to begin, one to find all databases, and up to three for the tenants.
    assert 1 <= len({id(session) for session in logins}) <= 5
    assert await are_none_left(admin)

    async for _ in (run := tenants.check()):
        await run.aclose()
    assert await are_none_left(admin)


async def test_a_session_that_the_server_ended_is_replaced(anywhere: Place) -> None:
    credential, admin = await anywhere.tenants().ensure("alpha"), await admin_of(anywhere.cluster)
    there = await anywhere.tenants()._context.clusters.get(anywhere.cluster.id, RequestStats())
    names = names_of("alpha", there.engine, anywhere.prefix)
    assert await are_none_left(admin)
    async with there.server.sessions.shared():
        for _ in range(2):
            assert await there.server.problems(names, {credential.username: Role.OWNER}) == frozenset()
            [number] = await sessions(admin)
            await ask(admin, END[admin.engine].format(number))
            assert await are_none_left(admin)
    assert await are_none_left(admin)


class Sessions:
    """Sessions without a server: each is a number."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.made = 0
        self.closing = asyncio.Event()
        self.closing.set()
        self.sessions = SharedSessions(self.log_in, self.close)

    async def log_in(self) -> int:
        self.made += 1
        self.open.add(self.made)
        return self.made

    async def close(self, session: int) -> None:
        try:
            await self.closing.wait()
        finally:
            self.open.remove(session)


async def hang(session: int) -> None:
    await asyncio.Event().wait()


async def cancel_reading(here: Sessions) -> None:
    async with here.sessions.shared():
        await here.sessions.read(hang)


async def cancel_closing(here: Sessions) -> None:
    both = asyncio.Barrier(2)

    async def work(session: int) -> None:
        await both.wait()

    async with here.sessions.shared():
        await asyncio.gather(here.sessions.read(work), here.sessions.read(work))
        assert len(here.open) == 2
        here.closing.clear()


async def cancel_beginning(here: Sessions) -> None:
    async with here.sessions.shared(), here.sessions.session(hang):
        pass


@pytest.mark.parametrize("cancelled", [cancel_reading, cancel_beginning, cancel_closing])
async def test_cancelled_anywhere_no_session_stays_open(cancelled: Callable[[Sessions], Awaitable[None]]) -> None:
    here = Sessions()
    task = asyncio.ensure_future(cancelled(here))
    for _ in range(20):
        await asyncio.sleep(0)
    assert here.open
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    here.closing.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert here.open == set()


async def with_database(place: Place) -> set[str]:
    """The tenants that have a database."""
    names = [db.name for db in await place.cluster.dbs.list()]
    return {name.removeprefix(place.prefix) for name in names if name.startswith(place.prefix)}


async def logins(place: Place) -> set[str]:
    return {user.name for user in await place.cluster.users.list() if user.name.startswith(place.prefix)}


async def test_full_disk_of_store_sends_nothing(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    async with SQLiteStore(path) as store:
        tenants = place.tenants(store=store)
        kept = await tenants.ensure("alpha")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            with pytest.raises(StoreError, match="cannot use"):
                await tenants.ensure("beta")
            assert await tenants.ensure("alpha") == kept
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await with_database(place) == {"alpha"}
        assert await logins(place) == {kept.username}
        assert not await refusal(await tenants.ensure("beta"), "SELECT 1")
