"""A name is any text, and exactly one segment of the path."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Cluster, DatabaseClient, errors
from aiodbclient._http.operations import GET_USER

from .server import CLUSTER, Server, returns_the_user

NAMES = ["a/b", "x?y", "a#b", "a%2Fb", "ü", "a b", "...", "a/../b", "%2e%2e", "a;b", "a+b", "日本", "'\"", "a\\b"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_reaches_the_server_in_one_segment(name: str, server: Server, cluster: Cluster) -> None:
    server.otherwise = returns_the_user()
    users = cluster.users

    assert (await users.get(name)).name == name
    await users.reset_auth(name)
    await users.delete(name)
    await users.create(name)

    paths = [request.path.split("/") for request in server.requests[:3]]
    assert [unquote(path[5]) for path in paths] == [name] * 3
    assert [len(path) for path in paths] == [6, 7, 6]
    assert server.requests[3].body == {"name": name}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "\0", "a\0b", "w3\r", "a\tb", "a\x7f", "a\x85", "\ud800", None, 5, b"a", ["a"]]
)
async def test_names_that_no_path_can_hold_are_refused(name: Any, server: Server, cluster: Cluster) -> None:
    for api in (cluster.users, cluster.dbs):
        for method in (api.get, api.create, api.delete):
            with pytest.raises(errors.InvalidArgumentError, match="nothing was sent"):
                await method(name)

    assert server.requests == []


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_segment_holds_no_part_of_a_path(name: str) -> None:
    if name in (".", ".."):
        return
    encoded = GET_USER.path(CLUSTER, name).removeprefix(f"/v2/databases/{CLUSTER}/users/")

    assert unquote(encoded) == name
    assert not set(encoded) & set("/?#\\;")
    assert encoded.isascii()


NO_UUIDS = ["", "main", "..", CLUSTER.replace("-", ""), f"{{{CLUSTER}}}", f"{CLUSTER}\n"]


@pytest.mark.parametrize("cluster_id", [*NO_UUIDS, CLUSTER.encode(), [CLUSTER], None, 5])
def test_a_cluster_id_is_a_uuid(cluster_id: Any) -> None:
    client = DatabaseClient("token")
    assert client.cluster(UUID(CLUSTER)).id == client.cluster(CLUSTER.upper()).id == CLUSTER

    with pytest.raises(errors.InvalidArgumentError, match="UUID"):
        client.cluster(cluster_id)
