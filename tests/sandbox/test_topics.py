"""The topics of Kafka and the indexes of OpenSearch: a test creates them, the API lists and deletes them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox

from ..requirements import description
from .conftest import Call, caller
from .test_spec import attacked

KINDS = [("kafka", "topics", "name"), ("opensearch", "indexes", "index_name")]


def make(sandbox: Sandbox, cluster: str, kind: str, *names: str) -> None:
    for name in names:
        (sandbox.add_topic if kind == "topics" else sandbox.add_index)(cluster, name)


async def listed(call: Call, path: str, kind: str, key: str) -> list[str]:
    answer = await call("GET", path)
    assert answer.status == 200
    return [each[key] for each in answer.json[kind]]


@pytest.mark.parametrize(("engine", "kind", "key"), KINDS)
async def test_added_topics_and_indexes_are_listed_until_they_are_deleted(
    sandbox: Sandbox, call: Call, engine: str, kind: str, key: str
) -> None:
    cluster = await sandbox.add_cluster(engine)
    path = f"/v2/databases/{cluster}/{kind}"
    assert await listed(call, path, kind, key) == []

    make(sandbox, cluster, kind, "alpha.events", "alpha.more", "alpha.events")
    assert await listed(call, path, kind, key) == ["alpha.events", "alpha.more"]

    assert (await call("DELETE", f"{path}/alpha%2Eevents")).status == 204
    assert (await call("DELETE", f"{path}/alpha.events")).status == 404
    assert await listed(call, path, kind, key) == ["alpha.more"]


@pytest.mark.parametrize(("engine", "kind", "key"), KINDS)
async def test_other_engines_have_none(sandbox: Sandbox, call: Call, engine: str, kind: str, key: str) -> None:
    for other in {"pg", "mongodb", "kafka", "opensearch"} - {engine}:
        cluster = await sandbox.add_cluster(other, backend="memory")
        assert (await call("GET", f"/v2/databases/{cluster}/{kind}")).status == 422
        assert (await call("DELETE", f"/v2/databases/{cluster}/{kind}/a")).status == 422
        with pytest.raises(ValueError, match=f"a {other} cluster has no {kind}; only {engine} clusters do"):
            make(sandbox, cluster, kind, "a")


async def test_a_token_needs_the_scopes_and_the_cluster_must_be_online(sandbox: Sandbox, call: Call) -> None:
    cluster = await sandbox.add_cluster("kafka")
    make(sandbox, cluster, "topics", "a")
    path = f"/v2/databases/{cluster}/topics"
    reader, deleter = sandbox.add_token(["database:read"]), sandbox.add_token(["database:delete"])
    assert (await call("GET", path, token=deleter)).status == 403
    assert (await call("DELETE", f"{path}/a", token=reader)).status == 403
    sandbox.set_status(cluster, "migrating")
    assert (await call("GET", path, token=reader)).status == 200
    assert (await call("DELETE", f"{path}/a", token=deleter)).status == 412
    sandbox.set_status(cluster, "online")
    assert (await call("DELETE", f"{path}/a", token=deleter)).status == 204


@pytest.mark.parametrize("name", ["", "a b", "..", "a/b", "a\0", "x" * 256])
async def test_a_name_that_the_server_would_refuse_is_refused(sandbox: Sandbox, name: str) -> None:
    kafka, opensearch = await sandbox.add_cluster("kafka"), await sandbox.add_cluster("opensearch")
    with pytest.raises(ValueError, match="is not a valid name for topics of kafka"):
        sandbox.add_topic(kafka, name)
    with pytest.raises(ValueError, match="is not a valid name for indexes of opensearch"):
        sandbox.add_index(opensearch, name)
    with pytest.raises(ValueError, match="valid name"):
        sandbox.add_index(opensearch, "Upper")
    with pytest.raises(ValueError, match="there is no cluster with the id nowhere"):
        sandbox.add_topic("nowhere", name)


async def test_they_are_kept_with_the_data(tmp_path: Path) -> None:
    async with Sandbox(data=tmp_path) as first:
        cluster = await first.add_cluster("kafka", "events")
        make(first, cluster, "topics", "kept", "deleted")
        async with caller(first) as call:
            await call("DELETE", f"/v2/databases/{cluster}/topics/deleted")
    async with Sandbox(data=tmp_path) as second, caller(second) as call:
        assert await listed(call, f"/v2/databases/{cluster}/topics", "topics", "name") == ["kept"]


async def test_long_lists_come_in_pages() -> None:
    async with Sandbox(page_size=2) as sandbox, caller(sandbox) as call:
        cluster = await sandbox.add_cluster("kafka")
        make(sandbox, cluster, "topics", "a", "b", "c")
        path = f"/v2/databases/{cluster}/topics"
        assert "next" in (await call("GET", path)).json["links"]["pages"]
        assert await listed(call, f"{path}?page=2", "topics", "name") == ["c"]


@pytest.mark.described
@pytest.mark.thorough
@pytest.mark.parametrize(("engine", "kind", "key"), KINDS)
def test_every_answer_is_as_described(tmp_path: Path, engine: str, kind: str, key: str) -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster(engine))
        make(sandbox, cluster, kind, "customer-events", "sample-data", "events", "logs-1")
        assert attacked(sandbox, description("topics_and_indexes.openapi.yaml"), tmp_path, cluster) > 20
        assert sandbox.counts[f"{kind}.list", 200] > 0
        assert sandbox.counts[f"{kind}.delete", 404] > 0
