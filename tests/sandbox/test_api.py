"""The sandbox's answers: names, errors, and the differences between engines."""

from __future__ import annotations

import asyncio
import io
import itertools
import re
from typing import Any

import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._backends import new_password

from .conftest import Call

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def pg(sandbox: Sandbox) -> str:
    return "/v2/databases/" + await sandbox.add_cluster("pg", "tenants", backend="memory", tags=["production"])


async def test_cluster_returns_connection_users_dbs(call: Call, pg: str) -> None:
    cluster = (await call("GET", pg)).json["database"]
    assert (cluster["name"], cluster["engine"], cluster["status"]) == ("tenants", "pg", "online")
    assert cluster["db_names"] == ["defaultdb"]
    assert [user["name"] for user in cluster["users"]] == ["doadmin"]
    connection = cluster["connection"]
    assert connection["user"] == "doadmin"
    assert connection["password"] in connection["uri"]
    assert cluster["private_connection"]["host"] == "private-" + connection["host"]


async def test_clusters_are_listed_by_tag(sandbox: Sandbox, call: Call, pg: str) -> None:
    cache = await sandbox.add_cluster("redis", "cache", version="6", tags=("fast",))
    shown = (await call("GET", f"/v2/databases/{cache}")).json["database"]
    assert (shown["version"], shown["tags"]) == ("6", ["fast"])

    async def names(query: str) -> list[str]:
        return [cluster["name"] for cluster in (await call("GET", f"/v2/databases{query}")).json["databases"]]

    assert await names("") == ["tenants", "cache"]
    assert await names("?tag_name=production") == ["tenants"]
    assert await names("?tag_name=nothing") == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug"),
    [
        ("GET", f"/v2/databases/{NOBODY}", None, 404, "not_found"),
        ("GET", "/v2/databases/not-a-uuid/users", None, 404, "not_found"),
        ("GET", "{pg}/users/nobody", None, 404, "not_found"),
        ("PUT", "{pg}/users/nobody", {"settings": {}}, 404, "not_found"),
        ("POST", "{pg}/users/nobody/reset_auth", {}, 404, "not_found"),
        ("DELETE", "{pg}/users/nobody", None, 404, "not_found"),
        ("GET", "{pg}/dbs/nothing", None, 404, "not_found"),
        ("GET", "{pg}/users/a%00b", None, 404, "not_found"),
        ("GET", "{pg}/users/%FF", None, 404, "not_found"),
        ("GET", "{pg}/nonsense", None, 404, "not_found"),
        *(
            ("GET", path, None, 404, "not_found")
            for path in ("/", "/v1/databases", "/v2/droplets", "/v2/databases/", "{pg}/users/")
        ),
        *(("GET", f"{{pg}}/users/doadmin/{more}", None, 404, "not_found") for more in ("b", "", "reset_auth/")),
        ("POST", "{pg}/users", {"name": "doadmin"}, 422, "unprocessable_entity"),
        ("POST", "{pg}/dbs", {"name": "defaultdb"}, 422, "unprocessable_entity"),
        ("DELETE", "{pg}/users/doadmin", None, 422, "unprocessable_entity"),
        ("POST", "{pg}/users", {}, 422, "unprocessable_entity"),
        ("POST", "{pg}/users", {"name": "é" * 32}, 422, "unprocessable_entity"),
        ("POST", "{pg}/users", {"name": "x", "settings": None}, 422, "unprocessable_entity"),
        ("POST", "{pg}/users", {"name": "x", "mysql_settings": {}}, 422, "unprocessable_entity"),
        ("PUT", "{pg}/users/doadmin", {}, 422, "unprocessable_entity"),
        ("PATCH", "{pg}/users/doadmin", None, 405, "method_not_allowed"),
    ],
)
async def test_errors_have_the_documented_body(
    call: Call, pg: str, method: str, path: str, body: Any, status: int, slug: str
) -> None:
    answer = await call(method, path.replace("{pg}", pg), body)
    assert answer.status == status
    assert answer.json["id"] == slug
    assert answer.json["message"]
    assert len(answer.json["request_id"]) == 36


