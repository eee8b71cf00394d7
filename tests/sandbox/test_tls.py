"""TLS of a PostgreSQL that the sandbox starts from a folder of programs, and what the API says of other servers."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest
import trustme

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox import _postgres as postgres_backend
from aiodbclient.sandbox._embedded import EmbeddedPostgres

from ..requirements import postgres_with_tls
from .conftest import caller

pytestmark = pytest.mark.usefixtures("own_pool")


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


async def test_unusable_server_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_backend, "SUPERUSER", "somebody")
    async with Sandbox() as sandbox:
        with pytest.raises(RuntimeError, match=r"cannot be used: .*password authentication failed"):
            await sandbox.add_cluster("pg", backend="postgres")
        assert not sandbox.clusters


async def test_server_with_tls_refuses_others(tmp_path: Path) -> None:
    """The cluster's CA verifies the server by each name of this machine, and no session is without TLS."""
    async with Sandbox(windows=[], bind="0.0.0.0") as sandbox:
        cluster = await sandbox.add_cluster("pg", server=postgres_with_tls())
        async with caller(sandbox, f"/v2/databases/{cluster}") as call:
            shown = (await call("GET", "")).json["database"]["connection"]
            answer = await call("GET", "/ca")
        assert (shown["ssl"], urlsplit(shown["uri"]).query) == (True, "sslmode=require")
        pem = base64.b64decode(answer.json["ca"]["certificate"], validate=True).decode()
        ca_file = str(written(tmp_path / "ca.pem", pem))
        for host in ("127.0.0.1", "localhost", socket.gethostname()):
            async with await psycopg.AsyncConnection.connect(
                shown["uri"], sslmode="verify-full", sslrootcert=ca_file, host=host, hostaddr="127.0.0.1"
            ) as session:
                assert session.pgconn.ssl_in_use
        refused = r'no pg_hba\.conf entry .* user "doadmin", database "defaultdb", no encryption'
        with pytest.raises(psycopg.OperationalError, match=refused):
            await psycopg.AsyncConnection.connect(shown["uri"], sslmode="disable")


async def test_embedded_has_no_tls(sandbox: Sandbox, tmp_path: Path) -> None:
    """Its URI says so to the driver, with a CA file too."""
    cluster_id = await sandbox.add_cluster("pg", backend="postgres")
    async with caller(sandbox, f"/v2/databases/{cluster_id}") as calling:
        shown = (await calling("GET", "")).json["database"]["connection"]
        assert (shown["ssl"], urlsplit(shown["uri"]).query) == (False, "sslmode=disable")
        assert (await calling("GET", "/ca")).status == 200  # as on the provider, so that one program runs on both
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as client:
        cluster = client.cluster(cluster_id)
        server, user = (await client.clusters.get(cluster_id)).connection, await cluster.users.create("app")
    assert server is not None
    for ca_file in (None, tmp_path / "ca.pem"):
        uri = server.uri_for(user, ca_file=ca_file)
        assert urlsplit(uri).query == "sslmode=disable"
        async with await psycopg.AsyncConnection.connect(uri) as session:
            assert not session.pgconn.ssl_in_use
    with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
        await psycopg.AsyncConnection.connect(shown["uri"], sslmode="require")


async def test_memory_returns_tls_and_ca(sandbox: Sandbox) -> None:
    cluster = f"/v2/databases/{await sandbox.add_cluster('mysql')}"
    async with caller(sandbox, cluster) as calling:
        shown = (await calling("GET", "")).json["database"]["connection"]
        assert (shown["ssl"], urlsplit(shown["uri"]).query) == (True, "ssl-mode=REQUIRED")
        assert (await calling("GET", "/ca")).status == 200


class TestByDSN:
    @pytest.mark.parametrize("tls", [True, False])
    async def test_api_returns_tls_of_postgresql(self, tmp_path: Path, tls: bool) -> None:
        server = EmbeddedPostgres(programs=postgres_with_tls() if tls else None)
        await server.start()
        try:
            dsn = f"postgresql://postgres:{server.password}@127.0.0.1:{server.port}/postgres"
            async with Sandbox(windows=[]) as sandbox, caller(sandbox) as calling:
                cluster = f"/v2/databases/{await sandbox.add_cluster('pg', server=dsn)}"
                shown = (await calling("GET", cluster)).json["database"]["connection"]
                assert shown["ssl"] is tls
                unknown = await calling("GET", f"{cluster}/ca")
                assert unknown.status == 404
                assert ("to the DSN of the server" in unknown.json["message"]) is tls
                if tls:
                    ca_file = written(tmp_path / "ca.pem", server.ca or "")
                    verified = f"{dsn}?sslmode=verify-full&sslrootcert={ca_file}"
                    cluster = f"/v2/databases/{await sandbox.add_cluster('pg', server=verified)}"
                    answer = await calling("GET", f"{cluster}/ca")
                    assert base64.b64decode(answer.json["ca"]["certificate"]).decode() == server.ca
        finally:
            await server.stop()

    async def test_api_returns_tls_of_mysql(self, sandbox: Sandbox, mysql_dsn: str, tmp_path: Path) -> None:
        async with caller(sandbox) as calling:
            cluster = f"/v2/databases/{await sandbox.add_cluster('mysql', server=mysql_dsn)}"
            shown = (await calling("GET", cluster)).json["database"]["connection"]
            answer = await calling("GET", f"{cluster}/ca")
            ca_file = written(tmp_path / "ca.pem", base64.b64decode(answer.json["ca"]["certificate"]).decode())
        assert shown["ssl"] is True
        assert urlsplit(shown["uri"]).query == "ssl-mode=REQUIRED"
        login = {"host": shown["host"], "port": shown["port"], "user": shown["user"], "password": shown["password"]}
        with pymysql.connect(**login, ssl_ca=str(ca_file), ssl_verify_identity=True) as session:
            session.ping()
        wrong = written(tmp_path / "wrong.pem", trustme.CA().cert_pem.bytes().decode())
        with pytest.raises(pymysql.OperationalError, match="certificate verify failed"):
            pymysql.connect(**login, ssl_ca=str(wrong), ssl_verify_identity=True)
        async with Sandbox() as other:
            with pytest.raises(RuntimeError, match=r"cannot be used: .*certificate verify failed"):
                await other.add_cluster("mysql", server=f"{mysql_dsn.partition('?')[0]}?ssl-ca={wrong}")
            with pytest.raises(RuntimeError, match=r"cannot be used: .*No such file"):
                await other.add_cluster("mysql", server=f"{mysql_dsn.partition('?')[0]}?ssl-ca={tmp_path}/missing.pem")

    @pytest.mark.parametrize(
        ("query", "shown"), [("", (True, "ssl-mode=REQUIRED")), ("?ssl-mode=DISABLED", (False, "ssl-mode=DISABLED"))]
    )
    async def test_a_mysql_whose_ca_nobody_names(
        self, sandbox: Sandbox, mysql_dsn: str, query: str, shown: tuple[bool, str]
    ) -> None:
        async with caller(sandbox) as calling:
            cluster = f"/v2/databases/{await sandbox.add_cluster('mysql', server=mysql_dsn.partition('?')[0] + query)}"
            connection = (await calling("GET", cluster)).json["database"]["connection"]
            assert (connection["ssl"], urlsplit(connection["uri"]).query) == shown
            assert (await calling("GET", f"{cluster}/ca")).status == 404
