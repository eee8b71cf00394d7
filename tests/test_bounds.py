"""Answers and lists are bounded, and do not block the event loop."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import zlib
from collections.abc import Callable
from functools import cache
from time import thread_time
from typing import Any

import pytest
from aiohttp import web

from aiodbclient import Cluster, Connection, RetryPolicy, errors
from aiodbclient._http.transport import LONGEST

from .conftest import MakeClient
from .server import CLUSTER, Reply, Server, says

DATABASE = {"id": CLUSTER, "name": "n", "engine": "pg"}
USERS = json.dumps({"users": [{"name": f"user{n}", "role": "normal", "password": f"AVNS_{n}"} for n in range(100_000)]})


def bare(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def sends(body: bytes, encoding: str = "", *, chunked: bool = False, status: int = 200) -> Reply:
    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Type": "application/json"} | ({"Content-Encoding": encoding} if encoding else {})
        if not chunked:
            return web.Response(body=body, headers=headers, status=status)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for start in range(0, len(body), 1 << 16):
            await response.write(body[start : start + (1 << 16)])
        await response.write_eof()
        return response

    return reply


class Ticks:
    """The longest time for which the event loop was at work without a pause, in seconds of CPU."""

    def __init__(self) -> None:
        self.cpu = 0.0

    async def watch(self) -> None:
        while True:
            used = thread_time()
            await asyncio.sleep(0.001)
            self.cpu = max(self.cpu, thread_time() - used)


@pytest.mark.parametrize(
    ("encoding", "compress", "chunked"),
    [
        ("", bytes, True),
        ("identity", bytes, False),
        ("gzip", gzip.compress, False),
        ("gzip", gzip.compress, True),
        ("deflate", zlib.compress, False),
        ("deflate", bare, True),
    ],
    ids=["none", "identity", "gzip", "gzip in chunks", "deflate", "bare deflate"],
)
async def test_a_hundred_thousand_users_come_through_in_every_encoding(
    encoding: str, compress: Callable[[bytes], bytes], chunked: bool, server: Server, make_client: MakeClient
) -> None:
    server.will(sends(compress(USERS.encode()), encoding, chunked=chunked))

    users = await make_client().cluster(CLUSTER, engine="pg").users.list()

    assert (len(users), users[-1].name) == (100_000, "user99999")
    assert server.requests[0].headers["accept-encoding"] == "gzip, deflate"


@cache
def bomb() -> bytes:
    """512 MiB of spaces, in 510 KiB."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    piece = b" " * (1 << 20)
    return b"".join([*(compressor.compress(piece) for _ in range(512)), compressor.flush()])


async def test_a_bomb_is_refused_without_growing_the_process_or_stalling_the_loop(
    server: Server, make_client: MakeClient
) -> None:
    server.will(sends(bomb(), "gzip"))
    ticks = Ticks()
    watching = asyncio.create_task(ticks.watch())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(errors.InvalidResponseError, match="larger than 32 MiB") as caught:
        await make_client(timeout=20.0).cluster(CLUSTER, engine="pg").users.create("alice")

    watching.cancel()
    assert caught.value.may_have_applied
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * (LONGEST >> 10)
    assert ticks.cpu < 0.2


async def test_a_bomb_does_not_outlast_the_timeout(server: Server, make_client: MakeClient) -> None:
    server.script.append(says(200, {"users": []}))
    server.otherwise = sends(bomb(), "gzip")
    client = make_client(retry=RetryPolicy(max_tries=1))
    await client.cluster(CLUSTER, engine="pg").users.list()  # opens the connection
    client = client.with_options(timeout=0.05)

    started = thread_time()
    with pytest.raises((errors.RequestTimeoutError, errors.InvalidResponseError)):
        await client.cluster(CLUSTER, engine="pg").users.list()

    assert thread_time() - started < 1.0


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", b"{}"),
        ("x-gzip", gzip.compress(b'{"users": []}')),
        ("gzip", b'{"users": []}'),
        ("gzip", gzip.compress(b'{"users": []}')[:-12]),
        ("deflate", b"\x78\x9c\x00garbage"),
    ],
    ids=["unasked", "another name", "not gzip", "cut", "not deflate"],
)
async def test_a_body_that_cannot_be_decompressed_is_an_error(
    encoding: str, body: bytes, server: Server, make_client: MakeClient
) -> None:
    server.will(sends(body, encoding))

    with pytest.raises((errors.InvalidResponseError, errors.ConnectionLostError)) as caught:
        await make_client().cluster(CLUSTER, engine="pg").users.create("alice")

    assert caught.value.may_have_applied


