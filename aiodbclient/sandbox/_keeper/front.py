"""``Front``: the port that clients of PostgreSQL connect to, and the proxy behind it. It adds TLS and applies faults.

It adds TLS because the wheel's PostgreSQL is built without it. It implements the start of the protocol (PostgreSQL's
manual, "Message Flow": "SSL Session Encryption" and "Canceling Requests in Progress"; "Message Formats"). It forwards
the rest unchanged, a message at a time, unless a fault applies. The server offers no channel binding, since it has no
TLS itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .faults import LOGIN, STATEMENT, Options, SqlFaults

_SSL_REQUEST = 80877103
_GSSAPI_REQUEST = 80877104
_CANCEL_REQUEST = 80877102
_LONGEST_STARTUP = 10_000  # as in PostgreSQL (MAX_STARTUP_PACKET_LENGTH)
_START_SECONDS = 60.0  # as in PostgreSQL (authentication_timeout)
_GOODBYE_SECONDS = 2.0  # for a client that does not answer the end of TLS
_BACKLOG = 1024
_CHUNK = 65536
_NO_FAULTS = SqlFaults()
_STATEMENTS = b"Q", b"E"  # the messages that run a statement: Query, and Execute of a prepared one
_ENDS = b"ZGW"  # of its answer: ReadyForQuery, and the two that ask the client for the data of COPY
# PostgreSQL's messages for the codes with which a fault refuses a login.
_MESSAGES = {
    "28P01": 'password authentication failed for user "{user}"',
    "53300": "sorry, too many clients already",
    "57P03": "the database system is starting up",
}
_MESSAGE = "the sandbox refuses this login"


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
        self.context = context
        self.server = server
        self.faults = faults
        self._host = host
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
        connection = asyncio.create_task(_Connection(self, reader, writer).run())
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)


class _Broken(Exception):
    """Ends a connection, after ``answer`` is sent."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer


