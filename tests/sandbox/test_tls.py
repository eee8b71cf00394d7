"""TLS: on by default for the embedded PostgreSQL, and reported correctly for every other server."""

from __future__ import annotations

import asyncio
import base64
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pymysql
import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox import _postgres_provider as postgres_provider
from aiodbclient.sandbox._embedded import EmbeddedPostgres, SandboxCA
from aiodbclient.sandbox._keeper.front import Front, server_context

from ..requirements import no_server
from .conftest import Call, caller, until_it_sleeps

pytestmark = pytest.mark.usefixtures("own_pool")

JSON = dict[str, Any]
_SSL_REQUEST = struct.pack("!II", 8, 80877103)


@pytest.fixture(scope="module")
def postgres(own_pool: None) -> Iterator[tuple[Sandbox, str]]:
    with Sandbox(windows=[]) as sandbox:
        yield sandbox, asyncio.run(sandbox.add_cluster("pg"))


@pytest.fixture
async def call(postgres: tuple[Sandbox, str]) -> AsyncIterator[Call]:
    async with caller(postgres[0]) as calling:
        yield calling


@pytest.fixture
async def connection(postgres: tuple[Sandbox, str], call: Call) -> JSON:
    connection: JSON = (await call("GET", f"/v2/databases/{postgres[1]}")).json["database"]["connection"]
    return connection


@pytest.fixture
async def ca_file(postgres: tuple[Sandbox, str], call: Call, tmp_path: Path) -> Path:
    answer = await call("GET", f"/v2/databases/{postgres[1]}/ca")
    assert answer.status == 200
    return written(tmp_path / "ca.pem", base64.b64decode(answer.json["ca"]["certificate"], validate=True).decode())


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


async def test_the_connection_says_that_it_uses_tls(connection: JSON) -> None:
    assert connection["ssl"] is True
    assert urlsplit(connection["uri"]).query == "sslmode=require"


def test_servers_that_start_together_have_one_authority() -> None:
    """They start in different threads."""

    def certificate(authority: SandboxCA, together: Barrier) -> str:
        together.wait()
        return authority.certificate()

    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            authority, together = SandboxCA({}), Barrier(4)
            shown = [threads.submit(certificate, authority, together) for _ in range(4)]
            assert {each.result() for each in shown} == {authority.certificate()}


async def test_a_server_that_cannot_be_used_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_provider, "SUPERUSER", "somebody")
    async with Sandbox() as sandbox:
        with pytest.raises(RuntimeError, match=r"cannot be used: .*password authentication failed"):
            await sandbox.add_cluster("pg", backend="postgres")
        assert not sandbox.clusters


async def test_a_connection_without_tls_is_refused(connection: JSON) -> None:
    with pytest.raises(
        psycopg.OperationalError, match=r'no pg_hba\.conf entry .* user "doadmin", database "defaultdb", no encryption'
    ):
        await psycopg.AsyncConnection.connect(connection["uri"], sslmode="disable")


async def test_the_server_is_verified_with_the_ca_and_with_no_other(
    connection: JSON, ca_file: Path, tmp_path: Path
) -> None:
    verified: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": str(ca_file)}
    async with await psycopg.AsyncConnection.connect(connection["uri"], **verified) as session:
        assert session.pgconn.ssl_in_use
    wrong = written(tmp_path / "wrong.pem", SandboxCA({}).certificate())
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        await psycopg.AsyncConnection.connect(connection["uri"], **(verified | {"sslrootcert": str(wrong)}))
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        await psycopg.AsyncConnection.connect(
            connection["uri"], **verified, host="db.example.com", hostaddr="127.0.0.1"
        )


async def test_asyncpg_logs_in(connection: JSON, ca_file: Path) -> None:
    context = ssl.create_default_context(cafile=str(ca_file))
    session = await asyncpg.connect(connection["uri"].partition("?")[0], ssl=context)
    try:
        assert await session.fetchval("SELECT current_user") == "doadmin"
    finally:
        await session.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncpg.connect(connection["uri"].partition("?")[0], ssl=ssl.create_default_context())


