"""Answers that do not match the API description, or belong to another request, are refused."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from aiodbclient import Cluster, DatabaseClient, RequestEvent, RetryPolicy, errors

from .conftest import MakeClient, MakeCluster
from .server import (
    CLUSTER,
    Reply,
    Server,
    Writer,
    fails,
    hangs_up,
    http,
    late,
    returns_the_user,
    says,
    speaks,
    time_out_if_late,
)
from .test_operations import CASES
from .waiting import settle

SHAPES = {
    "html": "<html>hello</html>",
    "nothing": "",
    "cut": '{"user": {"name": "alice", "password": "hunter2',
    "list": "[]",
    "nested without end": "[" * 100_000,
    "null": "null",
    "no key": '{"usr": {}}',
    "null user": '{"user": null}',
    "list user": '{"user": []}',
    "no name": '{"user": {"password": "hunter2"}}',
    "number name": '{"user": {"name": 5, "password": "hunter2"}}',
    "list password": '{"user": {"name": "alice", "password": ["hunter2"]}}',
    **{half: f'{{"user": {{"name": "alice", "password": "hunter2{half}"}}}}' for half in ("\\ud800", "\\ud83d\\uD83D")},
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
async def test_success_of_another_shape_is_invalid(text: str, server: Server, cluster: Cluster) -> None:
    """The error shows no secret."""
    server.otherwise = says(201, text=text)

    for call in (cluster.users.create("alice"), cluster.users.get("alice"), cluster.users.list()):
        with pytest.raises(errors.InvalidResponseError) as caught:
            await call
        error = caught.value
        assert (error.status, error.tries) == (201, 1)
        assert error.may_have_applied is error.args[0].startswith("users.create")
        assert "hunter2" not in "".join(traceback.format_exception(error)) + repr(error.__dict__)
        assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize(
    "text",
    [
        "<html>x</html>",
        "",
        '{"id": "cut',
        "[]",
        '{"error": 5}',
        '{"id": 5, "message": null}',
        '{"message": "half a pair: \\ud800"}',
        pytest.param("[" * 100_000, id="nested without end"),
    ],
)
@pytest.mark.parametrize(("status", "error_type"), [(404, errors.NotFoundError), (500, errors.ServerError)])
async def test_error_with_another_body_keeps_its_type(
    status: int, error_type: type[errors.APIError], text: str, server: Server, make_cluster: MakeCluster
) -> None:
    server.will(says(status, text=text, x_request_id="from-header"))

    with pytest.raises(error_type, match=str(status)) as caught:
        await make_cluster(retry=RetryPolicy(max_tries=1)).dbs.list()

    assert caught.value.request_id == "from-header"


@pytest.mark.parametrize(
    ("status", "location", "said"),
    [
        (301, "https://elsewhere.example/a/b?next=https://other.example/c", "a redirect to elsewhere.example"),
        (302, "https://alice:hunter2@elsewhere.example:8443/login", "a redirect to elsewhere.example:8443"),
        (307, "https://elsewhere.example", "a redirect to elsewhere.example"),
        (308, "/login", "a redirect to another path"),
        (302, f"https://{'e' * 300}/a", f"a redirect to {'e' * 200}"),
        (304, None, "which is not documented"),
    ],
)
async def test_redirect_is_not_followed(
    status: int, location: str | None, said: str, server: Server, make_client: MakeClient
) -> None:
    """Its error names only the host. A write may have been applied."""
    server.otherwise = says(status, text="<html>moved</html>", **({} if location is None else {"location": location}))
    users = make_client().cluster(CLUSTER, engine="pg").users
    followed = ", not followed because the token is only for base_url" if location else ""

    for call in (users.list(), users.create("alice"), users.reset_auth("alice")):
        with pytest.raises(errors.InvalidResponseError, match=r"^users\.") as caught:
            await call
        is_write = "POST" in str(caught.value)
        problem = f"answered {status}, {said}{followed}" + "; it may have been applied" * is_write
        assert problem in str(caught.value)
        assert (caught.value.status, caught.value.may_have_applied) == (status, is_write)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, {"id": "not_found", "message": "no such user"}, "404 not_found: no such user"),
        (404, {"id": "not_found"}, "404 not_found"),
        (404, {"message": "no such user"}, "404 no such user"),
        (404, {}, "404 Not Found"),
        (418, None, "418 I'm a Teapot"),
        (499, None, "499 an unknown status"),
        (400, {"message": "m" * 600}, "400 " + "m" * 500),
        (400, {"id": "bad", "message": "x" * (1 << 16)}, "400 Bad Request"),  # more than 64 KiB are not decoded
    ],
)
async def test_an_error_says_what_the_server_said(
    status: int, body: Any, said: str, server: Server, make_client: MakeClient
) -> None:
    server.will(says(status, body) if body is not None else says(status, text=""))

    with pytest.raises(errors.APIError) as caught:
        await make_client().clusters.list()

    sent = body if body and len(str(body)) < 1 << 16 else {}
    error = caught.value
    assert str(error).split(": ", 1)[1] == said
    assert (error.status, error.id, error.message) == (status, sent.get("id", ""), sent.get("message", "")[:500])
    assert error.request_id is None


@pytest.mark.parametrize("status", [200, 400])
async def test_long_request_id_is_cut(status: int, server: Server, make_client: MakeClient) -> None:
    server.will(says(status, {"databases": []}, x_request_id="r" * 600))
    events: list[RequestEvent] = []

    with suppress(errors.BadRequestError):
        await make_client(on_event=events.append).clusters.list()

    assert [event.request_id for event in events] == ["r" * 500]


ERRORS: list[Any] = [
    errors.ConnectError("m"),
    errors.UnsupportedOperationError("m", engine="redis", operation="users.list"),
    errors.InvalidResponseError("m", status=200, may_have_applied=True),
    errors.MaxWaitError("m", retry_after=2.0),
    errors.RateLimitError("m", retry_after=3.0, request_id="r"),
    errors.ServerError("m", status=500, id="i", message="x"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_travels_between_processes(error: errors.DatabaseClientError) -> None:
    error.tries = 3
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy), copy.__dict__) == (type(error), str(error), error.__dict__)


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


def user(name: str) -> bytes:
    return http("201 Created", {"user": {"name": name, "password": f"password-of-{name}"}})


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
    monkeypatch.setattr("aiodbclient._http.aiohttp_compat._send_once", lambda request, handler: handler(request))
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

    def __init__(self, server: Server, first: Reply = late, *, read: Reply | None = None) -> None:
        self.first = first
        self.read = read  # the answer to each read, in place of the user
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
        return await (self.read or returns_the_user(self.password))(request)


@pytest.fixture
async def client(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DatabaseClient]:
    """A client that waits 0.3 s for a reset that timed out."""
    monkeypatch.setattr("aiodbclient._http.resets._MAX_PAUSE", 0.3)
    async with aiohttp.ClientSession(middlewares=[time_out_if_late]) as session:
        yield make_client(session=session, retry=RetryPolicy(max_tries=2, base_delay=0.001))


@pytest.mark.parametrize("first", [late, *map(fails, (408, 504, 522, 524))])
async def test_two_resets_return_the_valid_password(first: Reply, server: Server, client: DatabaseClient) -> None:
    """A reset that was sent twice returns the password that counts, also if a gateway gave up the first one."""
    resets = Resets(server, first)

    user = await client.cluster(CLUSTER, engine="pg").users.reset_auth("alice")

    assert user.password == resets.password == "reset-1"


@pytest.mark.parametrize(
    ("engine", "read"), [("pg", returns_the_user("")), ("mongodb", returns_the_user("")), ("pg", fails(503))]
)
async def test_two_resets_that_cannot_be_read_back(
    engine: str, read: Reply, server: Server, client: DatabaseClient
) -> None:
    resets = Resets(server, read=read)

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
