"""An answer that does not belong to its request is refused: for another user, db or cluster, or too early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from aiodbclient import Cluster, DatabaseClient, RateLimiter, RetryPolicy, errors

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Reply, Server, fails, hangs_up, late, returns_the_user, says, time_out_if_late
from .test_operations import CASES
from .waiting import settle

OTHER = "11111111-1111-4111-8111-111111111111"

ABOUT_A_USER = {name: CASES[f"users.{name}"].call for name in ("create", "get", "update", "reset_auth")}
OTHER_SPELLINGS = ["ALICE", " alice ", "alice\n"]


@pytest.mark.parametrize("name", ["bob", *OTHER_SPELLINGS])
@pytest.mark.parametrize("engine", ["pg", "mysql", "mongodb", "kafka", "opensearch"])
async def test_answer_about_another_user_is_refused(
    engine: str, name: str, server: Server, make_cluster: MakeCluster
) -> None:
    """Another spelling is another user."""
    server.otherwise = says(201, {"user": {"name": name, "password": "hunter2"}})

    for case, call in ABOUT_A_USER.items():
        if case != "update" or engine == "pg":
            with pytest.raises(errors.InvalidResponseError, match=r"is about '.*', not 'alice'") as caught:
                await call(make_cluster(engine=engine))
            assert caught.value.may_have_applied == (case != "get")
            assert "hunter2" not in repr(vars(caught.value))


@pytest.mark.parametrize(
    ("engine", "name", "is_refused"),
    [(engine, "beta", True) for engine in ("mysql", "pg", "new")]
    + [(engine, name, engine == "pg") for engine in ("mysql", "pg", "new") for name in OTHER_SPELLINGS],
)
async def test_answer_about_another_db_is_refused(
    engine: str, name: str, is_refused: bool, server: Server, make_cluster: MakeCluster
) -> None:
    """MySQL may spell the name of a db in another way, and so may an engine that the client does not know."""
    if engine == "new":  # it is read
        server.will(says(200, {"database": {"id": CLUSTER, "name": "main", "engine": engine}}))
    server.otherwise = says(201, {"db": {"name": name}})
    dbs = make_cluster(engine=engine).dbs

    for call in (dbs.get, dbs.create):
        if not is_refused:
            assert (await call("alice")).name == name
            continue
        with pytest.raises(errors.InvalidResponseError, match="not 'alice'") as caught:
            await call("alice")
        assert caught.value.may_have_applied == (call == dbs.create)


async def test_answer_about_another_cluster_is_refused(server: Server, make_cluster: MakeCluster) -> None:
    server.otherwise = says(200, {"database": {"id": OTHER, "name": "main", "engine": "pg"}})
    cluster = make_cluster(engine=None)

    for call in (cluster.info(), cluster.users.list()):
        with pytest.raises(errors.InvalidResponseError, match=OTHER):
            await call

    assert cluster.engine is None
    assert all(path == f"/v2/databases/{CLUSTER}" for _, path in server.calls)


LOGIN_PAGE = says(200, text="<html>please log in</html>")


@pytest.mark.parametrize("reply", [says(202), says(205), says(206), says(200, {"user": {}}), says(200, {}), LOGIN_PAGE])
async def test_delete_needs_success_without_body(reply: Reply, server: Server, cluster: Cluster) -> None:
    server.will(says(200), says(203), says(204), reply)
    for _ in range(3):
        await cluster.users.delete("alice")

    with pytest.raises(errors.InvalidResponseError, match=r"does not confirm|is not empty") as caught:
        await cluster.users.delete("alice")

    assert caught.value.may_have_applied


@pytest.mark.parametrize("case", ABOUT_A_USER)
@pytest.mark.parametrize("status", [302, 307, 304])
async def test_redirected_write_may_have_applied(status: int, case: str, server: Server, cluster: Cluster) -> None:
    server.will(says(status, location="https://elsewhere.example/"))

    with pytest.raises(errors.InvalidResponseError) as caught:
        await ABOUT_A_USER[case](cluster)

    assert caught.value.may_have_applied == (case != "get")


def http(status: str, payload: Any = None) -> bytes:
    body = b"" if payload is None else json.dumps(payload).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def user(name: str) -> bytes:
    return http("201 Created", {"user": {"name": name, "password": f"password-of-{name}"}})


Writer = asyncio.StreamWriter


@asynccontextmanager
async def speaks(
    *replies: Callable[[Writer], Awaitable[None]], session: aiohttp.ClientSession | None = None
) -> AsyncIterator[tuple[DatabaseClient, list[int]]]:
    """A client of a server that sends exactly the bytes that ``replies`` write, and the connection of each request."""
    script, used, serving = list(replies), list[int](), list[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        mine = len(serving)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, _, length = head.lower().partition(b"content-length: ")
                await reader.readexactly(int(length.split(b"\r\n")[0] or 0))
                used.append(mine)
                await script.pop(0)(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client closed it
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with DatabaseClient(
            "secret-token",
            base_url=url,
            session=session,
            retry=RetryPolicy(max_tries=1),
            rate_limiter=RateLimiter([]),
            timeout=20.0,
        ) as client:
            try:
                yield client, used
            finally:
                if session is not None:
                    await session.close()
        await asyncio.wait(serving)


class Writes:
    """Write an answer, and an unsolicited one when its connection is idle."""

    def __init__(self, answer: bytes, unasked: bytes = b"") -> None:
        self.answer, self.unasked = answer, unasked
        self.writer: Writer | None = None

    async def __call__(self, writer: Writer) -> None:
        self.writer = writer
        writer.write(self.answer)
        await writer.drain()

    async def write_again(self) -> None:
        assert self.writer is not None
        self.writer.write(self.unasked)
        await self.writer.drain()
        await settle()  # it arrives


async def test_late_204_is_not_read() -> None:
    """A second copy of an answer is not given to the next request: a late 204 makes no refused delete a success."""
    refused = http("404 Not Found", {"id": "not_found", "message": "no such user"})
    twice = Writes(http("204 No Content"), http("204 No Content"))
    async with speaks(twice, Writes(refused)) as (client, used):
        users = client.cluster(CLUSTER, engine="pg").users
        await users.delete("a")
        await twice.write_again()

        with pytest.raises(errors.NotFoundError):
            await users.delete("b")

    assert used == [1, 2]


async def test_answer_during_trace_is_not_read() -> None:
    """Nor is a copy that arrives while the request waits in a trace of a borrowed session, before it is sent."""
    twice = Writes(http("204 No Content"), http("204 No Content"))

    async def wait(*_: object) -> None:
        if twice.writer is not None:
            await twice.write_again()

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(wait)
    refused = Writes(http("404 Not Found"))
    session = aiohttp.ClientSession(trace_configs=[trace])
    async with speaks(twice, refused, session=session) as (client, used):
        users = client.cluster(CLUSTER, engine="pg").users
        await users.delete("a")

        with pytest.raises(errors.NotFoundError):
            await users.delete("b")

    assert used == [1, 2]


async def test_unprotected_connection_reads_late_204(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the protection the client reads the late 204, and the refused delete succeeds."""
    monkeypatch.setattr("aiodbclient._http.aiohttp_compat._close_tainted", lambda _: None)
    twice = Writes(http("204 No Content"), http("204 No Content"))
    async with speaks(twice, Writes(http("404 Not Found"))) as (client, used):
        users = client.cluster(CLUSTER, engine="pg").users
        await users.delete("a")
        await twice.write_again()

        await users.delete("b")

    assert used == [1, 1]