async def test_psql_logs_in(connection: JSON, ca_file: Path) -> None:
    psql = shutil.which("psql")
    if psql is None:
        no_server("postgresql", "psql is not on PATH (apt-get install postgresql-client)")
    dsn = f"host={connection['host']} port={connection['port']} dbname=defaultdb sslmode=verify-full"
    done = await asyncio.to_thread(
        subprocess.run,
        [psql, "-XAtq", "-c", "\\conninfo", "-c", "SELECT current_user", f"{dsn} sslrootcert={ca_file}"],
        env={"PGUSER": connection["user"], "PGPASSWORD": connection["password"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "doadmin"
    assert "TLSv1.3" in done.stdout


async def test_a_wrong_password_is_refused_by_the_server_itself(connection: JSON) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await psycopg.AsyncConnection.connect(connection["uri"], password="wrong")


async def test_copy_goes_through_both_ways_byte_by_byte(connection: JSON) -> None:
    rows = [(number, "x" * (number % 997)) for number in range(20_000)]
    async with await psycopg.AsyncConnection.connect(connection["uri"]) as session, session.cursor() as cursor:
        await cursor.execute("CREATE TEMPORARY TABLE t (number int, text text)")
        async with cursor.copy("COPY t FROM STDIN") as copy:
            for row in rows:
                await copy.write_row(row)
        async with cursor.copy("COPY t TO STDOUT") as copy:
            copy.set_types(["int4", "text"])
            assert [row async for row in copy.rows()] == rows


async def test_a_cancel_goes_through(connection: JSON) -> None:
    async with await psycopg.AsyncConnection.connect(connection["uri"]) as session:
        sleeping = asyncio.ensure_future(session.execute("SELECT pg_sleep(60)"))
        await until_it_sleeps(connection["uri"])
        await session.cancel_safe()  # over TLS, as the session is
        with pytest.raises(psycopg.errors.QueryCanceled):
            await sleeping


async def test_a_cancel_in_the_clear_goes_through(connection: JSON) -> None:
    async with await psycopg.AsyncConnection.connect(connection["uri"]) as session:
        sleeping = asyncio.ensure_future(session.execute("SELECT pg_sleep(60)"))
        await until_it_sleeps(connection["uri"])
        await asyncio.to_thread(session.pgconn.get_cancel().cancel)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await sleeping


async def test_a_blocked_event_loop_does_not_hold_up_the_server(sandbox: Sandbox) -> None:
    """The front runs in another process, so a test that serves the API in this loop may use a blocking driver."""
    await sandbox.add_cluster("pg")
    shown = next(iter(sandbox._clusters.values())).backend.primary()
    login: dict[str, Any] = {"host": shown.host, "port": shown.port, "user": "doadmin", "password": shown.password}
    with psycopg.connect(**login, dbname="defaultdb", sslmode="require") as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


async def test_many_connections_at_once(connection: JSON) -> None:
    sessions = await asyncio.gather(*(psycopg.AsyncConnection.connect(connection["uri"]) for _ in range(60)))
    await asyncio.gather(*(session.execute("SELECT repeat('x', 1000000)") for session in sessions))
    await asyncio.gather(*(session.close() for session in sessions))


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(struct.pack("!II", 0xFFFFFFFF, 196608), id="a length without measure"),
        pytest.param(_SSL_REQUEST + b"no TLS at all", id="plain text where TLS should begin"),
        pytest.param(struct.pack("!II", 4, 0), id="a length too short"),
    ],
)
async def test_nonsense_ends_its_own_connection_alone(connection: JSON, start: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", connection["port"])
    writer.write(start)
    with suppress(OSError):  # if the connection has ended already
        writer.write_eof()
    async with asyncio.timeout(50):  # a client has 60 s to log in
        with suppress(ConnectionResetError):  # if the front has not read all of it
            await reader.read()
    writer.close()
    with suppress(ConnectionResetError):
        await writer.wait_closed()
    await (await psycopg.AsyncConnection.connect(connection["uri"])).close()


def _startup(user: str) -> bytes:
    """The first message of a client that logs in."""
    message = struct.pack("!I", 196608) + f"user\0{user}\0database\0defaultdb\0\0".encode()
    return struct.pack("!I", 4 + len(message)) + message


def test_what_comes_before_tls_is_refused(connection: JSON) -> None:
    """Otherwise somebody on the way could send the first messages of a session, as in CVE-2021-23214."""
    with socket.create_connection(("127.0.0.1", connection["port"]), timeout=30) as client:
        client.sendall(_SSL_REQUEST + _startup("doadmin"))
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


def _began(client: socket.socket, authority: str) -> tuple[ssl.SSLObject, ssl.MemoryBIO]:
    """TLS that has begun for the client, and what it has yet to send."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cadata=authority).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    client.sendall(_SSL_REQUEST)
    assert client.recv(1) == b"S"
    while True:
        try:
            tls.do_handshake()
            return tls, outgoing
        except ssl.SSLWantReadError:
            client.sendall(outgoing.read())
            incoming.write(client.recv(65536))


def test_a_client_that_does_not_answer_the_end_of_tls_is_cut_off(connection: JSON, ca_file: Path) -> None:
    with socket.create_connection(("127.0.0.1", connection["port"]), timeout=50) as client:
        tls, outgoing = _began(client, ca_file.read_text())
        tls.write(_startup("doadmin") + b"Q" + struct.pack("!I", 4))  # a query is no password: the server ends it
        client.sendall(outgoing.read())
        while client.recv(65536):
            pass


async def test_a_client_that_leaves_as_tls_begins_is_not_worth_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = SandboxCA({})
    context = server_context(authority.server_certificate("127.0.0.1"), tmp_path)
    front = Front(context, str(tmp_path / "no server"), "127.0.0.1")
    await front.open()

    def leave() -> None:
        with socket.create_connection(("127.0.0.1", front.port), timeout=50) as client:
            tls, outgoing = _began(client, authority.certificate())
            with suppress(ssl.SSLWantReadError):
                tls.unwrap()
            client.sendall(outgoing.read())  # the end of the handshake and the end of TLS arrive together
            while client.recv(65536):
                pass

    await asyncio.to_thread(leave)
    await front.close()
    assert not caplog.messages


async def test_without_tls_for_who_must(sandbox: Sandbox) -> None:
    async with caller(sandbox) as calling:
        cluster = f"/v2/databases/{await sandbox.add_cluster('pg', tls=False)}"
        shown = (await calling("GET", cluster)).json["database"]["connection"]
        assert shown["ssl"] is False
        assert urlsplit(shown["uri"]).query == ""
        assert (await calling("GET", f"{cluster}/ca")).status == 404
    async with await psycopg.AsyncConnection.connect(shown["uri"]) as session:
        assert not session.pgconn.ssl_in_use
    with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
        await psycopg.AsyncConnection.connect(shown["uri"], sslmode="require")


async def test_a_cluster_in_memory_returns_tls_and_a_ca(sandbox: Sandbox) -> None:
    async with caller(sandbox) as calling:
        with_tls = f"/v2/databases/{await sandbox.add_cluster('mysql')}"
        without = f"/v2/databases/{await sandbox.add_cluster('mysql', tls=False)}"
        shown = [(await calling("GET", path)).json["database"]["connection"] for path in (with_tls, without)]
        assert [connection["ssl"] for connection in shown] == [True, False]
        assert [urlsplit(connection["uri"]).query for connection in shown] == ["ssl-mode=REQUIRED", ""]
        assert (await calling("GET", f"{with_tls}/ca")).status == 200
        assert (await calling("GET", f"{without}/ca")).status == 404


class TestByDSN:
    async def test_the_api_returns_the_tls_of_a_postgresql_as_it_is(self, tmp_path: Path) -> None:
        authority = SandboxCA({})
        for server in (EmbeddedPostgres(authority), EmbeddedPostgres()):
            await server.start()
            try:
                dsn = f"postgresql://postgres:{server.password}@127.0.0.1:{server.port}/postgres"
                ca_file = written(tmp_path / "ca.pem", authority.certificate())
                async with Sandbox(windows=[]) as sandbox, caller(sandbox) as calling:
                    cluster = f"/v2/databases/{await sandbox.add_cluster('pg', dsn=dsn)}"
                    shown = (await calling("GET", cluster)).json["database"]["connection"]
                    assert shown["ssl"] is (server.authority is not None)
                    unknown = await calling("GET", f"{cluster}/ca")
                    assert unknown.status == 404
                    assert ("to the DSN of the server" in unknown.json["message"]) is shown["ssl"]
                    if shown["ssl"]:
                        verified = f"{dsn}?sslmode=verify-full&sslrootcert={ca_file}"
                        cluster = f"/v2/databases/{await sandbox.add_cluster('pg', dsn=verified)}"
                        answer = await calling("GET", f"{cluster}/ca")
                        assert base64.b64decode(answer.json["ca"]["certificate"]).decode() == authority.certificate()
            finally:
                await server.stop()

    async def test_tls_is_for_the_server_to_say(self, sandbox: Sandbox) -> None:
        with pytest.raises(ValueError, match="the server of the DSN decides"):
            await sandbox.add_cluster("pg", dsn="postgresql://postgres@127.0.0.1:1/postgres", tls=False)

    async def test_the_api_returns_the_tls_of_a_mysql_as_it_is(
        self, sandbox: Sandbox, mysql_dsn: str, tmp_path: Path
    ) -> None:
        async with caller(sandbox) as calling:
            cluster = f"/v2/databases/{await sandbox.add_cluster('mysql', dsn=mysql_dsn)}"
            shown = (await calling("GET", cluster)).json["database"]["connection"]
            answer = await calling("GET", f"{cluster}/ca")
            ca_file = written(tmp_path / "ca.pem", base64.b64decode(answer.json["ca"]["certificate"]).decode())
        assert shown["ssl"] is True
        assert urlsplit(shown["uri"]).query == "ssl-mode=REQUIRED"
        login = {"host": shown["host"], "port": shown["port"], "user": shown["user"], "password": shown["password"]}
        with pymysql.connect(**login, ssl_ca=str(ca_file), ssl_verify_identity=True) as session:
            session.ping()
        wrong = written(tmp_path / "wrong.pem", SandboxCA({}).certificate())
        with pytest.raises(pymysql.OperationalError, match="certificate verify failed"):
            pymysql.connect(**login, ssl_ca=str(wrong), ssl_verify_identity=True)
        async with Sandbox() as other:
            with pytest.raises(RuntimeError, match=r"cannot be used: .*certificate verify failed"):
                await other.add_cluster("mysql", dsn=f"{mysql_dsn.partition('?')[0]}?ssl-ca={wrong}")
            with pytest.raises(RuntimeError, match=r"cannot be used: .*No such file"):
                await other.add_cluster("mysql", dsn=f"{mysql_dsn.partition('?')[0]}?ssl-ca={tmp_path}/missing.pem")

    @pytest.mark.parametrize(
        ("query", "shown"), [("", (True, "ssl-mode=REQUIRED")), ("?ssl-mode=DISABLED", (False, ""))]
    )
    async def test_a_mysql_whose_ca_nobody_names(
        self, sandbox: Sandbox, mysql_dsn: str, query: str, shown: tuple[bool, str]
    ) -> None:
        async with caller(sandbox) as calling:
            cluster = f"/v2/databases/{await sandbox.add_cluster('mysql', dsn=mysql_dsn.partition('?')[0] + query)}"
            connection = (await calling("GET", cluster)).json["database"]["connection"]
            assert (connection["ssl"], urlsplit(connection["uri"]).query) == shown
            assert (await calling("GET", f"{cluster}/ca")).status == 404
