"""Refusals of MySQL become errors that name the tenant, contain no secret, and leave no session."""

from __future__ import annotations

import asyncio
import gc
import ssl
from contextlib import suppress

import pymysql
import pytest
import trustme
from pymysql.constants import CLIENT

from aiodbclient._masking import Secret
from aiodbclient.errors import ConfigurationError
from aiodbclient.tenants import Role
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers import BaseTenant
from aiodbclient.tenants._servers.mysql import MySQLServer
from aiodbclient.tenants._servers.mysql import connection as sessions
from aiodbclient.tenants._servers.mysql.connection import Session
from aiodbclient.tenants.errors import GrantError

from ...mysql import administrator
from ...waiting import until
from ..leaks import leaks
from ..mysql_servers import Server, server

__all__ = ["server"]

NAMES = names_of("alpha", "mysql")


def dsn(server: Server, login: str, password: str) -> str:
    return f"mysql://{login}:{password}@{server.sql._admin['host']}:{server.sql._admin['port']}/"


async def test_administrator_without_rights_is_refused_with_statement(server: Server) -> None:
    """Such as a tenant, who may ask how many connections the server allows."""
    tenant, login, password = await server.make()
    refused = MySQLServer(dsn(server, login, password), await server.cluster.ca())

    found = await refused.administrator()
    assert found.connections > 10
    assert "CREATE USER" in found.lacks
    with pytest.raises(GrantError, match="MySQL refused a statement") as caught:
        await refused.steps(BaseTenant(names_of("never_made", "mysql"))).create()

    assert caught.value.tenant == "never_made"
    assert "SELECT Host, User, Db" in caught.value.statement
    assert password not in str(caught.value)
    assert await tenant.problems() == frozenset()


@pytest.mark.parametrize(
    "admin",
    [
        "nonsense s3cret",
        "postgresql://doadmin:s3cret@127.0.0.1/",
        "mysql://[s3cret",
        "mysql://doadmin:s3cret@",
        "mysql://doadmin:s3cret@h:99999/",
        *(f"mysql://doadmin:a@s3cret{end}b@127.0.0.1/" for end in "/?#"),  # the host would be s3cret
    ],
)
def test_an_administrators_dsn_that_is_none(admin: str) -> None:
    with pytest.raises(ConfigurationError, match="not a DSN of MySQL") as caught:
        MySQLServer(admin, None)
    assert leaks(caught.value, "s3cret") == []


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"\xff\x10\x04#08004Too many connections", "Too many connections"),
        (b"\xff\x69\x04Host is blocked", "Host is blocked"),
        (b"", "connect"),
        (b"nonsense that is no handshake\0", ""),
    ],
)
async def test_server_that_is_away_refuses_no_password(packet: bytes, message: str) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if packet:
            writer.write(len(packet).to_bytes(3, "little") + b"\0" + packet)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as away:
        port = away.sockets[0].getsockname()[1]
        sql = MySQLServer(f"mysql://doadmin:s3cret-of-doadmin@127.0.0.1:{port}/", None)
        with pytest.raises(GrantError, match=f"could not be tested: .*{message}") as error:
            await sql.log_in(NAMES, "alpha", Secret("s3cret-of-alpha"))
        assert "s3cret" not in str(error.value)
        with pytest.raises(GrantError, match="cannot log in"):
            await sql.administrator()


def greeting(capabilities: int) -> bytes:
    """What a server sends first."""
    salt, plugin = b"8" * 8, b"caching_sha2_password\0"
    low, high = capabilities.to_bytes(4, "little")[:2], capabilities.to_bytes(4, "little")[2:]
    text = b"\x0a8.0.99\0" + bytes(4) + salt + b"\0" + low + b"\x21\x02\0" + high + b"\x15" + bytes(10) + salt
    packet = text + b"8888\0" + plugin
    return len(packet).to_bytes(3, "little") + b"\0" + packet


