"""A proxy in front of a server, which adds TLS, delays and cuts, for PostgreSQL and HTTP alike."""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from math import inf
from typing import Any, Literal, Self

import trustme
from attrs import define, field

from aiodbclient.sandbox import Sandbox

_SSL_REQUEST, _GSSAPI_REQUEST, _CANCEL_REQUEST = 80877103, 80877104, 80877102
_STATEMENTS = b"Q", b"E"  # the messages that run a statement: Query, and Execute of a prepared one
_CHUNK = 65536


@define(eq=False)
class Rule:
    """What happens to the logins or messages of clients. Without options, it only counts them.

    A message is a statement of PostgreSQL, or what an HTTP client sends at a time.
    """

    on: Literal["login", "message"]
    login: str = "*"  # of PostgreSQL, a pattern
    nth: int = 1  # the first one that it happens to
    times: float = inf  # to how many
    lasts: float = inf  # for how many seconds
    held: bool = False  # whether it waits until this is False
    delay: float = 0.0
    cut: bool = False
    sqlstate: str | None = None  # of the error with which a login of PostgreSQL is refused
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)
    _over_at: float = field(default=inf, init=False)

    def fires(self, on: str, login: str) -> bool:
        if on != self.on or not fnmatchcase(login, self.login):
            return False
        self.seen += 1
        now = time.monotonic()
        if self.seen < self.nth or self.fired >= self.times or now >= self._over_at:
            return False
        if not self.fired:
            self._over_at = now + self.lasts
        self.fired += 1
        return True


class Cut(Exception):
    """Ends a connection."""


class Proxy:
    """Forwards connections to a port of this machine. ``rules`` apply at once, also to connections that are open.

    Args:
        port: The port of the server.
        protocol: What clients speak.
        authority: Signs the certificate with which the proxy adds TLS; None for no TLS.
    """

    def __init__(
        self, port: int, protocol: Literal["postgres", "http"] = "postgres", authority: trustme.CA | None = None
    ) -> None:
        self.rules: list[Rule] = []
        self._server_port = port
        self._is_http = protocol == "http"
        self._context = None
        if authority is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1", "localhost").configure_cert(self._context)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def add(self, on: Literal["login", "message"] = "message", **options: Any) -> Rule:
        """Add a rule: see ``Rule``."""
        rule = Rule(on, **options)
        self.rules.append(rule)
        return rule

    def __enter__(self) -> Self:
        self._thread.start()
        listener = asyncio.start_server(self._accept, "127.0.0.1", ssl=self._context if self._is_http else None)
        self._listener = asyncio.run_coroutine_threadsafe(listener, self._loop).result()
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until a side ends the connection."""
        server = None
        with suppress(OSError, EOFError, Cut):
            try:
                login, start = ("", b"") if self._is_http else await self._start(reader, writer)
                from_server, server = await asyncio.open_connection("127.0.0.1", self._server_port)
                server.write(start)
                pumps = [self._from_client(reader, server, login), self._from_server(from_server, writer)]
                tasks = [asyncio.ensure_future(pump) for pump in pumps]
                try:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                if all(task.exception() is None for task in done):  # what the server sent arrives
                    writer.close()
                    await writer.wait_closed()
            finally:
                for each in filter(None, (server, writer)):
                    each.transport.abort()

    async def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, bytes]:
        """Begin TLS if the client asks, and return its login, and its first message that is for the server."""
        encrypted = False
        while True:
            head = await reader.readexactly(8)
            length, code = struct.unpack("!II", head)
            if code == _SSL_REQUEST and self._context is not None and not encrypted:
                writer.write(b"S")
                await writer.start_tls(self._context)
                encrypted = True
            elif code in (_SSL_REQUEST, _GSSAPI_REQUEST):
                writer.write(b"N")
            else:
                break
        start = head + await reader.readexactly(length - 8)
        words = start[8:].decode(errors="replace").split("\0")  # after the length and the version
        login = dict(zip(words[::2], words[1::2], strict=False)).get("user", "")
        if code != _CANCEL_REQUEST:
            if self._context is not None and not encrypted:
                writer.write(_fatal("28000", f'no pg_hba.conf entry for user "{login}", no encryption'))
                writer.close()
                raise Cut
            await self._apply("login", login, writer)
        return login, start

    async def _apply(self, on: str, login: str, writer: asyncio.StreamWriter | None = None) -> None:
        for rule in [rule for rule in self.rules if rule.fires(on, login)]:
            while rule.held:  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.005)
            await asyncio.sleep(rule.delay)
            if rule.sqlstate is not None and writer is not None:
                writer.write(_fatal(rule.sqlstate, "sorry, too many clients already"))
                writer.close()
                await writer.wait_closed()
            if rule.cut or rule.sqlstate is not None:
                raise Cut

    async def _from_client(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, login: str) -> None:
        while True:
            if self._is_http:
                data = await reader.read(_CHUNK)
                if not data:
                    return
                await self._apply("message", login)
            else:
                data = await reader.readexactly(5)
                if data[:1] in _STATEMENTS:
                    await self._apply("message", login)
                data += await reader.readexactly(max(struct.unpack_from("!I", data, 1)[0], 4) - 4)
            server.write(data)
            await server.drain()

    async def _from_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


def _fatal(sqlstate: str, message: str) -> bytes:
    """The ErrorResponse of PostgreSQL that ends a connection."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
    body = "".join(f"{kind}{text}\0" for kind, text in fields.items()).encode() + b"\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body


@contextmanager
def behind_proxy(sandbox: Sandbox, cluster_id: str, authority: trustme.CA | None = None) -> Iterator[Proxy]:
    """Let clients reach the PostgreSQL of a cluster only through a proxy, which the sandbox itself does not use."""
    server = sandbox._clusters[cluster_id].backend.embedded
    assert server is not None
    port, ca = server.port, server.ca
    assert ca is None  # SCRAM's channel binding refuses a proxy in front of a server with TLS
    with Proxy(port, authority=authority) as proxy:
        server.port = proxy.port
        if authority is not None:
            server.ca = authority.cert_pem.bytes().decode()
        try:
            yield proxy
        finally:
            server.port, server.ca = port, ca
