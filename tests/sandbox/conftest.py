from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import aiohttp
import pytest
from attrs import define
from psycopg import AsyncConnection
from yarl import URL

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox import _api as api
from aiodbclient.sandbox import _clusters as clusters
from aiodbclient.sandbox import _embedded as embedded
from aiodbclient.sandbox._backends import postgres

from ..mysql import SERVERS, running
from ..requirements import postgres_with_tls
from .servers import JSON, MySQL, Postgres


@define
class Answer:
    status: int
    json: Any
    headers: dict[str, str]


class Clock:
    """Replaces the module ``time``. A test can advance its clock."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def time(self) -> float:
        return time.time() + self.ahead


class Delays:
    """Replaces the module ``asyncio``. Its sleeps last until ``end`` is set."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.end = asyncio.Event()
        self.seconds: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.begun.set()
        await self.end.wait()


@pytest.fixture(scope="module")
def own_pool() -> Iterator[None]:
    """No servers of other tests of this process, which the fixtures of the package keep warm."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(embedded.POOL, "_idle", [])
        patched.setattr(embedded.POOL, "_openings", 0)
        patched.setattr(postgres, "_EMPTY_SECONDS", 60.0)  # or a slow machine gives a server up
        yield


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the clusters, their lagging reads and the rate limits."""
    clock = Clock()
    monkeypatch.setattr(clusters, "time", clock)
    monkeypatch.setattr(api, "time", clock)
    return clock


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> Delays:
    """The delays of faults."""
    delays = Delays()
    monkeypatch.setattr(api, "asyncio", delays)
    return delays


Call = Callable[..., Awaitable[Answer]]


@pytest.fixture
async def call(sandbox: Sandbox) -> AsyncIterator[Call]:
    async with caller(sandbox) as calling:
        yield calling


class caller:
    """``async with caller(sandbox) as call: await call("GET", path)``. Paths are sent unchanged, after ``base``."""

    def __init__(self, sandbox: Sandbox, base: str = "") -> None:
        self._sandbox = sandbox
        self._base = base
        self._session = aiohttp.ClientSession()

    async def __aenter__(self) -> Call:
        return self._call

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def _call(
        self, method: str, path: str, body: Any = None, *, token: str | None = "", **options: Any
    ) -> Answer:
        headers = options.pop("headers", {})
        if token is not None:
            headers = {"authorization": f"Bearer {token or self._sandbox.token}"} | headers
        if body is not None:
            options["json"] = body
        url = URL(self._sandbox.url + self._base + path, encoded=True)
        async with self._session.request(method, url, headers=headers, **options) as response:
            text = await response.text()
            json = await response.json() if text and response.content_type == "application/json" else text or None
            return Answer(response.status, json, {key.lower(): value for key, value in response.headers.items()})


async def make(call: Call, kind: str, name: str, **more: Any) -> JSON:
    """Create a user or a db of the cluster that is the base of ``call``."""
    answer = await call("POST", f"/{kind}s", {"name": name, **more})
    assert answer.status == 201, answer
    made: JSON = answer.json[kind]
    return made


async def log_in(call: Call, user: JSON | None = None, database: str = "defaultdb") -> AsyncConnection[Any]:
    """Log in to the PostgreSQL of this cluster, by default as ``doadmin``."""
    shown = (await call("GET", "")).json["database"]["connection"]
    where = {key: shown[key] for key in ("host", "port")}
    login = {"name": shown["user"], "password": shown["password"]} if user is None else user
    return await AsyncConnection.connect(
        **where, user=login["name"], password=login["password"], dbname=database, autocommit=True
    )


async def rows(session: AsyncConnection[Any], query: LiteralString, *values: Any) -> list[Any]:
    return await (await session.execute(query, values or None)).fetchall()


async def connection_of(sandbox: Sandbox, cluster: str) -> JSON:
    async with caller(sandbox) as call:
        connection: JSON = (await call("GET", f"/v2/databases/{cluster}")).json["database"]["connection"]
        return connection


@pytest.fixture(scope="session")
def mysql_dsn() -> Iterator[str]:
    """The administrator's DSN of a MySQL. Each test uses its own names."""
    with tempfile.TemporaryDirectory() as folder, running(SERVERS[0], Path(folder)) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def postgres_dsn() -> Iterator[str]:
    """The superuser's DSN of a PostgreSQL of the user's, which happens to be one that the sandbox could start."""
    server = embedded.EmbeddedPostgres(programs=postgres_with_tls())
    asyncio.run(server.start())
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as ca_file:
        ca_file.write(server.ca or "")
        ca_file.flush()
        where = f"127.0.0.1:{server.port}/postgres?sslmode=verify-full&sslrootcert={ca_file.name}"
        yield f"postgresql://postgres:{server.password}@{where}"
    server.end()


@pytest.fixture(scope="module", params=["embedded", "mysql"])
def server(request: pytest.FixtureRequest, _aiodbclient_servers: None) -> Iterator[Postgres | MySQL]:
    """A server for the module: the sandbox's own, or one of the user's, ``postgres`` or ``mysql``."""
    kind = MySQL if request.param == "mysql" else Postgres
    dsn = "" if request.param == "embedded" else request.getfixturevalue(f"{request.param}_dsn")
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster(kind.engine, server=dsn or None))
        yield kind(sandbox, cluster, asyncio.run(connection_of(sandbox, cluster)), dsn)
