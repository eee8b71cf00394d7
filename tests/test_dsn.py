"""The DSN of a user, by engine, with any password."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Connection, Engine, User, errors
from aiodbclient.engines import CAPABILITIES

ALICE = User("alice", password="p@ss/w:rd%")
QUOTED = "alice:p%40ss%2Fw%3Ard%25"


def connection(engine: str | None, **options: Any) -> Connection:
    known: dict[str, Any] = {"host": "db.example", "port": 25060, "ssl": True, "engine": engine}
    return Connection(**known | options)


# Each form, with the query that requires TLS, and the query that verifies the server with a CA.
FORMS = {
    **dict.fromkeys(
        (Engine.PG, Engine.ADVANCED_PG),
        (f"postgresql://{QUOTED}@db.example:25060/alpha", "?sslmode=require", "?sslmode=verify-full&sslrootcert={}"),
    ),
    **dict.fromkeys(
        (Engine.MYSQL, Engine.ADVANCED_MYSQL),
        (f"mysql://{QUOTED}@db.example:25060/alpha", "?ssl-mode=REQUIRED", "?ssl-mode=VERIFY_IDENTITY&ssl-ca={}"),
    ),
    Engine.MONGODB: (
        f"mongodb://{QUOTED}@db.example:25060/alpha",
        "?authSource=admin&tls=true",
        "?authSource=admin&tls=true&tlsCAFile={}",
    ),
    Engine.KAFKA: ("db.example:25060", "", ""),
    Engine.OPENSEARCH: (f"https://{QUOTED}@db.example:25060", "", ""),
}


@pytest.mark.parametrize("engine", [engine for engine, can in CAPABILITIES.items() if can.users])
@pytest.mark.parametrize("ssl", [True, None])
def test_each_engine_has_its_form(engine: Engine, ssl: bool | None) -> None:
    """If the API leaves ``ssl`` out, TLS is required too: libpq's default would fall back to none."""
    where, (form, encrypted, verified) = connection(engine, ssl=ssl), FORMS[engine]

    assert where.uri_for(ALICE, database="alpha") == form + encrypted
    for file in ("/my ca/+.pem", Path("/my ca/+.pem")):
        assert where.uri_for(ALICE, database="alpha", ca_file=file) == form + verified.format("/my%20ca/%2B.pem")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        *(({"user": user}, "user must be a User") for user in ("alice", None, {"name": "alice"})),
        ({"user": User("alice")}, "password of user 'alice'"),
        *(({"database": database}, "database") for database in ("", 5)),
        *(({"ca_file": file}, "ca_file") for file in ("", b"ca.pem", 5, "a\0b")),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=complaint):
        connection(Engine.PG).uri_for(**{"user": ALICE} | arguments)


OWN = "mongodb+srv://doadmin:secret@main-1.mongo.example/admin"


@pytest.mark.parametrize(
    ("options", "arguments", "uri"),
    [
        ({"uri": f"{OWN}?tls=true&replicaSet=main"}, {"database": "a"}, "+srv://{}/a?tls=true&replicaSet=main"),
        ({"uri": f"{OWN}?replicaSet=main"}, {"ca_file": "c"}, "+srv://{}/admin?replicaSet=main&tlsCAFile=c"),
        (
            {"uri": f"{OWN}?replicaSet=main".replace("+srv", "")},
            {"ca_file": "c"},
            "://{}/admin?replicaSet=main&tls=true&tlsCAFile=c",
        ),
        ({"uri": OWN.replace("secret", "se@cret").replace("/admin", "/?a=b")}, {}, "+srv://{}/admin?a=b"),
    ],
    ids=["its query", "an authority", "an authority without srv", "an @ in its password"],
)
def test_mongodb_follows_the_providers_own_uri(options: dict[str, Any], arguments: dict[str, Any], uri: str) -> None:
    login = f"{QUOTED}@main-1.mongo.example"

    assert connection(Engine.MONGODB, **options).uri_for(ALICE, **arguments) == f"mongodb{uri.format(login)}"


@pytest.mark.parametrize(
    ("options", "address"),
    [({}, "mongodb://{}@db.example:25060"), ({"protocol": "mongodb+srv", "port": 1}, "mongodb+srv://{}@db.example")],
)
@pytest.mark.parametrize("own", [None, "", "http://[", "rubbish"])
def test_mongodb_login_uses_admin(options: dict[str, Any], address: str, own: str | None) -> None:
    """The protocol says if the host is a name of SRV records."""
    uri = connection(Engine.MONGODB, uri=own, **options).uri_for(ALICE, "admin" if own == "rubbish" else None)

    assert uri == f"{address.format(QUOTED)}/admin?authSource=admin&tls=true"


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
    """Nor is a certificate authority."""
    for file in (None, "ca.pem"):
        assert connection(engine, ssl=False, host="::1").uri_for(ALICE, "a b/c", ca_file=file) == uri


@pytest.mark.parametrize(("scheme", "ssl"), [("https", True), ("https", None), ("http", False)])
def test_the_schema_registry_of_kafka_has_a_url(scheme: str, ssl: bool | None) -> None:
    where = connection(Engine.KAFKA, uri=f"{scheme}://doadmin:secret@db.example:25065", port=25065, ssl=ssl)

    assert where.uri_for(ALICE) == f"{scheme}://{QUOTED}@db.example:25065"


def test_the_default_database_is_the_connections() -> None:
    own = "postgres://doadmin:secret@db.example:25060/defaultdb?sslmode=require"

    assert "/defaultdb?" in connection(Engine.PG, uri=own).uri_for(ALICE)
    assert "/other?" in connection(Engine.PG, uri=own, database="other").uri_for(ALICE)
    for unusable in (None, "", "http://["):
        uri = connection(Engine.PG, uri=unusable).uri_for(ALICE)
        assert uri == f"postgresql://{QUOTED}@db.example:25060/?sslmode=require"


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        (connection(Engine.PG, host=None), "no host"),
        *(
            (connection(engine, host=host), "host of this connection is invalid")
            for engine, host in ((Engine.PG, "a..b"), (Engine.MYSQL, "a" * 70), (Engine.PG, "a\0b"))
        ),
        *(  # each begins or ends something in a URI: these turn TLS off
            (connection(Engine.PG, host=f"db.example{end}"), "host .* is invalid")
            for end in ("/x?sslmode=disable&a=", "?sslmode=disable&x=", "?host=h", "&a", "=a", "#", "%3f", ",other")
        ),
        (connection("cockroach"), "cockroach"),
        (connection(None), "engine"),
    ],
)
def test_uri_error_says_why(where: Connection, complaint: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=complaint):
        where.uri_for(ALICE)


@pytest.mark.parametrize("engine", [Engine.REDIS, Engine.VALKEY])
def test_a_cache_has_no_users_to_connect_as(engine: Engine) -> None:
    with pytest.raises(errors.UnsupportedOperationError) as refused:
        connection(engine).uri_for(ALICE)

    assert (refused.value.engine, refused.value.operation) == (engine, "uri_for")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_password_survives(password: str) -> None:
    uri = connection(Engine.PG).uri_for(User(password, password=password), password)
    parts = urlsplit(uri)

    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (password, password)
    assert unquote(parts.path) == f"/{password}"
    assert (parts.hostname, parts.port) == ("db.example", 25060)