@pytest.mark.parametrize("body", [b"{", b"nonsense", b"\xff", b"[" * 100_000, b"[" * 200_000 + b"]" * 200_000])
async def test_body_without_json_is_400(call: Call, pg: str, body: bytes) -> None:
    answer = await call("POST", f"{pg}/users", data=body)
    assert (answer.status, answer.json["id"]) == (400, "bad_request")


async def test_large_body_is_413(call: Call, pg: str) -> None:
    assert (await call("POST", f"{pg}/users", data=io.BytesIO(bytes(2_000_000)))).status == 413


@pytest.mark.parametrize("path", ["{pg}", "{pg}/"])
async def test_no_request_destroys_a_cluster(sandbox: Sandbox, call: Call, pg: str, path: str) -> None:
    answer = await call("DELETE", path.replace("{pg}", pg))
    assert answer.status == 405
    assert (await call("GET", pg)).status == 200
    assert [(record.method, record.status) for record in sandbox.requests] == [("DELETE", 405), ("GET", 200)]


@pytest.mark.parametrize("engine", ["redis", "valkey"])
async def test_caches_have_no_users_and_no_dbs(sandbox: Sandbox, call: Call, engine: str) -> None:
    cluster = "/v2/databases/" + await sandbox.add_cluster(engine)
    for method, path, body in [("GET", "/users", None), ("POST", "/users", {"name": "x"}), ("GET", "/dbs", None)]:
        answer = await call(method, cluster + path, body)
        assert (answer.status, answer.json["message"]) == (422, "operation is not supported for this cluster type")
    shown = (await call("GET", cluster)).json["database"]
    assert shown["users"] is None
    assert shown["db_names"] is None


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_a_request_needs_the_token(call: Call, pg: str, token: str | None) -> None:
    answer = await call("POST", f"{pg}/users", {"name": "x"}, token=token)
    assert (answer.status, answer.json["id"]) == (401, "unauthorized")
    assert (await call("GET", f"{pg}/users/x")).status == 404


async def test_an_engine_that_nobody_knows_yet(sandbox: Sandbox, call: Call) -> None:
    cluster = "/v2/databases/" + await sandbox.add_cluster("cockroach")
    assert (await call("GET", cluster)).json["database"]["engine"] == "cockroach"
    given = {"mysql_settings": {"auth_plugin": "mysql_native_password"}, "settings": {"pg_allow_replication": True}}
    made = await call("POST", f"{cluster}/users", {"name": "x", **given})
    assert made.status == 201
    assert not {"mysql_settings", "settings"} & made.json["user"].keys()


async def test_path_of_other_encoding_names_nobody(call: Call, pg: str) -> None:
    assert (await call("POST", f"{pg}/users", {"name": "\ufffd"})).status == 201
    assert (await call("DELETE", f"{pg}/users/%FF")).status == 404
    assert (await call("DELETE", f"{pg}/users/%EF%BF%BD")).status == 204


ACL = [{"permission": "produceconsume", "topic": "customer-events"}, {"permission": "consume", "topic": "a.*"}]


async def added(sandbox: Sandbox, engine: str) -> str:
    return "/v2/databases/" + await sandbox.add_cluster(engine, backend="memory")


async def test_mysql_users_have_an_auth_plugin(sandbox: Sandbox, call: Call) -> None:
    mysql = await added(sandbox, "mysql")
    made = await call("POST", f"{mysql}/users", {"name": "plain"})
    assert made.json["user"]["mysql_settings"] == {"auth_plugin": "caching_sha2_password"}

    native = {"mysql_settings": {"auth_plugin": "mysql_native_password"}}
    reset = await call("POST", f"{mysql}/users/plain/reset_auth", native)
    assert reset.json["user"]["mysql_settings"] == native["mysql_settings"]
    reset = await call("POST", f"{mysql}/users/plain/reset_auth", {})
    assert reset.json["user"]["mysql_settings"] == native["mysql_settings"]


