"""The DSN of a user, by engine, with any password."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Capabilities, Connection, Engine, User, errors
from aiodbclient.engines import CAPABILITIES

ALICE = User("alice", password="p@ss/w:rd%")
QUOTED = "alice:p%40ss%2Fw%3Ard%25"


def connection(engine: str | None, **options: Any) -> Connection:
    known: dict[str, Any] = {"host": "db.example", "port": 25060, "ssl": True, "engine": engine}
    return Connection(**known | options)


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


@pytest.mark.parametrize("engine", [*(engine for engine, can in CAPABILITIES.items() if can.users)])
def test_every_engine_with_users_has_one(engine: str) -> None:
    assert "db.example:25060" in connection(engine).uri_for(ALICE, database="alpha")


def test_new_engine_has_no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiodbclient._dsn.CAPABILITIES", {**CAPABILITIES, "cockroach": Capabilities()})

    with pytest.raises(errors.InvalidArgumentError, match="no DSN is known for the engine 'cockroach'"):
        connection("cockroach").uri_for(ALICE, database="alpha")


VERIFIED = [
    (Engine.PG, "?sslmode=verify-full&sslrootcert=/my%20ca/%2B.pem"),
    (Engine.ADVANCED_PG, "?sslmode=verify-full&sslrootcert=/my%20ca/%2B.pem"),
    (Engine.MYSQL, "?ssl-mode=VERIFY_IDENTITY&ssl-ca=/my%20ca/%2B.pem"),
    (Engine.ADVANCED_MYSQL, "?ssl-mode=VERIFY_IDENTITY&ssl-ca=/my%20ca/%2B.pem"),
    (Engine.MONGODB, "?authSource=admin&tls=true&tlsCAFile=/my%20ca/%2B.pem"),
]


@pytest.mark.parametrize(("engine", "query"), VERIFIED)
@pytest.mark.parametrize("ssl", [True, None])
def test_uri_with_ca_file_verifies(engine: Engine, query: str, ssl: bool | None) -> None:
    where = connection(engine, ssl=ssl)

    for file in ("/my ca/+.pem", Path("/my ca/+.pem")):
        assert where.uri_for(ALICE, database="alpha", ca_file=file).endswith(f"@db.example:25060/alpha{query}")


@pytest.mark.parametrize("engine", [Engine.KAFKA, Engine.OPENSEARCH])
def test_an_address_says_nothing_of_the_ca(engine: Engine) -> None:
    assert connection(engine).uri_for(ALICE, ca_file="ca.pem") == connection(engine).uri_for(ALICE)


@pytest.mark.parametrize("ca_file", ["", b"ca.pem", 5, "a\0b"])
def test_a_ca_file_that_cannot_be_is_refused(ca_file: Any) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="ca_file"):
        connection(Engine.PG).uri_for(ALICE, ca_file=ca_file)


@pytest.mark.parametrize(("engine", "query"), [(Engine.PG, "sslmode=disable"), (Engine.MYSQL, "ssl-mode=DISABLED")])
def test_uri_without_tls_ignores_ca_file(engine: Engine, query: str) -> None:
    assert connection(engine, ssl=False).uri_for(ALICE, "a", ca_file="ca.pem").endswith(f"@db.example:25060/a?{query}")


@pytest.mark.parametrize("user", ["alice", None, {"name": "alice"}])
def test_arguments_that_are_not_users_are_refused(user: Any) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="user must be a User"):
        connection(Engine.PG).uri_for(user)


@pytest.mark.parametrize("database", ["", 5])
def test_a_database_that_cannot_be_is_refused(database: Any) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="database"):
        connection(Engine.PG).uri_for(ALICE, database)


def test_mongodb_verifies_by_the_providers_own_uri() -> None:
    own = "mongodb+srv://doadmin:secret@main-1.mongo.example/admin?authSource=admin&replicaSet=main"
    where = connection(Engine.MONGODB, uri=own)

    assert where.uri_for(ALICE, ca_file="ca.pem") == (
        f"mongodb+srv://{QUOTED}@main-1.mongo.example/admin?authSource=admin&replicaSet=main&tlsCAFile=ca.pem"
    )
    where.uri = own.replace("+srv", "")
    assert where.uri_for(ALICE, ca_file="ca.pem").endswith(
        "?authSource=admin&replicaSet=main&tls=true&tlsCAFile=ca.pem"
    )


def test_protocol_shows_srv_name() -> None:
    where = connection(Engine.MONGODB, protocol="mongodb+srv", port=27017)

    assert where.uri_for(ALICE, "alpha") == f"mongodb+srv://{QUOTED}@db.example/alpha?authSource=admin&tls=true"


def test_mongodb_follows_the_providers_own_uri() -> None:
    own = "mongodb+srv://doadmin:secret@main-1.mongo.example/admin?tls=true&authSource=admin&replicaSet=main"

    uri = connection(Engine.MONGODB, uri=own).uri_for(ALICE, "alpha")

    assert uri == f"mongodb+srv://{QUOTED}@main-1.mongo.example/alpha?tls=true&authSource=admin&replicaSet=main"


def test_own_uri_with_at_sign_in_password() -> None:
    own = "mongodb+srv://doadmin:se@cret@main-1.mongo.example/?replicaSet=main"

    uri = connection(Engine.MONGODB, uri=own).uri_for(ALICE)

    assert uri == f"mongodb+srv://{QUOTED}@main-1.mongo.example/admin?replicaSet=main"


@pytest.mark.parametrize(
    ("options", "address"),
    [({}, "mongodb://{}@db.example:25060"), ({"protocol": "mongodb+srv"}, "mongodb+srv://{}@db.example")],
)
@pytest.mark.parametrize("own", [None, "", "http://[", "rubbish"])
def test_mongodb_login_uses_admin(options: dict[str, Any], address: str, own: str | None) -> None:
    uri = connection(Engine.MONGODB, uri=own, **options).uri_for(ALICE, "admin" if own == "rubbish" else None)

    assert uri == f"{address.format(QUOTED)}/admin?authSource=admin&tls=true"


@pytest.mark.parametrize("own", [None, "", "http://["])
def test_uri_without_database(own: str | None) -> None:
    uri = connection(Engine.PG, uri=own).uri_for(ALICE)

    assert uri == f"postgresql://{QUOTED}@db.example:25060/?sslmode=require"


@pytest.mark.parametrize(
    ("engine", "uri"),
    [
        (Engine.PG, f"postgresql://{QUOTED}@[::1]:25060/a%20b%2Fc?sslmode=disable"),
        (Engine.MYSQL, f"mysql://{QUOTED}@[::1]:25060/a%20b%2Fc?ssl-mode=DISABLED"),
        (Engine.MONGODB, f"mongodb://{QUOTED}@[::1]:25060/a%20b%2Fc?authSource=admin"),
        (Engine.OPENSEARCH, f"http://{QUOTED}@[::1]:25060"),
        (Engine.KAFKA, "[::1]:25060"),
    ],
)
def test_without_tls_none_is_asked_for(engine: Engine, uri: str) -> None:
    assert connection(engine, ssl=False, host="::1").uri_for(ALICE, "a b/c") == uri


@pytest.mark.parametrize(
    ("engine", "query"),
    [(Engine.PG, "sslmode=require"), (Engine.MYSQL, "ssl-mode=REQUIRED"), (Engine.MONGODB, "tls=true")],
)
def test_uri_unknown_tls_is_required(engine: Engine, query: str) -> None:
    """The API may leave ``ssl`` out. libpq's default would fall back to no TLS."""
    assert query in connection(engine, ssl=None).uri_for(ALICE, "alpha").partition("?")[2].split("&")


