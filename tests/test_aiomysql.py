"""What the package adds to aiomysql."""

from __future__ import annotations

import asyncio
import ssl
import struct

import pymysql
import pytest
from pymysql.constants import CLIENT

from aiodbclient.tenants._servers.mysql.session import Connection


def greeting() -> bytes:
    """The first packet of a server without TLS (MySQL's "Protocol::HandshakeV10")."""
    capabilities = CLIENT.CAPABILITIES & ~CLIENT.SSL
    salt, plugin = b"8" * 8, b"mysql_native_password\0"
    low, high = capabilities & 0xFFFF, capabilities >> 16
    body = b"\x0a8.4.0\0" + struct.pack("<I8sxHBHHB10x", 1, salt, low, 45, 2, high, 21) + b"8" * 12 + b"\0" + plugin
    return struct.pack("<I", len(body))[:3] + b"\0" + body


async def test_unverified_server_gets_no_login() -> None:
    """Somebody on the way may have removed TLS from the greeting, to read the login."""
    received = asyncio.get_running_loop().create_future()

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting())
        try:
            received.set_result(await reader.read())
        except ConnectionResetError:
            received.set_result(b"")
        writer.close()

    async with await asyncio.start_server(stranger, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(
            host="127.0.0.1", port=port, user="app", password="hunter2", ssl=ssl.create_default_context()
        )
        async with asyncio.timeout(60):
            with pytest.raises(pymysql.OperationalError, match="does not support TLS"):
                await connection._connect()
        assert connection.closed
        assert await received == b""
