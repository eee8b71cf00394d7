"""Cluster information: status, connections, certificate authority."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import pytest
import trustme

from aiodbclient import ClusterStatus, User, errors

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Server, fails, says, stalls

PEM = trustme.CA().cert_pem.bytes().decode()


@pytest.fixture
def quick_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiodbclient._http.maintenance._SHORTEST", 0.01)


def document(**members: Any) -> dict[str, Any]:
    return {"database": {"id": CLUSTER, "name": "main", "engine": "pg"} | members}


def authority(pem: str = PEM) -> Any:
    return says(200, {"ca": {"certificate": base64.b64encode(pem.encode()).decode()}})


async def test_ca_is_pem_and_read_once(server: Server, make_client: MakeClient) -> None:
    server.otherwise = authority()
    client = make_client()

    several = await asyncio.gather(*(client.cluster(CLUSTER).ca() for _ in range(5)))

    assert set(several) == {PEM}
    assert await client.with_options(max_wait=1.0).cluster(CLUSTER.upper()).ca() == PEM
    assert server.calls == [("GET", f"/v2/databases/{CLUSTER}/ca")]


@pytest.mark.parametrize(
    "certificate",
    [
        "",
        "not base64!",
        "äöü",
        base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b"<html>Sign in</html>").decode(),
        base64.b64encode(PEM[:200].encode()).decode(),
        None,
        5,
    ],
)
async def test_an_invalid_certificate_is_refused(server: Server, make_cluster: MakeCluster, certificate: Any) -> None:
    server.will(says(200, {"ca": {"certificate": certificate}}), authority())
    cluster = make_cluster(engine=None)

    with pytest.raises(errors.InvalidResponseError, match=r"clusters\.ca"):
        await cluster.ca()

    assert await cluster.ca() == PEM  # a failure is not cached


@pytest.mark.usefixtures("quick_reads")
async def test_wait_online_returns_cluster(server: Server, make_cluster: MakeCluster) -> None:
    """A 404 of a new cluster is waited out."""
    not_yet = [fails(404), fails(404), says(200, document(status="creating")), fails(503)]
    server.will(*not_yet, says(200, document(status="online")))

    assert (await make_cluster(engine=None).wait_online()).status is ClusterStatus.ONLINE
    assert len(server.requests) == 5


@pytest.mark.usefixtures("quick_reads")
async def test_wait_online_ends_with_status(server: Server, make_cluster: MakeCluster) -> None:
    server.otherwise = says(200, document(status="resizing"))
    started = time.monotonic()

    with pytest.raises(errors.ClusterNotOnlineError, match=r"not online after 0\.9 s: resizing") as caught:
        await make_cluster(engine=None).wait_online(timeout=0.9)

    assert isinstance(caught.value, TimeoutError)
    assert caught.value.status is ClusterStatus.RESIZING
    assert time.monotonic() - started >= 0.9
    assert len(server.requests) > 1


async def test_wait_online_bounds_a_read_that_hangs(server: Server, make_cluster: MakeCluster) -> None:
    server.otherwise = stalls()

    with pytest.raises(errors.ClusterNotOnlineError, match="returned no status") as caught:
        await make_cluster(engine=None).wait_online(timeout=0.3)

    assert caught.value.status is None


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "5", None, True])
async def test_a_timeout_that_cannot_be_is_refused(server: Server, make_cluster: MakeCluster, seconds: Any) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="timeout"):
        await make_cluster(engine=None).wait_online(timeout=seconds)

    assert server.requests == []


@pytest.mark.usefixtures("quick_reads")
async def test_404_of_known_cluster_is_raised(server: Server, make_client: MakeClient) -> None:
    """It was deleted: it was read or listed before."""
    server.will(says(200, document(status="creating")), fails(404))
    with pytest.raises(errors.NotFoundError):
        await make_client().cluster(CLUSTER).wait_online()

    client = make_client()
    server.will(says(200, {"databases": [document()["database"]]}), fails(404))
    await client.clusters.list()
    with pytest.raises(errors.NotFoundError):
        await client.cluster(CLUSTER).wait_online()


@pytest.mark.usefixtures("quick_reads")
async def test_404_is_raised_after_a_minute(
    server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiodbclient.clusters._MAY_BE_MISSING", 0.5)
    server.otherwise = fails(404)
    started = time.monotonic()

    with pytest.raises(errors.NotFoundError):
        await make_cluster(engine=None).wait_online()

    assert time.monotonic() - started > 0.5
    assert len(server.requests) > 1


async def test_replica_needs_its_engine(server: Server, make_client: MakeClient) -> None:
    server.will(says(201, {"user": {"name": "alice", "password": "x"}}), fails(404))
    client = make_client()

    assert (await client.cluster(CLUSTER, engine="pg").users.create("alice")).password == "x"
    with pytest.raises(errors.NotFoundError, match=r"id of a replica, pass its engine: client\.cluster\(id, engine="):
        await client.cluster(CLUSTER).users.create("bob")


async def test_uri_for_reads_cluster_once(server: Server, make_cluster: MakeCluster) -> None:
    connection = {"host": "db.example", "port": 25060, "database": "defaultdb", "ssl": True}
    cluster_json = {
        "id": CLUSTER,
        "name": "main",
        "engine": "pg",
        "connection": connection,
        "private_connection": connection | {"host": "private.example"},
    }
    server.otherwise = says(200, {"database": cluster_json})
    cluster = make_cluster()
    alice = User("alice", password="p@ss")

    assert await cluster.uri_for(alice) == "postgresql://alice:p%40ss@db.example:25060/defaultdb?sslmode=require"
    assert await cluster.uri_for(alice, "app", ca_file="ca.pem") == (
        "postgresql://alice:p%40ss@db.example:25060/app?sslmode=verify-full&sslrootcert=ca.pem"
    )
    assert len(server.requests) == 1
    assert "@private.example" in await cluster.uri_for(alice, private=True)


@pytest.mark.parametrize(
    ("user", "options"),
    [(User("alice"), {}), ("alice", {}), (User("a", password="p"), {"database": ""}), (None, {})],
)
@pytest.mark.parametrize("engine", ["pg", None])
async def test_uri_for_refuses_before_it_sends(
    user: Any, options: dict[str, Any], engine: str | None, server: Server, make_cluster: MakeCluster
) -> None:
    with pytest.raises(errors.InvalidArgumentError):
        await make_cluster(engine=engine).uri_for(user, **options)

    assert server.requests == []


async def test_uri_for_without_connection(server: Server, make_cluster: MakeCluster) -> None:
    """Of a cluster that is being created. The next call reads it again."""
    server.otherwise = says(200, {"database": {"id": CLUSTER, "name": "main", "engine": "pg"}})
    cluster = make_cluster()

    for _ in range(2):
        with pytest.raises(errors.InvalidArgumentError, match="no such connection"):
            await cluster.uri_for(User("alice", password="p"))
    assert len(server.requests) == 2
