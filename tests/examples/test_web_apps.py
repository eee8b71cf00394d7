"""The web examples over real HTTP on both sides: visitors in front, the sandbox's API behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
import uvicorn
from aiohttp import web
from fastapi import FastAPI
from litestar import Litestar, get

import aiohttp_app
import fastapi_app
import litestar_app
import web_signups
from aiodbclient import DatabaseClient, User, errors
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore, TenantPools, Tenants
from aiodbclient.tenants import errors as tenant_errors
from web_signups import status_of, status_of_driver

from ..proxy import behind_proxy
from ..requirements import postgres_with_tls
from ..tenants.programs import ask
from ..thorough import first_of
from ..waiting import HANG, until

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
Serve = Callable[[], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def serve_asgi(app: FastAPI | Litestar) -> AsyncGenerator[str, None]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, ws="none", lifespan="on", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the app did not start"
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def serve_aiohttp() -> AsyncGenerator[str, None]:
    runner = web.AppRunner(aiohttp_app.create_app(), shutdown_timeout=HANG)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture(
    params=first_of([partial(serve_asgi, fastapi_app.app), serve_aiohttp, partial(serve_asgi, litestar_app.app)], 2),
    ids=["fastapi", "aiohttp", "litestar"],
)
def serve(request: pytest.FixtureRequest) -> Serve:
    served: Serve = request.param
    return served


class Visitor:
    """A visitor who signs up. The app's store is at ``store``."""

    def __init__(self, http: aiohttp.ClientSession, store: Path) -> None:
        self.http = http
        self.store = store

    async def sign_up(self, tenant: object) -> aiohttp.ClientResponse:
        async with self.http.post("/signup", json={"tenant": tenant}) as answer:
            await answer.read()
            return answer

    async def credential_of(self, tenant: str) -> Credential:
        """Sign up, and return the stored credential."""
        answer = await self.sign_up(tenant)
        assert answer.status == 201, await answer.text()
        assert await answer.json() == {"tenant": tenant, "database": f"tenant_{tenant}"}
        return await stored(self.store, tenant)


async def stored(path: Path, tenant: str) -> Credential:
    async with SQLiteStore(path) as store:
        record = await store.get(tenant)
    credential = None if record is None else record.credential()
    assert credential is not None
    return credential


def set_environment(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, cluster: str, folder: Path) -> None:
    """What the app reads when it starts."""
    monkeypatch.setenv("DIGITALOCEAN_API_URL", sandbox.url)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", sandbox.token)
    monkeypatch.setenv("DIGITALOCEAN_CLUSTER_ID", cluster)
    monkeypatch.setenv("TENANTS_DB", str(folder / "tenants.db"))


@asynccontextmanager
async def visiting(
    serve: Serve, sandbox: Sandbox, cluster: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Visitor, None]:
    set_environment(monkeypatch, sandbox, cluster, folder)
    async with serve() as url, aiohttp.ClientSession(url) as http:
        yield Visitor(http, folder / "tenants.db")


@pytest.fixture
async def visitor(
    serve: Serve, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Visitor, None]:
    """A visitor of an app on a cluster with a PostgreSQL."""
    cluster = await sandbox.add_cluster("pg", backend="postgres")
    async with visiting(serve, sandbox, cluster, tmp_path, monkeypatch) as visitor:
        yield visitor


def count(sandbox: Sandbox, operation: str) -> int:
    return sum(request.operation == operation for request in sandbox.requests)


async def works(credential: Credential) -> None:
    await ask(credential, "CREATE TABLE mine (x int)")


async def test_signup_gets_working_login(visitor: Visitor, sandbox: Sandbox) -> None:
    credentials = await asyncio.gather(*(visitor.credential_of(f"tenant{number}") for number in range(8)))

    for credential in credentials:
        await works(credential)
    assert count(sandbox, "clusters.get") == 1  # by the one client


