from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from aiodbclient import Cluster, DatabaseClient, RateLimiter, RetryPolicy
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._embedded import SUPERUSER, EmbeddedPostgres

from .requirements import NO_MYSQL, ROOMY, no_description
from .run_folder import temporary_folder
from .server import CLUSTER, Server, serve
from .time_limit import pytest_runtest_call, pytest_runtest_setup, pytest_runtest_teardown  # noqa: F401  # hooks

# Where tmp_path is, and the files of servers, also of those that other programs start. On a busy disk, CREATE DATABASE
# takes 0.2 s of the processor, in memory 0.03 s.
tempfile.tempdir = temporary_folder(ROOMY)


def parse_uncollected(*arguments: Any, **options: Any) -> Any:
    """``ast.parse`` without garbage collection, in which another thread can run and parse: then both raise SystemError.

    Hypothesis and pytest parse, and Python shares a counter: github.com/python/cpython/issues/106905, mended in 3.11.8.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return parse(*arguments, **options)
    finally:
        if was_enabled:
            gc.enable()


if sys.version_info < (3, 11, 8):
    parse, ast.parse = ast.parse, parse_uncollected

MakeClient = Callable[..., DatabaseClient]
MakeCluster = Callable[..., Cluster]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many workers ``-n auto`` starts: more than processors, since tests also wait for servers."""
    return (os.cpu_count() or 1) + 2


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let each worker compile other test files first, for the cache of all: this takes ten seconds of the processor."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    worker, workers = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    folders = [Path(each) for each in session.config.args if Path(each).is_dir()]
    files = sorted(file for folder in folders for file in folder.rglob("test_*.py"))
    for file in files[worker::workers]:
        module = ".".join(file.resolve().relative_to(session.config.rootpath).with_suffix("").parts)
        with suppress(Exception, pytest.skip.Exception):  # the collection reports it
            importlib.import_module(module)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what is imported and collected out of every later garbage collection, which saves a tenth of the CPU time.

    From Python 3.14 on, Hypothesis warns of a source of random numbers that is frozen.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        if sys.version_info < (3, 14):
            gc.collect()
            gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests that need the provider's API description, if it is missing."""
    if no_description():
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("described")])
        items[:] = [item for item in items if not item.get_closest_marker("described")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if NO_MYSQL:
        terminalreporter.write_line(f"Left out: the tests of MySQL. {NO_MYSQL}")
    if reason := no_description():
        terminalreporter.write_line(reason)


@pytest.fixture(autouse=True)
def no_other_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer with a running sandbox, or behind a proxy, may have set these in the shell."""
    for name in ("DIGITALOCEAN_API_URL", "DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session", autouse=True)
def warm(_aiodbclient_servers: None) -> None:
    """A new embedded PostgreSQL takes a second of the processor, one that another test has left a tenth."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The superuser's DSN of an empty server for stores."""
    embedded = EmbeddedPostgres()
    asyncio.run(embedded.start())
    yield f"postgresql://{SUPERUSER}:{embedded.password}@127.0.0.1:{embedded.port}/postgres"
    asyncio.run(embedded.stop())


# The duration of an example depends on the load of the machine. `make mutants` only needs to know that a test fails,
# not its simplest example.
SLOW = [HealthCheck.too_slow]  # it measures how long examples take to make
settings.register_profile("tests", deadline=None, suppress_health_check=SLOW)
settings.register_profile(
    "mutants", deadline=None, suppress_health_check=SLOW, database=None, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("tests")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A sandbox without a rate limit."""
    async with Sandbox(windows=[]) as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[DatabaseClient]:
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, **quick_options()) as running:
        yield running


def quick_options() -> dict[str, Any]:
    """Options of a client with fast retries and no pacing."""
    return {"retry": RetryPolicy(base_delay=0.001), "rate_limiter": RateLimiter([]), "timeout": 5.0}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve() as running:
        yield running


@pytest.fixture
async def make_client(server: Server) -> AsyncIterator[MakeClient]:
    """A client of ``server``, which is closed after the test."""
    clients: list[DatabaseClient] = []

    def make(token: Any = "secret-token", **options: Any) -> DatabaseClient:
        clients.append(DatabaseClient(token, **{"base_url": server.url} | quick_options() | options))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def make_cluster(make_client: MakeClient) -> MakeCluster:
    """A cluster of ``server``, by a client of its own. Its engine is read if it is None."""

    def make(token: Any = "secret-token", *, engine: str | None = "pg", **options: Any) -> Cluster:
        return make_client(token, **options).cluster(CLUSTER, engine=engine)

    return make


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    """A PostgreSQL cluster of ``server``."""
    return make_cluster()
