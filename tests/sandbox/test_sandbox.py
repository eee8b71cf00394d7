"""Start, stop, tokens and their limits, recorded requests, and the status and authority of a cluster."""

from __future__ import annotations

import sys
import time
import uuid
from base64 import b64decode
from collections import Counter
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._clusters import Status
from aiodbclient.sandbox._tokens import Token

from .conftest import Call, Clock, caller

ID = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"


async def test_a_port_and_a_token_may_be_given() -> None:
    async with Sandbox() as first:
        port = int(first.url.rpartition(":")[2])
    async with Sandbox(port=port, token="mine") as sandbox, caller(sandbox) as call:
        assert sandbox.url == f"http://127.0.0.1:{port}"
        assert (await call("GET", "/v2/databases", token="mine")).status == 200
        with pytest.raises(OSError, match="address already in use"):
            await Sandbox(port=port).__aenter__()


async def test_a_sandbox_that_is_not_running_says_so() -> None:
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.url
    with pytest.raises(RuntimeError, match="not running"):
        await sandbox.add_cluster("pg")
    async with sandbox:
        with pytest.raises(RuntimeError, match="running already"):
            await sandbox.__aenter__()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "redis", "server": "redis://127.0.0.1"}, "only be in memory"),
        ({"engine": "kafka", "backend": "postgres"}, "only be in memory"),
        ({"engine": "pg", "server": "postgresql://h", "backend": "memory"}, "not both"),
        ({"engine": "pg", "name": "here"}, "'here' exists already"),
        ({"engine": "pg", "name": ""}, "must not be empty"),
        ({"engine": "pg", "cluster_id": ID}, f"a cluster with the id {ID} exists already"),
        ({"engine": "pg", "cluster_id": "mine"}, "cluster_id must be a UUID, not 'mine'"),
        ({"engine": "redis", "online_after": -1}, "online_after must be at least 0, not -1"),
        ({"engine": "pg", "connections": 0}, "connections must be at least 1"),
        ({"engine": "pg", "password_encryption": "plain"}, "'scram-sha-256' or 'md5', not 'plain'"),
        ({"engine": "pg", "connections": 22, "server": "postgresql://h"}, "set them on the server"),
        (
            {"engine": "pg", "password_encryption": "md5", "backend": "memory"},
            "only a PostgreSQL that the sandbox starts",
        ),
    ],
)
async def test_invalid_cluster_is_refused(sandbox: Sandbox, options: dict[str, Any], message: str) -> None:
    assert await sandbox.add_cluster("redis", "here", cluster_id=ID.upper()) == ID
    with pytest.raises(ValueError, match=message):
        await sandbox.add_cluster(**options)
    assert sandbox.clusters == {ID: "here"}


async def test_a_token_may_do_what_its_scopes_say(sandbox: Sandbox, call: Call) -> None:
    users = f"/v2/databases/{await sandbox.add_cluster('pg', backend='memory')}/users"
    needed: dict[str, tuple[str, str, Any]] = {
        "database:read": ("GET", users, None),
        "database:create": ("POST", users, {"name": "app"}),
        "database:update": ("PUT", f"{users}/app", {"settings": {}}),
        "database:delete": ("DELETE", f"{users}/app", None),
    }
    for scope, (method, path, body) in needed.items():
        without = sandbox.add_token(needed.keys() - {scope})
        answer = await call(method, path, body, token=without)
        assert (answer.status, answer.json["id"]) == (403, "forbidden")
        assert scope in answer.json["message"]
        assert (await call(method, path, body, token=sandbox.add_token([scope]))).status < 300
    with pytest.raises(ValueError, match="unknown scope database:destroy"):
        sandbox.add_token(["database:destroy"])


async def test_without_view_credentials_nothing_secret_is_read(sandbox: Sandbox, call: Call) -> None:
    reader = sandbox.add_token(["database:read"])
    for engine in ("pg", "mysql", "kafka", "mongodb", "opensearch"):
        cluster = "/v2/databases/" + await sandbox.add_cluster(engine, backend="memory")
        await call("POST", f"{cluster}/users", {"name": "app"})
        answers = [
            (await call("GET", path, token=reader)) for path in (cluster, f"{cluster}/users", f"{cluster}/users/app")
        ]
        answers.append(await call("GET", "/v2/databases", token=reader))
        assert all(answer.status == 200 for answer in answers)
        assert not any(secret in str(answer.json) for answer in answers for secret in ("AVNS_", "BEGIN", "'password'"))
        assert "uri" not in answers[0].json["database"]["connection"]


