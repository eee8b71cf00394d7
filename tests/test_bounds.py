"""An answer has a size, a list has an end, and neither stalls the event loop."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import zlib
from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Any

import pytest
from aiohttp import web

from aiodbclient import RetryPolicy, errors
from aiodbclient._request import pages
from aiodbclient._request.body import LONGEST

from .conftest import MakeClient
from .server import CLUSTER, Reply, Server, says

USERS = json.dumps({"users": [{"name": f"user{n}", "role": "normal", "password": f"AVNS_{n}"} for n in range(100_000)]})


def bare(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def sends(body: bytes, encoding: str = "", *, chunked: bool = False) -> Reply:
    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Type": "application/json"} | ({"Content-Encoding": encoding} if encoding else {})
        if not chunked:
            return web.Response(body=body, headers=headers)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for start in range(0, len(body), 1 << 16):
            await response.write(body[start : start + (1 << 16)])
        await response.write_eof()
        return response

    return reply


class Ticks:
    """The longest time that the event loop left another task waiting."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            started = perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, perf_counter() - started)


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("", bytes),
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:])),
        ("deflate", zlib.compress),
        ("deflate", bare),
    ],
    ids=["none", "identity", "gzip", "x-gzip", "two members", "deflate", "bare deflate"],
)
@pytest.mark.parametrize("chunked", [False, True])
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

    with pytest.raises(errors.InvalidResponseError, match="larger than 128 MiB") as caught:
        await make_client(timeout=20.0).cluster(CLUSTER, engine="pg").users.create("alice")

    watching.cancel()
    assert caught.value.may_have_applied
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * (LONGEST >> 10)
    assert ticks.longest < 0.2


async def test_a_bomb_does_not_outlast_the_timeout(server: Server, make_client: MakeClient) -> None:
    server.otherwise = sends(bomb(), "gzip")
    client = make_client(timeout=0.05, retry=RetryPolicy(max_tries=1))

    started = perf_counter()
    with pytest.raises((errors.RequestTimeoutError, errors.InvalidResponseError)):
        await client.cluster(CLUSTER, engine="pg").users.list()

    assert perf_counter() - started < 1.0


@pytest.mark.parametrize(
    ("encoding", "body", "problem"),
    [
        ("br", b"{}", "was not asked for"),
        ("gzip", b'{"users": []}', "cannot be decompressed"),
        ("gzip", gzip.compress(b'{"users": []}')[:-12], "breaks off"),
        ("deflate", b"\x78\x9c\x00garbage", "cannot be decompressed"),
    ],
    ids=["unasked", "not gzip", "cut", "not deflate"],
)
async def test_a_body_that_cannot_be_decompressed_is_an_invalid_response(
    encoding: str, body: bytes, problem: str, server: Server, make_client: MakeClient
) -> None:
    server.will(sends(body, encoding))

    with pytest.raises(errors.InvalidResponseError, match=problem) as caught:
        await make_client().cluster(CLUSTER, engine="pg").users.list()

    assert caught.value.status == 200


async def test_a_list_has_an_end(server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MOST", 50)

    async def ever_new(request: web.BaseRequest) -> web.StreamResponse:
        number = int(request.query.get("page", "1"))
        following = {"pages": {"next": f"?page={number + 1}"}}
        return await says(200, {"users": [{"name": f"user{number}"}], "links": following})(request)

    server.otherwise = ever_new

    with pytest.raises(errors.InvalidResponseError, match="next page after 50"):
        await make_client().cluster(CLUSTER, engine="pg").users.list()

    assert len(server.requests) == 50


async def test_a_list_of_large_pages_has_an_end(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LONGEST", 1 << 20)

    async def ever_new(request: web.BaseRequest) -> web.StreamResponse:
        number = int(request.query.get("page", "1"))
        users = [{"name": f"user{number}-{n}", "access_cert": "x" * 1000} for n in range(200)]
        return await says(200, {"users": users, "links": {"pages": {"next": f"?page={number + 1}"}}})(request)

    server.otherwise = ever_new

    with pytest.raises(errors.InvalidResponseError, match="longer than 1 MiB"):
        await make_client().cluster(CLUSTER, engine="kafka").users.list()

    assert len(server.requests) == 6


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
    server.otherwise = says(200, {"databases": [], "links": {"pages": {"next": following}}})

    with pytest.raises(errors.InvalidResponseError, match="another host or path"):
        await make_client(base_url=f"{server.url}/proxy").clusters.list()

    assert len(server.requests) == 1


async def test_a_list_below_a_path_goes_on(server: Server, make_client: MakeClient) -> None:
    server.will(
        says(200, {"databases": [], "links": {"pages": {"next": f"{server.url}/proxy/v2/databases?page=2"}}}),
        says(200, {"databases": []}),
    )

    assert await make_client(base_url=f"{server.url}/proxy").clusters.list() == []
    assert server.calls[1] == ("GET", "/proxy/v2/databases?page=2")


@pytest.mark.parametrize("tag", ["\ud800", 5, b"x"])
async def test_a_tag_that_cannot_be_is_refused(tag: Any, server: Server, make_client: MakeClient) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=r"tag_name.*nothing was sent"):
        await make_client().clusters.list(tag)

    assert server.requests == []
