"""The owner of the session, the token, and where the token is sent."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import subprocess
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy, errors
from aiodbclient.rate_limiter import RateLimitStatus, Window

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Server, fails, hangs_up, says, serve, stalls
from .waiting import HANG, until

DBS = says(200, {"dbs": []})


async def test_own_session_is_closed(server: Server) -> None:
    server.otherwise = DBS
    async with DatabaseClient("token", base_url=server.url) as client:
        await client.cluster(CLUSTER, engine="pg").dbs.list()

    with pytest.raises(errors.ConfigurationError, match="closed"):
        await client.cluster(CLUSTER, engine="pg").dbs.list()
    await client.aclose()


async def test_a_borrowed_session_is_used_and_left_open(server: Server, make_client: MakeClient) -> None:
    """Its headers and middlewares stay in use. Its timeout and ``raise_for_status`` give way to the client's."""
    seen: list[str] = []

    async def watch(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        seen.append(request.method)
        return await handler(request)

    server.will(DBS, fails(404), DBS, stalls())
    headers, own = {"X-Mine": "yes", "User-Agent": "theirs/1.0"}, aiohttp.ClientTimeout(total=1e-9)
    async with aiohttp.ClientSession(
        headers=headers, middlewares=(watch,), timeout=own, raise_for_status=True
    ) as session:
        client = make_client(session=session, timeout=1.0, retry=RetryPolicy(max_tries=1))
        dbs = client.cluster(CLUSTER, engine="pg").dbs
        await dbs.list()
        with pytest.raises(errors.NotFoundError):
            await dbs.get("x")
        with pytest.raises(errors.InvalidResponseError):
            await dbs.create("x")
        with pytest.raises(errors.RequestTimeoutError, match=r"1 s"):
            await dbs.list()
        await client.aclose()
        assert not session.closed

    assert seen == ["GET", "GET", "POST", "GET"]
    assert server.requests[0].headers.items() >= {("x-mine", "yes"), ("user-agent", "theirs/1.0")}
    with pytest.raises(errors.ConfigurationError, match="ClientSession"):
        await make_client(session=session).cluster(CLUSTER, engine="pg").dbs.list()


async def test_session_with_auth_is_refused(server: Server, make_cluster: MakeCluster) -> None:
    async with aiohttp.ClientSession() as session:
        session._default_auth = object()  # type: ignore[assignment] # its argument auth= warns that it will go
        with pytest.raises(errors.ConfigurationError, match="auth="):
            await make_cluster(session=session).dbs.list()

    assert server.requests == []


@pytest.mark.parametrize("way", ["trust_env", "proxy"])
async def test_unencrypted_proxy_is_refused(
    way: str, server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as proxy:
        proxy.otherwise = DBS
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        options: dict[str, Any] = {"trust_env": True} if way == "trust_env" else {"proxy": proxy.url}
        async with aiohttp.ClientSession(**options) as session:
            with pytest.raises(errors.ConfigurationError, match=r"unencrypted to a proxy.*it was not sent"):
                await make_cluster(session=session).dbs.list()

        assert proxy.requests == server.requests == []


@pytest.mark.parametrize("own", [True, False])
async def test_plain_http_goes_past_proxy(
    own: bool, server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is given must be told so by ``no_proxy``."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    if not own:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.will(DBS)

    async with aiohttp.ClientSession(trust_env=True) as session:
        client = make_client(session=None if own else session, trust_env=own)
        assert await client.cluster(CLUSTER, engine="pg").dbs.list() == []


def test_second_event_loop_is_refused() -> None:
    async def first() -> DatabaseClient:
        async with serve() as server:
            server.otherwise = DBS
            client = DatabaseClient("token", base_url=server.url)
            await client.cluster(CLUSTER, engine="pg").dbs.list()
            return client

    async def second(client: DatabaseClient) -> None:
        with pytest.raises(errors.ConfigurationError, match="event loop"):
            await client.cluster(CLUSTER, engine="pg").dbs.list()
        await client.aclose()

    asyncio.run(second(asyncio.run(first())))
    gc.collect()


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.ConfigurationError, match="DIGITALOCEAN_TOKEN or DIGITALOCEAN_ACCESS_TOKEN"):
        DatabaseClient()

    monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", "from-environment")
    DatabaseClient()


def test_address_comes_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "https://api.digitalocean.com" in repr(DatabaseClient("token"))
    monkeypatch.setenv("DIGITALOCEAN_API_URL", "")
    assert "https://api.digitalocean.com" in repr(DatabaseClient("token"))

    monkeypatch.setenv("DIGITALOCEAN_API_URL", "http://127.0.0.1:8080")
    assert "http://127.0.0.1:8080" in repr(DatabaseClient("token"))
    assert "https://elsewhere" in repr(DatabaseClient("token", base_url="https://elsewhere"))

    for address in ("http://api.digitalocean.com", "api.digitalocean.com", "https://user:pass@host"):
        monkeypatch.setenv("DIGITALOCEAN_API_URL", address)
        with pytest.raises(errors.ConfigurationError, match="DIGITALOCEAN_API_URL"):
            DatabaseClient("token")


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "ü", 5, b"x"])
def test_invalid_token_is_not_quoted(token: Any) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        DatabaseClient(token)

    assert not token or repr(token) not in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.digitalocean.com",
        "http://10.0.0.1",
        "http://localhost.example",
        "ftp://x",
        "api.digitalocean.com",
        "",
        "https://user:pass@host",
        "https://host?x=1",
        "https://host/#x",
        f"https://{'a' * 64}.example",
    ],
)
def test_unencrypted_address_is_refused(base_url: str) -> None:
    for fine in ("http://127.0.0.1:8080", "http://localhost", "http://[::1]:1", "https://host/api"):
        assert fine in repr(DatabaseClient("token", base_url=f"{fine}/"))

    with pytest.raises(errors.ConfigurationError):
        DatabaseClient("token", base_url=base_url)


