"""The DSN of a user, by engine, with any password."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Connection, Engine, User, errors

ALICE = User("alice", password="p@ss/w:rd%")
QUOTED = "alice:p%40ss%2Fw%3Ard%25"


def connection(engine: str | None, **options: Any) -> Connection:
    return Connection(**{"host": "db.example", "port": 25060, "ssl": True, "engine": engine} | options)


@pytest.mark.parametrize(
    ("engine", "uri"),
    [
        (Engine.PG, f"postgresql://{QUOTED}@db.example:25060/alpha?sslmode=require"),
        (Engine.ADVANCED_PG, f"postgresql://{QUOTED}@db.example:25060/alpha?sslmode=require"),
        (Engine.MYSQL, f"mysql://{QUOTED}@db.example:25060/alpha?ssl-mode=REQUIRED"),
        (Engine.ADVANCED_MYSQL, f"mysql://{QUOTED}@db.example:25060/alpha?ssl-mode=REQUIRED"),
        (Engine.MONGODB, f"mongodb://{QUOTED}@db.example:25060/alpha?authSource=admin&tls=true"),
        (Engine.KAFKA, "db.example:25060"),
        (Engine.OPENSEARCH, f"https://{QUOTED}@db.example:25060"),
    ],
)
def test_each_engine_has_its_form(engine: Engine, uri: str) -> None:
    assert connection(engine).uri_for(ALICE, database="alpha") == uri


def test_mongodb_follows_the_providers_own_uri() -> None:
    own = "mongodb+srv://doadmin:secret@main-1.mongo.example/admin?tls=true&authSource=admin&replicaSet=main"

    uri = connection(Engine.MONGODB, uri=own).uri_for(ALICE, "alpha")

    assert uri == f"mongodb+srv://{QUOTED}@main-1.mongo.example/alpha?tls=true&authSource=admin&replicaSet=main"


def test_without_tls_none_is_asked_for() -> None:
    assert connection(Engine.PG, ssl=False, host="::1").uri_for(ALICE, "a b") == (
        f"postgresql://{QUOTED}@[::1]:25060/a%20b"
    )


def test_the_default_database_is_the_connections() -> None:
    own = "postgres://doadmin:secret@db.example:25060/defaultdb?sslmode=require"

    assert "/defaultdb?" in connection(Engine.PG, uri=own).uri_for(ALICE)
    assert "/other?" in connection(Engine.PG, uri=own, database="other").uri_for(ALICE)


@pytest.mark.parametrize(
    ("case", "error_type", "complaint"),
    [
        ((connection(Engine.PG), User("alice")), errors.InvalidArgumentError, "password of user 'alice'"),
        ((connection(Engine.PG, host=None), ALICE), errors.InvalidArgumentError, "no host"),
        ((connection("cockroach"), ALICE), errors.InvalidArgumentError, "cockroach"),
        ((connection(None), ALICE), errors.InvalidArgumentError, "engine"),
        ((connection(Engine.REDIS), ALICE), errors.UnsupportedOperationError, "redis"),
    ],
)
def test_what_cannot_be_written_says_why(
    case: tuple[Connection, User], error_type: type[Exception], complaint: str
) -> None:
    where, user = case

    with pytest.raises(error_type, match=complaint):
        where.uri_for(user)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_password_survives(password: str) -> None:
    uri = connection(Engine.PG).uri_for(User(password, password=password), password)
    parts = urlsplit(uri)

    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (password, password)
    assert unquote(parts.path) == f"/{password}"
    assert (parts.hostname, parts.port) == ("db.example", 25060)