class _Connection:
    """The connection of one client."""

    def __init__(self, front: Front, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._front = front
        self._reader, self._writer = reader, writer  # over TLS, once it has begun
        self._over_tls = False
        self._user = ""
        self._after_answer: list[Options] = []  # faults to apply after the server has answered the statement

    async def run(self) -> None:
        """Serve the client until one side ends the connection."""
        unencrypted = self._writer  # a writer that nobody holds closes its connection, which TLS goes on using
        try:
            async with asyncio.timeout(_START_SECONDS):
                code, start = await self._start()
            # libpq's PQcancel sends its request without TLS. That holds a key and no password, and is no login.
            if code != _CANCEL_REQUEST:
                given = _parameters(start)
                self._user = given.get("user", "")
                if self._front.context is not None and not self._over_tls:
                    raise _Broken(_no_encryption(self._user, given.get("database", self._user)))
                await self._apply(self._front.faults.meeting(LOGIN, self._user))
            await self._pass_on(start)
        except _Broken as broken:
            with suppress(OSError):
                self._writer.write(broken.answer)
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, EOFError, TimeoutError):
            pass  # one side has disconnected
        finally:
            unencrypted.transport.abort()

    async def _start(self) -> tuple[int, bytes]:
        """Begin TLS, or refuse encryption, when the client asks; return its first other message, with its code."""
        while True:
            head = await self._reader.readexactly(8)
            length, code = struct.unpack("!II", head)
            if not 8 <= length <= _LONGEST_STARTUP:
                raise EOFError
            if code == _SSL_REQUEST and self._front.context is not None and not self._over_tls:
                self._reader.feed_eof()  # TLS reads what follows
                if await self._reader.read(1):
                    raise EOFError  # as PostgreSQL does: somebody on the way may have sent it
                self._writer.write(b"S")
                await self._begin_tls(self._front.context)
            elif code in (_SSL_REQUEST, _GSSAPI_REQUEST):
                self._writer.write(b"N")
            else:
                return code, head + await self._reader.readexactly(length - 8)

    async def _begin_tls(self, context: ssl.SSLContext) -> None:
        # ``StreamWriter.start_tls`` sets no limit to the end of TLS before Python 3.12, and keeps unencrypted bytes.
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        protocol = _TLSProtocol(reader)
        transport = await loop.start_tls(
            self._writer.transport, protocol, context, server_side=True, ssl_shutdown_timeout=_GOODBYE_SECONDS
        )
        assert transport is not None
        protocol.connection_made(transport)
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        self._over_tls = True

    async def _apply(self, faults: Iterable[Options]) -> None:
        """Apply faults, or raise _Broken if one ends the connection."""
        for fault in faults:
            await asyncio.sleep(fault["delay"])
            if fault["stop"]:
                self._front.shut(fault["lasts"])
                raise _Broken
            if fault["sqlstate"] is not None:
                message = _MESSAGES.get(fault["sqlstate"], _MESSAGE).format(user=self._user)
                raise _Broken(_fatal(fault["sqlstate"], message))
            if fault["cut"]:
                raise _Broken

    async def _pass_on(self, start: bytes) -> None:
        """Forward ``start``, which was read from the client already, and then bytes both ways until one side ends."""
        server_reader, server_writer = await asyncio.open_unix_connection(self._front.server)
        try:
            server_writer.write(start)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._from_client(server_writer))
                both.create_task(self._from_server(server_reader))
            await self._writer.wait_closed()  # until the server's last bytes are sent
        finally:
            server_writer.close()

    async def _from_client(self, server: asyncio.StreamWriter) -> None:
        """Forward each message from the client, until a fault or the client ends both directions."""
        try:
            while True:
                head = await self._reader.readexactly(5)
                length: int = struct.unpack_from("!I", head, 1)[0]
                if head[:1] in _STATEMENTS:
                    met = self._front.faults.meeting(STATEMENT, self._user)
                    self._after_answer = [fault for fault in met if fault["after"]]
                    await self._apply(fault for fault in met if not fault["after"])
                server.write(head + await self._reader.readexactly(max(length, 4) - 4))
                await server.drain()
        except _Broken:
            self._writer.transport.abort()
        except (OSError, EOFError):
            pass  # one side has disconnected
        finally:
            server.close()

    async def _from_server(self, server: asyncio.StreamReader) -> None:
        """Forward everything from the server, but an answer whose faults come after it only when it is complete."""
        held = b""
        try:
            while data := await server.read(_CHUNK):
                held += data
                if self._after_answer:
                    if not _is_complete(held):
                        continue
                    met, self._after_answer = self._after_answer, []
                    await self._apply(met)
                self._writer.write(held)
                await self._writer.drain()
                held = b""
        except _Broken:
            self._writer.transport.abort()
        except OSError:
            pass  # one side has disconnected
        finally:
            self._writer.close()


class _TLSProtocol(asyncio.StreamReaderProtocol):
    """A protocol whose client may leave as TLS begins, before ``connection_made``: asyncio logs a warning for True."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


def _parameters(startup: bytes) -> dict[str, str]:
    """The parameters, such as ``user``, in a StartupMessage."""
    words = startup[8:].decode(errors="replace").split("\0")  # after the length and the version
    return dict(zip(words[::2], words[1::2], strict=False))


def _is_complete(answer: bytes) -> bool:
    """Whether the messages from the server include the end of the answer to one statement."""
    at = 0
    while len(answer) >= at + 5:
        kind, length = answer[at], struct.unpack_from("!I", answer, at + 1)[0]
        at += 1 + length
        if kind in _ENDS and len(answer) >= at:
            return True
    return False


def _fatal(sqlstate: str, message: str) -> bytes:
    """The ErrorResponse that ends a connection."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
    body = "".join(f"{kind}{text}\0" for kind, text in fields.items()).encode() + b"\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body


def _no_encryption(user: str, database: str) -> bytes:
    """The error that a server sends if TLS is required and the client does not use it."""
    message = f'no pg_hba.conf entry for host "127.0.0.1", user "{user}", database "{database}", no encryption'
    return _fatal("28000", message)


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
