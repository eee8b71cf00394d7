"""``Front``: the proxy that clients of PostgreSQL connect to. It adds TLS and applies faults.

It adds TLS because the wheel's PostgreSQL is built without it. ``Front`` implements the start of the protocol
(PostgreSQL's manual, "Message Flow": "SSL Session Encryption" and "Canceling Requests in Progress"). It forwards the
rest unchanged, unless a fault applies. The server offers no channel binding, since it has no TLS itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path

from .faults import Broken, Failures, SqlFaults
from .stream import LOGIN, LONGEST_STARTUP, STATEMENT, ClientStream, ServerStream, fatal, parameters

_SSL_REQUEST = 80877103
_GSSAPI_REQUEST = 80877104
_CANCEL_REQUEST = 80877102
_START_SECONDS = 60.0  # as in PostgreSQL (authentication_timeout)
_GOODBYE_SECONDS = 2.0
_CHUNK = 65536


def server_context(certificate: str | None, folder: Path) -> ssl.SSLContext | None:
    """The TLS context of a server with ``certificate``, its key and chain as PEM; None for None."""
    if certificate is None:
        return None
    file = folder / "server.pem"
    file.touch(mode=0o600)
    file.write_text(certificate)  # the ssl module loads from files only
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    file.unlink()
    return context


class Front:
    """Forwards connections to the socket ``server``. With a ``context`` it requires TLS, but not to cancel."""

    def __init__(self, context: ssl.SSLContext | None, server: str, faults: SqlFaults | None = None) -> None:
        self._context = context
        self._server = server
        self._faults = faults
        self._connections: set[asyncio.Task[None]] = set()

    def take(self, client: socket.socket) -> None:
        """Serve a client in its own task."""
        client.setblocking(False)
        connection = asyncio.create_task(self._connection(client))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        connection.add_done_callback(lambda _: _hang_up(client))

    def cut(self) -> None:
        """Break all connections, without an error message."""
        for connection in self._connections:
            connection.cancel()

    async def ended(self) -> None:
        """Wait until all connections have ended."""
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(_START_SECONDS):
                start = b"" if self._context is None else await self._start(client)
            if start is not None:
                await self._pass_on(client, start)
        except (OSError, EOFError, ssl.SSLError, TimeoutError):
            pass  # the done callback closes the client's connection

    async def _start(self, client: socket.socket) -> bytes | None:
        """Read the messages before TLS. Returns b"" to begin TLS, the whole cancel request, or None if refused."""
        loop = asyncio.get_running_loop()
        while True:
            head = await _exactly(client, 8)
            length, code = struct.unpack("!II", head)
            if not 8 <= length <= LONGEST_STARTUP:
                return None
            if code == _SSL_REQUEST:
                await loop.sock_sendall(client, b"S")
                return b""
            if code == _GSSAPI_REQUEST:
                await loop.sock_sendall(client, b"N")
                continue
            rest = await _exactly(client, length - 8)
            if code == _CANCEL_REQUEST:  # libpq's PQcancel sends it without TLS; it holds a key and no password
                return head + rest
            await loop.sock_sendall(client, _refusal(rest))
            return None

    async def _pass_on(self, client: socket.socket, start: bytes) -> None:
        """Forward bytes both ways until one side ends. ``start`` was read from the client already."""
        server_reader, server_writer = await asyncio.open_unix_connection(self._server)
        writer = None
        try:
            server_writer.write(start)
            reader, writer = await _streams(client, None if start else self._context)
            failures = Failures(self._faults) if self._faults and not start else None
            async with asyncio.TaskGroup() as both:
                both.create_task(_from_client(reader, server_writer, writer, failures))
                both.create_task(_from_server(server_reader, writer, failures))
            await writer.wait_closed()  # until the server's last bytes are sent
        finally:
            server_writer.close()
            if writer is not None:
                writer.transport.abort()


async def _streams(
    client: socket.socket, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    times = {"ssl_handshake_timeout": _START_SECONDS, "ssl_shutdown_timeout": _GOODBYE_SECONDS} if context else {}
    # The transport gets its own descriptor. A transport that is cancelled early closes later, and would otherwise use
    # a descriptor that belongs to another connection by then.
    own = client.dup()
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, own, ssl=context, **times)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _hang_up(client: socket.socket) -> None:
    """End the connection, even if a transport still holds it."""
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    client.close()


async def _from_client(
    reader: asyncio.StreamReader,
    server: asyncio.StreamWriter,
    client: asyncio.StreamWriter,
    failures: Failures | None,
) -> None:
    """Forward everything from the client, then close ``server``, which ends the other direction too."""
    stream = ClientStream()
    try:
        while data := await reader.read(_CHUNK):
            if failures is None:
                server.write(data)
            else:
                for kind, piece in stream.feed(data):
                    if kind == LOGIN:
                        await failures.login(parameters(piece[8:]).get("user", ""))
                    elif kind == STATEMENT:
                        await failures.statement()
                    server.write(piece)
            await server.drain()
    except Broken as broken:
        _break(client, broken)
    except (OSError, ssl.SSLError):
        pass  # one side has disconnected
    finally:
        server.close()


async def _from_server(reader: asyncio.StreamReader, client: asyncio.StreamWriter, failures: Failures | None) -> None:
    """Forward everything from the server, then close ``client``, which ends the other direction too."""
    held = ServerStream()
    try:
        while data := await reader.read(_CHUNK):
            if failures is not None and failures.after:
                if not held.feed(data):
                    continue
                await failures.answered()
                data, held = held.data, ServerStream()
            client.write(data)
            await client.drain()
    except Broken as broken:
        _break(client, broken)
    except (OSError, ssl.SSLError):
        pass
    finally:
        client.close()


def _break(client: asyncio.StreamWriter, broken: Broken) -> None:
    """End a connection for a fault: after an error of the server, or without one."""
    if broken.answer:
        client.write(broken.answer)
    else:
        client.transport.abort()


async def _exactly(client: socket.socket, length: int) -> bytes:
    """Read exactly ``length`` bytes: the next ones may be TLS."""
    data = b""
    while len(data) < length:
        more = await asyncio.get_running_loop().sock_recv(client, length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _refusal(startup: bytes) -> bytes:
    """The error that a server sends if TLS is required and the client does not use it."""
    given = parameters(startup)
    user = given.get("user", "")
    message = f'no pg_hba.conf entry for host "127.0.0.1", user "{user}", database "{given.get("database", user)}"'
    return fatal("28000", f"{message}, no encryption")
