"""PostgreSQL and MySQL with TLS behind clusters, with the right certificate authority and a wrong one."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymysql
import pytest
import trustme
from attrs import evolve, frozen

from aiodbclient import Connection, DatabaseClient, User
from aiodbclient.sandbox import Sandbox

from ..mysql import SERVERS, running
from ..requirements import NO_MYSQL, no_server, postgres_with_tls

PASSWORD = "p@ss:word/%"  # set by hand: the API's own need no quotes


@frozen
class TLSServer:
    """A server where ``user`` may log in, the files of its CA and of another one, and a host that it is not."""

    user: User
    connection: Connection
    ca_file: str
    wrong_ca_file: str
    wrong_host: str


async def _served(sandbox: Sandbox, cluster_id: str, folder: Path, wrong_host: str) -> TLSServer:
    trustme.CA().cert_pem.write_to_path(str(folder / "wrong.pem"))
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as client:
        cluster = client.cluster(cluster_id)
        (folder / "of-the-api.pem").write_text(await cluster.ca())
        user = evolve(await cluster.users.create("alice"), password=PASSWORD)
        connection = (await cluster.info()).connection
    return TLSServer(user, connection, f"{folder}/of-the-api.pem", f"{folder}/wrong.pem", wrong_host)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[TLSServer]:
    with tempfile.TemporaryDirectory() as folder, Sandbox(windows=[], bind="0.0.0.0") as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("pg", server=postgres_with_tls()))
        served = asyncio.run(_served(sandbox, cluster, Path(folder), "127.0.0.2"))
        with psycopg.connect(served.connection.uri or "", autocommit=True) as admin:
            admin.execute(f"ALTER ROLE alice PASSWORD '{PASSWORD}'".encode())
        yield served


@pytest.fixture(scope="session")
def mysql() -> Iterator[TLSServer]:
    if "mysql" not in SERVERS:
        no_server("mysql", NO_MYSQL)
    with (
        tempfile.TemporaryDirectory() as folder,
        running("mysql", Path(folder)) as dsn,
        Sandbox(windows=[]) as sandbox,
    ):
        cluster = asyncio.run(sandbox.add_cluster("mysql", server=dsn))
        served = asyncio.run(_served(sandbox, cluster, Path(folder), "localhost"))
        where = served.connection
        with pymysql.connect(
            host=where.host, port=where.port or 0, user=where.user, password=where.password or ""
        ) as admin:
            admin.cursor().execute("ALTER USER alice IDENTIFIED BY %s", [PASSWORD])
        yield served