async def test_kafka_users_have_certificates_and_acls_with_ids(sandbox: Sandbox, call: Call) -> None:
    kafka = await added(sandbox, "kafka")
    user = (await call("POST", f"{kafka}/users", {"name": "app", "settings": {"acl": ACL}})).json["user"]
    assert "BEGIN CERTIFICATE" in user["access_cert"]
    assert "BEGIN PRIVATE KEY" in user["access_key"]
    rules = user["settings"]["acl"]
    assert [{key: rule[key] for key in ("permission", "topic")} for rule in rules] == ACL
    assert len({rule["id"] for rule in rules}) == 2

    kept = (await call("PUT", f"{kafka}/users/app", {"settings": {"acl": rules[:1]}})).json["user"]
    assert kept["settings"]["acl"] == rules[:1]
    again = (await call("POST", f"{kafka}/users/app/reset_auth", {})).json["user"]
    assert again["access_key"] != user["access_key"]
    assert again["settings"]["acl"] == rules[:1]


async def test_mongodb_returns_a_password_once(sandbox: Sandbox, call: Call) -> None:
    mongodb = await added(sandbox, "mongodb")
    made = (await call("POST", f"{mongodb}/users", {"name": "app"})).json["user"]
    assert made["password"]
    assert "password" not in (await call("GET", f"{mongodb}/users/app")).json["user"]
    assert all("password" not in user for user in (await call("GET", f"{mongodb}/users")).json["users"])
    cluster = (await call("GET", mongodb)).json["database"]
    assert "password" not in cluster["connection"]
    assert "AVNS_" not in str(cluster)
    reset = (await call("POST", f"{mongodb}/users/app/reset_auth", {})).json["user"]
    assert reset["password"] not in (None, made["password"])
    assert "password" not in (await call("GET", f"{mongodb}/users/app")).json["user"]


async def test_mongodb_connection_and_users(sandbox: Sandbox, call: Call) -> None:
    mongodb = "/v2/databases/" + await sandbox.add_cluster("mongodb", "docs")
    connection = (await call("GET", mongodb)).json["database"]["connection"]
    assert (connection["host"], connection["port"], connection["database"]) == ("docs.db.invalid", 27017, "admin")
    assert connection["uri"] == "mongodb+srv://doadmin@docs.db.invalid/admin?tls=true&authSource=admin"
    users = (await call("GET", f"{mongodb}/users")).json["users"]
    assert [(user["name"], user["role"]) for user in users] == [("doadmin", "primary"), ("do-readonly", "normal")]
    assert (await call("GET", f"{mongodb}/dbs")).json == {"dbs": [{"name": "admin"}]}
    for undeletable in ("users/doadmin", "users/do-readonly", "dbs/admin"):
        assert (await call("DELETE", f"{mongodb}/{undeletable}")).status == 422


async def test_overlapping_mongodb_writes_fail(sandbox: Sandbox, call: Call) -> None:
    one, other, pg = await added(sandbox, "mongodb"), await added(sandbox, "mongodb"), await added(sandbox, "pg")

    numbers = itertools.count()

    async def statuses(*clusters: str) -> list[int]:
        calls = (call("POST", f"{cluster}/users", {"name": f"u{next(numbers)}"}) for cluster in clusters)
        return sorted(answer.status for answer in await asyncio.gather(*calls))

    assert await statuses(one, one, one) == [201, 500, 500]
    assert await statuses(one, other) == [201, 201]
    assert await statuses(pg, pg, pg) == [201, 201, 201]
    sandbox.faults.mongodb_overlap = False
    assert await statuses(one, one, one) == [201, 201, 201]


async def test_settings_of_other_engine_are_ignored(sandbox: Sandbox, call: Call) -> None:
    pg = await added(sandbox, "pg")
    body = {
        "name": "app",
        "readonly": True,
        "settings": {"acl": ACL},
        "mysql_settings": {"auth_plugin": "mysql_native_password"},
    }
    user = (await call("POST", f"{pg}/users", body)).json["user"]
    assert "mysql_settings" not in user
    assert user["settings"] == {"pg_allow_replication": False}
    reset = await call("POST", f"{pg}/users/app/reset_auth", {"mysql_settings": body["mysql_settings"]})
    assert reset.status == 200
    assert "mysql_settings" not in reset.json["user"]


