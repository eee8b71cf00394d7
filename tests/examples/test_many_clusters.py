"""The example signs up customers over three clusters: killed twice, resumed, full, and with a fourth cluster."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import many_clusters
from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants

from ..proxy import Proxy, behind_proxy
from ..tenants.own_stores import expire

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