async def test_recorded_requests(sandbox: Sandbox, call: Call) -> None:
    """A test sees what its client sent, as it was sent."""
    cluster = await sandbox.add_cluster("pg", backend="memory")
    body = {"name": "a/b", "password": "hunter2", "settings": {"pg_allow_replication": True}}
    await call("POST", f"/v2/databases/{cluster}/users", body, headers={"x-mine": "yes"})
    await call("DELETE", f"/v2/databases/{cluster}/users/a%2Fb")
    await call("POST", f"/v2/databases/{cluster}/users", token="wrong", data=b"nonsense")
    await call("POST", f"/v2/databases/{cluster}/users", {"name": 7})
    create, delete, refused, numbered = sandbox.requests
    assert (create.method, create.operation, create.cluster, create.name) == ("POST", "users.create", cluster, "a/b")
    assert (create.json, create.headers["x-mine"]) == (body, "yes")
    assert create.headers["authorization"] == f"Bearer {sandbox.token}"
    assert sandbox.token not in repr(sandbox.requests)  # pytest prints it
    assert (delete.path, delete.name, delete.status) == (f"/v2/databases/{cluster}/users/a%2Fb", "a/b", 204)
    assert (refused.body, refused.name, refused.status) == ("nonsense", None, 401)
    assert (numbered.name, numbered.status) == (None, 422)
    answered = Counter({("users.create", 201): 1, ("users.delete", 204): 1, ("users.create", 401): 1})
    assert sandbox.counts == answered | {("users.create", 422): 1}


async def test_tags_need_a_scope_of_their_own(sandbox: Sandbox, call: Call) -> None:
    cluster = await sandbox.add_cluster("redis", tags=["production"])
    reader, tagger = sandbox.add_token(["database:read"]), sandbox.add_token(["database:read", "tag:read"])
    databases = [
        (await call("GET", f"/v2/databases/{cluster}", token=token)).json["database"] for token in (reader, tagger)
    ]
    assert [database["tags"] for database in databases] == [None, ["production"]]
    refused = await call("GET", "/v2/databases?tag_name=production", token=reader)
    assert (refused.status, refused.json["message"]) == (403, "You are missing the required permission tag:read")
    assert len((await call("GET", "/v2/databases?tag_name=production", token=tagger)).json["databases"]) == 1


WRITES = [
    ("POST", "users", {"name": "app"}),
    ("PUT", "users/doadmin", {"settings": {}}),
    ("POST", "users/doadmin/reset_auth", {}),
    ("DELETE", "users/app", None),
    ("POST", "dbs", {"name": "alpha"}),
    ("DELETE", "dbs/defaultdb", None),
]


@pytest.mark.parametrize("status", ["creating", "resizing", "migrating", "forking"])
async def test_a_cluster_comes_online_after_a_while(sandbox: Sandbox, call: Call, clock: Clock, status: Status) -> None:
    """Until then it can be read, and not written."""
    is_new = status == "creating"
    cluster = await sandbox.add_cluster("pg", backend="memory", online_after=60 if is_new else None)
    path = f"/v2/databases/{cluster}"
    if not is_new:
        assert (await call("GET", path)).json["database"]["status"] == "online"
        sandbox.set_status(cluster, status, online_after=60)
    assert (await call("GET", path)).json["database"]["status"] == status
    for method, what, body in WRITES:
        refused = await call(method, f"{path}/{what}", body)
        assert (refused.status, refused.json["id"]) == (412, "precondition_failed")
        assert status in refused.json["message"]
    assert (await call("GET", f"{path}/users")).status == 200
    clock.ahead += 60
    assert (await call("GET", path)).json["database"]["status"] == "online"
    for method, what, body in WRITES:
        assert (await call(method, f"{path}/{what}", body)).status < 300

    sandbox.set_status(cluster, status)
    clock.ahead += 10**6
    assert (await call("GET", path)).json["database"]["status"] == status
    with pytest.raises(ValueError, match="status must be one of creating, online, resizing, migrating, forking"):
        sandbox.set_status(cluster, "broken")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no cluster with the id nothing"):
        sandbox.set_status("nothing", "online")


