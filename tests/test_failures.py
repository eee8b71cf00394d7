"""The table "what happens when": every failure, for every kind of operation."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from aiodbclient import Cluster, RateLimiter, RetryPolicy, errors
from aiodbclient._http.retry import next_wait, retry_waits
from aiodbclient.rate_limiter import Window

from .conftest import MakeClient, MakeCluster
from .server import (
    CLUSTER,
    Reply,
    Server,
    breaks_off,
    fails,
    hangs_up,
    late,
    returns_the_user,
    says,
    serve,
    time_out_if_late,
)
from .test_operations import CASES, Case

ALL = {name: CASES[f"users.{name}"] for name in ("list", "get", "update", "delete", "reset_auth", "create")}
REPEATABLE = {name: case for name, case in ALL.items() if name != "create"}
LOSSES: dict[str, Reply] = {
    "connection cut": hangs_up,
    "body cut": breaks_off,
    "timeout": late,
    "an error": fails(500),
    "a page": says(502, text="<html>Bad gateway</html>"),
    **{str(status): says(status) for status in (408, 500, 502, 503, 504, *range(520, 525))},
}
REFUSALS: dict[int, type[errors.APIError]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    412: errors.PreconditionFailedError,
    418: errors.APIError,
    422: errors.UnprocessableEntityError,
}


@pytest.fixture
async def cluster(make_cluster: MakeCluster) -> AsyncIterator[Cluster]:
    async with aiohttp.ClientSession(middlewares=[time_out_if_late]) as session:
        yield make_cluster(session=session)


def named(cases: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@named(REPEATABLE)
@losses
async def test_lost_answer_is_asked_for_again(
    case: Case, loss: Reply, server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is safe to repeat is repeated when its answer is lost."""
    monkeypatch.setattr("aiodbclient._http.resets._MAX_PAUSE", 0.01)  # the wait for a reset that timed out
    read_back = case is ALL["reset_auth"]  # either of its two requests may be the last one performed
    server.will(loss, returns_the_user("another") if read_back else case.reply)
    server.otherwise = case.reply

    assert await case.call(cluster) == case.result

    assert len(server.requests) == 2 + read_back


@pytest.mark.parametrize(
    "loss", [*LOSSES.values(), says(501), says(507, text="<html>error</html>")], ids=[*LOSSES, "501", "507"]
)
async def test_lost_create_is_not_repeated(loss: Reply, server: Server, cluster: Cluster) -> None:
    """Its error says how to settle it. Statuses above 520 are a proxy's; HTTP does not define them."""
    server.will(loss, loss)

    for create, has_password in ((cluster.users.create, True), (cluster.dbs.create, False)):
        with pytest.raises(
            (errors.TransportError, errors.APIError), match=r"may have been applied.*read the name back"
        ) as caught:
            await create("alice")
        assert ("reset_auth" in str(caught.value)) is has_password
        assert caught.value.may_have_applied
        assert caught.value.tries == 1

    assert len(server.requests) == 2


@named(ALL)
async def test_429_is_waited_out_and_repeated(case: Case, server: Server, cluster: Cluster) -> None:
    server.will(fails(429, "too_many_requests", retry_after="0.05"), case.reply)
    started = asyncio.get_running_loop().time()

    assert await case.call(cluster) == case.result

    assert asyncio.get_running_loop().time() - started >= 0.05
    assert len(server.requests) == 2


async def test_longer_retry_after_of_5xx_is_obeyed(server: Server, cluster: Cluster) -> None:
    server.will(fails(503, retry_after="0.1"), says(200, {"dbs": []}))
    started = asyncio.get_running_loop().time()

    await cluster.dbs.list()

    assert asyncio.get_running_loop().time() - started >= 0.1


@named(ALL)
@pytest.mark.parametrize("status", REFUSALS)
async def test_refusal_is_raised_at_once(case: Case, status: int, server: Server, cluster: Cluster) -> None:
    server.will(fails(status, "the_id", "the message"))

    with pytest.raises(errors.APIError, match=r"the_id: the message \(request id req-1\)") as caught:
        await case.call(cluster)

    error = caught.value
    assert type(error) is REFUSALS[status]
    assert (error.status, error.id, error.message, error.request_id) == (status, "the_id", "the message", "req-1")
    assert not error.may_have_applied
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [409, 422])
@pytest.mark.parametrize("text", ["already EXISTS", "pool name is not available"])
async def test_taken_name_has_its_own_error(status: int, text: str, server: Server, cluster: Cluster) -> None:
    for answer in (fails(status, id=text), fails(status, message=text)):
        server.will(answer, answer)
        for call in (cluster.users.create, cluster.dbs.create):
            with pytest.raises(errors.NameTakenError) as caught:
                await call("alice")
            assert isinstance(caught.value, errors.ConflictError)
            assert isinstance(caught.value, errors.UnprocessableEntityError)
            assert caught.value.status == status

    others = ["replication is not available on this plan", "in use by a migration", "no node exists", "is a duplicate"]
    server.will(fails(status, message=text), *(fails(status, message=other) for other in others))
    for refused in (cluster.users.delete("alice"), *(cluster.users.create("alice") for _ in others)):
        with pytest.raises(errors.APIError) as other:
            await refused
        assert not isinstance(other.value, errors.NameTakenError)