async def test_second_signup_is_409_without_secret(visitor: Visitor, sandbox: Sandbox) -> None:
    password = (await visitor.credential_of("alpha")).password
    answers = await asyncio.gather(*(visitor.sign_up("alpha") for _ in range(5)))

    assert [answer.status for answer in answers] == [409] * 5
    assert count(sandbox, "clusters.get") == 1
    assert password is not None
    assert not [answer for answer in answers if password in await answer.text()]


async def test_page_returns_no_password(sandbox: Sandbox, client: DatabaseClient) -> None:
    """The control: ``attrs.asdict``, and a framework that serializes attrs classes, show it."""
    page = (PAGES / "web-backend.md").read_text()
    [block] = [each for each in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "UserOut" in each]
    cluster = client.cluster(await sandbox.add_cluster("pg", backend="memory"))
    user = await cluster.users.create("alice")
    assert user.password is not None

    @get("/users")
    async def careless() -> list[User]:
        return await cluster.users.list()

    shown: dict[str, Any] = {"cluster": cluster, "__name__": __name__}
    exec(compile(block, "web-backend.md", "exec", dont_inherit=True), shown)
    said = []
    for app in (shown["app"], Litestar([careless])):
        async with serve_asgi(app) as url, aiohttp.ClientSession() as http, http.get(f"{url}/users") as answer:
            said.append(await answer.text())
            assert answer.status == 200, said

    assert ["alice" in each for each in said] == [True, True]
    assert [user.password in each for each in said] == [False, True]
    assert user.password in str(attrs.asdict(user))


async def test_invalid_names_are_refused_and_nothing_is_sent(visitor: Visitor, sandbox: Sandbox) -> None:
    before = len(sandbox.requests)

    for name in ("", "..", "a/b", "A", "x" * 50, 5, None, ["a"]):
        assert (await visitor.sign_up(name)).status == 422

    assert len(sandbox.requests) == before


