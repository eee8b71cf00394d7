"""A MySQL with the rights of a managed cluster, and sessions that attack it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
import pytest
from attrs import field, frozen
from pymysql.cursors import Cursor

from aiodbclient import ClusterClient, DatabaseClient, RateLimiter
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Role
from aiodbclient.tenants._credential import Secret
from aiodbclient.tenants._naming import Names, names_of
from aiodbclient.tenants._servers.mysql import MySQLServer

from ..mysql import administrator, in_grant, run
from .tenant import Tenant

_used = iter(range(10**6))
DENIED = (1044, 1142, 1143, 1227, 1370, 1410)
MINE = "Mine-1-Mine"
IGNORES_KILL = "SELECT LOCATE(CONCAT(REPEAT('a', 8000), 'b'), REPEAT('a', 16000))"


@frozen
class Server:
    """A server behind the sandbox, as the tests see it."""

    cluster: ClusterClient
    sql: MySQLServer
    doadmin: str = field(repr=False)
    root: str = field(repr=False)
    limit: int

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

    @contextmanager
    def as_root(self) -> Any:
        """A cursor of somebody who may do everything, which no administrator of a managed cluster may."""
        with administrator(self.root) as cursor:
            yield cursor

    @contextmanager
    def as_doadmin(self) -> Any:
        with administrator(self.doadmin) as cursor:
            yield cursor

    def connect(self, login: str, password: str, db: str | None = None) -> pymysql.Connection[Cursor]:
        options = self.sql._admin
        return pymysql.connect(
            host=options["host"],
            port=options["port"],
            user=login,
            password=password,
            database=db,
            autocommit=True,
            ssl={"check_hostname": False},
        )

    def sessions(self, login: str) -> list[int]:
        with self.as_root() as cursor:
            cursor.execute("SHOW PROCESSLIST")
            return [row[0] for row in cursor.fetchall() if row[1] == login]

    def sleeping(self, login: str) -> int:
        """How many sessions of a login run a statement that sleeps."""
        return self._in_state(login, "User sleep")

    def executing(self, login: str) -> int:
        """How many sessions of a login run a statement."""
        return self._in_state(login, "executing")

    def waiting(self, login: str) -> int:
        """How many sessions of a login wait for a lock of a table or schema."""
        return self._in_state(login, "Waiting for%metadata lock")

    def _in_state(self, login: str, state: str) -> int:
        with self.as_root() as cursor:
            cursor.execute(
                "SELECT COUNT(*) FROM performance_schema.threads"
                " WHERE PROCESSLIST_USER = %s AND PROCESSLIST_STATE LIKE %s",
                (login, state),
            )
            return int(cursor.fetchall()[0][0])

    def in_grant(self, names: Names) -> str:
        """The tenant's schema as GRANT takes it."""
        with self.as_root() as cursor:
            return in_grant(cursor, names.database)


@pytest.fixture
async def server(
    mysql_cluster: tuple[Sandbox, str], mysql: Callable[[str], str], request: pytest.FixtureRequest
) -> AsyncIterator[Server]:
    sandbox, cluster_id = mysql_cluster
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client:
        cluster = client.cluster(cluster_id)
        doadmin = await cluster.users.get("doadmin")
        uri = (await cluster.info()).connection.uri_for(doadmin)
        sql = MySQLServer(uri, await cluster.ca(), connection_limit=12)
        yield Server(cluster, sql, uri, mysql(request.node.callspec.params["mysql_cluster"]), 12)


def refused(connection: pymysql.Connection[Cursor], statement: str) -> int:
    """The code with which the server refuses a statement."""
    with pytest.raises(pymysql.MySQLError) as error:
        run(connection, statement)
    return int(error.value.args[0])


def suppressed(act: Callable[[], object]) -> None:
    with suppress(pymysql.MySQLError):
        act()


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


class Fighter:
    """Sessions of a leaked login, which set its password and kill other sessions without a pause."""

    def __init__(self, server: Server, login: str, password: str, schema: str | None) -> None:
        self._server = server
        self._stop = False
        self.acts = 0
        self._connections = [server.connect(login, password, schema) for _ in range(4)]
        ours = {int(run(connection, "SELECT CONNECTION_ID()")[0][0]) for connection in self._connections}
        self._threads = [
            threading.Thread(target=self._set if number % 2 else self._kill, args=(connection, ours))
            for number, connection in enumerate(self._connections)
        ]

    def __enter__(self) -> Fighter:
        for thread in self._threads:
            thread.start()
        while self.acts < 8:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            with suppress(pymysql.MySQLError):
                connection.close()

    def open(self) -> int:
        return sum(connection.open for connection in self._connections)

    def _set(self, connection: pymysql.Connection[Cursor], _: set[int]) -> None:
        self._again(connection, lambda: run(connection, "SET PASSWORD = 'Mine-1-Mine'"))

    def _kill(self, connection: pymysql.Connection[Cursor], ours: set[int]) -> None:
        def kill() -> None:
            for row in run(connection, "SHOW PROCESSLIST"):
                if row[0] not in ours:
                    run(connection, "KILL %s", row[0])

        self._again(connection, kill)

    def _again(self, connection: pymysql.Connection[Cursor], act: Callable[[], object]) -> None:
        while not self._stop:
            try:
                self.acts += 1
                act()
            except pymysql.MySQLError as error:
                if not connection.open or error.args[0] in (0, 2006, 2013):
                    return