def with_settings(message: str, **settings: Any) -> tuple[Any, str]:
    return {"name": "app", "settings": settings}, f"settings.{message}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "the request body must be a JSON object"),
        ({}, "name is required"),
        ({"name": 5}, "name must be a string"),
        ({"name": ""}, "name must not be empty and must not contain NUL"),
        ({"name": "a\0b"}, "name must not be empty and must not contain NUL"),
        ({"name": "\ud800"}, "name must be valid unicode"),
        ({"name": "a", "readonly": "yes"}, "readonly must be a boolean"),
        ({"name": "a", "mysql_settings": 5}, "mysql_settings must be a JSON object"),
        (
            {"name": "a", "mysql_settings": {"auth_plugin": "x"}},
            "mysql_settings.auth_plugin must be one of mysql_native_password, caching_sha2_password",
        ),
        ({"name": "a", "settings": []}, "settings must be a JSON object"),
        with_settings("pg_allow_replication must be a boolean", pg_allow_replication=1),
        with_settings("acl must be a list", acl={}),
        with_settings("acl[0] must be a JSON object", acl=[5]),
        with_settings("acl[2].topic is required", acl=[*ACL, {"permission": "admin"}]),
        with_settings("acl[0].permission is required", acl=[{"topic": "t"}]),
        with_settings("acl[0].topic must be a string", acl=[{**ACL[0], "topic": 5}]),
        with_settings(
            "acl[0].permission must be one of admin, consume, produce, produceconsume",
            acl=[{**ACL[0], "permission": "read"}],
        ),
        with_settings("acl[0].id must be a string", acl=[{**ACL[0], "id": 5}]),
        with_settings("opensearch_acl must be a list", opensearch_acl={}),
        with_settings("opensearch_acl[0] must be a JSON object", opensearch_acl=[5]),
        with_settings("opensearch_acl[1].index must be a string", opensearch_acl=[{}, {"index": 5}]),
        with_settings(
            "opensearch_acl[0].permission must be one of deny, admin, read, readwrite, write",
            opensearch_acl=[{"permission": "sing"}],
        ),
        with_settings("mongo_user_settings must be a JSON object", mongo_user_settings=[]),
        with_settings("mongo_user_settings.databases must be a list", mongo_user_settings={"databases": "a"}),
        with_settings("mongo_user_settings.databases[1] must be a string", mongo_user_settings={"databases": ["a", 5]}),
        with_settings(
            "mongo_user_settings.role must be one of readOnly, readWrite, dbAdmin", mongo_user_settings={"role": "root"}
        ),
    ],
)
async def test_error_names_place_in_body(sandbox: Sandbox, call: Call, body: Any, message: str) -> None:
    answer = await call("POST", f"{await added(sandbox, 'pg')}/users", body)
    assert (answer.status, answer.json["message"]) == (422, message)


@pytest.mark.parametrize(
    ("engine", "given", "settings"),
    [
        ("opensearch", {"settings": {"opensearch_acl": [{"index": "logs-.*", "permission": "readwrite"}]}}, None),
        ("opensearch", {"settings": {"opensearch_acl": [{"index": "a"}]}}, None),
        *(
            ("mongodb", {"settings": {"mongo_user_settings": each}}, None)
            for each in ({}, {"databases": ["a"]}, {"role": "dbAdmin"})
        ),
        (
            "mongodb",
            {"settings": {"mongo_user_settings": {"databases": ["a"], "role": "readOnly"}}, "readonly": True},
            None,
        ),
        ("mongodb", {"readonly": True}, {"mongo_user_settings": {"databases": ["admin"], "role": "readOnly"}}),
    ],
)
async def test_settings_are_as_given(
    sandbox: Sandbox, call: Call, engine: str, given: dict[str, Any], settings: Any
) -> None:
    """A MongoDB user who is only said to be read-only has that role on ``admin``. An update needs settings."""
    cluster = await added(sandbox, engine)
    made = (await call("POST", f"{cluster}/users", {"name": "app", **given})).json["user"]
    assert made["settings"] == (settings or given["settings"])
    assert (await call("GET", f"{cluster}/users/app")).json["user"]["settings"] == made["settings"]
    refused = await call("PUT", f"{cluster}/users/app", {})
    assert (refused.status, refused.json["message"]) == (422, "settings is required")


def test_password_meets_the_policy_of_mysql() -> None:
    """validate_password's MEDIUM needs a digit, a small and a capital letter, and one that is neither."""
    for password in [new_password() for _ in range(500)]:
        assert all(re.search(kind, password) for kind in (r"[0-9]", r"[a-z]", r"[A-Z]", r"[_-]"))
