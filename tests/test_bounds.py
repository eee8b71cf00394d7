"""Answers and lists are bounded, and do not block the event loop."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import thread_time
from typing import Any, Self

import pytest
from aiohttp import web

from aiodbclient import Cluster, ClusterInfo, Connection, errors
from aiodbclient._http.transport import MAX_BODY

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Reply, Server, says

MOST_MEMORY, MOST_CPU = 2 * MAX_BODY, 0.2  # bytes, seconds
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


class Watch:
    """Watches what a block takes: the longest pause of the event loop in seconds of CPU, and the most memory."""

    async def __aenter__(self) -> Self:
        self.cpu = 0.0
        self._watching = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        self._before = peak_memory(anew=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.002)
        self._watching.cancel()
        self.memory = peak_memory() - self._before

    async def _tick(self) -> None:
        while True:
            used = thread_time()
            await asyncio.sleep(0.001)
            self.cpu = max(self.cpu, thread_time() - used)


def peak_memory(*, anew: bool = False) -> int:
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


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
async def test_many_users_in_every_encoding(
    encoding: str, compress: Callable[[bytes], bytes], chunked: bool, server: Server, cluster: Cluster
) -> None:
    server.will(sends(compress(USERS.encode()), encoding, chunked=chunked))

    users = await cluster.users.list()

    assert (len(users), users[-1].name) == (100_000, "user99999")
    assert server.requests[0].headers["accept-encoding"] == "gzip, deflate"


@cache
def bomb() -> bytes:
    """512 MiB of spaces, in less than 1 MiB."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    first, other = (compressor.compress(b" " * (1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + 511 * other


async def test_bomb_is_refused(server: Server, make_client: MakeClient) -> None:
    """A small answer that decompresses to a large one neither fills the memory nor blocks the event loop."""
    server.will(sends(bomb(), "gzip"))
    client = make_client(timeout=20.0)

    async with Watch() as watch:
        with pytest.raises(errors.InvalidResponseError, match="larger than 32 MiB") as caught:
            await client.cluster(CLUSTER, engine="pg").users.create("alice")

    assert caught.value.may_have_applied
    assert watch.memory < MOST_MEMORY
    assert watch.cpu < MOST_CPU


async def test_watch_notices_bomb(server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a body of 256 MiB needs more memory, and to parse 100,000 users blocks the loop for longer."""
    monkeypatch.setattr("aiodbclient._http.transport.MAX_BODY", 256 << 20)
    server.will(sends(bomb(), "gzip"))
    async with Watch() as watch:
        with pytest.raises(errors.InvalidResponseError, match="larger than 256 MiB"):
            await make_cluster(timeout=20.0).users.create("alice")
        started = thread_time()
        while thread_time() - started < MOST_CPU:
            json.loads(USERS)

    assert watch.memory > MOST_MEMORY
    assert watch.cpu > MOST_CPU


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
async def test_undecodable_body_is_an_error(encoding: str, body: bytes, server: Server, cluster: Cluster) -> None:
    server.will(sends(body, encoding))

    with pytest.raises((errors.InvalidResponseError, errors.ConnectionLostError)) as caught:
        await cluster.users.create("alice")

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
        (lambda _: [], "nothing that was not on an earlier one", 1),
        (lambda number: [{"name": f"user{number % 7}"}], "nothing that was not on an earlier one", 8),
        (lambda number: [{"name": f"user{number}"}], "a next page after 200 of them", 200),
        (lambda number: [{"name": f"{number}", "access_cert": "x" * (8 << 20)}], "longer than 32 MiB", 4),
    ],
)
async def test_list_endless_next(
    page: Any, complaint: str, requests: int, server: Server, make_cluster: MakeCluster
) -> None:
    """A list that never ends does not use up the minute's requests, nor the memory."""
    server.otherwise = endless(page)

    with pytest.raises(errors.InvalidResponseError, match=complaint):
        await make_cluster(engine="kafka").users.list()

    assert len(server.requests) == requests


@pytest.mark.parametrize(
    "following",
    [
        "https://elsewhere.example/proxy/v2/databases?page=2",
        "http://localhost:1/proxy/v2/databases?page=2",
        "//elsewhere.example/proxy/v2/databases?page=2",
        "http://[",
        "/proxyevil/v2/databases?page=2",
        "/v2/databases?page=2",
        "/proxy/v2/databases/../../../x",
        f"databases/{CLUSTER}/users",
    ],
)
async def test_next_page_elsewhere_gets_no_token(following: str, server: Server, make_client: MakeClient) -> None:
    server.otherwise = says(200, {"databases": [DATABASE], "links": {"pages": {"next": following}}})

    with pytest.raises(errors.InvalidResponseError, match="another host or path"):
        await make_client(base_url=f"{server.url}/proxy").clusters.list()

    assert len(server.requests) == 1


async def test_a_list_below_a_path_goes_on(server: Server, make_client: MakeClient) -> None:
    server.will(
        says(200, {"databases": [DATABASE], "links": {"pages": {"next": f"{server.url}/proxy/v2/databases?page=2"}}}),
        says(200, {"databases": []}),
    )

    only = ClusterInfo(CLUSTER, "n", "pg", connection=Connection(engine="pg"))
    assert await make_client(base_url=f"{server.url}/proxy").clusters.list() == [only]
    assert server.calls[1] == ("GET", "/proxy/v2/databases?page=2")


@pytest.mark.parametrize("tag", ["\ud800", 5, b"x"])
async def test_a_tag_that_cannot_be_is_refused(tag: Any, server: Server, make_client: MakeClient) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=r"tag_name.*nothing was sent"):
        await make_client().clusters.list(tag_name=tag)

    assert server.requests == []


async def test_body_in_one_piece_is_bounded(server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that arrives together with the headers is bounded too."""
    monkeypatch.setattr("aiodbclient._http.transport.MAX_BODY", 10)
    server.will(says(200, {"dbs": []}))

    with pytest.raises(errors.InvalidResponseError, match="is larger"):
        await cluster.dbs.list()
