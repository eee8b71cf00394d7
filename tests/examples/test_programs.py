"""The example programs leave a cluster unchanged if they fail, share a limit, and place customers on many clusters."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

import many_clusters
import place_by_bytes
import quickstart
from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import ClusterCapacity, Credential, SQLiteStore, Tenants

from ..proxy import Proxy, behind_proxy
from ..sweeping import names_on
from ..tenants.own_stores import expire


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


async def stored(folder: Path) -> int:
    """How many customers have a credential in the store."""
    async with SQLiteStore(folder / "customers.db") as store:
        return len([record.name async for record in store.records() if record.logins])


@pytest.fixture
async def clusters(sandbox: Sandbox) -> list[str]:
    return [await sandbox.add_cluster("pg", backend="postgres") for _ in range(4)]


@pytest.fixture
def proxies(sandbox: Sandbox, clusters: list[str]) -> Iterator[list[Proxy]]:
    """Proxies in front of three of the clusters."""
    with ExitStack() as exits:
        yield [exits.enter_context(behind_proxy(sandbox, cluster)) for cluster in clusters[:3]]


@pytest.mark.thorough
@pytest.mark.parametrize("customers", [20, 600])
async def test_sign_ups_continue_after_two_kills(
    sandbox: Sandbox, client: DatabaseClient, clusters: list[str], proxies: list[Proxy], tmp_path: Path, customers: int
) -> None:
    """A program that was killed twice goes on, and with another cluster when the first three are full."""
    assert len(SOURCE.splitlines()) <= 25
    most = customers * 3 // 10  # so three clusters are too few
    program = tmp_path / "many_clusters.py"
    program.write_text(
        SOURCE.replace("6000", str(customers))
        .replace("2000", str(most))
        .replace("DatabaseClient() ", "DatabaseClient(rate_limiter=RateLimiter([])) ")
        .replace("import DatabaseClient", "import DatabaseClient, RateLimiter")
    )
    three = clusters[:3]

    async def start(*ids: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), *ids),
            cwd=tmp_path,
            env=os.environ | {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    for proxy in proxies:
        proxy.add(delay=0.02)  # so that it is killed before it is done, also on a fast machine
    for made in (customers // 6, customers // 2):
        process = await start(*three)
        while await stored(tmp_path) < made and process.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        assert process.returncode == -signal.SIGKILL
        expire(tmp_path / "customers.db")
    for proxy in proxies:
        proxy.rules.clear()
    printed, errors = await (await start(*three)).communicate()
    assert errors.count(b"\n") == errors.count(b"are in plain text") == 1
    lines = printed.decode().splitlines()
    full = re.findall(r"^customer_\d+ no cluster has capacity for the tenant", printed.decode(), re.MULTILINE)
    assert len(full) == customers - 3 * most
    assert lines[-3:] == [f"{id} has {most} of {most}" for id in three]

    printed, errors = await (await start(*clusters)).communicate()
    assert errors.count(b"\n") == errors.count(b"are in plain text") == 1
    assert printed.decode().splitlines() == [
        *(f"{id} has {most} of {most}" for id in three),
        f"{clusters[3]} has {customers - 3 * most} of {most}",
    ]

    async with SQLiteStore(tmp_path / "customers.db") as store:
        tenants = Tenants([client.cluster(id) for id in clusters], store)
        checked = [outcome async for outcome in tenants.check()]  # also databases that are not on record
        assert len(checked) == customers
        assert Counter(outcome.problems for outcome in checked) == {(): customers}
