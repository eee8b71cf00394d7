"""A MySQL with the rights of a managed cluster, and sessions that attack it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import pymysql
import pytest
from attrs import field, frozen
from pymysql.cursors import Cursor

from aiodbclient import Cluster, DatabaseClient, RateLimiter
from aiodbclient._masking import Secret
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Role
from aiodbclient.tenants._naming import Names, names_of
from aiodbclient.tenants._servers.mysql import MySQLServer

from ..mysql import administrator, in_grant, run
from .tenant import Tenant
from .threads import repeating

ConnectionT = TypeVar("ConnectionT", bound="pymysql.Connection[Cursor]")

_used = iter(range(10**6))
DENIED = (1044, 1142, 1143, 1227, 1370, 1410)
IGNORES_KILL = "SELECT LOCATE(CONCAT(REPEAT('a', 30000), 'b'), REPEAT('a', 60000))"  # for seconds
IGNORES_KILL_BRIEFLY = "SELECT LOCATE(CONCAT(REPEAT('a', 12000), 'b'), REPEAT('a', 24000))"


@frozen
class Server:
    """A server behind the sandbox, as the tests see it."""

    cluster: Cluster
    sql: MySQLServer
    doadmin: str = field(repr=False)
    root: str = field(repr=False)
    limit: int
    host: str
    port: int
    held: ExitStack

    async def make(
        self, role: Role = Role.OWNER, *, like: Tenant | None = None, name: str = ""
    ) -> tuple[Tenant, str, Secret]:
        """A tenant's schema, unless ``like`` has one, and a login of ``role`` with its password."""
        tenant = like or Tenant(self.sql, names_of(name or f"h{next(_used)}_x", "mysql"))
        await tenant.steps.create()
        return tenant, *await self.add(tenant, role)

    async def add(self, tenant: Tenant, role: Role = Role.OWNER) -> tuple[str, Secret]:
        """Make another login, and return it with its password."""
        password = Secret(f"Aa1-{next(_used)}-of-a-tenant")
        return await tenant.add(role, password), password

    async def enter(self, *statements: str, name: str = "") -> tuple[Tenant, str, Secret, pymysql.Connection[Cursor]]:
        """A tenant, a login of its owner, the password, and a session in the schema, which ran the statements."""
        tenant, login, password = await self.make(name=name)
        own = self.connect(login, password, tenant.database)
        for statement in statements:
            run(own, statement)
        return tenant, login, password, own

    def as_root(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement as somebody who may do everything, which no administrator of a managed cluster may."""
        with administrator(self.root) as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    @contextmanager
    def as_doadmin(self) -> Any:
        with administrator(self.doadmin) as cursor:
            yield cursor

    def count(self, table: str) -> int:
        """How many rows the superuser finds in a table."""
        [(number,)] = self.as_root(f"SELECT COUNT(*) FROM {table}")
        return int(number)

    def connect(
        self, login: str, password: str, db: str | None = None, address: str | None = None
    ) -> pymysql.Connection[Cursor]:
        """A session, from another ``address`` than the administrator's, which is closed at the end of the test."""
        return self.hold(pymysql.Connection(**self.options(login, password), database=db, bind_address=address))

    def options(self, login: str, password: str) -> dict[str, Any]:
        address = {"host": self.host, "port": self.port, "ssl": {"check_hostname": False}}
        return {**address, "user": login, "password": password, "autocommit": True}

    def hold(self, session: ConnectionT) -> ConnectionT:
        """Close the session at the end of the test."""
        self.held.callback(suppressed, session.close)
        return session

    @contextmanager
    def repeated(
        self, statement: str, login: str, password: str, db: str
    ) -> Iterator[tuple[list[int], list[Exception]]]:
        """A program logs in and runs a statement all the time. Yields how often, and its errors."""
        times, failures = [0], list[Exception]()

        def use() -> None:
            try:
                session = self.connect(login, password, db)
                run(session, statement)
                session.close()
            except pymysql.MySQLError as error:
                failures.append(error)
            times[0] += 1

        with repeating(use):
            yield times, failures

    def sessions(self, login: str) -> list[int]:
        return [row[0] for row in self.as_root("SHOW PROCESSLIST") if row[1] == login]

    def sleeping(self, login: str) -> int:
        """How many sessions of a login run a statement that sleeps."""
        return self._in_state(login, "User sleep")

    def waiting(self, login: str) -> int:
        """How many sessions of a login wait for a lock of a table or schema."""
        return self._in_state(login, "Waiting for%metadata lock")

    def _in_state(self, login: str, state: str) -> int:
        query = (
            "SELECT COUNT(*) FROM performance_schema.threads WHERE PROCESSLIST_USER = %s AND PROCESSLIST_STATE LIKE %s"
        )
        [(number,)] = self.as_root(query, login, state)
        return int(number)

    def in_grant(self, names: Names) -> str:
        """The tenant's schema as GRANT takes it."""
        with administrator(self.root) as cursor:
            return in_grant(cursor, names.database)

    def grant(self, right: str, names: Names, login: str) -> None:
        """Let a login into the schema of a tenant."""
        self.as_root(f"GRANT {right} ON `{self.in_grant(names)}`.* TO %s@'%%'", login)


@pytest.fixture
async def server(mysql_cluster: tuple[Sandbox, str], mysql_root: str) -> AsyncIterator[Server]:
    sandbox, cluster_id = mysql_cluster
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client:
        cluster = client.cluster(cluster_id)
        doadmin = await cluster.users.get("doadmin")
        connection = (await cluster.info()).connection
        uri = connection.uri_for(doadmin)
        sql = MySQLServer(uri, await cluster.ca(), connection_limit=12)
        with ExitStack() as held:
            yield Server(cluster, sql, uri, mysql_root, 12, connection.host or "", connection.port or 0, held)


def refused(connection: pymysql.Connection[Cursor], statement: str) -> int:
    """The code with which the server refuses a statement."""
    with pytest.raises(pymysql.MySQLError) as error:
        run(connection, statement)
    return int(error.value.args[0])


def suppressed(act: Callable[[], object]) -> None:
    with suppress(pymysql.MySQLError):
        act()


def background(act: Callable[[], object]) -> threading.Thread:
    """Run a statement, which may fail, in a thread."""
    thread = threading.Thread(target=suppressed, args=(act,))
    thread.start()
    return thread