class Vault:
    """Hands out token-1, token-2, ..."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        return f"token-{self.asked}"


async def test_401_asks_for_new_token_once(server: Server, make_cluster: MakeCluster) -> None:
    vault = Vault()
    cluster = make_cluster(vault)
    server.will(fails(401), DBS)

    assert await cluster.dbs.list() == []
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer token-1", "Bearer token-2"]

    server.will(fails(401), fails(401))
    with pytest.raises(errors.AuthenticationError):
        await cluster.dbs.list()
    assert len(server.requests) == 4


async def test_token_that_expired_during_wait(server: Server, make_cluster: MakeCluster) -> None:
    vault, valid = Vault(), set[str]()

    async def only_the_valid(request: Any) -> Any:
        return await (DBS if request.headers["authorization"] in valid else fails(401))(request)

    server.otherwise = only_the_valid
    limiter = RateLimiter([Window(1, 0.2)])
    cluster = make_cluster(vault, rate_limiter=limiter)
    valid.add("Bearer token-1")
    await cluster.dbs.list()
    run = cluster.dbs.provision([])
    waiting = asyncio.ensure_future(run)  # its list waits in the bulk lane
    await until(lambda: limiter.snapshot().waiting)
    valid.clear()
    valid.add("Bearer token-2")
    await cluster.dbs.list()
    valid.clear()
    valid.add("Bearer token-3")

    assert await waiting == []
    assert vault.asked == 3


async def test_a_hundred_401s_ask_for_one_new_token(server: Server, make_cluster: MakeCluster) -> None:
    """Calls that begin or fail at the same time share what the token provider returns."""

    async def only_the_second(request: Any) -> Any:
        fresh = request.headers["authorization"] == "Bearer token-2"
        return await (DBS if fresh else fails(401))(request)

    server.otherwise = only_the_second
    vault = Vault()
    cluster = make_cluster(vault)
    assert vault.asked == 0

    await asyncio.gather(*(cluster.dbs.list() for _ in range(100)))

    assert vault.asked == 2


async def timing_out() -> str:
    raise TimeoutError("the vault took too long")


async def returning_none() -> Any:
    return None


@pytest.mark.parametrize(
    ("provider", "error", "said"),
    [
        (lambda: "token", errors.ConfigurationError, "async"),
        (timing_out, TimeoutError, "the vault took too long"),
        (returning_none, errors.ConfigurationError, "the token must be"),
    ],
)
async def test_token_provider_fails(
    provider: Any, error: type[Exception], said: str, server: Server, make_cluster: MakeCluster
) -> None:
    with pytest.raises(error, match=said):
        await make_cluster(provider).dbs.list()

    assert server.requests == []


async def test_token_provider_timeout_ends_calls(server: Server, make_cluster: MakeCluster) -> None:
    async def hanging() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    dbs = make_cluster(hanging, timeout=0.1).dbs

    both = await asyncio.wait_for(asyncio.gather(dbs.list(), dbs.list(), return_exceptions=True), HANG)

    for error in both:
        assert isinstance(error, errors.RequestTimeoutError)
        assert re.search(r"the token provider returned no token within 0.1 s; it was not sent", str(error))
        assert not error.may_have_applied
    assert server.requests == []


class Failing(Vault):
    """Hands out one token, and then fails."""

    async def __call__(self) -> str:
        token = await super().__call__()
        if self.asked > 1:
            raise LookupError("the vault is sealed")
        return token


async def test_token_error_after_other_tries(server: Server, make_cluster: MakeCluster) -> None:
    """The call raises what the token provider raises, unless the write may have been applied: then it says so."""
    server.will(fails(401), hangs_up, fails(401))
    with pytest.raises(LookupError, match="sealed"):
        await make_cluster(Failing()).users.reset_auth("alice")

    with pytest.raises(errors.DatabaseClientError, match=r"raised LookupError.*it may have been applied") as caught:
        await make_cluster(Failing()).users.reset_auth("alice")
    assert (caught.value.may_have_applied, caught.value.tries) == (True, 2)
    assert isinstance(caught.value.__cause__, LookupError)


async def test_cancelled_call_leaves_nothing(server: Server, make_client: MakeClient) -> None:
    server.otherwise = stalls()
    client = make_client()
    calls = [asyncio.create_task(client.cluster(CLUSTER, engine="pg").users.create(f"u{n}")) for n in range(20)]
    await until(lambda: len(server.requests) == 20)

    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    await client.aclose()

    # The remaining tasks are the test itself and the server's tasks for its 20 requests.
    assert [task for task in asyncio.all_tasks() if "aiodbclient" in repr(task.get_coro())] == []


async def test_the_hourly_limit_comes_from_the_newest_answer(server: Server, make_client: MakeClient) -> None:
    server.will(
        says(200, {"dbs": []}, ratelimit_limit="5000", ratelimit_remaining="4816", ratelimit_reset="1444931833")
    )
    client = make_client()
    assert client.rate_limit is None

    await client.cluster(CLUSTER, engine="pg").dbs.list()

    assert client.rate_limit == RateLimitStatus(5000, 4816, datetime.fromtimestamp(1444931833, UTC))


FORKS = """
import asyncio, os, sys
from aiodbclient import DatabaseClient, errors

