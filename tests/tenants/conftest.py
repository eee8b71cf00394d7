"""A PostgreSQL for the stores, and one behind a sandbox. Each test gets a client and a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import frozen
from psycopg.sql import Composable

from aiodbclient import Cluster, DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Claim, Credential, SQLiteStore, Store, Tenants
from aiodbclient.tenants._servers.postgres import PostgresServer
from aiodbclient.tenants._servers.postgres.connection import Session

from ..mysql import PATTERNS, SERVERS, running
from ..sweeping import sweep
from .clients import client_of
from .managed import INSTALLED, Managed
from .moves import Two, opened
from .own_stores import HookedStore, Stores
from .servers import RestartablePostgres
from .tenant import Tenant

T = TypeVar("T")


async def only(run: AsyncIterable[T]) -> T:
    """The outcome of a run for one name."""
    (outcome,) = [outcome async for outcome in run]
    return outcome


def present(found: T | None) -> T:
    """What was looked for, which must be there."""
    assert found is not None
    return found


@frozen
class Place:
    """The cluster and store of a test. All tests share the server, so names begin with the test's own ``prefix``."""

    sandbox: Sandbox
    client: DatabaseClient
    cluster: Cluster
    store: HookedStore
    prefix: str
    path: Path
    _before: int

    def tenants(self, *, store: Store | None = None, **options: Any) -> Tenants:
        return Tenants(self.cluster, store or self.store, **{"prefix": self.prefix} | options)

    @asynccontextmanager
    async def another_process(self) -> AsyncIterator[Tenants]:
        """The same tenants, by a store of its own."""
        async with SQLiteStore(self.path) as store:
            yield self.tenants(store=store)

    def sent(self) -> list[tuple[str | None, str | None]]:
        """The operations and names of the requests since the test began. The names lack the test's prefix."""
        requests = self.sandbox.requests[self._before :]
        return [(each.operation, each.name and each.name.removeprefix(self.prefix)) for each in requests]

    async def logins(self) -> list[str]:
        """The logins on the server that begin with the test's prefix, sorted. The names lack it."""
        names = (user.name for user in await self.cluster.users.list())
        return sorted(name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix))


@pytest.fixture
def restartable() -> Iterator[RestartablePostgres]:
    """A server of this test alone, which it can stop and start."""
    with closing(RestartablePostgres()) as server:
        yield server


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Stores of each kind."""
    return Stores(tmp_path, request.getfixturevalue("postgres") if request.param == "PostgreSQL" else None)


@pytest.fixture(scope="session")
def pg_cluster() -> Iterator[tuple[Sandbox, str]]:
    """A sandbox, and the id of its cluster with a real PostgreSQL."""
    with Sandbox(windows=[]) as sandbox:
        yield sandbox, asyncio.run(sandbox.add_cluster("pg", backend="postgres"))


@pytest.fixture(scope="session")
def two_clusters() -> Iterator[tuple[Sandbox, str, str]]:
    """A sandbox, and the ids of its two clusters of PostgreSQL."""
    with Sandbox(windows=[]) as sandbox:
        old, new = [asyncio.run(sandbox.add_cluster("pg", backend="postgres")) for _ in range(2)]
        yield sandbox, old, new


@pytest.fixture
async def two(two_clusters: tuple[Sandbox, str, str], tmp_path: Path) -> AsyncIterator[Two]:
    async with opened(*two_clusters, tmp_path / "store") as two:
        yield two


@pytest.fixture
def tenants(request: pytest.FixtureRequest) -> Tenants:
    """The tenants at the place that the test has. Of two clusters, the first one gets the new ones."""
    its = next(each for each in ("two", "anywhere", "my_place", "place") if each in (*request.fixturenames, "place"))
    place: Two | Place = request.getfixturevalue(its)
    return place.tenants()


@pytest.fixture
async def alpha(tenants: Tenants) -> Credential:
    """A tenant there."""
    return await tenants.ensure("alpha")


@pytest.fixture(scope="session")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """The administrator's DSN of one of ``SERVERS``, started on first use."""
    with ExitStack() as stack:
        yield cache(lambda server: stack.enter_context(running(server, tmp_path_factory.mktemp(server))))