async def test_each_cluster_has_its_authority(sandbox: Sandbox, call: Call) -> None:
    async def certificate(call: Call, cluster: str) -> x509.Certificate:
        answer = await call("GET", f"/v2/databases/{cluster}/ca")
        assert (answer.status, list(answer.json), list(answer.json["ca"])) == (200, ["ca"], ["certificate"])
        return x509.load_pem_x509_certificate(b64decode(answer.json["ca"]["certificate"], validate=True))

    cluster = await sandbox.add_cluster("redis")
    mine = await certificate(call, cluster)
    assert mine.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert await certificate(call, cluster) == mine
    assert await certificate(call, await sandbox.add_cluster("pg", backend="memory")) != mine

    assert (await call("GET", f"/v2/databases/{uuid.uuid4()}/ca")).status == 404
    assert (await call("POST", f"/v2/databases/{cluster}/ca")).status == 405
    refused = await call("GET", f"/v2/databases/{cluster}/ca", token=sandbox.add_token(["database:update"]))
    assert (refused.status, "database:read" in refused.json["message"]) == (403, True)
    assert sandbox.counts["clusters.ca", 200] == 3


async def test_ca_without_extra_says_what_to_install(
    sandbox: Sandbox, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    answer = await call("GET", f"/v2/databases/{await sandbox.add_cluster('redis')}/ca")
    assert (answer.status, answer.json["message"]) == (501, "this needs trustme: pip install 'aiodbclient[sandbox]'")


# The limits are sliding windows: each request counts for a full window.
windows = st.builds(Window, limit=st.integers(1, 4), seconds=st.sampled_from([1.0, 2.0, 5.0, 60.0]))


@given(st.lists(windows, min_size=1, max_size=3), st.lists(st.integers(0, 2000), max_size=60))
def test_window_holds_exactly_its_limit(limits: list[Window], steps: list[int]) -> None:
    limiter, accepted, now = Token((), limits), list[float](), 1000.0
    longest = max(limits, key=lambda window: window.seconds)
    for step in steps:
        now += step / 1024  # floats represent this exactly
        room = all(sum(now - at < window.seconds for at in accepted) < window.limit for window in limits)
        let_in, headers = limiter.admit(now, now)
        assert let_in is room
        if let_in:
            accepted.append(now)
        still = [at for at in accepted if now - at < longest.seconds]
        # of equally long windows, any may be reported
        if let_in:
            assert int(headers["ratelimit-limit"]) - int(headers["ratelimit-remaining"]) == len(still)
        else:
            assert headers["ratelimit-remaining"] == "0"
        assert 0 <= int(headers["ratelimit-reset"]) - (still[0] + longest.seconds) < 1


def test_headers_of_each_answer() -> None:
    """A refusal by the minute names whole seconds, one by the hour only the reset."""
    limiter = Token((), [Window(2, 60.0), Window(4, 3600.0)])
    answers = [limiter.admit(at, at) for at in (0.0, 1.0, 2.5, 61.0, 62.0, 63.0)]
    assert [accepted for accepted, _ in answers] == [True, True, False, True, True, False]
    assert [headers["ratelimit-remaining"] for _, headers in answers] == ["3", "2", "0", "1", "0", "0"]
    assert [headers.get("retry-after") for _, headers in answers] == [None, None, "58", None, None, None]
    brief = Token((), [Window(1, 1.0)])
    assert [brief.admit(at, 0.0)[1].get("retry-after") for at in (50.0, 50.1234)] == [None, "0.877"]
    assert answers[-1][1] == {"ratelimit-limit": "4", "ratelimit-remaining": "0", "ratelimit-reset": "3600"}


async def test_the_documented_limits_are_the_default(clock: Clock) -> None:
    """Each token has its own. A request is accepted again after the time that the refusal names."""
    async with Sandbox() as sandbox, caller(sandbox) as call:
        before = time.time()
        answers = [await call("GET", "/v2/databases") for _ in range(251)]
        assert [answer.status for answer in answers] == [200] * 250 + [429]
        assert answers[0].headers["ratelimit-limit"] == "5000"
        assert answers[0].headers["ratelimit-remaining"] == "4999"
        assert before + 3600 <= int(answers[0].headers["ratelimit-reset"]) <= time.time() + 3601
        refused = answers[-1]
        assert refused.json["id"] == "too_many_requests"
        assert refused.headers["ratelimit-limit"] == "5000"
        assert refused.headers["ratelimit-remaining"] == "0"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert sandbox.counts["clusters.list", 429] == 1
        assert (await call("GET", "/v2/databases", token=sandbox.add_token())).status == 200
        clock.ahead += float(refused.headers["retry-after"])
        assert (await call("GET", "/v2/databases")).status == 200
