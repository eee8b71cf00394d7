"""The status of a cluster, and its certificate authority."""

from __future__ import annotations

import sys
import uuid
from base64 import b64decode

import pytest
from cryptography import x509

from aiodbclient.sandbox import Sandbox

from .conftest import Call, Clock

WRITES = [
    ("POST", "users", {"name": "app"}),
    ("PUT", "users/doadmin", {"settings": {}}),
    ("POST", "users/doadmin/reset_auth", {}),
    ("DELETE", "users/app", None),
    ("POST", "dbs", {"name": "alpha"}),
    ("DELETE", "dbs/defaultdb", None),
]


async def test_a_cluster_comes_online_after_a_while(sandbox: Sandbox, call: Call, clock: Clock) -> None:
    path = "/v2/databases/" + await sandbox.add_cluster("pg", backend="memory", online_after=60)
    assert (await call("GET", path)).json["database"]["status"] == "creating"
    for method, what, body in WRITES:
        refused = await call(method, f"{path}/{what}", body)
        assert (refused.status, refused.json["id"]) == (412, "precondition_failed")
        assert "creating" in refused.json["message"]
    assert (await call("GET", f"{path}/users")).status == 200
    clock.ahead += 60
    assert (await call("GET", path)).json["database"]["status"] == "online"
    for method, what, body in WRITES:
        assert (await call(method, f"{path}/{what}", body)).status < 300


async def test_a_cluster_is_resized_and_moved(sandbox: Sandbox, call: Call, clock: Clock) -> None:
    cluster = await sandbox.add_cluster("valkey")

    async def status() -> str:
        return str((await call("GET", "/v2/databases")).json["databases"][0]["status"])

    assert await status() == "online"
    sandbox.set_status(cluster, "resizing")
    assert await status() == "resizing"
    sandbox.set_status(cluster, "migrating", online_after=60)
    assert await status() == "migrating"
    clock.ahead += 60
    assert await status() == "online"
    with pytest.raises(ValueError, match="status must be one of creating, online, resizing, migrating, forking"):
        sandbox.set_status(cluster, "broken")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no cluster with the id nothing"):
        sandbox.set_status("nothing", "online")


async def test_a_cluster_may_be_given_its_id(sandbox: Sandbox, call: Call) -> None:
    given = "9CC10173-E9EA-4176-9DBC-A4CEE4C4FF30"
    assert await sandbox.add_cluster("redis", cluster_id=given) == given.lower()
    assert (await call("GET", f"/v2/databases/{given}")).json["database"]["id"] == given.lower()
    with pytest.raises(ValueError, match="a cluster with the id 9cc10173-e9ea-4176-9dbc-a4cee4c4ff30 exists already"):
        await sandbox.add_cluster("redis", cluster_id=given)
    with pytest.raises(ValueError, match="cluster_id must be a UUID, not 'mine'"):
        await sandbox.add_cluster("redis", cluster_id="mine")
    assert list(sandbox.clusters) == [given.lower()]


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
