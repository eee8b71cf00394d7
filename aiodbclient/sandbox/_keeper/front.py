"""``Front``: the port that clients of PostgreSQL connect to, and the proxy behind it. It adds TLS and applies faults.

It adds TLS because the wheel's PostgreSQL is built without it. It implements the start of the protocol (PostgreSQL's
manual, "Message Flow": "SSL Session Encryption" and "Canceling Requests in Progress"). It forwards the rest unchanged,
a message at a time, unless a fault applies. The server offers no channel binding, since it has no TLS itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path

from .faults import Broken, Failures, SqlFaults
from .stream import STATEMENTS, ServerStream, fatal, parameters

_SSL_REQUEST = 80877103
_GSSAPI_REQUEST = 80877104
_CANCEL_REQUEST = 80877102
_LONGEST_STARTUP = 10_000  # as in PostgreSQL (MAX_STARTUP_PACKET_LENGTH)
_START_SECONDS = 60.0  # as in PostgreSQL (authentication_timeout)
_GOODBYE_SECONDS = 2.0  # for a client that does not answer the end of TLS
_BACKLOG = 1024
_CHUNK = 65536
_NO_FAULTS = SqlFaults()


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
    """Forwards connections to the socket ``server`` while it is open, with TLS if there is a ``context``."""

    def __init__(
        self, context: ssl.SSLContext | None, server: str, host: str, port: int = 0, faults: SqlFaults = _NO_FAULTS
    ) -> None:
        self._context = context
        self._server = server
        self._host = host
        self._faults = faults
        try:
            self._socket = _bound(host, port)
        except OSError:  # the port is taken
            self._socket = _bound(host, 0)
        self.port: int = self._socket.getsockname()[1]
        self._listener: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Let clients in, if they are kept out."""
        if self._listener is None:
            listener = asyncio.start_server(self._take, sock=self._socket, backlog=_BACKLOG, start_serving=False)
            self._listener = await listener
            await self._listener.start_serving()

    def shut(self, seconds: float | None = None, *, sessions: bool = True) -> None:
        """Refuse new connections for so many seconds, and with ``sessions`` cut existing ones; the port stays ours."""
        if self._opening is not None:
            self._opening.cancel()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._socket = _bound(self._host, self.port)
        if sessions:
            for connection in self._connections:
                connection.cancel()
        if seconds is not None:
            self._opening = asyncio.create_task(self._open_after(seconds))

    async def _open_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.open()

    async def close(self) -> None:
        """Close it for good."""
        self.shut()
        self._socket.close()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._listener is None:  # it was shut after this connection was accepted
            writer.transport.abort()
            return
        connection = asyncio.create_task(self._connection(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client, tls = writer, self._context
        try:
            async with asyncio.timeout(_START_SECONDS):
                code, start = await _start(reader, writer, takes_tls=tls is not None)
                if tls is not None and code == _SSL_REQUEST:
                    reader, client = await _over_tls(writer, tls)
                    code, start = await _start(reader, client, takes_tls=False)
            failures = Failures(self._faults, self.shut)
            # libpq's PQcancel sends its request without TLS. That holds a key and no password, and is no login.
            if code != _CANCEL_REQUEST:
                if tls is not None and client is writer:
                    raise Broken(_refusal(start))
                await failures.login(parameters(start).get("user", ""))
            await self._pass_on(reader, client, start, failures)
        except Broken as broken:
            with suppress(OSError):
                client.write(broken.answer)
                client.close()
                await client.wait_closed()
        except (OSError, EOFError, TimeoutError):
            pass  # one side has disconnected
        finally:
            writer.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: bytes, failures: Failures
    ) -> None:
        """Forward ``start``, which was read from the client already, and then bytes both ways until one side ends."""
        server_reader, server_writer = await asyncio.open_unix_connection(self._server)
        try:
            server_writer.write(start)
            async with asyncio.TaskGroup() as both:
                both.create_task(_from_client(reader, server_writer, writer, failures))
                both.create_task(_from_server(server_reader, writer, failures))
            await writer.wait_closed()  # until the server's last bytes are sent
        finally:
            server_writer.close()


async def _start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, takes_tls: bool) -> tuple[int, bytes]:
    """Read the first message, and return its code and its bytes; refuse encryption, or accept TLS, which ends it."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        if not 8 <= length <= _LONGEST_STARTUP:
            raise EOFError
        if code == _SSL_REQUEST and takes_tls:
            reader.feed_eof()  # ``_over_tls`` reads what follows
            if await reader.read(1):
                raise EOFError  # as PostgreSQL does: somebody on the way may have sent it
            writer.write(b"S")
            return code, head
        if code not in (_SSL_REQUEST, _GSSAPI_REQUEST):
            return code, head + await reader.readexactly(length - 8)
        writer.write(b"N")


class _TLSProtocol(asyncio.StreamReaderProtocol):
    """A protocol whose client may leave as TLS begins, before ``connection_made``: asyncio logs a warning for True."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


async def _over_tls(
    writer: asyncio.StreamWriter, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Begin TLS on the connection of ``writer``."""
    # ``StreamWriter.start_tls`` sets no limit to the end of TLS before Python 3.12, and keeps unencrypted bytes.
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    protocol = _TLSProtocol(reader)
    transport = await loop.start_tls(
        writer.transport, protocol, context, server_side=True, ssl_shutdown_timeout=_GOODBYE_SECONDS
    )
    assert transport is not None
    protocol.connection_made(transport)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _from_client(
    reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter, failures: Failures
) -> None:
    """Forward each message from the client, unless a fault ends the connection. Its end ends the other direction."""
    try:
        while True:
            head = await reader.readexactly(5)
            length: int = struct.unpack_from("!I", head, 1)[0]
            if head[:1] in STATEMENTS:
                await failures.statement()
            server.write(head + await reader.readexactly(max(length, 4) - 4))
            await server.drain()
    except Broken:
        client.transport.abort()
    except (OSError, EOFError):
        pass  # one side has disconnected
    finally:
        server.close()


async def _from_server(reader: asyncio.StreamReader, client: asyncio.StreamWriter, failures: Failures) -> None:
    """Forward everything from the server, unless a fault ends the connection."""
    held = ServerStream()
    try:
        while data := await reader.read(_CHUNK):
            if failures.after:
                if not held.feed(data):
                    continue
                await failures.answered()
                data, held = held.data, ServerStream()
            client.write(data)
            await client.drain()
    except Broken:
        client.transport.abort()
    except OSError:
        pass  # one side has disconnected
    finally:
        client.close()


def _refusal(startup: bytes) -> bytes:
    """The error that a server sends if TLS is required and the client does not use it."""
    given = parameters(startup)
    user = given.get("user", "")
    message = f'no pg_hba.conf entry for host "127.0.0.1", user "{user}", database "{given.get("database", user)}"'
    return fatal("28000", f"{message}, no encryption")


def _bound(host: str, port: int) -> socket.socket:
    """A socket that holds the port but does not listen: connections are refused, and no other process gets the port."""
    bound = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only where the protocol is named
    try:
        if port:  # connections of the previous socket may linger
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        bound.close()
        raise
    return bound
