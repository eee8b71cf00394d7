"""``Front``: adds TLS to PostgreSQL. Clients connect to it, and it passes on what they send to the server's socket.

It is needed because the wheel's PostgreSQL is built without TLS. It speaks the start of the protocol (PostgreSQL's
manual, "Message Flow": "SSL Session Encryption" and "Canceling Requests in Progress"), and passes on what follows as it
is. The server offers no channel binding, since it has no TLS itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from pathlib import Path

_SSL_REQUEST = 80877103
_GSSAPI_REQUEST = 80877104
_CANCEL_REQUEST = 80877102
_LONGEST_STARTUP = 10_000  # as in PostgreSQL (MAX_STARTUP_PACKET_LENGTH)
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
    """Passes connections on to the server.

    Args:
        context: For TLS. Then it refuses connections without TLS, but for requests to cancel a statement. None: no TLS.
        server: The path of the server's socket.
    """

    def __init__(self, context: ssl.SSLContext | None, server: str) -> None:
        self._context = context
        self._server = server

    async def serve(self, listener: socket.socket) -> None:
        """Accept from ``listener`` until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as connections:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except OSError:  # too many open files: a connection has to end first
                    await asyncio.sleep(0.05)
                    continue
                connections.create_task(self._connection(client))

    async def _connection(self, client: socket.socket) -> None:
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                async with asyncio.timeout(_START_SECONDS):
                    start = b"" if self._context is None else await self._start(client)
                if start is not None:
                    await self._pass_on(client, start)
            except (OSError, EOFError, ssl.SSLError, TimeoutError):
                pass  # the client's connection is closed

    async def _start(self, client: socket.socket) -> bytes | None:
        """Read what comes before TLS. Returns b"" when TLS is to begin, all of a cancel request, or None if refused."""
        loop = asyncio.get_running_loop()
        while True:
            head = await _exactly(client, 8)
            length, code = struct.unpack("!II", head)
            if not 8 <= length <= _LONGEST_STARTUP:
                return None
            if code == _SSL_REQUEST:
                await loop.sock_sendall(client, b"S")
                return b""
            if code == _GSSAPI_REQUEST:
                await loop.sock_sendall(client, b"N")
                continue
            rest = await _exactly(client, length - 8)
            if code == _CANCEL_REQUEST:  # libpq's PQcancel sends it without TLS; it has a key, and no password
                return head + rest
            await loop.sock_sendall(client, _refusal(rest))
            return None

    async def _pass_on(self, client: socket.socket, start: bytes) -> None:
        """Pass bytes both ways until one side ends. ``start`` was read from the client already."""
        server_reader, server_writer = await asyncio.open_unix_connection(self._server)
        try:
            server_writer.write(start)
            reader, writer = await _streams(client, None if start else self._context)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, server_writer))
                both.create_task(_pump(server_reader, writer))
            await writer.wait_closed()  # until the last bytes of the server are sent
        finally:
            server_writer.close()


async def _streams(
    client: socket.socket, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    times = {"ssl_handshake_timeout": _START_SECONDS, "ssl_shutdown_timeout": _GOODBYE_SECONDS} if context else {}
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=context, **times)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on all that comes from ``reader``, then close ``writer``, which ends the other direction too."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass  # one of the two is gone
    finally:
        writer.close()


async def _exactly(client: socket.socket, length: int) -> bytes:
    """Read ``length`` bytes and no more, since what follows may be TLS."""
    data = b""
    while len(data) < length:
        more = await asyncio.get_running_loop().sock_recv(client, length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _refusal(startup: bytes) -> bytes:
    """The ErrorResponse that a server sends to a client without TLS which must have it."""
    words = startup.decode(errors="replace").split("\0")
    told = dict(zip(words[::2], words[1::2], strict=False))
    user = told.get("user", "")
    message = f'no pg_hba.conf entry for host "127.0.0.1", user "{user}", database "{told.get("database", user)}"'
    fields = {"S": "FATAL", "V": "FATAL", "C": "28000", "M": f"{message}, no encryption"}
    body = "".join(f"{kind}{text}\0" for kind, text in fields.items()).encode() + b"\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body
