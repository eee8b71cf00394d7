"""The programs of README and examples run, fail when something is wrong, and leave a cluster as it was."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

import demo
import many_clusters
import place_by_bytes
import quickstart
from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import ClusterCapacity, Credential, SQLiteStore, Tenants

from ..proc import python
from ..sweeping import names_on

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CALLS, TENANTS = BLOCKS


def test_every_page_that_it_sends_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)

    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


async def test_calls_program_runs_again() -> None:
    async with Sandbox() as sandbox:
        environment = {
            **os.environ,
            "DIGITALOCEAN_API_URL": sandbox.url,
            "DIGITALOCEAN_TOKEN": sandbox.token,
            "DIGITALOCEAN_CLUSTER_ID": await sandbox.add_cluster("pg", backend="memory"),
        }
        command = [sys.executable, "-W", "error", "-c", CALLS]
        lines = []
        for _ in range(2):
            done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")
            lines.append(done.stdout.splitlines())
    assert lines == [
        ["['defaultdb']", "worker_1 created", "worker_2 created"],
        ["['defaultdb']", "worker_1 kept", "worker_2 kept"],
    ]


def test_tenants_program_runs_again(tmp_path: Path) -> None:
    [arguments] = re.findall(r"python (-m aiodbclient\.sandbox --cluster pg=tenants-prod)$", README, re.MULTILINE)
    with python("-u", *arguments.split()) as serving:
        assert serving.stdout is not None
        printed = ""
        while "Ctrl-C" not in printed:
            line = serving.stdout.readline()
            assert line, printed
            printed += line
        exports = dict(re.findall(r"export (\w+)=(\S+)", printed))
        [cluster_id] = re.findall(r"pg +tenants-prod +(\S+)", printed)
        environment = os.environ | exports | {"DIGITALOCEAN_CLUSTER_ID": cluster_id, "HOME": str(tmp_path)}
        lines = []
        for _ in range(2):
            command = [sys.executable, "-W", "error", "-c", TENANTS]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert (done.returncode, *done.stderr.splitlines()[1:]) == (0,)  # one warning: its store has no key
            lines.append(done.stdout.splitlines())
        assert [line[1:] for line in lines] == [["acme rotated None", "acme revoked None"]] * 2
        first, second = [re.fullmatch(r"acme (acme_[0-9a-f]{12}_[0-9a-f]{8})", line[0]) for line in lines]
        assert first
        assert second
        assert first[1] < second[1]  # the login of the rotation


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.thorough
def test_the_demo_shows_it_all() -> None:
    command = [sys.executable, f"{EXAMPLES}/demo.py"]
    environment = {"COLUMNS": "200", "PATH": "/usr/bin:/bin", "TMPDIR": os.environ["TMPDIR"]}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    printed = done.stdout

    assert (done.returncode, done.stderr) == (0, ""), printed
    assert re.search(r"killed a process: it had created \d+ logins and stored \d+ of them", printed)
    assert "of 200 tenants, each with a database and a login" in printed
    assert "logins created exactly once: 200 of 200" in printed
    assert "each tenant was refused at another tenant's database (200 tried)" in printed
    assert re.search(r"rotated +tenant_\d+, while a client sent \d+ queries: none failed", printed)
    assert "its previous credential: it can no longer log in" in printed
    assert "a tenant on Redis, before a request was sent (0 requests)" in printed


async def test_demo_notices_open_door(aiodbclient_tenants: Tenants) -> None:
    """It notices a credential that was not revoked too."""
    alpha = await aiodbclient_tenants.ensure("alpha")
    await demo.own_table(alpha)

    with pytest.raises(demo.Unexpected, match="entered the database"):
        await demo.stay_out((alpha, alpha))
    with pytest.raises(demo.Unexpected, match="still works"):
        await demo.revoke_previous(aiodbclient_tenants, alpha)


@pytest.fixture
async def cluster(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cluster that the environment names, as for a real one."""
    cluster = await sandbox.add_cluster("pg", backend="memory")
    monkeypatch.setenv("DIGITALOCEAN_API_URL", sandbox.url)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", sandbox.token)
    monkeypatch.setenv("DIGITALOCEAN_CLUSTER_ID", cluster)
    return cluster


async def test_it_runs_on_a_sandbox_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DIGITALOCEAN_CLUSTER_ID", raising=False)
    assert await quickstart.main() == 0

    printed = capsys.readouterr().out
    assert "runs on a sandbox" in printed
    assert "another one after reset_auth" in printed
    assert printed.count("removed the") == 2


