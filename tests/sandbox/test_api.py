"""The sandbox's answers: names, errors, and the provider's own client."""

from __future__ import annotations

import io
from typing import Any

import pytest

from aiodbclient.sandbox import Sandbox

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