async def test_unverified_server_gets_no_login() -> None:
    """Somebody on the way may have removed TLS from the greeting, to read the login."""
    received = asyncio.get_running_loop().create_future()

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting(CLIENT.CAPABILITIES & ~CLIENT.SSL))
        try:
            received.set_result(await reader.read())
        except ConnectionResetError:
            received.set_result(b"")
        writer.close()

    async with await asyncio.start_server(stranger, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Session(
            host="127.0.0.1", port=port, user="app", password="hunter2", ssl=ssl.create_default_context()
        )
        async with asyncio.timeout(60):
            with pytest.raises(pymysql.OperationalError, match="does not support TLS"):
                await connection._connect()
        assert connection.closed
        assert await received == b""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("greets", [False, True], ids=["silent", "greets"])
async def test_failed_connection_is_closed_at_once(monkeypatch: pytest.MonkeyPatch, tls: bool, greets: bool) -> None:
    """Of a server that hangs, without help by the garbage collector, while the errors are still there."""
    monkeypatch.setattr(sessions, "CONNECT_SECONDS", 0.2)
    opened = closed = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened, closed
        opened += 1
        if greets:
            writer.write(greeting(0xFFFFFFFF))
        with suppress(ConnectionResetError):  # it was closed before the greeting was read
            while await reader.read(1000):
                pass
        closed += 1
        writer.close()

    gc.collect()
    gc.disable()
    errors: list[Exception] = []
    try:
        async with await asyncio.start_server(hang, "127.0.0.1", 0) as away:
            port = away.sockets[0].getsockname()[1]
            ca = trustme.CA().cert_pem.bytes().decode() if tls else None
            sql = MySQLServer(f"mysql://doadmin:secret@127.0.0.1:{port}/", ca)
            for act in (sql.administrator(), sql.log_in(NAMES, "alpha", Secret("x")), sql.problems(NAMES, None)):
                with pytest.raises(GrantError, match="no answer within") as caught:
                    await act
                errors.append(caught.value)
            monkeypatch.setattr(sessions, "CONNECT_SECONDS", 60)
            before, asking = opened, asyncio.create_task(sql.administrator())
            await until(lambda: opened > before)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: closed == opened)
    finally:
        gc.enable()


@pytest.mark.usefixtures("brief_locks")
async def test_blocked_statement_ends_and_leaves_no_session(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, *_ = await server.make()
    before = {*server.sessions("doadmin")}

    def new() -> set[int]:
        return {*server.sessions("doadmin")} - before

    with administrator(server.root) as root:
        root.execute("FLUSH TABLES WITH READ LOCK")
        with monkeypatch.context() as patched:
            patched.setattr(sessions, "STATEMENT_SECONDS", 1)
            with pytest.raises(GrantError, match=r"no answer within 1 seconds|Lock wait timeout"):
                await tenant.repair()
        await until(lambda: not new())
        repairing = asyncio.create_task(tenant.repair())
        await until(new)
        repairing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await repairing
        root.execute("UNLOCK TABLES")
    await until(lambda: not new())
    await tenant.repair()


async def test_no_frame_shows_password_of_refused_statement(server: Server) -> None:
    tenant, login, _ = await server.make()
    password = Secret("s3cret-of-a-tenant")
    for refused in (login, "x" * 200):  # it exists, or is too long
        with pytest.raises(GrantError) as caught:
            await tenant.steps.add_login(refused, password, Role.OWNER)
        assert leaks(caught.value, password) == []


async def test_logs_and_history_of_server_hold_no_password(server: Server) -> None:
    """CREATE USER and ALTER USER: the server rewrites them, wherever it stores a statement."""
    server.as_root("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = ON, GLOBAL slow_query_log = ON")
    server.as_root("SET GLOBAL long_query_time = 0")
    server.as_root("TRUNCATE TABLE performance_schema.events_statements_summary_by_digest")  # it has one text of each
    server.as_root("UPDATE performance_schema.setup_consumers SET ENABLED = 'YES' WHERE NAME LIKE '%statements%'")
    try:
        tenant, login, password = await server.make()
        second, again = await server.add(tenant)
    finally:
        server.as_root("SET GLOBAL general_log = OFF, GLOBAL slow_query_log = OFF, GLOBAL long_query_time = 10")
    for table, column in (
        ("mysql.general_log", "argument"),
        ("mysql.slow_log", "sql_text"),
        ("performance_schema.events_statements_history_long", "SQL_TEXT"),
        ("performance_schema.events_statements_summary_by_digest", "QUERY_SAMPLE_TEXT"),
    ):
        texts = [str(text) for (text,) in server.as_root(f"SELECT CONVERT({column} USING utf8mb4) FROM {table}")]
        assert any(each in text for text in texts for each in (login, second)), table  # or of the slower statement
        for secret in (password, again):
            assert not any(secret in text for text in texts), table