async def test_runs_on_cluster_of_environment(
    cluster: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await names_on(sandbox, cluster)

    assert await quickstart.main() == 0

    assert await names_on(sandbox, cluster) == before
    assert {"users.create", "dbs.create", "users.reset_auth"} < {request.operation for request in sandbox.requests}
    printed = capsys.readouterr().out
    assert "sandbox" not in printed
    assert "AVNS_" not in printed  # the prefix of every password


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"operation": "users.create", "status": 500, "after": True}, id="created, and the answer lost"),
        pytest.param({"operation": "users.reset_auth", "status": 403}, id="a token that may not reset"),
        pytest.param({"operation": "dbs.create", "status": 422}, id="no database to be had"),
    ],
)
async def test_it_removes_its_own_objects_when_it_fails(
    cluster: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], fault: dict[str, Any]
) -> None:
    before = await names_on(sandbox, cluster)
    sandbox.faults.add(**fault)

    assert await quickstart.main() == 1

    assert await names_on(sandbox, cluster) == before
    assert fault["operation"] in capsys.readouterr().err


async def test_it_says_what_it_could_not_remove(
    cluster: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.faults.add("users.delete", status=403)

    assert await quickstart.main() == 1

    assert "the user quickstart_" in capsys.readouterr().err
    assert await names_on(sandbox, cluster, "quickstart_") != []


EXAMPLE = Path(__file__).parents[2] / "examples" / "many_processes.py"


def run(folder: Path, share: str, users: int) -> subprocess.CompletedProcess[str]:
    """Run the example with two processes that use this share of the limit each."""
    program = folder / "many_processes.py"
    source = EXAMPLE.read_text().replace("PROCESSES = 4", "PROCESSES = 2")
    program.write_text(source.replace("share=1 / PROCESSES", f"share={share}"))
    return subprocess.run([sys.executable, program, "--users", str(users)], capture_output=True, text=True)


def test_shares_meet_no_429(tmp_path: Path) -> None:
    """The processes create their parts, each user once, and the API answers no 429."""
    done = run(tmp_path, "1 / PROCESSES", 60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "users.create 201: 60" in done.stdout
    assert "429" not in done.stdout


@pytest.mark.thorough
def test_whole_limit_each_meets_429s(tmp_path: Path) -> None:
    """The control: two processes that use the whole limit each send more than the API accepts."""
    done = run(tmp_path, "1.0", 240)  # seconds of work for each, so that they overlap
    assert done.returncode == 1, done.stdout + done.stderr
    assert "users.create 201: 240" in done.stdout
    assert "users.create 429: " in done.stdout


async def test_a_customer_goes_where_the_least_data_is(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", sandbox.token)
    monkeypatch.setenv("DIGITALOCEAN_API_URL", sandbox.url)
    first, second = [await sandbox.add_cluster("pg", backend="postgres") for _ in range(2)]

    async def signed_up(name: str) -> Credential:
        await place_by_bytes.main(name, first, second)
        async with SQLiteStore("customers.db") as store:
            record = await store.get(name)
        assert record is not None
        credential = record.credential()
        assert credential is not None
        assert capsys.readouterr().out == f"{name} is on {record.cluster}\n"
        return credential

    large = await signed_up("large")
    with psycopg.connect(large.uri) as connection:
        connection.execute("CREATE TABLE t AS SELECT repeat(n::text, 1000) FROM generate_series(1, 20000) n")
    assert {(await signed_up(name)).cluster for name in ("small", "another")} == {first, second} - {large.cluster}


async def test_unread_cluster_comes_last() -> None:
    place = place_by_bytes.LeastData()
    place.bytes = {"a": 200, "b": 100, "full": 1}
    capacities = [
        ClusterCapacity("away", 0, 9),
        ClusterCapacity("a", 1, 9),
        ClusterCapacity("full", 9, 9),
        ClusterCapacity("b", 5, 9),
    ]
    assert await place("new", capacities) == "b"
    assert await place("new", capacities[:2]) == "a"
    assert await place("new", capacities[:1]) == "away"


SOURCE = Path(many_clusters.__file__).read_text()


async def test_sign_ups_go_on_with_another_cluster(
    sandbox: Sandbox, client: DatabaseClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the first ones are full, the same program goes on where it stopped."""
    assert len(SOURCE.splitlines()) <= 25
    clusters = [await sandbox.add_cluster("pg", backend="postgres") for _ in range(2)]
    program = tmp_path / "many_clusters.py"
    program.write_text(SOURCE.replace("6000", "12").replace("2000", "8"))

    def start(*ids: str) -> list[str]:
        command = [sys.executable, str(program), *ids]
        environment = os.environ | {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.stderr.count("\n") == done.stderr.count("are in plain text") == 1
        return done.stdout.splitlines()

    printed = await asyncio.to_thread(start, clusters[0])
    assert len(re.findall(r"customer_\d+ no cluster has capacity for the tenant", "\n".join(printed))) == 4
    assert printed[-1] == f"{clusters[0]} has 8 of 8"
    assert await asyncio.to_thread(start, *clusters) == [f"{clusters[0]} has 8 of 8", f"{clusters[1]} has 4 of 8"]

    async with SQLiteStore(tmp_path / "customers.db") as store:
        tenants = Tenants([client.cluster(id) for id in clusters], store)
        checked = [outcome async for outcome in tenants.check()]  # also databases that are not on record
    assert [outcome.problems for outcome in checked] == [()] * 12