@pytest.mark.parametrize("app", [fastapi_app.app, litestar_app.app], ids=["fastapi", "litestar"])
async def test_request_uses_tenants_pool(
    app: FastAPI | Litestar, sandbox: Sandbox, client: DatabaseClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool of a suspended customer meets the driver's error once, however late its refresh is."""
    pytest.importorskip("asyncpg")
    monkeypatch.setattr(web_signups, "TenantPools", partial(TenantPools, refresh=3600.0))
    cluster = await sandbox.add_cluster("pg", backend="postgres")
    async with visiting(partial(serve_asgi, app), sandbox, cluster, tmp_path, monkeypatch) as visitor:

        async def ask_size(name: str) -> tuple[int, str | None]:
            async with visitor.http.get(f"/tenants/{name}/size") as answer:
                said = await answer.text()
                assert "tenants.ensure" not in said
                assert answer.status != 200 or (await answer.json())["bytes"] > 100_000
                return answer.status, answer.headers.get("retry-after")

        await visitor.credential_of("alpha")
        asked = [await ask_size(name) for name in ("alpha", "alpha", "beta", "A")]
        assert asked == [(200, None), (200, None), (404, None), (422, None)]
        async with SQLiteStore(tmp_path / "tenants.db") as store:  # as another process
            tenants = Tenants(client.cluster(cluster), store, prefix="tenant_")
            (await tenants.suspend(["alpha"])).raise_for_errors()
        assert [await ask_size("alpha") for _ in range(3)] == [(503, "1"), (403, None), (403, None)]


def test_error_of_sql_is_500() -> None:
    asyncpg = pytest.importorskip("asyncpg")
    assert status_of_driver(asyncpg.UndefinedTableError("")) == (500, {})
    for kind in (asyncpg.AdminShutdownError, asyncpg.InterfaceError, ConnectionRefusedError):
        assert status_of_driver(kind("")) == (503, {"retry-after": "1"})


async def test_signup_while_api_is_down(visitor: Visitor, sandbox: Sandbox) -> None:
    sandbox.faults.add("clusters.get", status=503, headers={"retry-after": "0.01"})
    refused = await visitor.sign_up("alpha")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert (await visitor.http.get("/health")).status == 200

    sandbox.faults.clear()
    await works(await visitor.credential_of("alpha"))


async def test_signup_does_not_wait_for_limit(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(
        windows=[Window(1, 60.0), Window(5000, 3600.0)]
    ) as sandbox:  # the first signup needs two requests: the cluster, and its CA
        cluster = await sandbox.add_cluster("pg", server=postgres_with_tls())
        async with visiting(serve, sandbox, cluster, tmp_path, monkeypatch) as visitor:
            first = await visitor.sign_up("beta")
            sent = len(sandbox.requests)
            second = await visitor.sign_up("gamma")

    assert (first.status, second.status) == (503, 503)
    assert 0 < int(second.headers["retry-after"]) <= 60
    assert len(sandbox.requests) <= sent + 1  # a lone 429 stops no other call


async def test_stop_answers_waiting_signups(
    serve: Serve, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The health is answered while signups wait for the database, and a server that stops answers them first."""
    cluster = await sandbox.add_cluster("pg", backend="postgres")
    set_environment(monkeypatch, sandbox, cluster, tmp_path)
    names, connector = ["alpha", "beta"], aiohttp.TCPConnector(force_close=True)
    with behind_proxy(sandbox, cluster) as proxy:
        held = proxy.add(held=True)

        async def let_go_after_stop(health: str) -> None:
            with suppress(aiohttp.ClientConnectionError):  # the server accepts no more connections
                while True:
                    await http.get(health)
            held.held = False

        async with aiohttp.ClientSession(connector=connector) as http:
            async with serve() as url:
                posted = [asyncio.create_task(http.post(f"{url}/signup", json={"tenant": name})) for name in names]
                await until(lambda: held.fired)
                assert (await http.get(f"{url}/health")).status == 200
                assert not any(signup.done() for signup in posted)
                stopping = asyncio.create_task(let_go_after_stop(f"{url}/health"))
            await stopping
            assert [(await signup).status for signup in posted] == [201, 201]
        for name in names:
            await works(await stored(tmp_path / "tenants.db", name))


def rows_of(page: str) -> list[tuple[list[str], str]]:
    """The exceptions in the first column of a page's tables, and the last column."""
    cells = [line.strip("|").split("|") for line in (PAGES / page).read_text().splitlines() if line.startswith("| `")]
    assert len(cells) > 5
    return [(re.findall(r"`(\w+)`", each[0]), each[-1].strip()) for each in cells]


def error_of(name: str) -> errors.DatabaseClientError:
    error: errors.DatabaseClientError = (getattr(errors, name, None) or getattr(tenant_errors, name))("")
    return error


def test_status_table_of_the_page_matches() -> None:
    """The table of the page has the statuses and headers of ``status_of``. Any other error is a 500."""
    for names, says in rows_of("web-backend.md"):
        for name in names:
            error: Any = error_of(name)
            error.retry_after = 1.2
            named = re.search(r"`retry-after: (\d+)`", says)
            after = named[1] if named else "2" if "from the error" in says else None
            status, headers = status_of(error)
            assert (str(status), headers.get("retry-after")) == (says[:3], after), name
    for kind in (errors.UnsupportedOperationError, errors.AuthenticationError, tenant_errors.RotationPendingError):
        assert status_of(kind("")) == (500, {})
    damaged = tenant_errors.StoreError("")
    damaged.damaged = ("alpha",)
    assert status_of(damaged) == (500, {})


def test_what_can_be_called_again_is_503() -> None:
    """Each error of which the page of errors says "call again" has a 503 with retry-after."""
    names = [name for names, says in rows_of("errors.md") if says.startswith("call again") for name in names]
    assert len(names) > 5
    statuses = {name: status_of(error_of(name)) for name in names}
    assert {
        name for name, (status, headers) in statuses.items() if status != 503 or "retry-after" not in headers
    } == set()
