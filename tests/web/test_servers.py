"""The web examples on their real servers, each in its own process: /health under load, credentials at the end."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.sandbox import Sandbox

from ..proxy import Proxy, Rule, behind_proxy
from ..tenants.processes import expire
from ..waiting import until
from .web_servers import SERVERS, Tally, serving, sign_up, tally

ANSWER = 1.0  # seconds that the database server takes to let a new login in
NAMES = [f"tenant{number}" for number in range(24)]
AT_A_TIME = 16  # tenants that ensure creates at a time in one process
PATIENCE = 60.0  # seconds that a step of a test may take


FIRST, *OTHERS = SERVERS


@pytest.fixture(params=[FIRST, *(pytest.param(other, marks=pytest.mark.thorough) for other in OTHERS)])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(windows=[]) as running:
        await running.add_cluster("pg", backend="postgres")
        yield running


@pytest.fixture
def proxy(sandbox: Sandbox) -> Iterator[Proxy]:
    [cluster] = sandbox.clusters
    with behind_proxy(sandbox, cluster) as proxy:
        yield proxy


@pytest.fixture
def slow(proxy: Proxy) -> list[Rule]:
    """The login of a signup is made at once, but the test of it, after which it is stored, ends late."""
    return [proxy.add("login", login=f"tenant_{name}_*", delay=ANSWER) for name in NAMES]


@pytest.fixture
def api(sandbox: Sandbox) -> dict[str, str]:
    [cluster] = sandbox.clusters
    return {
        "DIGITALOCEAN_API_URL": sandbox.url,
        "DIGITALOCEAN_TOKEN": sandbox.token,
        "DIGITALOCEAN_CLUSTER_ID": cluster,
    }


async def what_is_there(sandbox: Sandbox, store: Path) -> Tally:
    [cluster] = sandbox.clusters
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client:
        return await tally(client, cluster, store)


@pytest.mark.thorough
async def test_slow_database_and_stop(
    name: str, sandbox: Sandbox, proxy: Proxy, slow: list[Rule], api: dict[str, str], tmp_path: Path
) -> None:
    """The health is answered while signups wait for the database, and a stop loses no signup."""
    store = tmp_path / "tenants.db"
    answers = Counter[int | None]()
    for rule in slow:
        rule.held = True
    async with serving(name, api, store) as server, aiohttp.ClientSession(server.url) as http:
        async with asyncio.TaskGroup() as group:
            group.create_task(sign_up(server.url, NAMES, len(NAMES), answers))
            await until(lambda: any(each.fired for each in slow))
            for _ in range(3):
                async with http.get("/health") as answer:
                    assert answer.status == 200
            assert not answers
            for rule in slow:
                rule.held = False
            await until(lambda: answers.total() >= len(NAMES) // 4)
            await server.end(signal.SIGTERM)
        made = server.made()

    assert made == {"DatabaseClient": 1, "ClientSession": 1}
    # Running signups were answered. Later ones were refused or cut off.
    assert answers[201] >= len(NAMES) // 4
    assert set(answers) <= {201, 503, None}
    left = await what_is_there(sandbox, store)
    assert left.lost == 0
    assert left.stored >= answers[201]


@pytest.mark.thorough
async def test_signup_after_kill_continues_what_is_pending(
    name: str, sandbox: Sandbox, proxy: Proxy, slow: list[Rule], api: dict[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "tenants.db"
    answers = Counter[int | None]()
    async with serving(name, api, store) as server, asyncio.TaskGroup() as group:
        group.create_task(sign_up(server.url, NAMES, len(NAMES), answers))
        await until(lambda: sum(each.fired for each in slow) > AT_A_TIME)  # more logins than answers
        await server.end(signal.SIGKILL)
    left = await what_is_there(sandbox, store)
    assert left.lost == 0
    assert left.pending > 0

    proxy.rules.clear()
    expire(store)
    again = Counter[int | None]()
    async with serving(name, api, store) as server, asyncio.timeout(PATIENCE):
        await sign_up(server.url, NAMES, len(NAMES), again)
    settled = await what_is_there(sandbox, store)

    assert again == {201: len(NAMES)}
    assert (settled.pending, settled.lost) == (0, 0)
    assert settled.users == settled.stored == len(NAMES)