def endless(page: Callable[[int], list[dict[str, Any]]]) -> Reply:
    """A list whose pages always name another one."""

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        number = int(request.query.get("page", "1"))
        return await says(200, {"users": page(number), "links": {"pages": {"next": f"?page={number + 1}"}}})(request)

    return reply


@pytest.mark.parametrize(
    ("page", "complaint", "requests"),
    [
        (lambda number: [{"name": "alice"}], "nothing that was not on an earlier one", 2),
        (lambda number: [], "nothing that was not on an earlier one", 1),
        (lambda number: [{"name": f"user{number % 7}"}], "nothing that was not on an earlier one", 8),
        (lambda number: [{"name": f"user{number}"}], "a next page after 200 of them", 200),
        (lambda number: [{"name": f"{number}", "access_cert": "x" * (8 << 20)}], "longer than 32 MiB", 4),
    ],
)
async def test_list_endless_next(
    page: Any, complaint: str, requests: int, server: Server, make_client: MakeClient
) -> None:
    """A list that never ends does not use up the minute's requests, nor the memory."""
    server.otherwise = endless(page)

    with pytest.raises(errors.InvalidResponseError, match=complaint):
        await make_client().cluster(CLUSTER, engine="kafka").users.list()

    assert len(server.requests) == requests


@pytest.mark.parametrize(
    "following",
    [
        "/proxyevil/v2/databases?page=2",
        "/v2/databases?page=2",
        "/proxy/v2/databases/../../../x",
        f"databases/{CLUSTER}/users",
    ],
)
async def test_a_next_page_outside_of_the_list_does_not_get_the_token(
    following: str, server: Server, make_client: MakeClient
) -> None:
    server.otherwise = says(200, {"databases": [DATABASE], "links": {"pages": {"next": following}}})

    with pytest.raises(errors.InvalidResponseError, match="another host or path"):
        await make_client(base_url=f"{server.url}/proxy").clusters.list()

    assert len(server.requests) == 1


async def test_a_list_below_a_path_goes_on(server: Server, make_client: MakeClient) -> None:
    server.will(
        says(200, {"databases": [DATABASE], "links": {"pages": {"next": f"{server.url}/proxy/v2/databases?page=2"}}}),
        says(200, {"databases": []}),
    )

    only = Cluster(CLUSTER, "n", "pg", connection=Connection(engine="pg"))
    assert await make_client(base_url=f"{server.url}/proxy").clusters.list() == [only]
    assert server.calls[1] == ("GET", "/proxy/v2/databases?page=2")


@pytest.mark.parametrize("tag", ["\ud800", 5, b"x"])
async def test_a_tag_that_cannot_be_is_refused(tag: Any, server: Server, make_client: MakeClient) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=r"tag_name.*nothing was sent"):
        await make_client().clusters.list(tag)

    assert server.requests == []


async def test_body_in_one_piece_is_bounded(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that arrives together with the headers is bounded too."""
    monkeypatch.setattr("aiodbclient._http.transport.LONGEST", 10)
    server.will(says(200, {"dbs": []}))

    with pytest.raises(errors.InvalidResponseError, match="is larger"):
        await make_client().cluster(CLUSTER, engine="pg").dbs.list()
