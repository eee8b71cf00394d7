"""A sandbox restores the data of the previous one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox

from .conftest import Call, caller
from .test_program import ID, get, program


async def contents(call: Call, cluster: str, token: str) -> list[Any]:
    paths = ["", "/users", "/dbs", "/ca"]
    return [(await call("GET", f"/v2/databases/{cluster}{path}", token=token)).json for path in paths]


async def test_kept_data_is_restored_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "sandbox"
    async with Sandbox(windows=[], data=folder) as first, caller(first) as call:
        reader = first.add_token(["database:read", "database:view_credentials"])
        cluster = await first.add_cluster("kafka", "events", version="3.7", tags=["a"], num_nodes=3)
        path = f"/v2/databases/{cluster}"
        for name in ("zoe", "app/1", "gone"):
            await call("POST", f"{path}/users", {"name": name})
        await call("POST", f"{path}/dbs", {"name": "alpha"})
        acl = {"settings": {"acl": [{"topic": "t", "permission": "consume"}]}}
        await call("PUT", f"{path}/users/zoe", acl)
        await call("POST", f"{path}/users/zoe/reset_auth", {})
        await call("DELETE", f"{path}/users/gone")
        before = await contents(call, cluster, first.token)
        seen_by_reader = await contents(call, cluster, reader)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}

    async with Sandbox(windows=[], data=folder) as second, caller(second) as call:
        assert second.token == first.token
        assert second.clusters == {cluster: "events"}
        assert await contents(call, cluster, second.token) == before
        assert [user["name"] for user in before[1]["users"]] == ["doadmin", "zoe", "app/1"]
        assert await contents(call, cluster, reader) == seen_by_reader
        assert (await call("POST", f"{path}/users", {"name": "x"}, token=reader)).status == 403

        # a program that starts again adds its clusters again
        assert await second.add_cluster("kafka", "events") == cluster
        with pytest.raises(ValueError, match="'events' exists already"):
            await second.add_cluster("kafka", "events")


async def test_a_cluster_that_is_kept_is_not_another_one(tmp_path: Path) -> None:
    async with Sandbox(windows=[], data=tmp_path) as sandbox:
        one, two = [await sandbox.add_cluster("pg", backend="memory") for _ in range(2)]
    async with Sandbox(windows=[], data=tmp_path) as sandbox:
        with pytest.raises(ValueError, match=f"'pg-1' is stored as a pg cluster with the id {one}"):
            await sandbox.add_cluster("mysql", "pg-1")
        with pytest.raises(ValueError, match="'pg-1' is stored as"):
            await sandbox.add_cluster("pg", cluster_id=ID)
        assert [await sandbox.add_cluster("pg") for _ in range(2)] == [one, two]
        assert await sandbox.add_cluster("pg", backend="memory") not in (one, two)


async def test_another_token_takes_the_place_of_the_one_that_was_kept(tmp_path: Path) -> None:
    for token, valid in ((None, None), ("mine", "mine"), (None, "mine")):
        async with Sandbox(windows=[], data=tmp_path, token=token) as sandbox, caller(sandbox) as call:
            assert valid in (None, sandbox.token)
            assert (await call("GET", "/v2/databases")).status == 200
            assert len(sandbox._tokens.rights) == 1


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    async with Sandbox(data=tmp_path / "a"):
        with pytest.raises(RuntimeError, match="another sandbox uses it"):
            await Sandbox(data=tmp_path / "a").__aenter__()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "sandbox.db").write_text("not ours" * 1000)
    with pytest.raises(RuntimeError, match="file is not a database"):
        await Sandbox(data=tmp_path / "b").__aenter__()
    with pytest.raises(RuntimeError, match="cannot store data in"):
        await Sandbox(data=tmp_path / "b" / "sandbox.db").__aenter__()


def files(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


async def test_an_embedded_postgresql_is_kept_too(public: Path) -> None:
    async with Sandbox(windows=[], data=public) as first, caller(first) as call:
        path = "/v2/databases/" + await first.add_cluster("pg", "tenants", backend="postgres")
        app = (await call("POST", f"{path}/users", {"name": "app"})).json["user"]
        await call("POST", f"{path}/dbs", {"name": "alpha"})
        before = (await call("GET", path)).json["database"]
        ca = (await call("GET", f"{path}/ca")).json
        owner = before["connection"]["uri"].replace("defaultdb", "alpha")
        async with await psycopg.AsyncConnection.connect(owner) as connection:
            await connection.execute("CREATE TABLE t AS SELECT 42 AS answer; GRANT SELECT ON t TO app")
    assert [path.name for path in files(public, "postgres-*/*")] == ["data"]

    async with Sandbox(windows=[], data=public) as second, caller(second) as call:
        assert (await call("GET", path)).json["database"] == before  # with its port and passwords
        assert (await call("GET", f"{path}/ca")).json == ca
        assert (await call("GET", f"{path}/users/app")).json["user"] == app
        theirs = owner.replace(before["connection"]["password"], app["password"]).replace("doadmin", "app")
        async with await psycopg.AsyncConnection.connect(theirs) as connection:
            assert await (await connection.execute("SELECT answer FROM t")).fetchall() == [(42,)]
        # committed data survives a kill of the server
        await call("POST", f"{path}/users", {"name": "late"})
        [status] = files(public, "postgres-*/data/postmaster.pid")
        os.kill(int(status.read_text().split()[0]), signal.SIGKILL)
        while not second.failed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async with Sandbox(windows=[], data=public) as third, caller(third) as call:
        assert (await call("GET", f"{path}/users/late")).status == 200
        assert await third.add_cluster("pg", "tenants") == path.rpartition("/")[2]


async def test_a_kept_server_that_cannot_start_leaves_no_other_running(public: Path) -> None:
    async with Sandbox(windows=[], data=public) as first:
        sound, broken = [await first.add_cluster("pg", name) for name in ("sound", "broken")]
    version = public / f"postgres-{broken}" / "data" / "PG_VERSION"
    right = version.read_text()
    version.write_text("nonsense")
    with pytest.raises(RuntimeError, match="does not start"):
        await Sandbox(windows=[], data=public).__aenter__()
    assert files(public, "postgres-*/data/postmaster.pid") == []

    version.write_text(right)
    async with Sandbox(windows=[], data=public) as second:
        assert second.clusters == {sound: "sound", broken: "broken"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as nobody")
async def test_a_folder_that_nobody_may_enter(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    async with Sandbox(data=tmp_path / "a" / "b") as sandbox:
        with pytest.raises(RuntimeError, match=r"did not start: .*Permission denied"):
            await sandbox.add_cluster("pg", backend="postgres")
        assert sandbox.clusters == {}
    assert files(tmp_path, "a/b/postgres-*") == []


def test_a_program_that_was_killed_goes_on(public: Path) -> None:
    arguments = ["--json", "--data", str(public), "--cluster", "redis", "--cluster", "pg=tenants"]
    starts: list[Any] = []
    answers: list[Any] = []
    for _ in range(2):
        with program(*arguments) as process:  # kills the server
            assert process.stdout is not None
            start = json.loads(process.stdout.readline())
            answers.append(get(f"{start.pop('url')}/v2/databases", start["token"])["databases"])
            starts.append(start)
    assert len(answers[0]) == 2
    assert answers[0] == answers[1]  # with PostgreSQL's port and passwords
    assert starts[0] == starts[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led to a folder that it alone may change")
@pytest.mark.parametrize("plant", ["the folder", "a link to it", "a link in a link", "a shared folder"])
async def test_root_follows_no_link_of_somebody_else(public: Path, plant: str) -> None:
    """Otherwise its target would belong to ``nobody``, and every user could enter it."""
    theirs, secret = public / "theirs", public / "secret"
    theirs.mkdir()
    secret.mkdir(mode=0o700)
    chosen = theirs / "data"
    if plant == "the folder":
        chosen.mkdir()
        os.chown(chosen, 1234, 1234)
    elif plant == "a shared folder":
        theirs.chmod(0o777)
    else:
        chosen.symlink_to(secret)
        os.chown(theirs, 1234, 1234)
    if plant == "a link in a link":
        chosen = public / "own"
        chosen.symlink_to(theirs / "data")
    with pytest.raises(RuntimeError, match="is not safe for root"):
        async with Sandbox(data=chosen) as sandbox:
            await sandbox.add_cluster("pg", backend="postgres")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o700
    assert list(secret.iterdir()) == []


async def test_links_and_folders_of_ones_own_are_followed(public: Path) -> None:
    (public / "real").mkdir()
    (public / "link").symlink_to("real")
    async with Sandbox(data=public / "link" / "new" / "data"):
        pass
    assert (public / "real" / "new" / "data" / "sandbox.db").exists()