client = DatabaseClient("token", base_url=sys.argv[1])

async def use():
    return await client.cluster(sys.argv[2], engine="pg").dbs.list()

with asyncio.Runner() as runner:
    runner.run(use())
    if (child := os.fork()) == 0:
        for run in (runner.run, asyncio.run):
            try:
                run(use())
            except errors.ConfigurationError as error:
                print(error, flush=True)
        runner.run(client.aclose())  # it leaves the parent's connection alone
        os._exit(0)
    os.waitpid(child, 0)
    print(runner.run(use()), flush=True)
    runner.run(client.aclose())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_client_after_fork(server: Server) -> None:
    """A client that was used before a fork says so in the child, and still works in the parent."""
    server.otherwise = says(200, {"dbs": []})
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, server.url, CLUSTER]

    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), HANG)

    *said, listed = out.decode().splitlines()
    assert len(said) == 2
    assert all("was used before the process forked" in each for each in said)
    assert all("make one in each process" in each for each in said)
    assert listed == "[]"
    assert len(server.requests) == 2


class WithoutName:
    """A session without one of aiohttp's private names, as a later version of aiohttp may have it."""

    __class__: Any = aiohttp.ClientSession  # for isinstance

    def __init__(self, session: aiohttp.ClientSession, name: str) -> None:
        self._wrapped, self._name = session, name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        found = getattr(self._wrapped, name)
        return WithoutName(found, self._name) if name == "connector" else found


class ResponseWithoutProtocol(aiohttp.ClientResponse):
    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        started = await super().start(connection)
        del self._protocol
        return started


@pytest.mark.parametrize("name", [None, "_middlewares", "_default_proxy", "_conns", "_protocol"])
async def test_aiohttp_private_name_gone(name: str | None, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """If aiohttp renames what keeps used connections safe, the client warns once, and uses no connection twice."""
    peers = set[object]()

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return await says(200, {"dbs": []})(request)

    server.otherwise = reply
    response_class = ResponseWithoutProtocol if name == "_protocol" else aiohttp.ClientResponse
    async with aiohttp.ClientSession(response_class=response_class) as session:
        given: Any = session if name in (None, "_protocol") else WithoutName(session, name)
        client = DatabaseClient("token", base_url=server.url, session=given)
        with caplog.at_level(logging.WARNING, "aiodbclient"):
            for _ in range(4):
                await client.cluster(CLUSTER, engine="pg").dbs.list()

    warnings = [record.getMessage() for record in caplog.records]
    if name is None:
        assert (len(peers), warnings) == (1, [])
        return
    assert len(peers) >= 3  # the first response shows that ``_protocol`` is gone
    [warning] = warnings
    assert f".{name}," in warning


async def test_netrc_credentials_refused(
    server: Server, make_cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that finds credentials in a netrc file sends nothing, and the error says so without the token."""
    (tmp_path / "netrc").write_text("default login me password from-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async with aiohttp.ClientSession(trust_env=True) as session:
        with pytest.raises(errors.ConfigurationError, match=r"netrc.*without trust_env; it was not sent") as caught:
            await make_cluster(session=session).users.create("alice")

    assert not caught.value.may_have_applied
    assert server.requests == []
    printed = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "secret-token" not in printed
    assert "from-netrc" not in printed