async def test_connection_of_wrong_answer_is_closed() -> None:
    async with speaks(Writes(user("a")), Writes(user("c"))) as (client, used):
        users = client.cluster(CLUSTER, engine="pg").users

        with pytest.raises(errors.InvalidResponseError, match="'a', not 'b'"):
            await users.create("b")
        assert (await users.create("c")).password == "password-of-c"

    assert used == [1, 2]


class Resets:
    """An API that performs the first reset, which timed out, soon after it has answered the second."""

    def __init__(self, server: Server, first: Reply = late, *, returns_password: bool = True) -> None:
        self.first = first
        self.returns_password = returns_password
        self.password = "first"
        self.resets = 0
        server.otherwise = self.answer

    async def answer(self, request: Any) -> Any:
        if request.method == "POST":
            self.resets += 1
            if self.resets == 1:
                return await self.first(request)
            self.password = "reset-2"
            asyncio.get_running_loop().call_later(0.1, setattr, self, "password", "reset-1")
            return await returns_the_user("reset-2")(request)
        return await returns_the_user(self.password if self.returns_password else "")(request)


@pytest.fixture
async def client(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DatabaseClient]:
    """A client that waits 0.3 s for a reset that timed out."""
    monkeypatch.setattr("aiodbclient._http.resets._LONGEST", 0.3)
    async with aiohttp.ClientSession(middlewares=[time_out_if_late]) as session:
        yield make_client(session=session, retry=RetryPolicy(max_tries=2, base_delay=0.001))


@pytest.mark.parametrize("in_bulk", [False, True])
@pytest.mark.parametrize("first", [late, *map(fails, (408, 504, 522, 524))])
async def test_two_resets_return_the_valid_password(
    first: Reply, in_bulk: bool, server: Server, client: DatabaseClient
) -> None:
    """A reset that was sent twice returns the password that counts, also if a gateway gave up the first one."""
    resets, users = Resets(server, first), client.cluster(CLUSTER, engine="pg").users

    user = (await users.rotate(["alice"]))[0].user if in_bulk else await users.reset_auth("alice")

    assert user is not None
    assert user.password == resets.password == "reset-1"


@pytest.mark.parametrize("engine", ["pg", "mongodb"])
async def test_two_resets_that_cannot_be_read_back(engine: str, server: Server, client: DatabaseClient) -> None:
    resets = Resets(server, returns_password=False)

    with pytest.raises(errors.InvalidResponseError, match=r"could not be read back.*reset_auth it again") as caught:
        await client.cluster(CLUSTER, engine=engine).users.reset_auth("alice")

    assert caught.value.may_have_applied
    assert resets.resets == 2
    assert "reset-" not in repr(vars(caught.value))


async def test_kafka_reset_reads_certificate_back(server: Server, make_cluster: MakeCluster) -> None:
    """All secrets are those that count after two resets, also Kafka's certificate and key."""

    def kafka(secret: str) -> Any:
        secrets = {"password": secret, "access_cert": secret, "access_key": secret}
        return says(200, {"user": {"name": "alice", "role": "normal", **secrets}})

    server.will(hangs_up, kafka("answered"), kafka("read back"))

    user = await make_cluster(engine="kafka").users.reset_auth("alice")

    assert (user.password, user.access_cert, user.access_key) == ("read back",) * 3


async def test_failure_to_read_back_is_reported(server: Server, client: DatabaseClient) -> None:
    server.will(late, returns_the_user("answered"))
    server.otherwise = fails(503)

    with pytest.raises(errors.InvalidResponseError, match="reset_auth it again") as caught:
        await client.cluster(CLUSTER, engine="pg").users.reset_auth("alice")

    assert caught.value.may_have_applied
