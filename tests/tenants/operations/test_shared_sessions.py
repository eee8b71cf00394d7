"""Many checks share sessions of the administrator. No session stays open after them, whatever ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiodbclient._http.call import RequestStats
from aiodbclient.tenants import Credential, Role, _servers
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers import SessionLostError, SharedSessions
from aiodbclient.tenants.errors import GrantError

from ...waiting import settle
from ..conftest import Place
from ..programs import ask
from .test_check_and_repair import admin_of

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
    tenants, admin = anywhere.tenants(), await admin_of(anywhere)
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
    credential, admin = await anywhere.tenants().ensure("alpha"), await admin_of(anywhere)
    there = await anywhere.tenants()._context.servers.server(anywhere.cluster.id, RequestStats())
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
        await asyncio.sleep(0)
        self.made += 1
        self.open.add(self.made)
        return self.made

    async def close(self, session: int) -> None:
        try:
            await self.closing.wait()
        finally:
            self.open.remove(session)

    async def read(self, *, error: Exception | None = None, until: asyncio.Event | None = None) -> int:
        async def work(session: int) -> int:
            if until is not None:
                await until.wait()
            if error is not None:
                raise error
            return session

        return await self.sessions.read(work)


async def test_step_gets_session_that_works() -> None:
    here, lost, begun = Sessions(), {1}, list[int]()

    async def begin(session: int) -> None:
        begun.append(session)
        if session in lost:
            raise SessionLostError("gone")

    async with here.sessions.shared():
        assert await here.read() == 1
        async with here.sessions.session(begin) as (session, _):  # the first one ended while it was idle
            assert session == 2
        assert (begun, here.open) == ([1, 2], {2})
        lost |= {2, 3}
        with pytest.raises(SessionLostError):
            async with here.sessions.session(begin):
                pass
        assert (begun, here.open) == ([1, 2, 2, 3], set())


async def cancel_reading(here: Sessions) -> None:
    async with here.sessions.shared():
        await here.read(until=asyncio.Event())


async def cancel_closing(here: Sessions) -> None:
    both = asyncio.Barrier(2)

    async def work(session: int) -> None:
        await both.wait()

    async with here.sessions.shared():
        await asyncio.gather(here.sessions.read(work), here.sessions.read(work))
        assert len(here.open) == 2
        here.closing.clear()


async def cancel_beginning(here: Sessions) -> None:
    async def begin(session: int) -> None:
        await asyncio.Event().wait()

    async with here.sessions.shared(), here.sessions.session(begin):
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


async def test_silent_server_delays_one_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_servers, "_READ_SECONDS", 0.3)
    here = Sessions()
    async with here.sessions.shared():
        hanging = asyncio.ensure_future(here.read(until=asyncio.Event()))
        await settle()
        assert await here.read() == 2
        with pytest.raises(GrantError, match="did not answer"):
            await hanging
        assert here.open == {2}
    assert here.open == set()
