"""Run web apps on their real servers, each in its own process, and count the credentials when one ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from attrs import define, frozen
from psycopg import AsyncConnection, OperationalError

from aiodbclient import DatabaseClient
from aiodbclient.tenants import Credential, SQLiteStore

HERE = Path(__file__).parent

_UVICORN = ["uvicorn", "--factory", "--log-level", "warning", "--host", "127.0.0.1", "--port", "{port}"]
SERVERS: Mapping[str, list[str]] = {
    "FastAPI on uvicorn": [*_UVICORN, "web_apps:fastapi"],
    "aiohttp on its runner": ["web_apps", "{port}"],
    "aiohttp on gunicorn": [
        *("gunicorn", "--log-level", "warning", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "aiohttp.GunicornWebWorker", "web_apps:aiohttp_app()"),
    ],
    "Litestar on uvicorn": [*_UVICORN, "web_apps:litestar"],
}

_PATIENCE = 60.0  # seconds that a server may take to start or to end, and a database server to let a login in
_LOGINS = 8  # at a time


@define
class Server:
    """A running server. ``store`` is the file with its credentials."""

    url: str
    process: asyncio.subprocess.Process
    store: Path
    counts: Path

    async def end(self, number: signal.Signals) -> None:
        """Send a signal, and wait until the process ends. A SIGKILL goes to its workers too."""
        if number == signal.SIGKILL:
            _kill(self.process.pid)
        elif self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(_PATIENCE):
            await self.process.wait()

    def made(self) -> Counter[str]:
        """The number of clients and sessions that the process has created."""
        return Counter(self.counts.read_text().split())


@asynccontextmanager
async def serving(name: str, api: Mapping[str, str], store: Path) -> AsyncGenerator[Server]:
    """Start the server ``name`` of SERVERS with ``api`` as its environment, and wait until it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    counts = store.with_suffix(".counts")
    counts.write_text("")
    with store.with_suffix(".log").open("w+") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *(word.format(port=port) for word in SERVERS[name])),
            env=os.environ | api | {"TENANTS_DB": str(store), "LOAD_TEST_COUNTS": str(counts), "PYTHONPATH": str(HERE)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        server = Server(f"http://127.0.0.1:{port}", process, store, counts)
        try:
            if not await _ready(server):
                log.seek(0)
                raise RuntimeError(f"{name} did not start:\n{log.read()}")
            yield server
        finally:
            await server.end(signal.SIGKILL)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


async def _ready(server: Server) -> bool:
    async with asyncio.timeout(_PATIENCE), aiohttp.ClientSession() as http:
        while server.process.returncode is None:
            try:
                async with http.get(f"{server.url}/health") as answer:
                    return answer.status == 200
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
    return False


async def sign_up(url: str, names: Iterable[str], at_a_time: int, answers: Counter[int | None]) -> None:
    """Sign up each of ``names``. ``answers`` counts the statuses as they arrive; None is a broken connection."""
    waiting = iter(names)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:

        async def visitor() -> None:
            for name in waiting:
                try:
                    async with http.post(f"{url}/signup", json={"tenant": name}) as answer:
                        await answer.read()
                        answers[answer.status] += 1
                except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                    answers[None] += 1

        async with asyncio.TaskGroup() as visitors:
            for _ in range(at_a_time):
                visitors.create_task(visitor())


@frozen
class Tally:
    """The number of tenants by state.

    ``users`` exist on the cluster. Of these, ``stored`` have the right password in the store, the store knows that
    ``pending`` may exist, and ``lost`` are neither.
    """

    users: int
    stored: int
    pending: int
    lost: int


async def tally(client: DatabaseClient, cluster_id: str, path: Path) -> Tally:
    async with SQLiteStore(path) as store:
        records = {f"tenant_{record.name}": record async for record in store.records()}
    kept = {name: record.current for name, record in records.items() if record.current is not None}
    users = [user.name for user in await client.cluster(cluster_id).users.list() if user.name.startswith("tenant_")]
    known, turns = {each.username: each for each in kept.values()}, asyncio.Semaphore(_LOGINS)
    entered = await asyncio.gather(*(_enters(known[login], turns) for login in users if login in known))
    pending = [login for login in users if login.rsplit("_", 2)[0] in records.keys() - kept.keys()]
    return Tally(len(users), sum(entered), len(pending), len(users) - sum(entered) - len(pending))


async def _enters(credential: Credential, turns: asyncio.Semaphore) -> bool:
    """Whether the server accepts a stored credential. The API does not know the passwords of tenants."""
    async with turns:
        try:
            connection = await AsyncConnection.connect(credential.uri, connect_timeout=int(_PATIENCE))
        except OperationalError:
            return False
        await connection.close()
        return True
