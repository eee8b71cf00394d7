"""What is read of a connection string of PostgreSQL, and when it is refused."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants._libpq import one_line, options_of


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:hunter2@db.example:5433/alpha?sslmode=require",
        "postgresql://a:h%40u%2Fn@db.example/x",
        "host=db.example password=hunt@er/2",
        "postgresql://me:hunter2@db.example/a%40b",
        "host=@socket",  # an abstract socket
        "host=@socket dbname=a@b password=postgres://",
        "postgresql://%40socket/x",
        "postgresql:///x?host=@socket",
        "postgresql://me:h?r@db.example/x",
        "postgresql://h/a%40b?password=a@b",
        "host=db.example,/run/postgresql,@socket",
        "host=a,b port=5432,5433",
        "dbname=alpha",
        "",
    ],
)
def test_connection_string_is_read_as_by_libpq(dsn: str) -> None:
    assert options_of(dsn, "admin") == conninfo_to_dict(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:hun@ter2@db.example/alpha",  # the host would be ter2@db.example
        "postgresql://me:hun/ter2@db.example/alpha",  # the port would be hun
        "postgresql://db.example:hunter2/alpha",
        "postgresql://me:hun@@ter2@db.example/alpha",  # an abstract socket
        "postgresql://me:hun@ter2,@db.example/alpha",  # the second of two hosts
        "postgresql://me:hun@ter2:1,@db.example/alpha",
        "postgresql://me:hun@ter/2@db.example/alpha",  # the database would be 2@db.example/alpha
        "postgresql://me:hun@ter/%32@db.example/alpha",  # the same, with a part that libpq decodes
        "postgresql://me:hun@@ter%32@db.example/alpha",
        "postgres://me:5432/hunter2@db.example/alpha",  # the host would be me
        "postgresql://me:hunter2@[db.example/alpha",
        "mysql://me:hunter2@db.example/alpha",
        "hunter2",
        "postgresql://me:hunter2@a..b/alpha",
        f"postgresql://me:hunter2@{'a' * 70}.example/alpha",
        "host=db.example,a..b password=hunter2",
        "host=db\0.example password=hunter2",
    ],
)
def test_invalid_connection_string_is_refused(dsn: str) -> None:
    with pytest.raises(InvalidArgumentError, match="admin is not a connection string of PostgreSQL") as refused:
        options_of(dsn, "admin")
    assert refused.value.__context__ is None


def test_libpq_message_becomes_one_line() -> None:
    refused = psycopg.OperationalError("connection refused\n\tIs the server running?\n")
    assert one_line(refused) == "connection refused Is the server running?"
    assert one_line(psycopg.OperationalError()) == "OperationalError"
