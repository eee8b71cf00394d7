"""What every implementation of ``Server`` does, on a real server each: the steps of the operations, in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg
import pymysql
import pytest
from attrs import evolve, frozen

from aiodbclient import Cluster, DatabaseClient, RateLimiter
from aiodbclient._masking import Secret
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Role
from aiodbclient.tenants._naming import Names, names_of
from aiodbclient.tenants._servers import BaseTenant, Server, ServerState, TenantSteps, server_of
from aiodbclient.tenants.errors import ClaimLostError, GrantError

from ..leaks import leaks
from ..tenant import PASSWORD, Tenant

_used = iter(range(10**6))
LIMIT = 3
REFUSED = (psycopg.Error, pymysql.MySQLError)


def run(connection: Any, statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def _closed(connection: Any) -> None:
    with suppress(*REFUSED):
        connection.close()


@frozen
class Place:
    """A server, and how to log in to it."""

    server: Server
    engine: str
    cluster: Cluster
    host: str
    port: int
    _opened: ExitStack

    def names(self) -> Names:
        return names_of(f"c{next(_used)}.x-y", self.engine)

    def connect(self, login: str, password: str, database: str) -> Any:
        """A session of a login, which is closed after the test."""
        options: dict[str, Any] = {"host": self.host, "port": self.port, "user": login, "password": password}
        connection: Any
        if self.engine == "pg":
            connection = psycopg.connect(dbname=database, sslmode="prefer", autocommit=True, **options)
        else:
            connection = pymysql.connect(database=database or None, autocommit=True, **options)
        self._opened.callback(_closed, connection)
        return connection

    def enters(self, names: Names, login: str, password: str) -> bool:
        try:
            self.connect(login, password, names.database).close()
        except REFUSED:
            return False
        return True


@pytest.fixture
async def place(its_cluster: tuple[Sandbox, str]) -> AsyncIterator[Place]:
    sandbox, cluster_id = its_cluster
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client:
        cluster = client.cluster(cluster_id)
        info = await cluster.info()
        connection = info.connection
        assert connection.host
        assert connection.port
        server = server_of(info.engine, connection, (await cluster.ca()) if connection.ssl else None, None, LIMIT)
        with ExitStack() as opened:
            yield Place(server, str(info.engine), cluster, connection.host, connection.port, opened)


async def made(place: Place, logins: int = 1) -> Tenant:
    """A tenant with its logins."""
    tenant = Tenant(place.server, place.names())
    await tenant.steps.create()
    for _ in range(logins):
        await tenant.add()
    return tenant


async def test_the_administrator(place: Place) -> None:
    found = await place.server.administrator()

    assert found.name.startswith("doadmin")
    assert found.lacks == ()
    assert abs(found.clock - datetime.now(UTC)) < timedelta(minutes=1)


async def test_tenant_from_nothing_to_nothing(place: Place) -> None:
    server, tenant = place.server, Tenant(place.server, place.names())
    names, steps = tenant.names, tenant.steps
    assert not await server.inspect(names)

    assert await steps.create()
    assert not await steps.create()
    assert await server.inspect(names) == ServerState(database=True)
    first = await tenant.add()
    assert "wrong" not in (await server.log_in(names, first, Secret("wrong")) or "")
    assert await server.log_in(names, first, Secret("wrong"))
    assert await server.inspect(names) == ServerState(database=True, logins=(first,))
    assert await tenant.problems() == frozenset()
    assert names.database in await server.tenants()
    own = place.connect(first, PASSWORD, names.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")

    second = await tenant.add(password="Aa1-other")  # rotate
    assert place.enters(names, first, PASSWORD)
    assert await tenant.problems() == frozenset()
    await steps.end_logins([first])
    with pytest.raises(REFUSED):
        run(own, "SELECT 1")
    assert not place.enters(names, first, PASSWORD)
    assert await server.inspect(names) == ServerState(database=True, logins=(second,), disabled=(first,))
    del tenant.on_record[first]
    assert await tenant.problems() == frozenset()
    assert await steps.drop_logins([first]) == ()
    assert await server.inspect(names) == ServerState(database=True, logins=(second,))
    other = place.connect(second, "Aa1-other", names.database)
    run(other, "INSERT INTO t VALUES (1)")
    run(other, "ALTER TABLE t ADD COLUMN b INT")

    await tenant.remove()
    assert not await server.inspect(names)
    assert names.database not in await server.tenants()
    assert not place.enters(names, second, "Aa1-other")
    await steps.end_logins([first, second])  # safe to repeat
    assert await steps.drop_logins([first, second]) == ()
    for step in (steps.drop_database, steps.drop_roles, steps.lock_out):
        await step()


async def test_login_is_made_once(place: Place) -> None:
    """Whoever made one of this name, its password is another one."""
    tenant = await made(place)
    [login] = tenant.logins

    with pytest.raises(GrantError, match=login):
        await tenant.steps.add_login(login, Secret("Aa1-other"), Role.OWNER)

    assert place.enters(tenant.names, login, PASSWORD)


async def test_full_login_is_no_refused_password_and_ends(place: Place) -> None:
    tenant = await made(place)
    [login] = tenant.logins
    held = [place.connect(login, PASSWORD, tenant.database) for _ in range(LIMIT)]
    assert not place.enters(tenant.names, login, PASSWORD)
    assert await place.server.log_in(tenant.names, login, Secret(PASSWORD)) is None

    await tenant.steps.end_logins([login])

    for each in held:
        with pytest.raises(REFUSED):
            run(each, "SELECT 1")


async def test_usage_counts_bytes_and_connections(place: Place) -> None:
    tenant = await made(place)
    held = [place.connect(tenant.logins[0], PASSWORD, tenant.database) for _ in range(2)]
    run(held[0], "CREATE TABLE t (a INT PRIMARY KEY)")

    await place.cluster.dbs.create(other := tenant.database + "_x")  # of nobody
    usage = await place.server.usage()
    used, connections = usage[tenant.database]

    assert used > 0
    assert connections == 2
    assert other not in usage
    assert set(usage) == set(await place.server.tenants())


async def test_lost_claim_stops_before_the_next_statement(place: Place) -> None:
    tenant = await made(place)
    left = [1]

    class Lost(BaseTenant):
        def check_lease(self) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise ClaimLostError("lost")

    lost = place.server.steps(Lost(tenant.names))
    with pytest.raises(ClaimLostError):
        await lost.end_logins(tenant.logins)
    await tenant.steps.end_stale_sessions()
    await tenant.add()


async def cut_short(place: Place, tenant: Tenant, step: Callable[[TenantSteps], Awaitable[object]]) -> None:
    """Cancel a step at its first statement, then at its second one, and so on, until it ends."""
    for last in count(1):
        statements = count(1)

        class Cut(BaseTenant):
            def check_lease(self) -> None:
                if next(statements) == last:  # noqa: B023  of this run
                    running.cancel()  # noqa: B023

        running = asyncio.ensure_future(step(place.server.steps(Cut(tenant.names))))
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()
            assert last > 1, "it was never cut short"
            return
        await tenant.steps.end_stale_sessions()


async def test_each_step_can_be_cancelled_and_run_again(place: Place) -> None:
    tenant = Tenant(place.server, place.names())

    async def add(steps: TenantSteps) -> None:
        found = await place.server.inspect(tenant.names)  # as the operation that finds a login on record drops it
        await tenant.steps.end_logins(found.logins)
        assert await tenant.steps.drop_logins(found.logins) == ()
        [login] = tenant.names.next_logins([*found.logins, *found.disabled])
        tenant.on_record = {login: Role.OWNER}
        await steps.add_login(login, Secret(PASSWORD), Role.OWNER)

    await cut_short(place, tenant, lambda steps: steps.create())
    await cut_short(place, tenant, add)
    [login] = tenant.logins
    assert place.enters(tenant.names, login, PASSWORD)
    await cut_short(place, tenant, lambda steps: steps.end_logins([login]))
    assert not place.enters(tenant.names, login, PASSWORD)
    await cut_short(place, tenant, lambda steps: steps.lock_out())
    await cut_short(place, tenant, add)
    assert place.enters(tenant.names, tenant.logins[0], PASSWORD)
    assert await tenant.problems() == frozenset()


async def test_unreachable_server_is_a_grant_error(place: Place, unused_tcp_port: int) -> None:
    info = await place.cluster.info()
    away = server_of(info.engine, evolve(info.connection, port=unused_tcp_port), None, None, None)
    names = place.names()
    for act in (away.administrator(), away.inspect(names), away.steps(BaseTenant(names)).create(), away.usage()):
        with pytest.raises(GrantError) as caught:
            await act
        assert info.connection.password
        assert leaks(caught.value, info.connection.password) == []