@pytest.mark.parametrize(("scheme", "ssl"), [("https", True), ("https", None), ("http", False)])
def test_the_schema_registry_of_kafka_has_a_url(scheme: str, ssl: bool | None) -> None:
    where = connection(Engine.KAFKA, uri=f"{scheme}://doadmin:secret@db.example:25065", port=25065, ssl=ssl)

    assert where.uri_for(ALICE) == f"{scheme}://{QUOTED}@db.example:25065"


def test_a_name_with_a_slash_stays_one_name() -> None:
    uri = connection(Engine.PG).uri_for(User("a/b@c", password="/"), "d/e")

    assert uri == "postgresql://a%2Fb%40c:%2F@db.example:25060/d%2Fe?sslmode=require"


def test_if_tls_is_unknown_opensearch_uses_https() -> None:
    assert connection(Engine.OPENSEARCH, ssl=None).uri_for(ALICE) == f"https://{QUOTED}@db.example:25060"


def test_the_default_database_is_the_connections() -> None:
    own = "postgres://doadmin:secret@db.example:25060/defaultdb?sslmode=require"

    assert "/defaultdb?" in connection(Engine.PG, uri=own).uri_for(ALICE)
    assert "/other?" in connection(Engine.PG, uri=own, database="other").uri_for(ALICE)


@pytest.mark.parametrize(
    ("case", "error_type", "complaint"),
    [
        ((connection(Engine.PG), User("alice")), errors.InvalidArgumentError, "password of user 'alice'"),
        ((connection(Engine.PG, host=None), ALICE), errors.InvalidArgumentError, "no host"),
        (
            (connection(Engine.PG, host="a..b"), ALICE),
            errors.InvalidArgumentError,
            "host of this connection is invalid",
        ),
        ((connection(Engine.MYSQL, host="a" * 70), ALICE), errors.InvalidArgumentError, "host .* is invalid"),
        ((connection(Engine.PG, host="a\0b"), ALICE), errors.InvalidArgumentError, "host .* is invalid"),
        *(  # each begins or ends something in a URI: these turn TLS off
            ((connection(Engine.PG, host=f"db.example{end}"), ALICE), errors.InvalidArgumentError, "host .* is invalid")
            for end in ("/x?sslmode=disable&a=", "?sslmode=disable&x=", "?host=h", "&a", "=a", "#", "%3f", ",other")
        ),
        ((connection("cockroach"), ALICE), errors.InvalidArgumentError, "cockroach"),
        ((connection(None), ALICE), errors.InvalidArgumentError, "engine"),
        ((connection(Engine.REDIS), ALICE), errors.UnsupportedOperationError, "redis"),
    ],
)
def test_uri_error_says_why(case: tuple[Connection, User], error_type: type[Exception], complaint: str) -> None:
    where, user = case

    with pytest.raises(error_type, match=complaint):
        where.uri_for(user)


def test_a_cache_has_no_users_to_connect_as() -> None:
    with pytest.raises(errors.UnsupportedOperationError) as refused:
        connection(Engine.VALKEY).uri_for(ALICE)

    assert (refused.value.engine, refused.value.operation) == (Engine.VALKEY, "uri_for")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_password_survives(password: str) -> None:
    uri = connection(Engine.PG).uri_for(User(password, password=password), password)
    parts = urlsplit(uri)

    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (password, password)
    assert unquote(parts.path) == f"/{password}"
    assert (parts.hostname, parts.port) == ("db.example", 25060)
