"""The web examples on their real servers, each in its own process: /health under load, credentials at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from attrs import define, frozen
from psycopg import AsyncConnection, OperationalError

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore

from ..proxy import Rule, behind_proxy
from ..tenants.processes import expire
from ..waiting import HANG, until

pytestmark = pytest.mark.thorough

HERE = Path(__file__).parent
ANSWER = 1.0  # seconds that the database server takes to let a new login in
NAMES = [f"tenant{number}" for number in range(24)]
AT_A_TIME = 16  # tenants that ensure creates at a time in one process
_UVICORN = ["uvicorn", "--factory", "--log-level", "warning", "--host", "127.0.0.1", "--port", "{port}"]
SERVERS = {
    "FastAPI on uvicorn": [*_UVICORN, "web_apps:fastapi"],
    "aiohttp on its runner": ["web_apps", "{port}"],
    "aiohttp on gunicorn": [
        *("gunicorn", "--log-level", "warning", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "aiohttp.GunicornWebWorker", "web_apps:aiohttp_app()"),
    ],
    "Litestar on uvicorn": [*_UVICORN, "web_apps:litestar"],
}


@define
class Server:
    """A running server."""

    url: str
    process: asyncio.subprocess.Process

    async def end(self, number: signal.Signals) -> None:
        """Send a signal, and wait until the process ends. A SIGKILL goes to its workers too."""
        with suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.process.pid, number)
        async with asyncio.timeout(HANG):
            await self.process.wait()

    async def is_ready(self) -> bool:
        async with asyncio.timeout(HANG), aiohttp.ClientSession() as http:
            while self.process.returncode is None:
                try:
                    async with http.get(f"{self.url}/health") as answer:
                        return answer.status == 200
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)
        return False


@frozen
class Tally:
    """The number of tenants whose login exists on the cluster.

    Of these, ``stored`` have the right password in the store, the store knows that ``pending`` may exist, and ``lost``
    are neither.
    """

    stored: int
    pending: int
    lost: int


@define
class World:
    """A cluster behind a proxy, and a store in ``folder``."""

    sandbox: Sandbox
    cluster: str
    folder: Path
    slow: list[Rule]  # a login of a signup is made at once, but the test of it, after which it is stored, ends late

    @asynccontextmanager
    async def serving(self, name: str) -> AsyncGenerator[Server]:
        """Start one of SERVERS, and wait until it is ready."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            "DIGITALOCEAN_API_URL": self.sandbox.url,
            "DIGITALOCEAN_TOKEN": self.sandbox.token,
            "DIGITALOCEAN_CLUSTER_ID": self.cluster,
            "TENANTS_DB": str(self.folder / "tenants.db"),
            "LOAD_TEST_COUNTS": str(self.folder / "counts"),
            "PYTHONPATH": str(HERE),
        }
        with (self.folder / "log").open("w+") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *(word.format(port=port) for word in SERVERS[name])),
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            server = Server(f"http://127.0.0.1:{port}", process)
            try:
                assert await server.is_ready(), (self.folder / "log").read_text()
                yield server
            finally:
                await server.end(signal.SIGKILL)

    async def tally(self) -> Tally:
        """Count the logins, from now on without delays."""
        for rule in self.slow:
            rule.delay = 0.0
        async with SQLiteStore(self.folder / "tenants.db") as store:
            records = [record async for record in store.records()]
        kept = {each.current.username: each.current for each in records if each.current is not None}
        begun = {f"tenant_{each.name}" for each in records if each.current is None}
        async with DatabaseClient(self.sandbox.token, base_url=self.sandbox.url) as client:
            users = [user.name for user in await client.cluster(self.cluster).users.list()]
        users = [login for login in users if login.startswith("tenant_")]
        stored = [await enters(kept[login]) for login in users if login in kept]
        pending = [login for login in users if login.rsplit("_", 2)[0] in begun]
        return Tally(sum(stored), len(pending), len(users) - sum(stored) - len(pending))


async def enters(credential: Credential) -> bool:
    """Whether the server accepts a stored credential. The API does not know the passwords of tenants."""
    try:
        connection = await AsyncConnection.connect(credential.uri, connect_timeout=int(HANG))
    except OperationalError:
        return False
    await connection.close()
    return True


async def sign_up(url: str, answers: Counter[int | None]) -> None:
    """Sign up all names at once. ``answers`` counts the statuses as they arrive; None is a broken connection."""

    async def visit(name: str) -> None:
        try:
            async with http.post(f"{url}/signup", json={"tenant": name}) as answer:
                await answer.read()
                answers[answer.status] += 1
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            answers[None] += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*map(visit, NAMES))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster("pg", backend="postgres")
        with behind_proxy(sandbox, cluster) as proxy:
            slow = [proxy.add("login", login=f"tenant_{name}_*", delay=ANSWER) for name in NAMES]
            yield World(sandbox, cluster, tmp_path, slow)


@pytest.mark.parametrize("name", SERVERS)
async def test_slow_database_and_stop(name: str, world: World) -> None:
    """The health is answered while signups wait for the database, and a stop loses no signup."""
    answers = Counter[int | None]()
    for rule in world.slow:
        rule.held = True
    async with (
        world.serving(name) as server,
        aiohttp.ClientSession(server.url) as http,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(sign_up(server.url, answers))
        await until(lambda: any(each.fired for each in world.slow))
        for _ in range(3):
            async with http.get("/health") as answer:
                assert answer.status == 200
        assert not answers
        for rule in world.slow:
            rule.held = False
        await until(lambda: answers.total() >= len(NAMES) // 4)
        await server.end(signal.SIGTERM)

    made = Counter((world.folder / "counts").read_text().split())
    assert made == {"DatabaseClient": 1, "ClientSession": 1}
    # Running signups were answered. Later ones were refused or cut off.
    assert answers[201] >= len(NAMES) // 4
    assert set(answers) <= {201, 503, None}
    left = await world.tally()
    assert left.lost == 0
    assert left.stored >= answers[201]


@pytest.mark.parametrize("name", SERVERS)
async def test_signup_after_kill_continues(name: str, world: World) -> None:
    """Pending signups of a process that was killed are finished by the next."""
    answers = Counter[int | None]()
    async with world.serving(name) as server, asyncio.TaskGroup() as group:
        group.create_task(sign_up(server.url, answers))
        await until(lambda: sum(each.fired for each in world.slow) > AT_A_TIME)  # more logins than answers
        await server.end(signal.SIGKILL)
    left = await world.tally()
    assert left.lost == 0
    assert left.pending > 0

    expire(world.folder / "tenants.db")
    again = Counter[int | None]()
    async with world.serving(name) as server, asyncio.timeout(HANG):
        await sign_up(server.url, again)

    assert again == {201: len(NAMES)}
    assert await world.tally() == Tally(stored=len(NAMES), pending=0, lost=0)
