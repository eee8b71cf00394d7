"""The URIs of uri_for for engines that are not started here, parsed by their drivers."""

from __future__ import annotations

from pathlib import Path

import aiokafka.conn
import opensearchpy
import pytest
import trustme
from pymongo import uri_parser

from aiodbclient import Connection, Engine, User

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


def test_kafka() -> None:
    [(host, port, _)] = aiokafka.conn.collect_hosts(connection(Engine.KAFKA).uri_for(ALICE))

    assert (host, port) == ("db.example", 25060)


def test_opensearch(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    uri = connection(Engine.OPENSEARCH).uri_for(ALICE, ca_file=tmp_path / "ca.pem")

    client = opensearchpy.OpenSearch(uri, ca_certs=str(tmp_path / "ca.pem"))

    assert client.transport.hosts == [
        {"host": "db.example", "port": 25060, "use_ssl": True, "http_auth": f"{ALICE.name}:{ALICE.password}"}
    ]