# The answers, how often the client tries, the error, and whether it may have been applied.
ENDS: dict[str, tuple[Case, list[Reply], int, type[errors.DatabaseClientError], bool]] = {
    "lost, then refused": (ALL["reset_auth"], [hangs_up, fails(422)], 5, errors.UnprocessableEntityError, True),
    "404 after a 429": (ALL["delete"], [fails(429, retry_after="0.05"), fails(404)], 5, errors.NotFoundError, False),
    "429 beyond max_wait": (ALL["create"], [fails(429, retry_after="30")], 5, errors.MaxWaitError, False),
    "429 at the last try": (ALL["get"], [fails(429)], 1, errors.RateLimitError, False),
    "500 at the last try": (ALL["get"], [fails(500)], 1, errors.ServerError, False),
    "501": (ALL["get"], [fails(501)], 5, errors.ServerError, False),
}


@pytest.mark.parametrize(("case", "replies", "tries", "error", "may_have_applied"), ENDS.values(), ids=ENDS.keys())
async def test_error_of_last_answer(
    case: Case,
    replies: list[Reply],
    tries: int,
    error: type[errors.DatabaseClientError],
    may_have_applied: bool,
    server: Server,
    make_cluster: MakeCluster,
) -> None:
    """It has the request id of the answer, and does not say that nothing was sent."""
    server.will(*replies)
    cluster = make_cluster(retry=RetryPolicy(max_tries=tries, base_delay=0.001), max_wait=1.0)

    with pytest.raises(error, match="request id req-1") as caught:
        await case.call(cluster)

    assert type(caught.value) is error
    assert caught.value.may_have_applied is may_have_applied
    assert "not sent" not in str(caught.value)
    assert len(server.requests) == len(replies)
    if isinstance(caught.value, errors.MaxWaitError):
        assert caught.value.retry_after == pytest.approx(25, abs=5)


@named(ALL)
async def test_refused_connection_sends_nothing(case: Case, make_client: MakeClient) -> None:
    """A connection that cannot be made is tried again and takes no slot, and the error says that nothing was sent."""
    limiter = RateLimiter([Window(1, 3600.0)])
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        client = make_client(base_url=url, rate_limiter=limiter, max_wait=60.0)

        with pytest.raises(errors.ConnectError, match=r"it was not sent.*after 5 tries") as caught:
            await case.call(client.cluster(CLUSTER, engine="pg"))

    assert caught.value.tries == 5
    assert not caught.value.may_have_applied


@named(REPEATABLE)
async def test_last_error_is_raised_after_max_tries(case: Case, server: Server, make_cluster: MakeCluster) -> None:
    server.otherwise = fails(503, message="maintenance")

    with pytest.raises(errors.ServerError, match=r"maintenance.*after 3 tries") as caught:
        await case.call(make_cluster(retry=RetryPolicy(max_tries=3, base_delay=0.001)))

    assert len(server.requests) == 3
    assert caught.value.may_have_applied == (case.method != "GET")


async def test_delete_404_after_lost_answer_succeeds(server: Server, cluster: Cluster) -> None:
    """aiohttp, which repeats a DELETE on a connection that was used before, repeats none of these."""
    server.will(says(200, {"dbs": []}), hangs_up, fails(404, "not_found"))
    await cluster.dbs.list()

    await cluster.dbs.delete("alpha")

    assert [method for method, _ in server.calls] == ["GET", "DELETE", "DELETE"]


async def test_refused_connection_after_lost_answer(make_client: MakeClient) -> None:
    """The error does not say that nothing was sent."""
    async with serve() as server:
        lost = asyncio.Event()
        server.will(hangs_up)
        client = make_client(
            base_url=server.url, retry=RetryPolicy(max_tries=2, base_delay=1.0), on_event=lambda _: lost.set()
        )
        call = asyncio.create_task(client.cluster(CLUSTER, engine="pg").users.delete("alice"))
        await lost.wait()

    with pytest.raises(errors.ConnectError, match="may have been applied") as caught:
        await call

    assert "not sent" not in str(caught.value)
    assert caught.value.may_have_applied


def test_retry_wait_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits are random parts of times that double up to ``max_delay``. A 5xx can ask for a longer one."""
    drawn = set[float]()

    def longest_of(shortest: float, longest: float) -> float:
        drawn.add(shortest)
        return longest

    monkeypatch.setattr("random.uniform", longest_of)
    waits = retry_waits(RetryPolicy(base_delay=0.5, max_delay=3.0))

    assert [next_wait(waits, None) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert drawn == {0}
    assert [next_wait(waits, asked) for asked in (0.0, 40.0, 86400.0)] == [3.0, 40.0, 60.0]


@pytest.mark.parametrize(
    "values",
    [{"max_tries": 0}, {"max_tries": 1.5}, {"base_delay": 0}, {"max_delay": float("nan")}, {"max_delay": float("inf")}],
)
def test_invalid_retry_policy_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=next(iter(values))):
        RetryPolicy(**values)


async def test_tls_failure_names_reason(server: Server, make_client: MakeClient) -> None:
    """OpenSSL's number of an error is none of the operating system's."""
    client = make_client(base_url=server.url.replace("http:", "https:"), retry=RetryPolicy(max_tries=1))

    with pytest.raises(errors.ConnectError, match=r"no TLS: [A-Z_]+; it was not sent"):
        await client.cluster(CLUSTER, engine="pg").dbs.list()


async def test_reset_in_tls_handshake_says_so(make_client: MakeClient) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        client = make_client(base_url=url, retry=RetryPolicy(max_tries=1))
        with pytest.raises(
            errors.ConnectError, match=r"(closed during the TLS handshake|reset by peer); it was not sent"
        ):
            await client.cluster(CLUSTER, engine="pg").dbs.list()
