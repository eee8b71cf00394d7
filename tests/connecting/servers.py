"""PostgreSQL and MySQL with TLS, with the right certificate authority and a wrong one."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import trustme
from attrs import frozen
from psycopg.conninfo import make_conninfo

from aiodbclient import Connection, Engine, User

from ..mysql import SERVERS, command
from ..ports import free_port
from ..requirements import NO_MYSQL, no_server
from ..tenants.servers import as_a_server, for_a_server

ALICE = User("alice", password="p@ss:word/%")
START_SECONDS = 60.0


@frozen
class TLSServer:
    """A server with TLS where ALICE may log in, and the files of its CA and of another one."""

    connection: Connection
    ca_file: str
    wrong_ca_file: str


@contextmanager
def _folder() -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with certificates, and the process options to run as its owner: PostgreSQL refuses root."""
    with tempfile.TemporaryDirectory(prefix="aiodbclient-tls-") as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        trustme.CA().cert_pem.write_to_path(str(folder / "wrong.pem"))
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(str(folder / "cert.pem"), append=True)
        (folder / "key.pem").chmod(0o600)
        for path in (folder, *folder.iterdir()):
            for_a_server(path)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process: dict[str, Any] = {"cwd": folder} | quiet | as_a_server()
        yield folder, process


@contextmanager
def postgresql() -> Iterator[TLSServer]:
    """Debian's PostgreSQL: the one that comes as a wheel has no TLS."""
    # The client's package has a folder there too.
    servers = [initdb.parent for initdb in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    programs = sorted(servers, key=lambda bin: int(bin.parent.name))
    if not programs:
        no_server("postgresql", "no PostgreSQL with TLS is installed (apt-get install postgresql-17)")
    with _folder() as (folder, process):
        (folder / "password").write_text(f"{ALICE.password}\n")
        for_a_server(folder / "password")
        initdb = ["--auth=scram-sha-256", f"--username={ALICE.name}", "--pwfile=password", "--no-sync"]
        subprocess.run([programs[-1] / "initdb", "--pgdata=data", *initdb], check=True, **process)
        hba = "hostssl all all 127.0.0.1/32 scram-sha-256\n"  # all connections need TLS
        (folder / "data" / "pg_hba.conf").write_text(hba)
        port = free_port()
        settings = {
            "ssl": "on",
            "ssl_cert_file": folder / "cert.pem",
            "ssl_key_file": folder / "key.pem",
            "listen_addresses": "localhost",
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        running = subprocess.Popen([programs[-1] / "postgres", "-Ddata", f"-p{port}", *options], **process)
        login = make_conninfo(host="localhost", port=port, user=ALICE.name, password=ALICE.password, dbname="postgres")
        with _until_ended(running, psycopg.OperationalError, lambda: psycopg.connect(login)):
            yield _server(folder, Engine.PG, port, "postgres")


@contextmanager
def mysql() -> Iterator[TLSServer]:
    if "mysql" not in SERVERS:
        no_server("mysql", NO_MYSQL)
    with _folder() as (folder, _):
        port = free_port()
        (folder / "init.sql").write_text(
            "CREATE DATABASE alpha;\n"
            "CREATE USER alice@localhost IDENTIFIED BY 'p@ss:word/%' REQUIRE SSL;\n"
            "GRANT ALL ON alpha.* TO alice@localhost;\n"
        )
        running = subprocess.Popen(
            command(folder, port, f"--init-file={folder / 'init.sql'}"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        login: dict[str, Any] = {"host": "localhost", "port": port, "user": ALICE.name, "password": ALICE.password}
        tls = {"ca": str(folder / "ca.pem")}
        with _until_ended(running, pymysql.OperationalError, lambda: pymysql.connect(**login, ssl=tls)):
            yield _server(folder, Engine.MYSQL, port, "alpha")


def _server(folder: Path, engine: Engine, port: int, database: str) -> TLSServer:
    connection = Connection(host="localhost", port=port, ssl=True, engine=engine, database=database)
    return TLSServer(connection, str(folder / "ca.pem"), str(folder / "wrong.pem"))


@contextmanager
def _until_ended(running: subprocess.Popen[bytes], error: type[Exception], connect: Any) -> Iterator[None]:
    """Wait until ``connect`` no longer raises ``error``, and end ``running`` afterwards."""
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                connect().close()
                break
            except error:
                if time.monotonic() > deadline or running.poll() is not None:
                    raise
                time.sleep(0.05)
        yield
    finally:
        running.terminate()
        running.wait()
