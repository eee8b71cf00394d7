"""A scripted server: each test sets its answers, and reads the received requests."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from attrs import define, field, frozen

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy

CLUSTER = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"


@frozen
class Request:
    """A received request. ``path`` is raw, with its query. ``body`` is the decoded JSON, or None."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Reply = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@define
class Server:
    """Answers with its ``script``, in order, and then with ``otherwise``. It records the ``requests``."""

    script: deque[Reply] = field(factory=deque)
    otherwise: Reply | None = None
    requests: list[Request] = field(factory=list)
    url: str = ""

    def will(self, *replies: Reply) -> None:
        self.script.extend(replies)

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [(request.method, request.path) for request in self.requests]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(request.method, request.raw_path, headers, json.loads(body) if body else None))
        reply = self.script.popleft() if self.script else self.otherwise
        assert reply is not None, f"the script has no answer to {request.method} {request.raw_path}"
        return await reply(request)


@asynccontextmanager
async def serve(context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    server.url = f"http://127.0.0.1:{port}" if context is None else f"https://localhost:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def says(status: int, payload: Any = None, *, text: str | None = None, **headers: str) -> Reply:
    """Answer with JSON, or with the raw ``text``."""

    async def reply(_: web.BaseRequest) -> web.StreamResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if text is not None:
            return web.Response(status=status, text=text, headers=sent)
        if payload is None:
            return web.Response(status=status, headers=sent)
        return web.json_response(payload, status=status, headers=sent)

    return reply


def returns_the_user(password: str = "hunter2") -> Reply:
    """Answer any operation on one user as the API does, with the requested name."""

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "DELETE":
            return web.Response(status=204)
        parts = request.raw_path.split("/")
        name = unquote(parts[5]) if len(parts) > 5 else json.loads(await request.read())["name"]
        return web.json_response({"user": {"name": name, "role": "normal", "password": password}})

    return reply


def fails(status: int, id: str = "some_error", message: str = "no luck", **headers: str) -> Reply:
    """Answer with the documented error body."""
    return says(status, {"id": id, "message": message, "request_id": "req-1"}, **headers)


async def hangs_up(request: web.BaseRequest) -> web.StreamResponse:
    """Cut the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def late(_: web.BaseRequest) -> web.StreamResponse:
    """Answer after the timeout: see ``time_out_if_late``."""
    return web.Response(headers={"X-Too-Late": "1"})


async def time_out_if_late(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Time out as aiohttp does, where the answer says so: a real timeout would also end requests of a busy machine."""
    response = await handler(request)
    if "x-too-late" in response.headers:
        response.close()
        raise TimeoutError
    return response


def stalls(seconds: float = 30.0) -> Reply:
    """Answer too late. The wait ends when the server stops."""

    async def reply(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response(status=200)

    return reply


async def breaks_off(request: web.BaseRequest) -> web.StreamResponse:
    """Announce a longer body than is sent."""
    response = web.StreamResponse(status=200, headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"user": {"name": "alice", "password": "hunter2')
    assert request.transport is not None
    request.transport.abort()
    return response


def http(status: str, payload: Any = None) -> bytes:
    body = b"" if payload is None else json.dumps(payload).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


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