MODES = [*SERVERS, *([pytest.param(PATTERNS, marks=pytest.mark.thorough)] if "mysql" in SERVERS else [])]


@pytest.fixture(scope="module", params=MODES)
def mysql_cluster(request: pytest.FixtureRequest, mysql: Callable[[str], str]) -> Iterator[tuple[Sandbox, str]]:
    """A sandbox, and the id of its cluster, on each installed MySQL."""
    with Sandbox(windows=[]) as sandbox:
        yield sandbox, asyncio.run(sandbox.add_cluster("mysql", server=mysql(request.param)))


@pytest.fixture
def mysql_root(mysql_cluster: tuple[Sandbox, str], mysql: Callable[[str], str], request: pytest.FixtureRequest) -> str:
    """The superuser's DSN of the server of ``mysql_cluster``."""
    return mysql(request.node.callspec.params["mysql_cluster"])


@pytest.fixture
def brief_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each statement of an administrator of MySQL wait for a lock for one second."""
    monkeypatch.setattr("aiodbclient.tenants._servers.mysql.connection.LOCK_SECONDS", 1)


@pytest.fixture(scope="module", params=INSTALLED, ids=lambda found: found.parent.name)
def managed(request: pytest.FixtureRequest) -> Iterator[Managed]:
    """Each installed PostgreSQL, with the rights of a managed cluster."""
    server = Managed(request.param)
    yield server
    server.server.close()


_used = iter(range(10**6))


@pytest.fixture
def server(managed: Managed) -> PostgresServer:
    return managed.postgres()


@pytest.fixture
async def victim(managed: Managed, server: PostgresServer) -> Tenant:
    """A tenant, with two logins of its owner. Its name begins no other one."""
    return await managed.tenant(f"victim{next(_used):04}", server)


@pytest.fixture
async def evil(managed: Managed, server: PostgresServer) -> Tenant:
    """Another tenant, who attacks it."""
    return await managed.tenant(f"rival{next(_used):04}", server)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[Composable]:
    """The statements that the administrator of PostgreSQL runs from now on."""
    seen, run = list[Composable](), Session.run

    async def seeing(session: Session, statement: Any, *values: Any, **named: Any) -> list[Any]:
        seen.append(statement)
        return await run(session, statement, *values, **named)

    monkeypatch.setattr(Session, "run", seeing)
    return seen


def found_taken(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """An event that is set when somebody has tried to claim a name in ``store``, and it was claimed."""
    taken, claim = asyncio.Event(), store.claim

    async def watched(name: str, lease: float) -> Claim | None:
        claimed = await claim(name, lease)
        if claimed is None:
            taken.set()
        return claimed

    monkeypatch.setattr(store, "claim", watched)
    return taken


@asynccontextmanager
async def placed(sandbox: Sandbox, cluster: str, path: Path) -> AsyncIterator[Place]:
    async with client_of(sandbox) as client, HookedStore(path) as store:
        prefix = f"t{next(_used)}_"
        yield Place(sandbox, client, client.cluster(cluster), store, prefix, path, len(sandbox.requests))
        sandbox.faults.clear()
        sweep(sandbox)


@pytest.fixture
async def place(pg_cluster: tuple[Sandbox, str], tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(*pg_cluster, tmp_path / "tenants.db") as place:
        yield place


@pytest.fixture
async def my_place(mysql_cluster: tuple[Sandbox, str], tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(*mysql_cluster, tmp_path / "tenants.db") as place:
        yield place


SQL = ["pg_cluster", *(f"mysql_cluster {name}" for name in SERVERS)]


@pytest.fixture(params=SQL)
def its_cluster(request: pytest.FixtureRequest, mysql: Callable[[str], str]) -> Iterator[tuple[Sandbox, str]]:
    kind, _, server = request.param.partition(" ")
    if not server:
        yield request.getfixturevalue(kind)
        return
    with Sandbox(windows=[]) as sandbox:
        yield sandbox, asyncio.run(sandbox.add_cluster("mysql", server=mysql(server)))


@pytest.fixture
async def anywhere(its_cluster: tuple[Sandbox, str], tmp_path: Path) -> AsyncIterator[Place]:
    """A place on PostgreSQL, and on each installed MySQL."""
    async with placed(*its_cluster, tmp_path / "tenants.db") as place:
        yield place
