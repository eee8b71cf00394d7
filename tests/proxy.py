"""A proxy in front of a PostgreSQL, which holds, delays and cuts the statements of its clients."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from math import inf
from typing import Any, Self

from attrs import define, field

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._backends.postgres import PostgresBackend

_SSL_REQUEST, _GSSAPI_REQUEST = 80877103, 80877104
_STATEMENTS = b"Q", b"E"  # the messages that run a statement: Query, and Execute of a prepared one
_CHUNK = 65536


@define(eq=False)
class Rule:
    """What happens to the statements of clients."""

    login: str = "*"  # a pattern
    nth: int = 1  # the first one that it happens to
    times: float = inf  # to how many
    held: bool = False  # whether it waits until this is False
    delay: float = 0.0
    cut: bool = False
    fired: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)

    def fires(self, login: str) -> bool:
        if not fnmatchcase(login, self.login):
            return False
        self._seen += 1
        if self._seen < self.nth or self.fired >= self.times:
            return False
        self.fired += 1
        return True


class Cut(Exception):
    """Ends a connection."""


class Proxy:
    """Forwards connections to a port. With ``any_protocol``, rules apply to whatever a client sends at a time."""

    def __init__(self, port: int, *, any_protocol: bool = False) -> None:
        self.rules: list[Rule] = []
        self._any_protocol = any_protocol
        self._server_port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def add(self, **options: Any) -> Rule:
        """Add a rule: see ``Rule``."""
        rule = Rule(**options)
        self.rules.append(rule)
        return rule

    def __enter__(self) -> Self:
        self._thread.start()
        listener = asyncio.start_server(self._accept, "127.0.0.1")
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
                login, start = ("", b"") if self._any_protocol else await _start(reader, writer)
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

    async def _from_client(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, login: str) -> None:
        while self._any_protocol and (data := await reader.read(_CHUNK)):
            await self._apply(login)
            server.write(data)
            await server.drain()
        while not self._any_protocol:
            data = await reader.readexactly(5)
            if data[:1] in _STATEMENTS:
                await self._apply(login)
            server.write(data + await reader.readexactly(struct.unpack_from("!I", data, 1)[0] - 4))
            await server.drain()

    async def _apply(self, login: str) -> None:
        for rule in [rule for rule in self.rules if rule.fires(login)]:
            while rule.held:  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.005)
            await asyncio.sleep(rule.delay)
            if rule.cut:
                raise Cut

    async def _from_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


async def _start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, bytes]:
    """Return the login of a client, and its first message that is for the server. It gets no TLS."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        if code not in (_SSL_REQUEST, _GSSAPI_REQUEST):
            break
        writer.write(b"N")
    start = head + await reader.readexactly(length - 8)
    words = start[8:].decode(errors="replace").split("\0")  # after the length and the version
    return dict(zip(words[::2], words[1::2], strict=False)).get("user", ""), start


@contextmanager
def behind_proxy(sandbox: Sandbox, cluster_id: str) -> Iterator[Proxy]:
    """Let clients reach the PostgreSQL of a cluster only through a proxy, which the sandbox itself does not use."""
    backend = sandbox._clusters[cluster_id].backend
    assert isinstance(backend, PostgresBackend)
    assert not backend.primary().ssl  # SCRAM's channel binding refuses a proxy in front of a server with TLS
    port = backend.primary().port
    with Proxy(port) as proxy:
        backend._primary = backend.primary()._replace(port=proxy.port)
        try:
            yield proxy
        finally:
            backend._primary = backend.primary()._replace(port=port)
