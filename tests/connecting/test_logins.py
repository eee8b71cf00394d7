"""With the URIs of uri_for, drivers connect to the right server and refuse a wrong one."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import asyncpg
import opensearchpy
import psycopg
import pymysql
import pytest
import trustme
from attrs import evolve
from pymongo import uri_parser

from aiodbclient import Connection, Engine, User

from .conftest import TLSServer

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def with_the_wrong_ca(server: TLSServer) -> TLSServer:
    return evolve(server, ca_file=server.wrong_ca_file)


def with_the_wrong_host(server: TLSServer) -> TLSServer:
    return evolve(server, connection=evolve(server.connection, host=server.wrong_host))


def uri(server: TLSServer) -> str:
    return server.connection.uri_for(server.user, ca_file=server.ca_file)


async def by_psycopg(server: TLSServer) -> None:
    async with await psycopg.AsyncConnection.connect(uri(server)) as connection:
        cursor = await connection.execute(ENCRYPTED)
        assert await cursor.fetchone() == (True,)


async def by_asyncpg(server: TLSServer) -> None:
    connection = await asyncpg.connect(uri(server))
    try:
        assert await connection.fetchval(ENCRYPTED)
    finally:
        await connection.close()


@pytest.mark.parametrize("log_in", [by_psycopg, by_asyncpg])
async def test_a_driver_of_postgresql_verifies_the_server(postgresql: TLSServer, log_in: Any) -> None:
    await log_in(postgresql)

    for server in (with_the_wrong_ca(postgresql), with_the_wrong_host(postgresql)):
        with pytest.raises((ssl.SSLCertVerificationError, psycopg.OperationalError), match="certificate"):
            await log_in(server)


async def test_a_driver_of_mysql_verifies_the_server(mysql: TLSServer) -> None:
    def log_in(server: TLSServer) -> None:
        where, context = server.connection, ssl.create_default_context(cafile=server.ca_file)
        login: dict[str, Any] = {
            "user": server.user.name,
            "password": server.user.password or "",
            "database": where.database,
        }
        pymysql.connect(host=where.host, port=where.port or 0, **login, ssl=context).close()

    log_in(mysql)

    for server in (with_the_wrong_ca(mysql), with_the_wrong_host(mysql)):
        with pytest.raises(pymysql.OperationalError, match=r"(?i)certificate"):
            log_in(server)


ALICE = User("alice@example", password="p@ss:w/rd%+ ?")


def connection(engine: Engine, uri: str | None = None) -> Connection:
    return Connection(host="db.example", port=25060, ssl=True, engine=engine, uri=uri)


@pytest.mark.parametrize("own", [None, "mongodb://doadmin:x@db.example:25060/admin?tls=true&authSource=admin"])
def test_mongodb(tmp_path: Path, own: str | None) -> None:
    ca_file = tmp_path / "my ca+%.pem"
    ca_file.touch()

    read = uri_parser.parse_uri(connection(Engine.MONGODB, own).uri_for(ALICE, "alpha", ca_file=ca_file))

    assert (read["username"], read["password"], read["database"]) == (ALICE.name, ALICE.password, "alpha")
    assert read["nodelist"] == [("db.example", 25060)]
    options = {name.lower(): value for name, value in read["options"].items()}
    assert options == {"tls": True, "tlscafile": str(ca_file), "authsource": "admin"}


def test_opensearch(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    uri = connection(Engine.OPENSEARCH).uri_for(ALICE, ca_file=tmp_path / "ca.pem")

    client = opensearchpy.OpenSearch(uri, ca_certs=str(tmp_path / "ca.pem"))

    assert client.transport.hosts == [
        {"host": "db.example", "port": 25060, "use_ssl": True, "http_auth": f"{ALICE.name}:{ALICE.password}"}
    ]
