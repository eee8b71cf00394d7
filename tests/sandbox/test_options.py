"""The options of a cluster are declared once: Python, the program and the fixtures take the same."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import fields

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox.__main__ import read_options
from aiodbclient.sandbox._clusters import NewCluster

from .conftest import Call, caller

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def test_the_arguments_of_add_cluster_are_the_members_of_a_cluster() -> None:
    parameters = list(inspect.signature(Sandbox.add_cluster).parameters.values())[1:]
    new = NewCluster("pg")
    assert [parameter.name for parameter in parameters] == [attribute.name for attribute in fields(NewCluster)]
    for parameter in parameters:
        if parameter.name != "engine":
            default = parameter.default
            assert getattr(new, parameter.name) == (list(default) if parameter.name == "tags" else default)


def test_options_are_read_from_text() -> None:
    text = "version=14 tls=false num_nodes=3 tags=a tags='b c' region=ams3 size=big online_after=0.5"
    assert read_options(Sandbox.add_cluster, text) == {
        "version": "14",
        "tls": False,
        "num_nodes": 3,
        "tags": ["a", "b c"],
        "region": "ams3",
        "size": "big",
        "online_after": 0.5,
    }
    with pytest.raises(ValueError, match="unknown option 'sizes'; the options are dsn, backend, server, connections, "):
        read_options(Sandbox.add_cluster, "sizes=1")


async def test_the_api_returns_the_options(sandbox: Sandbox, call: Call) -> None:
    options: dict[str, Any] = {"region": "ams3", "size": "db-s-2vcpu-4gb", "num_nodes": 2, "tags": ("a",)}
    cluster = await sandbox.add_cluster("redis", version="6", **options)
    shown = (await call("GET", f"/v2/databases/{cluster}")).json["database"]
    assert {key: shown[key] for key in options} == options | {"tags": ["a"]}
    assert (shown["version"], "standby_connection" in shown) == ("6", True)


@pytest.mark.skipif(not PROGRAMS, reason="no PostgreSQL is installed on this machine")
@pytest.mark.parametrize("programs", PROGRAMS, ids=lambda folder: folder.parent.name)
async def test_the_postgresql_of_this_machine_can_be_behind_a_cluster(programs: Path) -> None:
    async with Sandbox(windows=[]) as sandbox, caller(sandbox) as call:
        cluster = f"/v2/databases/{await sandbox.add_cluster('pg', backend='postgres', server=programs)}"
        shown = (await call("GET", cluster)).json["database"]
        assert shown["version"] == programs.parent.name
        user = (await call("POST", f"{cluster}/users", {"name": "app"})).json["user"]
        assert (await call("POST", f"{cluster}/dbs", {"name": "app"})).status == 201
        where = {key: shown["connection"][key] for key in ("host", "port")}
        async with await psycopg.AsyncConnection.connect(
            **where, user="app", password=user["password"], dbname="app", sslmode="require"
        ) as session:
            rows = await session.execute("SELECT name FROM pg_available_extensions")
            assert ("plpgsql",) in await rows.fetchall()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"connections": 0}, "connections must be at least 1"),
        ({"password_encryption": "plain"}, "'scram-sha-256' or 'md5', not 'plain'"),
        ({"connections": 22, "dsn": "postgresql://postgres@127.0.0.1:1/postgres"}, "set them on the server"),
        ({"password_encryption": "md5", "backend": "memory"}, "only an embedded PostgreSQL"),
    ],
)
async def test_what_only_an_embedded_postgresql_has(sandbox: Sandbox, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        await sandbox.add_cluster("pg", **options)


async def test_a_folder_without_postgresql_is_a_clear_error(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"has no initdb"):
        await sandbox.add_cluster("pg", backend="postgres", server=tmp_path)
    with pytest.raises(ValueError, match="pass that too"):
        await sandbox.add_cluster("pg", server=tmp_path)
